//! `wait`.

use coracle_engine::WaitFor;

use crate::door::Door;
use crate::error::{Error, for_each};
use crate::output;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Wait {
    /// Until when: not-running, next-exit or removed
    #[arg(long, value_name = "CONDITION", default_value = "not-running")]
    condition: String,
    /// Name or id
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl super::Verb for Wait {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let condition = || match self.condition.as_str() {
            "not-running" | "stopped" => Ok(WaitFor::NotRunning),
            "next-exit" => Ok(WaitFor::NextExit),
            "removed" => Ok(WaitFor::Removed),
            other => Err(format!(
                "{other:?} is not not-running, next-exit or removed"
            )),
        };
        for_each(&self.containers, |name| {
            let condition = condition().map_err(Error::value("--condition"))?;
            output::line(door.engine()?.wait(&door.find(name)?, condition)?)
        })
    }
}
