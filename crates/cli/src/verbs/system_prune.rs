//! `system prune`.

use crate::confirm::{confirm, reclaimed};
use crate::door::Door;
use crate::error::Error;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct SystemPrune {
    /// All images that no container uses, not only those without a name
    #[arg(short = 'a', long)]
    all: bool,
    /// Volumes too
    #[arg(long)]
    volumes: bool,
    /// Do not ask
    #[arg(short = 'f', long)]
    force: bool,
}

impl super::Verb for SystemPrune {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let images = if self.all {
            "all images that no container uses"
        } else {
            "all images without a name"
        };
        let volumes = if self.volumes {
            ", all volumes without a name that no container uses"
        } else {
            ""
        };
        if !confirm(
            self.force,
            &format!("This will remove all stopped containers{volumes} and {images}."),
        )? {
            return Ok(0);
        }
        let engine = door.engine()?;
        // Containers first: what they used is free afterwards.
        let (containers, mut bytes) = engine.container_prune(&[])?;
        let mut parts = vec![("Deleted Containers", containers)];
        if self.volumes {
            let (volumes, won) = engine.volume_prune(false)?;
            parts.push(("Deleted Volumes", volumes));
            bytes += won;
        }
        let (images, won) = engine.image_prune(self.all)?;
        parts.push(("Deleted Images", images));
        reclaimed(&parts, bytes + won)?;
        Ok(0)
    }
}
