//! `kill`.

use crate::door::Door;
use crate::error::{Error, for_each};
use crate::output;
use crate::spec;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Kill {
    /// Signal, by name or number
    #[arg(short = 's', long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// Name or id
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl super::Verb for Kill {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let signal = spec::signal("--signal", &self.signal)?;
        for_each(&self.containers, |name| {
            door.engine()?.kill(&door.find(name)?, &signal)?;
            output::line(name)
        })
    }
}
