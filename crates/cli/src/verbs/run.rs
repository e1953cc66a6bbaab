//! `run`: make a container, start it, and stay with it unless told otherwise.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::create::create;
use crate::door::Door;
use crate::error::Error;
use crate::output;
use crate::spec::ContainerArguments;
use crate::terminal;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Run in the background and print the id
    #[arg(short = 'd', long)]
    detach: bool,
    /// Keys that leave the container running (default: ctrl-p,ctrl-q)
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Send signals on to the program (the default; --sig-proxy=false: they end this command)
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sig_proxy: String,
    /// Print nothing while an image is fetched
    #[arg(short = 'q', long)]
    quiet: bool,
    #[command(flatten)]
    container: ContainerArguments,
}

impl super::Verb for Run {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let keys = terminal::detach_keys(self.detach_keys.as_deref())?;
        let sig_proxy = boolean("--sig-proxy", &self.sig_proxy)?;
        let ContainerArguments {
            interactive,
            tty,
            ref attach,
            ..
        } = self.container;
        let wanted = Wanted::of(attach);
        if self.detach {
            if !attach.is_empty() {
                return Err(Error::usage(
                    "--detach and --attach contradict each other",
                    "leave one of them out",
                ));
            }
        } else {
            terminal::need_keyboard(interactive, tty)?;
        }
        super::create::seal(&self.container, door)?;
        let id = create(self.container, door)?.id;
        let engine = door.engine()?;
        if self.detach {
            engine.start(&id)?;
            output::line(&id)?;
            return Ok(0);
        }
        if tty || !sig_proxy {
            let client = engine.start_attached(
                &id,
                terminal::wants(interactive && wanted.stdin),
                terminal::window(tty),
            )?;
            let _silence = wanted.silence()?;
            return terminal::carry(&client, interactive && wanted.stdin, keys, sig_proxy);
        }
        let silence = wanted.silence()?;
        let ended = engine.run_foreground(&id);
        drop(silence);
        Ok(terminal::code(ended?))
    }
}

/// `true` or `false`, as clap leaves it for an option whose default is true.
pub(super) fn boolean(option: &str, text: &str) -> Result<bool, Error> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(Error::Value {
            option: option.into(),
            problem: format!("{other:?} is not true or false"),
        }),
    }
}

/// Which streams `--attach` leaves; all of them when it is not given.
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

impl Wanted {
    fn of(attach: &[String]) -> Self {
        let has = |stream: &str| {
            attach.is_empty() || attach.iter().any(|word| word.eq_ignore_ascii_case(stream))
        };
        Self {
            stdin: has("stdin"),
            stdout: has("stdout"),
            stderr: has("stderr"),
        }
    }

    /// Puts /dev/null in place of this command's own streams that are not wanted, until it is dropped.
    fn silence(&self) -> Result<Silence, Error> {
        let mut silence = Silence {
            stdin: None,
            stdout: None,
            stderr: None,
        };
        if self.stdin && self.stdout && self.stderr {
            return Ok(silence);
        }
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(Error::file("open", "/dev/null"))?;
        let failed = |source: rustix::io::Errno| Error::Terminal {
            action: "detach a stream",
            source: source.into(),
        };
        let keep = |fd: std::os::fd::BorrowedFd<'_>| {
            rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(failed)
        };
        if !self.stdin {
            silence.stdin = Some(keep(io::stdin().as_fd())?);
            rustix::stdio::dup2_stdin(&null).map_err(failed)?;
        }
        if !self.stdout {
            silence.stdout = Some(keep(io::stdout().as_fd())?);
            rustix::stdio::dup2_stdout(&null).map_err(failed)?;
        }
        if !self.stderr {
            silence.stderr = Some(keep(io::stderr().as_fd())?);
            rustix::stdio::dup2_stderr(&null).map_err(failed)?;
        }
        Ok(silence)
    }
}

/// This command's streams as they were.
struct Silence {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Drop for Silence {
    fn drop(&mut self) {
        // Duplicating an open descriptor onto another fails only when interrupted, and a drop has nobody to tell.
        let _ = self.stdin.as_ref().map(rustix::stdio::dup2_stdin);
        let _ = self.stdout.as_ref().map(rustix::stdio::dup2_stdout);
        let _ = self.stderr.as_ref().map(rustix::stdio::dup2_stderr);
    }
}
