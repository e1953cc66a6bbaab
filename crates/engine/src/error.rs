//! What can go wrong in the engine, in the three parts that a door prints: what failed and on what ([`std::fmt::Display`]),
//! why ([`std::error::Error::source`]), and what to do ([`Error::hint`]).

use std::io;
use std::path::{Path, PathBuf};

/// The result of every engine call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An engine error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No container has this name or id.
    #[error("no such container: {0}")]
    NoSuchContainer(String),
    /// Several ids begin so.
    #[error("container id prefix {prefix:?} is not unique: {count} containers match")]
    Ambiguous {
        /// As typed.
        prefix: String,
        /// How many match.
        count: usize,
    },
    /// The name belongs to another container.
    #[error("the container name \"{name}\" is already in use by container {id}")]
    NameInUse {
        /// The name.
        name: String,
        /// Whose it is.
        id: String,
    },
    /// The container is not in the state that the verb needs.
    #[error("cannot {verb} container {name}: it is {status}")]
    WrongState {
        /// The verb.
        verb: &'static str,
        /// Name of the container.
        name: String,
        /// What it is now.
        status: String,
        /// What to do, if anything.
        hint: Option<String>,
    },
    /// What was asked makes no sense or cannot be had here.
    #[error("{what}")]
    Refused {
        /// What was refused and why.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
    /// An operation on a file failed.
    #[error("{doing} {path} failed")]
    File {
        /// As "writing".
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of the state holds something else than it should.
    #[error("the state file {path} is damaged")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A step of a verb failed in a lower crate.
    #[error("{doing}")]
    Step {
        /// As "cannot start container web".
        doing: String,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// The runtime.
    #[error(transparent)]
    Runtime(#[from] coracle_runtime::Error),
    /// Limits.
    #[error(transparent)]
    Cgroup(#[from] coracle_cgroup::Error),
    /// Images.
    #[error(transparent)]
    Image(#[from] coracle_image::Error),
    /// Layers and blobs.
    #[error(transparent)]
    Store(#[from] coracle_store::Error),
    /// The monitor.
    #[error(transparent)]
    Monitor(#[from] coracle_monitor::Error),
    /// A failure that the monitor of a detached container reported.
    #[error("{message}")]
    Reported {
        /// What failed.
        message: String,
        /// Why.
        #[source]
        cause: Option<Box<Error>>,
        /// What to do.
        hint: Option<String>,
        /// 125, 126 or 127.
        code: u8,
    },
}

impl Error {
    /// A refusal with no remedy.
    pub fn refused(what: impl Into<String>) -> Self {
        Error::Refused {
            what: what.into(),
            hint: None,
        }
    }

    /// A refusal with its remedy.
    pub fn refused_with(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Error::Refused {
            what: what.into(),
            hint: Some(hint.into()),
        }
    }

    /// A failed file operation.
    pub fn file(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Error::File {
            doing,
            path: path.to_owned(),
            source: source.into(),
        }
    }

    /// What a monitor reported through its pipe.
    pub(crate) fn reported(failure: coracle_monitor::Readiness) -> Self {
        let (hint, code) = (failure.hint, failure.code);
        let chain = failure
            .causes
            .into_iter()
            .rev()
            .fold(None, |cause, message| {
                Some(Box::new(Error::Reported {
                    message,
                    cause,
                    hint: None,
                    code,
                }))
            });
        Error::Reported {
            message: failure.error,
            cause: chain,
            hint,
            code,
        }
    }

    /// Says which verb failed on what; the error itself becomes the cause.
    pub fn during(self, doing: impl Into<String>) -> Self {
        Error::Step {
            doing: doing.into(),
            source: Box::new(self),
        }
    }

    /// What to do about it, where the engine knows.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::NoSuchContainer(_) => Some("`coracle ps -a` lists all containers".into()),
            Error::Ambiguous { .. } => Some("type more digits of the id".into()),
            Error::NameInUse { name, .. } => Some(format!(
                "remove or rename it first (`coracle rm {name}`), or choose another --name"
            )),
            Error::WrongState { hint, .. }
            | Error::Refused { hint, .. }
            | Error::Reported { hint, .. } => hint.clone(),
            Error::File { source, .. } => match source.raw_os_error() {
                Some(28) => Some(
                    "the file system is full: `coracle system prune` frees what nothing uses"
                        .into(),
                ),
                Some(122) => Some("a disk quota of this user or project is used up".into()),
                Some(13) | Some(1) => {
                    Some("run as root, or choose another --root and --run-root".into())
                }
                _ => None,
            },
            Error::Damaged { .. } => Some("`coracle rm -f` of that container removes it".into()),
            Error::Step { source, .. } => source.hint(),
            Error::Runtime(error) => error.hint(),
            Error::Cgroup(error) => error.hint(),
            Error::Image(error) => error.hint(),
            Error::Store(error) => error.hint(),
            Error::Monitor(error) => error.hint(),
        }
    }

    /// Docker's exit code for it: 127 the command was not found, 126 it cannot be invoked, 125 anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Step { source, .. } => source.exit_code(),
            Error::Runtime(error) => error.exit_code(),
            Error::Reported { code, .. } => *code,
            _ => 125,
        }
    }
}
