//! `volume prune`.

use crate::confirm::{confirm, reclaimed};
use crate::door::Door;
use crate::error::Error;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct VolumePrune {
    /// All that no container uses, not only those without a name
    #[arg(short = 'a', long)]
    all: bool,
    /// Do not ask
    #[arg(short = 'f', long)]
    force: bool,
}

impl super::Verb for VolumePrune {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let warning = match self.all {
            true => "This will remove all volumes that no container uses.",
            false => "This will remove all volumes without a name that no container uses.",
        };
        if !confirm(self.force, warning)? {
            return Ok(0);
        }
        let (removed, bytes) = door.engine()?.volume_prune(self.all)?;
        reclaimed(&[("Deleted Volumes", removed)], bytes)?;
        Ok(0)
    }
}
