//! `load`.

use std::io::{self, IsTerminal as _};
use std::path::Path;

use coracle_engine::image::{Input, LoadOptions};

use crate::door::Door;
use crate::error::Error;
use crate::output;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Load {
    /// Archive (OCI or Docker, plain or compressed) or OCI layout, in place of standard input
    #[arg(short = 'i', long, value_name = "FILE")]
    input: Option<String>,
    /// Show no progress (none is shown anyway)
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Which image of several platforms
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
}

impl super::Verb for Load {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let platform = self.platform.as_deref().map(str::parse).transpose();
        let platform =
            platform.map_err(|problem: coracle_engine::oci::PlatformError| Error::Value {
                option: "--platform".into(),
                problem: problem.to_string(),
            })?;
        let options = LoadOptions { platform };
        let input = match self.input.as_deref() {
            Some(file) if file != "-" => Input::Path(Path::new(file)),
            _ if io::stdin().is_terminal() => {
                return Err(Error::usage(
                    "there is nothing to load",
                    "give -i FILE, or redirect standard input",
                ));
            }
            _ => Input::Stream {
                reader: Box::new(io::stdin()),
                name: "standard input",
            },
        };
        let loaded = door
            .engine()?
            .images()?
            .load(input, &options)
            .map_err(coracle_engine::Error::from)?;
        let mut text = String::new();
        for image in &loaded {
            if image.names.is_empty() {
                text.push_str(&format!("Loaded image ID: {}\n", image.image.id));
            }
            for name in &image.names {
                text.push_str(&format!("Loaded image: {}\n", name.familiar()));
            }
        }
        output::print(&text)?;
        Ok(0)
    }
}
