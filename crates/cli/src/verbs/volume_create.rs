//! `volume create`.

use crate::door::Door;
use crate::error::Error;
use crate::output;
use crate::spec;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct VolumeCreate {
    /// Label
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Driver; only local
    #[arg(short = 'd', long, value_name = "DRIVER", default_value = "local")]
    driver: String,
    /// Name (default: one is made up)
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

impl super::Verb for VolumeCreate {
    fn run(self, door: &Door) -> Result<u8, Error> {
        if self.driver != "local" {
            let problem = format!("there is no driver {:?}; there is local", self.driver);
            return Err(Error::Value {
                option: "--driver".into(),
                problem,
            });
        }
        let labels = spec::labels(&self.label, &[])?;
        let volume = door.engine()?.volume_create(self.name.as_deref(), labels)?;
        output::line(&volume.name)?;
        Ok(0)
    }
}
