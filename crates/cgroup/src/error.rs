//! The one error of this crate: what failed, on which file, with which value, and what to do about it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use crate::controller::Controller;

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why something about a cgroup could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No cgroup can be made here, but something was asked for that needs one.
    #[error("{wanted} needs a cgroup, and none can be made here: {reason}")]
    Unavailable {
        /// The limit or action that was asked for.
        wanted: String,
        /// Why no cgroup can be made, from [`Layout::Unavailable`](crate::Layout::Unavailable).
        reason: String,
        /// What would make it possible.
        remedy: Option<String>,
    },
    /// The hierarchy exists, but lacks the controller that a limit needs.
    #[error(
        "{wanted} needs the cgroup controller \"{controller}\", which is not available: {reason}"
    )]
    ControllerMissing {
        /// The limit or action that was asked for.
        wanted: String,
        /// The controller that it needs.
        controller: Controller,
        /// Why the controller is not there.
        reason: String,
        /// What would make it available.
        remedy: Option<String>,
    },
    /// The controller is there, but this kernel's version of it cannot do what was asked.
    #[error("{wanted} is not possible with this cgroup version: {reason}")]
    Unsupported {
        /// The limit or action that was asked for.
        wanted: String,
        /// Why it is not possible.
        reason: String,
        /// What to do instead.
        remedy: Option<String>,
    },
    /// A limit's value makes no sense, before any kernel was asked.
    #[error("invalid value {value:?} for {limit}: {reason}")]
    InvalidLimit {
        /// The limit's name.
        limit: &'static str,
        /// The value as given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A cgroup path that would lead elsewhere or cannot be a directory's name.
    #[error("invalid cgroup path {path:?}: {reason}")]
    InvalidPath {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A device rule that neither version of cgroups can express.
    #[error("invalid device rule {rule:?}: {reason}")]
    InvalidDeviceRule {
        /// The rule as given.
        rule: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A limit would go below what is in use: refused, since it would kill instead of limit.
    #[error(
        "cannot set {limit} of {path:?} to {wanted}: {used} are in use and cannot be reclaimed"
    )]
    BelowUse {
        /// The limit's name.
        limit: &'static str,
        /// The cgroup's directory.
        path: PathBuf,
        /// The limit that was asked for (bytes).
        wanted: u64,
        /// What is in use (bytes).
        used: u64,
    },
    /// A control file could not be read.
    #[error("cannot read {file:?}")]
    Read {
        /// The file.
        file: PathBuf,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// A control file did not take a value.
    #[error("cannot write {value:?} to {file:?}")]
    Write {
        /// The file.
        file: PathBuf,
        /// What was written.
        value: String,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// A change failed, and so did going back to the values before it.
    #[error(
        "{failed}; and {file:?} could not be set back to {value:?}, so the change is half done"
    )]
    Rollback {
        /// The failure that made going back necessary.
        failed: Box<Error>,
        /// The file that kept the new value.
        file: PathBuf,
        /// The old value.
        value: String,
        /// The kernel's answer to the old value.
        #[source]
        source: Errno,
    },
    /// A control file says something that this crate does not understand.
    #[error("cannot understand {file:?}: {content:?}")]
    Parse {
        /// The file.
        file: PathBuf,
        /// The part that is not understood.
        content: String,
    },
    /// A cgroup's directory could not be made.
    #[error("cannot create the cgroup {path:?}")]
    Create {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// A cgroup of this name is there already.
    #[error("the cgroup {path:?} exists already")]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// No hierarchy has this cgroup.
    #[error("there is no cgroup {path:?}")]
    NotFound {
        /// The path, as in [`CgroupPath`](crate::CgroupPath).
        path: String,
    },
    /// A cgroup's directory could not be opened.
    #[error("cannot open the cgroup {path:?}")]
    Open {
        /// The directory or file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// A cgroup's directory could not be removed.
    #[error("cannot remove the cgroup {path:?}")]
    Remove {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// The parent has processes of its own, so that the kernel lets it hand no controller down.
    #[error("the cgroup {path:?} has processes of its own and cannot have limited children")]
    InternalProcesses {
        /// The parent.
        path: PathBuf,
        /// How many processes are in it.
        count: usize,
    },
    /// More than one step failed; all were tried.
    #[error("{first}; besides: {}", others.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several {
        /// The first failure.
        #[source]
        first: Box<Error>,
        /// Those after it.
        others: Vec<Error>,
    },
    /// Processes did not do in time what they were told.
    #[error("{action} of the cgroup {path:?} did not finish within {waited:?}")]
    Timeout {
        /// What was waited for.
        action: &'static str,
        /// The directory.
        path: PathBuf,
        /// How long.
        waited: Duration,
    },
    /// A process of the cgroup could not be signalled.
    #[error("cannot signal process {pid} of the cgroup {path:?}")]
    Signal {
        /// The process.
        pid: i32,
        /// The cgroup's directory.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
    /// The device program could not be loaded or attached.
    #[error("cannot restrict devices of the cgroup {path:?}")]
    DeviceProgram {
        /// The directory.
        path: PathBuf,
        /// What `bpf(2)` said.
        #[source]
        source: coracle_linux::bpf::Error,
    },
    /// A notification descriptor could not be made.
    #[error("cannot watch {file:?}")]
    Watch {
        /// The file to be watched.
        file: PathBuf,
        /// The kernel's answer.
        #[source]
        source: Errno,
    },
}

impl Error {
    /// What to do about it, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Unavailable { remedy, .. }
            | Error::ControllerMissing { remedy, .. }
            | Error::Unsupported { remedy, .. } => remedy.clone(),
            Error::BelowUse { limit, used, .. } => Some(format!(
                "choose {limit} above {used}, or free memory inside the container first"
            )),
            Error::InternalProcesses { path, .. } => Some(format!(
                "move them into a leaf first: mkdir {0}/leaf && for p in $(cat {0}/cgroup.procs); do echo $p > {0}/leaf/cgroup.procs; done",
                path.display()
            )),
            Error::Exists { path } => Some(format!(
                "if nothing runs in it (cat {0}/cgroup.procs), remove it with: rmdir {0}",
                path.display()
            )),
            Error::Timeout { path, .. } => Some(format!(
                "a process of {} is stuck in the kernel (state D, for instance on a dead NFS server or a broken disk); see its /proc/PID/stack",
                path.display()
            )),
            Error::Rollback { failed, .. } => failed.hint(),
            Error::Several { first, .. } => first.hint(),
            Error::DeviceProgram { source, .. } => source.hint(),
            Error::Write { file, source, .. } => write_hint(file, *source),
            Error::Create { source, .. } => match *source {
                Errno::NOSPC | Errno::AGAIN => Some(
                    "the limit of cgroups (cgroup.max.descendants, cgroup.max.depth) or of memory is reached; remove cgroups that are not in use".into(),
                ),
                Errno::ACCESS | Errno::PERM | Errno::ROFS => {
                    Some("run as root, or in a cgroup that is delegated to you: systemd-run --user --scope -p Delegate=yes COMMAND".into())
                }
                _ => None,
            },
            _ => None,
        }
    }
}

/// One error for several steps that were all tried; `Ok` without any.
pub(crate) fn all(errors: Vec<Error>) -> Result<()> {
    let mut errors = errors.into_iter();
    match (errors.next(), errors.as_slice().is_empty()) {
        (None, _) => Ok(()),
        (Some(only), true) => Err(only),
        (Some(first), false) => Err(Error::Several {
            first: Box::new(first),
            others: errors.collect(),
        }),
    }
}

/// What an errno of a control file means to whoever set the limit.
fn write_hint(file: &Path, source: Errno) -> Option<String> {
    let name = file.file_name()?.to_str()?;
    match (name, source) {
        ("cpu.rt_runtime_us", Errno::INVAL) => Some(
            "real-time time must fit into the parent cgroup's cpu.rt_runtime_us; a group without any cannot run SCHED_FIFO or SCHED_RR".into(),
        ),
        (name, Errno::INVAL) if name.starts_with("cpu.") => Some(
            "the period must be 1000 to 1000000 us, the quota at least 1000 us, and the share of a CPU at most the parent cgroup's".into(),
        ),
        (name, Errno::INVAL | Errno::RANGE | Errno::ACCESS) if name.starts_with("cpuset.") => Some(
            "only CPUs and memory nodes that are online and in the parent cgroup can be given; see cpuset.cpus(.effective) there".into(),
        ),
        (name, Errno::NODEV | Errno::NXIO | Errno::INVAL) if name.starts_with("io.") || name.starts_with("blkio.") => Some(
            "the device must be a whole disk (not a partition), named by MAJOR:MINOR as in /proc/partitions".into(),
        ),
        ("memory.oom_control", Errno::INVAL) => {
            Some("the OOM killer can only be disabled together with a memory limit".into())
        }
        (_, Errno::ACCESS | Errno::PERM | Errno::ROFS) => Some(
            "run as root, or in a cgroup that is delegated to you: systemd-run --user --scope -p Delegate=yes COMMAND".into(),
        ),
        _ => None,
    }
}
