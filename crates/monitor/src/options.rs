//! How a container is to be supervised: a plain value that the engine makes.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use coracle_oci::Signal;
use rustix::process::Pid;

use crate::health::HealthCheck;
use crate::log::JsonFile;
use crate::restart::RestartPolicy;
use crate::terminal::WindowSize;

/// Everything [`crate::supervise`] wants to know. `Default` is a detached container without standard input, log,
/// attach socket, health check and restarts.
#[derive(Debug, Default)]
pub struct Supervision {
    /// Pipes or a terminal.
    pub streams: Streams,
    /// What the container's standard input does.
    pub stdin: StdinMode,
    /// Who owns the container's ends of the pipes, as ids of the host: the container's user must be able to reopen
    /// `/proc/self/fd/1`. `None` leaves them with the monitor's user.
    pub owner: Option<Owner>,
    /// Where the output is kept.
    pub log: LogDriver,
    /// What happens after an exit.
    pub restart: RestartPolicy,
    /// Restarts that earlier monitors of this container already counted.
    pub restart_count: u32,
    /// The health check, if any.
    pub health: Option<HealthCheck>,
    /// Path of the attach socket, made here and removed at the end. Its directory must exist and be private.
    pub attach: Option<PathBuf>,
    /// A socket whose other end a client holds already ([`crate::attach::Client::offer`]): it misses no output, because it
    /// is greeted before any is read.
    pub first_client: Option<OwnedFd>,
    /// The terminal's size, where it is known before the start.
    pub size: Option<WindowSize>,
    /// The foreground command's own streams.
    pub local: Option<LocalClient>,
    /// How a graceful stop is done.
    pub stop: StopRule,
    /// Write end on which the outcome of the first start is told as one [`crate::Readiness`] message.
    pub ready: Option<OwnedFd>,
    /// Take over a running container whose monitor died, instead of starting one.
    pub adopt: Option<Adopt>,
}

/// The form of the container's standard streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Streams {
    /// Three streams. With `fifos`, standard output and error are FIFOs `stdout` and `stderr` in that directory, which
    /// survive the monitor (docs/format/attach.md); without, anonymous pipes.
    Pipes {
        /// An existing private directory on a file system that has FIFOs.
        fifos: Option<PathBuf>,
    },
    /// One terminal. It cannot survive its monitor: the container gets SIGHUP.
    Terminal,
}

impl Default for Streams {
    fn default() -> Self {
        Streams::Pipes { fifos: None }
    }
}

/// What the container reads from its standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StdinMode {
    /// Nothing: `/dev/null`. A terminal always has an input; clients' input is ignored then.
    #[default]
    Closed,
    /// Attached clients feed it; their end of file does not close it (`create -i`, `run -d -i`).
    Open,
    /// As `Open`, but it is closed when the first client that fed it ends its input or leaves (`run -i`).
    Once,
}

/// A user and group of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id on the host.
    pub uid: u32,
    /// Group id on the host.
    pub gid: u32,
}

/// Where output is kept.
#[derive(Debug, Clone, Default)]
pub enum LogDriver {
    /// Nowhere.
    #[default]
    None,
    /// Docker's json-file form, docs/format/log.md.
    JsonFile(JsonFile),
}

/// What happens to the container's output when the foreground command's reader has gone (`… | head -1`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BrokenPipe {
    /// The container's writes go on, into the log only (and nowhere without a log).
    #[default]
    Continue,
    /// The container's own end breaks too, so that a pipeline ends as it would without a container. Needs anonymous
    /// pipes: a FIFO that survives its monitor also survives this.
    Propagate,
}

/// The foreground command as a client of the container that it is the parent of.
#[derive(Debug)]
pub struct LocalClient {
    /// Read and passed on, when [`StdinMode`] is not `Closed`.
    pub stdin: Option<OwnedFd>,
    /// Gets standard output, or the terminal's output. `None`: not attached.
    pub stdout: Option<OwnedFd>,
    /// Gets standard error. `None`: not attached.
    pub stderr: Option<OwnedFd>,
    /// Forward signals of this process to the container's init. Without it, TERM, INT and QUIT stop the container as
    /// they do for a detached monitor.
    pub sig_proxy: bool,
    /// What a closed standard output means.
    pub broken_pipe: BrokenPipe,
}

/// A graceful stop: `signal`, and SIGKILL after `timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopRule {
    /// Sent first.
    pub signal: Signal,
    /// How long it has; `None` waits for ever.
    pub timeout: Option<Duration>,
}

impl Default for StopRule {
    fn default() -> Self {
        StopRule {
            signal: Signal::TERM,
            timeout: Some(Duration::from_secs(10)),
        }
    }
}

/// A running container whose monitor died. Its FIFOs are reopened; its exit status is known where the kernel keeps it
/// for whoever holds a pidfd (Linux 6.15), else [`crate::ExitStatus::Unknown`].
#[derive(Debug)]
pub struct Adopt {
    /// The container's init.
    pub pid: Pid,
    /// Its pidfd, opened after the start time was compared with the recorded one.
    pub pidfd: OwnedFd,
    /// When it started, for [`crate::Exit::started_at`].
    pub started_at: jiff::Timestamp,
    /// Pollable memory events, as in [`crate::Process::oom_event`].
    pub oom_event: Option<OwnedFd>,
}
