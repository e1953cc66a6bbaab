//! `exec`.

use coracle_engine::ExecIo;
use coracle_engine::request::ExecSpec;

use crate::door::Door;
use crate::error::Error;
use crate::spec::{self, Caller};
use crate::terminal;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Exec {
    /// Leave it running in the background
    #[arg(short = 'd', long)]
    detach: bool,
    /// Set a variable; KEY alone takes its value from here
    #[arg(short = 'e', long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// Keep standard input open
    #[arg(short = 'i', long)]
    interactive: bool,
    /// All capabilities and no filter
    #[arg(long)]
    privileged: bool,
    /// Allocate a pseudo terminal
    #[arg(short = 't', long)]
    tty: bool,
    /// User, by the image's names or numbers
    #[arg(short = 'u', long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory
    #[arg(short = 'w', long, value_name = "DIR")]
    workdir: Option<String>,
    /// The container, then the command and its arguments
    #[arg(value_name = "CONTAINER COMMAND [ARGUMENT…]", trailing_var_arg = true)]
    words: Vec<String>,
}

impl super::Verb for Exec {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let mut words = self.words.into_iter();
        let container = words
            .next()
            .ok_or_else(|| Error::usage("no container is named", "write CONTAINER COMMAND"))?;
        let mut command: Vec<String> = words.collect();
        if command.first().is_some_and(|word| word == "--") {
            command.remove(0);
        }
        if command.is_empty() {
            return Err(Error::usage(
                "no command is given",
                format!("write for example `coracle exec -it {container} sh`"),
            ));
        }
        if !self.detach {
            terminal::need_keyboard(self.interactive, self.tty)?;
        }
        let spec = ExecSpec {
            command,
            env: spec::environment(&self.env, &self.env_file, &Caller::this()?)?,
            user: self.user,
            workdir: self.workdir,
            tty: self.tty && !self.detach,
            interactive: self.interactive && !self.detach,
            privileged: self.privileged,
        };
        let io = match (self.detach, self.tty) {
            (true, _) => ExecIo::Detached,
            (false, true) => {
                let (rows, cols) = terminal::size();
                ExecIo::Terminal { rows, cols }
            }
            (false, false) => ExecIo::Inherit,
        };
        let id = door.find(&container)?;
        if door.engine()?.shares_host_ids(&id)? {
            coracle_engine::seal().map_err(coracle_engine::Error::from)?;
        }
        let exec = door.engine()?.exec(&id, &spec, io)?;
        let ended = match io {
            ExecIo::Terminal { .. } => terminal::converse(exec, self.interactive)?,
            _ => exec.wait()?,
        };
        Ok(terminal::code(ended))
    }
}
