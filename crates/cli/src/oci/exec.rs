//! `exec`.

use std::path::PathBuf;

use coracle_engine::bundle::{ExecCommand, ExecRequest, ExecSource, parse_process};
use coracle_engine::oci::runtime::Capability;

use super::create::seal;
use super::foreground::Foreground;
use super::{Runtime, Verb, inherited};
use crate::error::Error;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(super) struct Exec {
    /// A file with a process of the specification
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// The socket that gets the terminal
    #[arg(long, value_name = "PATH")]
    console_socket: Option<PathBuf>,
    /// The file that gets the process's pid
    #[arg(long, value_name = "PATH")]
    pid_file: Option<PathBuf>,
    /// Do not wait for its end
    #[arg(short, long)]
    detach: bool,
    /// With a terminal
    #[arg(short, long)]
    tty: bool,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Added to the environment
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// User, as UID[:GID]
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    /// A supplementary group
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// A capability added to the container's
    #[arg(short, long, value_name = "CAPABILITY")]
    cap: Vec<String>,
    /// Gain no rights by executing files
    #[arg(long)]
    no_new_privs: bool,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// Pass on this many descriptors, from 3 on
    #[arg(long, value_name = "N", default_value = "0")]
    preserve_fds: u32,
    /// A cgroup below the container's own
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// Also when it is paused
    #[arg(long)]
    ignore_paused: bool,
    /// The container's id, the command, and its arguments
    #[arg(
        value_name = "ID [COMMAND]",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    words: Vec<String>,
}

impl Verb for Exec {
    fn run(self, runtime: &Runtime) -> Result<u8, Error> {
        seal()?;
        let inherited = inherited::take(self.preserve_fds)?;
        let mut words = self.words.into_iter();
        let id = words.next().unwrap_or_default();
        let mut args: Vec<String> = words.collect();
        if args.first().is_some_and(|word| word == "--") {
            args.remove(0);
        }
        let carried = self.console_socket.is_none();
        let source = match self.process {
            Some(path) => {
                let text = std::fs::read(&path).map_err(Error::file("read", path.clone()))?;
                let process = parse_process(&text, &mut |_| {})
                    .map_err(|error| error.during(format!("cannot use {}", path.display())))?;
                ExecSource::Document(Box::new(process))
            }
            None if args.is_empty() => {
                return Err(Error::usage(
                    "no command is given",
                    "write ID COMMAND, or --process FILE ID",
                ));
            }
            None => ExecSource::Changes(ExecCommand {
                args,
                cwd: self.cwd,
                env: self.env,
                tty: self.tty,
                user: self.user.as_deref().map(user).transpose()?,
                additional_gids: self.additional_gids,
                capabilities: self
                    .cap
                    .iter()
                    .map(|name| capability(name))
                    .collect::<Result<_, _>>()?,
                no_new_privileges: self.no_new_privs,
                apparmor: self.apparmor,
                process_label: self.process_label,
            }),
        };
        let foreground = Foreground::begin()?;
        let launched = runtime.bundles.exec(ExecRequest {
            id,
            source,
            console_socket: self.console_socket,
            pid_file: self.pid_file,
            detach: self.detach,
            preserved: inherited.preserved,
            cgroup: self.cgroup,
            ignore_paused: self.ignore_paused,
        })?;
        if self.detach {
            return Ok(0);
        }
        foreground.wait(launched, carried)
    }
}

fn user(text: &str) -> Result<(u32, Option<u32>), Error> {
    let number = |text: &str| {
        text.parse().map_err(|_| Error::Value {
            option: "--user".into(),
            problem: format!("{text:?} is not a number"),
        })
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
        None => Ok((number(text)?, None)),
    }
}

fn capability(name: &str) -> Result<Capability, Error> {
    serde_json::from_value(name.to_uppercase().into()).map_err(|_| Error::Value {
        option: "--cap".into(),
        problem: format!("there is no capability {name:?}"),
    })
}
