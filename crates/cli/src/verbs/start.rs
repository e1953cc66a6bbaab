//! `start`.

use crate::door::Door;
use crate::error::{Error, for_each};
use crate::output;
use crate::terminal;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Start {
    /// Show its output, and end with its exit code
    #[arg(short = 'a', long)]
    attach: bool,
    /// Connect standard input too
    #[arg(short = 'i', long)]
    interactive: bool,
    /// Keys that leave the container running (default: ctrl-p,ctrl-q)
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Send signals on to the program (the default; --sig-proxy=false: they end this command)
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: String,
    /// Name or id
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

impl super::Verb for Start {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let keys = terminal::detach_keys(self.detach_keys.as_deref())?;
        let sig_proxy = super::run::boolean("--sig-proxy", &self.sig_proxy)?;
        if self.attach || self.interactive {
            let [name] = self.containers.as_slice() else {
                return Err(Error::usage(
                    "only one container can be attached to",
                    "start the others first, without -a and -i",
                ));
            };
            let client = door.engine()?.start_attached(
                &door.find(name)?,
                terminal::wants(self.interactive),
                terminal::window(true),
            )?;
            return terminal::carry(&client, self.interactive, keys, sig_proxy);
        }
        for_each(&self.containers, |name| {
            door.engine()?.start(&door.find(name)?)?;
            output::line(name)
        })
    }
}
