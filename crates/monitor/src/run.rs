//! One run of the container: what is held of it from its start until its output has been drained.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};

use crate::error::{Error, Result, system};
use crate::exit::ExitStatus;
use crate::health::HealthCheck;
use crate::input::Input;
use crate::options::Adopt;
use crate::probe::Health;
use crate::stdio::{Ends, set_nonblocking};
use crate::subject::Process;

/// How long output is waited for after the end, when other processes hold the streams: Docker's two seconds.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);

/// How long an adopted container's status is waited for: it is there once the process is reaped by its new parent.
const REAPING: Duration = Duration::from_millis(500);

/// What is held of a run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    /// Whether this process is its parent.
    child: bool,
    pub(crate) terminal: Option<OwnedFd>,
    /// The container's side of the terminal, held so that the container may close and reopen it (else the master
    /// would report a hang-up meanwhile, again and again).
    peer: Option<OwnedFd>,
    pub(crate) outputs: [Option<OwnedFd>; 2],
    pub(crate) input: Input,
    pub(crate) oom_event: Option<OwnedFd>,
    pub(crate) oom: bool,
    pub(crate) started: Instant,
    pub(crate) started_at: Timestamp,
    pub(crate) health: Option<Health>,
    pub(crate) end: Option<End>,
}

/// The end of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) status: ExitStatus,
    pub(crate) at: Timestamp,
    pub(crate) ran: Duration,
    /// Output is waited for until then.
    pub(crate) drain_until: Instant,
}

impl Run {
    pub(crate) fn started(process: Process, ends: Ends, health: Option<HealthCheck>) -> Run {
        let started = Instant::now();
        Run {
            pid: process.pid,
            pidfd: process.pidfd,
            child: true,
            terminal: process.terminal,
            peer: None,
            outputs: ends.outputs,
            input: Input::new(ends.stdin),
            oom_event: process.oom_event,
            oom: false,
            started,
            started_at: Timestamp::now(),
            health: health.map(|check| Health::new(check, started)),
            end: None,
        }
    }

    /// Takes the terminal into use, which must be there exactly when it was asked for.
    pub(crate) fn open_terminal(&mut self, asked: bool) -> Result<()> {
        match (&self.terminal, asked) {
            (Some(master), true) => {
                set_nonblocking(master)?;
                let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
                let peer = ioctl_tiocgptpeer(master, flags);
                self.peer = Some(peer.map_err(system("opening the container's terminal"))?);
                self.outputs[0] = Some(duplicate(master)?);
                self.input = Input::new(Some(duplicate(master)?));
                Ok(())
            }
            (None, false) => Ok(()),
            (None, true) => Err(Error::Terminal("no")),
            (Some(_), false) => Err(Error::Terminal("a")),
        }
    }

    /// Ends a run that cannot be supervised, and waits for it.
    pub(crate) fn kill(&mut self) -> Result<()> {
        // One that ended by itself meanwhile (ESRCH) is what was wanted.
        let _ = coracle_linux::signal::send(&self.pidfd, coracle_oci::Signal::KILL.number());
        while self.end.is_none() {
            let mut polled = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match poll(&mut polled, None) {
                Ok(_) => self.reap()?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(system("waiting for the container's process")(error)),
            }
        }
        Ok(())
    }

    pub(crate) fn adopted(adopt: Adopt, ends: Ends, health: Option<HealthCheck>) -> Run {
        let age = Timestamp::now().duration_since(adopt.started_at);
        let now = Instant::now();
        // A clock that was set back makes it as old as this monitor.
        let age = Duration::try_from(age).unwrap_or_default();
        let started = now.checked_sub(age).unwrap_or(now);
        Run {
            pid: adopt.pid,
            pidfd: adopt.pidfd,
            child: false,
            terminal: None,
            peer: None,
            outputs: ends.outputs,
            input: Input::new(ends.stdin),
            oom_event: adopt.oom_event,
            oom: false,
            started,
            started_at: adopt.started_at,
            health: health.map(|check| Health::new(check, now)),
            end: None,
        }
    }

    /// The pidfd says that the process has ended: takes its status.
    pub(crate) fn reap(&mut self) -> Result<()> {
        if self.end.is_some() {
            return Ok(());
        }
        let status = match self.child {
            true => match reap(&self.pidfd) {
                Ok(Some(status)) => status,
                Ok(None) => return Ok(()),
                // Reaped behind our back (a foreign SIGCHLD handler): what the kernel keeps is asked.
                Err(Errno::CHILD) => kept_status(&self.pidfd),
                Err(error) => return Err(system("waiting for the container's process")(error)),
            },
            false => kept_status(&self.pidfd),
        };
        self.end = Some(End {
            status,
            at: Timestamp::now(),
            ran: self.started.elapsed(),
            drain_until: Instant::now() + DRAIN,
        });
        self.input = Input::default();
        // With it the terminal's last holder on this side goes: reading comes to an end.
        self.peer = None;
        if let Some(health) = &mut self.health {
            health.abandon();
        }
        Ok(())
    }

    /// Whether the run has ended and nothing more is expected of it.
    pub(crate) fn is_drained(&self, now: Instant) -> bool {
        let Some(end) = self.end else {
            return false;
        };
        let quiet = self.outputs.iter().all(Option::is_none)
            && !self.health.as_ref().is_some_and(Health::is_probing);
        quiet || now >= end.drain_until
    }
}

/// Reaps a child that has ended; `None` if it has not.
pub(crate) fn reap(pidfd: &OwnedFd) -> Result<Option<ExitStatus>, Errno> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), options) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    // Exit codes have eight bits, signals seven.
    Ok(status.map(
        |status| match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ExitStatus::Code((code & 0xff) as u8),
            (None, Some(signal)) => ExitStatus::Signal((signal & 0x7f) as u8),
            (None, None) => ExitStatus::Unknown,
        },
    ))
}

/// The status of a process that has ended and is another's child.
fn kept_status(pidfd: &OwnedFd) -> ExitStatus {
    let until = Instant::now() + REAPING;
    loop {
        match coracle_linux::exit_info::wait_status(pidfd) {
            Ok(Some(raw)) => return ExitStatus::from_wait_status(raw),
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            // Never reaped, or a kernel that does not keep it.
            Ok(None) | Err(_) => return ExitStatus::Unknown,
        }
    }
}

fn duplicate(fd: &OwnedFd) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(system("duplicating the container's terminal"))
}
