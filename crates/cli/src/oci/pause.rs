//! `pause` and `resume`.

use super::{Runtime, Verb};
use crate::error::Error;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(super) struct Pause {
    /// The container's id
    #[arg(value_name = "ID")]
    id: String,
}

impl Verb for Pause {
    fn run(self, runtime: &Runtime) -> Result<u8, Error> {
        runtime.bundles.pause(&self.id)?;
        Ok(0)
    }
}

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(super) struct Resume {
    /// The container's id
    #[arg(value_name = "ID")]
    id: String,
}

impl Verb for Resume {
    fn run(self, runtime: &Runtime) -> Result<u8, Error> {
        runtime.bundles.resume(&self.id)?;
        Ok(0)
    }
}
