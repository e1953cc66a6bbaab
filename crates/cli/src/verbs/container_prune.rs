//! `container prune`.

use super::filter;
use crate::confirm::{confirm, reclaimed};
use crate::door::Door;
use crate::error::Error;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct ContainerPrune {
    /// Only those with KEY=VALUE: until, label, label!
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short = 'f', long)]
    force: bool,
}

impl super::Verb for ContainerPrune {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let filters = filter::parse(&self.filter, &["until", "label", "label!"])?;
        if !confirm(self.force, "This will remove all stopped containers.")? {
            return Ok(0);
        }
        let (removed, bytes) = door.engine()?.container_prune(&filters)?;
        reclaimed(&[("Deleted Containers", removed)], bytes)?;
        Ok(0)
    }
}
