//! The per-container supervisor: one poll loop, one thread, in the process that is the container's parent.
//!
//! [`supervise`] starts a [`Subject`], carries its output to the log and to attached clients, forwards signals,
//! reaps it, records how it ended, restarts it by its policy, runs its health check and reports out-of-memory
//! kills. It knows nothing about images, stores or namespaces: the `Subject` does.
//!
//! Invariants:
//! - Idle costs nothing: no timer fires and no buffer is held while nothing happens.
//! - The container is never held up by a log that cannot be written, and by a slow client only as
//!   docs/format/attach.md says.
//! - Every descriptor is close-on-exec; the signal mask is restored when [`supervise`] returns. While it runs the
//!   signals it listens to are blocked in this thread, so a `Subject` must reset the mask in what it starts.
//!
//! Formats: docs/format/log.md ([`log`]) and docs/format/attach.md ([`attach`], stdio FIFOs, readiness).

pub mod attach;
pub mod detach_keys;
mod error;
mod exit;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod health;
mod input;
mod local;
pub mod log;
mod options;
mod output;
mod probe;
mod readiness;
mod restart;
mod run;
mod signals;
mod stdio;
mod subject;
mod supervise;
mod terminal;

pub use detach_keys::DetachKeys;
pub use error::{Error, Result};
pub use exit::{Exit, ExitStatus};
pub use options::{
    Adopt, BrokenPipe, LocalClient, LogDriver, Owner, StdinMode, StopRule, Streams, Supervision,
};
pub use readiness::{Readiness, StartFailure};
pub use restart::{RestartPolicy, RestartState};
pub use subject::{BoxError, ProbeProcess, ProbeSkipped, Process, StdioRequest, Subject};
pub use supervise::supervise;
pub use terminal::{RawMode, WindowSize};
