//! `volume rm`.

use crate::door::Door;
use crate::error::{Error, for_each};
use crate::output;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct VolumeRm {
    /// A volume that is not there is no error
    #[arg(short = 'f', long)]
    force: bool,
    /// Name
    #[arg(value_name = "VOLUME", required = true)]
    names: Vec<String>,
}

impl super::Verb for VolumeRm {
    fn run(self, door: &Door) -> Result<u8, Error> {
        for_each(&self.names, |name| {
            door.engine()?.volume_remove(name, self.force)?;
            output::line(name)
        })
    }
}
