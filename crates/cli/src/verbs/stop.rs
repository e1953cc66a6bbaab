//! `stop`.

use crate::door::Door;
use crate::error::{Error, for_each};
use crate::output;
use crate::spec;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Stop {
    /// Seconds before it is killed; -1: never (default: the container's, else 10)
    #[arg(short = 't', long, visible_alias = "time", value_name = "SECONDS")]
    timeout: Option<String>,
    /// Signal in place of the container's
    #[arg(short = 's', long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Name or id
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl super::Verb for Stop {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let timeout = self
            .timeout
            .as_deref()
            .map(spec::seconds)
            .transpose()
            .map_err(Error::value("--timeout"))?;
        let signal = self
            .signal
            .map(|text| spec::signal("--signal", &text))
            .transpose()?;
        for_each(&self.containers, |name| {
            door.engine()?
                .stop(&door.find(name)?, timeout, signal.as_deref())?;
            output::line(name)
        })
    }
}
