//! What is supervised, as the monitor sees it: a thing that can be started, probed and told what happened.

use std::os::fd::OwnedFd;

use rustix::process::Pid;

use crate::error::Error;
use crate::exit::Exit;
use crate::health::{HealthCommand, HealthUpdate};
use crate::terminal::WindowSize;

/// The error of a [`Subject`]'s method. For [`Subject::start`], box a [`crate::StartFailure`] to choose the exit code
/// and hint that the starting command shows; any other error is code 125.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What the container's first process gets as its standard streams.
#[derive(Debug)]
pub enum StdioRequest {
    /// The container's ends: they become 0, 1 and 2.
    Pipes {
        /// `/dev/null` where the container has no standard input.
        stdin: OwnedFd,
        /// Write end of a pipe or FIFO, owned by [`crate::Supervision::owner`] where given.
        stdout: OwnedFd,
        /// The same for standard error.
        stderr: OwnedFd,
    },
    /// A terminal: its master comes back in [`Process::terminal`].
    Terminal {
        /// The size known so far.
        size: Option<WindowSize>,
    },
}

/// A started container.
#[derive(Debug)]
pub struct Process {
    /// The container's init in the monitor's own pid namespace.
    pub pid: Pid,
    /// Its pidfd; the process is a child of the monitor.
    pub pidfd: OwnedFd,
    /// The pty master, exactly when [`StdioRequest::Terminal`] was asked for.
    pub terminal: Option<OwnedFd>,
    /// Becomes readable when the container's cgroup reports memory events (cgroup v1: an eventfd; v2: an inotify).
    pub oom_event: Option<OwnedFd>,
}

/// A started health probe, a child of the monitor.
#[derive(Debug)]
pub struct ProbeProcess {
    /// The probe in the monitor's own pid namespace.
    pub pid: Pid,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// Read end of the pipe that is both its standard output and error.
    pub output: OwnedFd,
}

/// Box this from [`Subject::probe`] when probing makes no sense now (the container is paused): no result is recorded.
#[derive(Debug, thiserror::Error)]
#[error("the health check was skipped: {0}")]
pub struct ProbeSkipped(pub String);

/// What the monitor supervises. Called from the monitor's only thread, one call at a time.
///
/// Per run: `start`, then any of `oom`, `probe`, `health`, then `exited`. After the last run: `finished`.
pub trait Subject {
    /// Starts the container (again). An error of the first start ends the supervision and is reported through
    /// [`crate::Supervision::ready`]; an error of a restart is recorded as an exit with [`Exit::error`] set.
    /// Undoes what it did before returning an error.
    ///
    /// `meanwhile` is what the monitor has to do before the container's command is executed. It is called once, best when
    /// the container's process is there and has its own things to do; its error is an error of the start.
    fn start(
        &mut self,
        stdio: StdioRequest,
        meanwhile: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<Process, BoxError>;

    /// One run has ended and its output is in the log: the record is written, run-time resources are released.
    /// [`Exit::restart_in`] says whether another run follows.
    fn exited(&mut self, exit: &Exit) -> Result<(), BoxError>;

    /// The cgroup reported memory events, or the container was ended by SIGKILL. Returns whether a process of this
    /// run was killed for memory since the run began (cgroup v2 also reports events that kill nothing).
    fn oom(&mut self) -> Result<bool, BoxError>;

    /// A probe gave a result. Called for every result; [`HealthUpdate::changed`] says whether the status did.
    fn health(&mut self, update: &HealthUpdate) -> Result<(), BoxError>;

    /// Starts the health check's command inside the container, its output on a pipe.
    fn probe(&mut self, command: &HealthCommand) -> Result<ProbeProcess, BoxError>;

    /// No further run will follow: `--rm` removes here. Attached clients learn of the exit after this returns.
    fn finished(&mut self) -> Result<(), BoxError>;

    /// A warning that has no other way out (a log that cannot be written, a client that broke the protocol). The
    /// engine may keep it with the container's state. A monitor has no terminal of its own to print to.
    fn warn(&mut self, warning: &str);
}
