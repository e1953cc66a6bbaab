//! `kill`.

use coracle_engine::oci::Signal;

use super::{Runtime, Verb};
use crate::error::Error;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(super) struct Kill {
    /// Send it to every process of the container
    #[arg(short, long)]
    all: bool,
    /// The container's id
    #[arg(value_name = "ID")]
    id: String,
    /// Name or number
    #[arg(value_name = "SIGNAL", default_value = "TERM")]
    signal: String,
}

impl Verb for Kill {
    fn run(self, runtime: &Runtime) -> Result<u8, Error> {
        let signal: Signal = self.signal.parse().map_err(|problem| Error::Value {
            option: "SIGNAL".into(),
            problem: format!("{problem}"),
        })?;
        runtime.bundles.kill(&self.id, signal.number(), self.all)?;
        Ok(0)
    }
}
