//! `diff`.

use crate::door::Door;
use crate::error::Error;
use crate::output;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl super::Verb for Diff {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let changes = door.engine()?.diff(&door.find(&self.container)?)?;
        let lines: String = changes
            .iter()
            .map(|(kind, path)| format!("{kind} {}\n", output::shown(&path.to_string())))
            .collect();
        output::print(&lines).map(|()| 0)
    }
}
