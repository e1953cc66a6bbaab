//! `exec`: one more process in a running container, a child of this command.
//!
//! It gets the container's namespaces, cgroup, capabilities and filter, never more unless `privileged` is asked for.
//! A terminal of this command's is not handed in: a process inside could push characters into it (TIOCSTI). What is
//! not a plain pipe or file is therefore relayed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use coracle_oci::ContainerId;
use coracle_oci::runtime::{LinuxCapabilitiesBuilder, Process, ProcessBuilder, UserBuilder};
use coracle_runtime::{Running, Stdio, Target};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions};

use super::stop::running;
use crate::error::{Error, Result};
use crate::events::Happening;
use crate::request::ExecSpec;
use crate::state::{Record, Run};
use crate::{Engine, spec, users};

/// Where the streams of the process lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecIo {
    /// This command's own 0, 1 and 2.
    Inherit,
    /// Nowhere; the process outlives this command.
    Detached,
    /// A new terminal of this size.
    Terminal {
        /// Rows.
        rows: u16,
        /// Columns.
        cols: u16,
    },
}

/// A process that was started.
#[derive(Debug)]
pub struct Exec {
    running: Running,
    relays: Vec<Relay>,
    detached: bool,
}

/// Bytes from one descriptor to another, until the end.
#[derive(Debug)]
struct Relay {
    from: OwnedFd,
    to: OwnedFd,
    /// Ends with the process rather than with the stream: nobody waits for a keyboard.
    input: bool,
}

impl From<crate::bundle::Launched> for Exec {
    /// A container's first process in the foreground of an OCI runtime: waited for as any other.
    fn from(launched: crate::bundle::Launched) -> Exec {
        Exec {
            running: launched.running,
            relays: Vec::new(),
            detached: false,
        }
    }
}

impl Engine {
    /// Runs a command in a running container.
    ///
    /// # Errors
    /// [`Error::WrongState`] when it does not run or is paused; 126 and 127 by [`Error::exit_code`].
    pub fn exec(&self, id: &ContainerId, asked: &ExecSpec, io: ExecIo) -> Result<Exec> {
        let record = self.existing(id)?;
        let observed = self.observe(&record)?;
        let run = running(&record, &observed, "exec in")?;
        if observed.status == crate::answer::Status::Paused {
            return Err(Error::WrongState {
                verb: "exec in",
                name: record.name.clone(),
                status: "paused".into(),
                hint: Some(format!(
                    "unpause it first: `coracle unpause {}`",
                    record.name
                )),
            });
        }
        let (stdio, relays) = streams(io, asked.interactive)?;
        let running = self
            .exec_in(&record, run, asked, stdio)
            .map_err(|error| error.during(format!("cannot exec in container {}", record.name)))?;
        if let (ExecIo::Terminal { rows, cols }, Some(terminal)) = (io, &running.terminal) {
            let size = rustix::termios::Winsize {
                ws_row: rows,
                ws_col: cols,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            rustix::termios::tcsetwinsize(terminal, size).map_err(|error| {
                Error::refused(format!("the terminal's size cannot be set: {error}"))
            })?;
        }
        self.happened(Happening::container(
            &format!("exec_start: {}", asked.command.join(" ")),
            &record,
        ))?;
        Ok(Exec {
            running,
            relays,
            detached: io == ExecIo::Detached,
        })
    }

    pub(crate) fn exec_in(
        &self,
        record: &Record,
        run: &Run,
        asked: &ExecSpec,
        stdio: Stdio,
    ) -> Result<Running> {
        let process = self.exec_process(record, run, asked)?;
        let seccomp = if asked.privileged {
            None
        } else {
            spec::seccomp(&record.spec)?
        };
        let init = rustix::process::Pid::from_raw(run.pid)
            .ok_or_else(|| Error::refused("the container has no process"))?;
        let request = coracle_runtime::Exec {
            target: Target {
                pid: run.pid,
                start_time: run.start_time,
            },
            process: &process,
            seccomp: seccomp.as_ref(),
            cgroup: Some(self.cgroup_of(run)?.entry_beside(init)?),
            stdio,
            preserved: Vec::new(),
            clamp: true,
        };
        Ok(coracle_runtime::exec(request)?)
    }

    fn exec_process(&self, record: &Record, run: &Run, asked: &ExecSpec) -> Result<Process> {
        if asked.command.is_empty() {
            return Err(Error::refused_with(
                "no command was given",
                "say what to run after the container's name",
            ));
        }
        let root = root_of(run)?;
        let who = users::look_up(
            root.as_fd(),
            asked.user.as_deref().unwrap_or(&record.process.user),
            &record.spec.groups,
        )?;
        let mut env = spec::environment(record);
        env.retain(|entry| !entry.starts_with("HOME="));
        env.push(format!("HOME={}", who.home));
        if asked.tty {
            env.retain(|entry| !entry.starts_with("TERM="));
            env.push("TERM=xterm".into());
        }
        for entry in &asked.env {
            let name = entry.split('=').next().unwrap_or_default();
            env.retain(|other| other.split('=').next() != Some(name));
            if entry.contains('=') {
                env.push(entry.clone());
            }
        }
        let all = crate::request::ContainerSpec {
            privileged: true,
            ..Default::default()
        };
        let capabilities = spec::capabilities(if asked.privileged { &all } else { &record.spec })?;
        let set = LinuxCapabilitiesBuilder::default()
            .bounding(capabilities.clone())
            .effective(capabilities.clone())
            .permitted(capabilities)
            .inheritable(std::collections::HashSet::new())
            .ambient(std::collections::HashSet::new())
            .build()
            .map_err(spec::unsound)?;
        let user = UserBuilder::default()
            .uid(who.uid)
            .gid(who.gid)
            .additional_gids(who.groups)
            .build()
            .map_err(spec::unsound)?;
        let cwd = asked
            .workdir
            .clone()
            .unwrap_or_else(|| record.process.workdir.clone());
        let no_new_privileges = record
            .spec
            .security
            .no_new_privileges
            .unwrap_or(!record.spec.privileged);
        let mut process = ProcessBuilder::default()
            .terminal(asked.tty)
            .user(user)
            .args(asked.command.clone())
            .env(env)
            .cwd(std::path::PathBuf::from(cwd))
            .capabilities(set)
            .no_new_privileges(no_new_privileges && !asked.privileged)
            .rlimits(spec::rlimits(&record.spec.ulimits)?)
            .build()
            .map_err(spec::unsound)?;
        process.set_oom_score_adj(record.spec.resources.oom_score_adj);
        Ok(process)
    }
}

/// A handle to the root that a running container sees.
pub(crate) fn root_of(run: &Run) -> Result<OwnedFd> {
    let path = std::path::Path::new("/proc")
        .join(run.pid.to_string())
        .join("root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(&path, flags, Mode::empty())
        .map_err(|error| Error::file("opening", &path, error))
}

fn streams(io: ExecIo, interactive: bool) -> Result<(Stdio, Vec<Relay>)> {
    let failed = |error: Errno| {
        Error::refused(format!(
            "the streams of the command cannot be made: {error}"
        ))
    };
    let null = || {
        rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed)
    };
    match io {
        ExecIo::Terminal { .. } => Ok((Stdio::Terminal, Vec::new())),
        ExecIo::Detached => Ok((
            Stdio::Pipes {
                stdin: null()?,
                stdout: null()?,
                stderr: null()?,
            },
            Vec::new(),
        )),
        ExecIo::Inherit => {
            let mut relays = Vec::new();
            let mut handed = |own: BorrowedFd<'_>, input: bool| -> Result<OwnedFd> {
                let copy = rustix::io::fcntl_dupfd_cloexec(own, 3).map_err(failed)?;
                if is_plain(&copy) {
                    return Ok(copy);
                }
                let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
                let (inside, relay) = match input {
                    true => (
                        read,
                        Relay {
                            from: copy,
                            to: write,
                            input,
                        },
                    ),
                    false => (
                        write,
                        Relay {
                            from: read,
                            to: copy,
                            input,
                        },
                    ),
                };
                relays.push(relay);
                Ok(inside)
            };
            let stdin = if interactive {
                handed(rustix::stdio::stdin(), true)?
            } else {
                null()?
            };
            let stdout = handed(rustix::stdio::stdout(), false)?;
            let stderr = handed(rustix::stdio::stderr(), false)?;
            Ok((
                Stdio::Pipes {
                    stdin,
                    stdout,
                    stderr,
                },
                relays,
            ))
        }
    }
}

/// A pipe, a file or a socket: nothing that a process inside could do more with than read and write.
fn is_plain(fd: &OwnedFd) -> bool {
    let kind = rustix::fs::fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
    matches!(
        kind,
        Ok(FileType::Fifo | FileType::RegularFile | FileType::Socket)
    )
}

impl Exec {
    /// The other end of its terminal, when it has one.
    pub fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.running.terminal.as_ref().map(AsFd::as_fd)
    }

    /// The process, for signals.
    pub fn process(&self) -> BorrowedFd<'_> {
        self.running.pidfd.as_fd()
    }

    /// Carries its streams until it ends; gives its exit code, 128 and more for a signal. A detached one is left alone.
    ///
    /// # Errors
    /// What waiting says.
    pub fn wait(mut self) -> Result<i32> {
        if self.detached {
            return Ok(0);
        }
        let failed =
            |error: Errno| Error::refused(format!("waiting for the command failed: {error}"));
        loop {
            let mut ready: Vec<PollFd<'_>> = Vec::with_capacity(self.relays.len() + 1);
            ready.extend(
                self.relays
                    .iter()
                    .map(|relay| PollFd::new(&relay.from, PollFlags::IN)),
            );
            ready.push(PollFd::new(&self.running.pidfd, PollFlags::IN));
            match poll(&mut ready, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(failed(error)),
            }
            let ready: Vec<bool> = ready.iter().map(|fd| !fd.revents().is_empty()).collect();
            let mut index = 0;
            self.relays.retain(|relay| {
                index += 1;
                !ready[index - 1] || relay.pass()
            });
            if ready.last() == Some(&true) {
                // What it wrote last is in the pipes; another process may still hold their other ends.
                self.relays
                    .iter()
                    .filter(|relay| !relay.input)
                    .for_each(Relay::drain);
                break;
            }
        }
        let status = rustix::process::waitid(
            WaitId::PidFd(self.running.pidfd.as_fd()),
            WaitIdOptions::EXITED,
        )
        .map_err(failed)?;
        let code = status.as_ref().and_then(|status| {
            let signal = status.terminating_signal().map(|signal| 128 + signal);
            status.exit_status().or(signal)
        });
        Ok(code.unwrap_or(255))
    }
}

impl Relay {
    /// Passes on what is there; whether there may be more.
    fn pass(&self) -> bool {
        let mut buffer = [0u8; 16 * 1024];
        match rustix::io::read(&self.from, &mut buffer) {
            Ok(0) => false,
            Ok(count) => write_all(&self.to, &buffer[..count]).is_ok(),
            Err(Errno::INTR | Errno::AGAIN) => true,
            Err(_) => false,
        }
    }

    fn drain(&self) {
        let mut ready = [PollFd::new(&self.from, PollFlags::IN)];
        let now = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        while poll(&mut ready, Some(&now)) == Ok(1)
            && ready[0].revents().contains(PollFlags::IN)
            && self.pass()
        {}
    }
}

fn write_all(fd: &OwnedFd, mut rest: &[u8]) -> rustix::io::Result<()> {
    while !rest.is_empty() {
        match rustix::io::write(fd, rest) {
            Ok(count) => rest = &rest[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
