//! `attach`.

use crate::door::Door;
use crate::error::Error;
use crate::terminal;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Attach {
    /// Keys that leave the container running (default: ctrl-p,ctrl-q)
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Do not connect standard input
    #[arg(long)]
    no_stdin: bool,
    /// Send signals on to the program (the default; --sig-proxy=false: they end this command)
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: String,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl super::Verb for Attach {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let keys = terminal::detach_keys(self.detach_keys.as_deref())?;
        let sig_proxy = super::run::boolean("--sig-proxy", &self.sig_proxy)?;
        let client = door.engine()?.attach(
            &door.find(&self.container)?,
            terminal::wants(!self.no_stdin),
        )?;
        terminal::carry(
            &client,
            !self.no_stdin && client.has_stdin(),
            keys,
            sig_proxy,
        )
    }
}
