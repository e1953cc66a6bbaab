//! `list`.

use super::state::json;
use super::{Runtime, Verb};
use crate::error::Error;
use crate::output;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// table or json
    #[arg(short, long, value_parser = ["table", "json"], default_value = "table")]
    format: String,
    /// Ids alone
    #[arg(short, long)]
    quiet: bool,
}

impl Verb for List {
    fn run(self, runtime: &Runtime) -> Result<u8, Error> {
        let all = runtime.bundles.list()?;
        if self.quiet {
            for container in &all {
                output::line(&container.id)?;
            }
            return Ok(0);
        }
        if self.format == "json" {
            return output::line(json(&all)?).map(|()| 0);
        }
        let mut lines = vec!["ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER".to_owned()];
        lines.extend(all.iter().map(|container| {
            format!(
                "{}\t{}\t{}\t{}\t{}\t{}",
                container.id,
                container.pid,
                container.status.as_str(),
                container.bundle.display(),
                container.created,
                container.owner
            )
        }));
        output::print(&output::align(&lines)).map(|()| 0)
    }
}
