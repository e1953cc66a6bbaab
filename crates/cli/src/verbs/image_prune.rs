//! `image prune`.

use crate::confirm::{confirm, reclaimed};
use crate::door::Door;
use crate::error::Error;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct ImagePrune {
    /// All that no container uses, not only those without a name
    #[arg(short = 'a', long)]
    all: bool,
    /// Do not ask
    #[arg(short = 'f', long)]
    force: bool,
}

impl super::Verb for ImagePrune {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let warning = match self.all {
            true => "This will remove all images that no container uses.",
            false => "This will remove all images without a name that no container uses.",
        };
        if !confirm(self.force, warning)? {
            return Ok(0);
        }
        let (removed, bytes) = door.engine()?.image_prune(self.all)?;
        reclaimed(&[("Deleted Images", removed)], bytes)?;
        Ok(0)
    }
}
