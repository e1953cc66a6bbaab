//! `restart`.

use crate::door::Door;
use crate::error::{Error, for_each};
use crate::output;
use crate::spec;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Restart {
    /// Seconds before it is killed; -1: never (default: the container's, else 10)
    #[arg(short = 't', long, visible_alias = "time", value_name = "SECONDS")]
    timeout: Option<String>,
    /// Name or id
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl super::Verb for Restart {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let timeout = self
            .timeout
            .as_deref()
            .map(spec::seconds)
            .transpose()
            .map_err(Error::value("--timeout"))?;
        for_each(&self.containers, |name| {
            door.engine()?.restart(&door.find(name)?, timeout)?;
            output::line(name)
        })
    }
}
