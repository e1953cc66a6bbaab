//! `start`.

use super::{Runtime, Verb};
use crate::error::Error;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(super) struct Start {
    /// The container's id
    #[arg(value_name = "ID")]
    id: String,
}

impl Verb for Start {
    fn run(self, runtime: &Runtime) -> Result<u8, Error> {
        runtime.bundles.start(&self.id)?;
        Ok(0)
    }
}
