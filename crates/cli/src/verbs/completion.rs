//! `completion`.

use clap_complete::Shell;

use crate::door::Door;
use crate::error::Error;
use crate::output;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Completion {
    /// bash, elvish, fish, powershell or zsh
    #[arg(value_name = "SHELL")]
    shell: String,
}

impl super::Verb for Completion {
    fn run(self, _door: &Door) -> Result<u8, Error> {
        let shell: Shell = self.shell.parse().map_err(|_| {
            Error::usage(
                format!("there is no completion for {:?}", self.shell),
                "there are bash, elvish, fish, powershell and zsh",
            )
        })?;
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut super::tree(), "coracle", &mut script);
        output::print(&String::from_utf8_lossy(&script))?;
        Ok(0)
    }
}
