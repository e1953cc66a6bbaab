//! `run`.

use super::create::{CreateArguments, seal};
use super::foreground::Foreground;
use super::{Runtime, Verb};
use crate::error::Error;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    #[command(flatten)]
    create: CreateArguments,
    /// Do not wait for its end
    #[arg(short, long)]
    detach: bool,
    /// Do not delete it at its end
    #[arg(long)]
    keep: bool,
    /// Reap what the container's processes leave behind; they are reaped in its pid namespace in any case
    #[arg(long, hide = true)]
    no_subreaper: bool,
}

impl Verb for Run {
    fn run(self, runtime: &Runtime) -> Result<u8, Error> {
        seal()?;
        let id = self.create.id.clone();
        let carried = self.create.console_socket.is_none();
        let foreground = Foreground::begin()?;
        let launched = runtime.bundles.run(self.create.request(self.detach)?)?;
        if self.detach {
            return Ok(0);
        }
        let ended = foreground.wait(launched, carried);
        if !self.keep {
            // Also what could not be waited for goes; then that is the error that is told.
            let deleted = runtime.bundles.delete(&id, true);
            let code = ended?;
            deleted?;
            return Ok(code);
        }
        ended
    }
}
