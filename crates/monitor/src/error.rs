//! What can go wrong in the monitor itself.

use std::path::PathBuf;

use rustix::io::Errno;

use crate::subject::BoxError;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the monitor. What the [`crate::Subject`] returned is in [`Error::Subject`] and [`Error::Start`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The container could not be started.
    #[error("the container could not be started")]
    Start(#[source] BoxError),
    /// The subject failed in one of its other methods.
    #[error("{doing} failed")]
    Subject {
        /// What it was to do.
        doing: &'static str,
        /// Why it could not.
        #[source]
        source: BoxError,
    },
    /// A system call on something without a name.
    #[error("{doing} failed")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: Errno,
    },
    /// A system call on a file.
    #[error("{doing} {} failed", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: Errno,
    },
    /// A path that should be a FIFO is something else.
    #[error("{} is not a FIFO", .0.display())]
    NotFifo(PathBuf),
    /// The attach socket's path has no file name.
    #[error("{} cannot be a socket's path", .0.display())]
    SocketPath(PathBuf),
    /// The container has no monitor to attach to.
    #[error("the container's monitor does not answer on {}", path.display())]
    NoMonitor {
        /// The attach socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The other side of the attach socket broke the protocol.
    #[error("the attach protocol was broken: {0}")]
    Protocol(String),
    /// The monitor went away without telling an exit status.
    #[error("the container's monitor has gone without reporting an exit")]
    MonitorGone,
    /// A detach key sequence that cannot be understood.
    #[error("invalid detach keys {text:?}: {why}")]
    DetachKeys {
        /// As given.
        text: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The subject returned a process without the terminal that was asked for, or with one that was not.
    #[error("the runtime returned {0} terminal")]
    Terminal(&'static str),
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::NoMonitor {
                source: Errno::CONNREFUSED | Errno::NOENT,
                ..
            }
            | Error::MonitorGone => Some(
                "the container may have ended or its monitor may have been killed; any command on the container, \
                 such as `coracle ps`, repairs that"
                    .into(),
            ),
            Error::NoMonitor {
                source: Errno::ACCESS | Errno::PERM,
                ..
            } => Some("only the user who runs the container can attach to it".into()),
            Error::DetachKeys { .. } => Some(
                "give single characters or ctrl-X (X: a to z, @, [, \\, ], ^ or _), separated by commas, such as \
                 ctrl-p,ctrl-q"
                    .into(),
            ),
            Error::NotFifo(_) => Some("remove it and start the container again".into()),
            Error::System {
                source: Errno::MFILE | Errno::NFILE,
                ..
            }
            | Error::File {
                source: Errno::MFILE | Errno::NFILE,
                ..
            } => Some("raise the limit on open files (ulimit -n)".into()),
            Error::Start(source) => source
                .downcast_ref::<crate::StartFailure>()
                .and_then(|failure| failure.hint.clone()),
            _ => None,
        }
    }
}

/// Shorthand for `map_err` on system calls without a file.
pub(crate) fn system(doing: &'static str) -> impl FnOnce(Errno) -> Error {
    move |source| Error::System { doing, source }
}

/// Shorthand for `map_err` on system calls on a file.
pub(crate) fn file(doing: &'static str, path: &std::path::Path) -> impl FnOnce(Errno) -> Error {
    let path = path.to_path_buf();
    move |source| Error::File {
        doing,
        path,
        source,
    }
}
