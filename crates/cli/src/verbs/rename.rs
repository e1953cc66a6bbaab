//! `rename`.

use crate::door::Door;
use crate::error::Error;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Rename {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// The name it gets
    #[arg(value_name = "NAME")]
    name: String,
}

impl super::Verb for Rename {
    fn run(self, door: &Door) -> Result<u8, Error> {
        door.engine()?
            .rename(&door.find(&self.container)?, &self.name)?;
        Ok(0)
    }
}
