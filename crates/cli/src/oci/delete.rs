//! `delete`.

use super::{Runtime, Verb};
use crate::error::{Error, for_each};

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(super) struct Delete {
    /// Kill it first if it runs; that there is none is fine
    #[arg(short, long)]
    force: bool,
    /// The containers' ids
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

impl Verb for Delete {
    fn run(self, runtime: &Runtime) -> Result<u8, Error> {
        for_each(&self.ids, |id| {
            Ok(runtime.bundles.delete(id, self.force)?)
        })
    }
}
