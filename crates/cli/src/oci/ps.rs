//! `ps`.

use super::state::json;
use super::{Runtime, Verb};
use crate::error::Error;
use crate::{output, units};

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(super) struct Ps {
    /// table or json
    #[arg(short, long, value_parser = ["table", "json"], default_value = "table")]
    format: String,
    /// The container's id
    #[arg(value_name = "ID")]
    id: String,
}

impl Verb for Ps {
    fn run(self, runtime: &Runtime) -> Result<u8, Error> {
        if self.format == "json" {
            let pids = runtime.bundles.processes(&self.id)?;
            return output::line(json(&pids)?).map(|()| 0);
        }
        let mut lines = vec!["UID\tPID\tPPID\tTTY\tTIME\tCMD".to_owned()];
        lines.extend(
            runtime
                .bundles
                .process_table(&self.id)?
                .iter()
                .map(|process| {
                    format!(
                        "{}\t{}\t{}\t{}\t{}\t{}",
                        process.uid,
                        process.pid,
                        process.ppid,
                        process.tty,
                        units::cpu_time(process.ticks),
                        process.command
                    )
                }),
        );
        output::print(&output::align(&lines)).map(|()| 0)
    }
}
