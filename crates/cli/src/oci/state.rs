//! `state`.

use super::{Runtime, Verb};
use crate::error::Error;
use crate::output;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(super) struct State {
    /// The container's id
    #[arg(value_name = "ID")]
    id: String,
}

impl Verb for State {
    fn run(self, runtime: &Runtime) -> Result<u8, Error> {
        let state = runtime.bundles.state(&self.id)?;
        output::line(json(&state)?).map(|()| 0)
    }
}

/// A document as it is printed.
pub(super) fn json(document: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string_pretty(document).map_err(|error| Error::output(error.into()))
}
