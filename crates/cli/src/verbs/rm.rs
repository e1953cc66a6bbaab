//! `rm`.

use coracle_engine::request::RemoveOptions;

use crate::door::Door;
use crate::error::{Error, for_each};
use crate::output;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Rm {
    /// Kill it first when it runs
    #[arg(short = 'f', long)]
    force: bool,
    /// Remove its anonymous volumes too
    #[arg(short = 'v', long)]
    volumes: bool,
    /// Name or id
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl super::Verb for Rm {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let options = RemoveOptions {
            force: self.force,
            volumes: self.volumes,
        };
        for_each(&self.containers, |name| {
            match door
                .find(name)
                .and_then(|id| Ok(door.engine()?.remove(&id, options)?))
            {
                Ok(()) => output::line(name),
                // By force it is asked to be gone, and it is.
                Err(Error::Engine(coracle_engine::Error::NoSuchContainer(_))) if self.force => {
                    Ok(())
                }
                Err(error) => Err(error),
            }
        })
    }
}
