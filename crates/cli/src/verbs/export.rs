//! `export`.

use crate::archive_output;
use crate::door::Door;
use crate::error::Error;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    /// Write to this file, not to standard output
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<String>,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl super::Verb for Export {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let id = door.find(&self.container)?;
        let engine = door.engine()?;
        archive_output::write(self.output.as_deref(), |out| Ok(engine.export(&id, out)?))?;
        Ok(0)
    }
}
