//! `unpause`.

use crate::door::Door;
use crate::error::{Error, for_each};
use crate::output;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Unpause {
    /// Name or id
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl super::Verb for Unpause {
    fn run(self, door: &Door) -> Result<u8, Error> {
        for_each(&self.containers, |name| {
            door.engine()?.unpause(&door.find(name)?)?;
            output::line(name)
        })
    }
}
