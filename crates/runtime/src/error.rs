//! What can go wrong, with what to do about it.

use std::path::PathBuf;

use rustix::io::Errno;

use crate::plan::{Place, Plan, word};
use crate::step::Step;
use std::sync::atomic::Ordering;

/// A failure to start a container or a process in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The document asks for something that does not make sense or that this engine does not do.
    #[error("{what} is not valid: {why}")]
    Invalid {
        /// The member of the document, with its value.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The process shall run as somebody whom its user namespace does not have.
    #[error("{what} {id} is not mapped: the container's user namespace does not have this id")]
    Unmapped {
        /// "user id" or "group id".
        what: &'static str,
        /// The number, as it is inside.
        id: u32,
        /// The engine itself runs in a user namespace, whose ids are all that there are.
        confined: bool,
    },
    /// The host side of the start failed.
    #[error("{action} {} failed", on.display())]
    Host {
        /// What was being done, a gerund: "opening".
        action: &'static str,
        /// On what.
        on: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The kernel did not make the process.
    #[error("creating the container's process failed")]
    Clone {
        /// Why.
        #[source]
        source: Errno,
    },
    /// A layer in one file could not be mounted.
    #[error("mounting the layer {}{} failed", path.display(), said(message))]
    Layer {
        /// The file.
        path: PathBuf,
        /// The kernel's words, if it had any.
        message: String,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The overlay could not be created.
    #[error("creating an overlay of {layers} layers with upper {}{} failed", upper.display(), said(message))]
    Overlay {
        /// The writable directory.
        upper: PathBuf,
        /// The number of lower layers.
        layers: usize,
        /// The kernel's words, if it had any.
        message: String,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The process failed on its way, before it could exec.
    #[error("{step}{} failed", on.as_ref().map(|on| format!(" {on}")).unwrap_or_default())]
    Step {
        /// Where it was.
        step: Step,
        /// On what, when the step has an object.
        on: Option<String>,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The command could not be executed in the container.
    #[error("cannot execute \"{command}\" in the container")]
    Command {
        /// As it was asked for.
        command: String,
        /// Why. ENOENT is exit code 127, all else 126.
        #[source]
        source: Errno,
    },
    /// The file exists, but the interpreter that it names (`#!` or ELF) does not.
    #[error("\"{command}\" exists in the container, but the interpreter that it names does not")]
    Interpreter {
        /// As it was asked for.
        command: String,
        /// Always ENOENT.
        #[source]
        source: Errno,
    },
    /// The command leads to the engine's own executable, as a link to /proc/self/exe does: it is not executed inside
    /// (CVE-2019-5736).
    #[error("\"{command}\" in the container leads to the engine's own executable")]
    OwnExecutable {
        /// As it was asked for.
        command: String,
        /// Always EACCES.
        #[source]
        source: Errno,
    },
    /// A hook failed.
    #[error("a hook that runs before the container's command failed")]
    Hook(#[source] crate::BoxError),
    /// The listener of a seccomp filter could not be handed over.
    #[error("handing over the listener of the seccomp filter failed")]
    Listener(#[source] crate::BoxError),
    /// [`crate::Start::prepare`] failed.
    #[error("preparing the container's root file system failed")]
    Prepare(#[source] crate::BoxError),
    /// The filter could not be compiled.
    #[error("the seccomp filter cannot be compiled")]
    Seccomp(#[from] crate::seccomp::Error),
    /// Somebody or something (the out-of-memory killer) killed the process while it was being set up.
    #[error("the process was killed while {during}")]
    Killed {
        /// The last step that it told of.
        during: Step,
    },
    /// The container of an exec is gone.
    #[error("process {pid}, the first of the container, is not running any more")]
    Gone {
        /// Its pid.
        pid: i32,
    },
    /// The executable of the engine could be overwritten from inside (CVE-2019-5736): see [`crate::seal`].
    #[error(
        "this container shares the host's user ids and could overwrite the engine's executable"
    )]
    Unsealed,
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(" ({message})")
    }
}

impl Error {
    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid {
            what: what.into(),
            why: why.into(),
        }
    }

    pub(crate) fn host(action: &'static str, on: impl Into<PathBuf>, source: Errno) -> Self {
        Self::Host {
            action,
            on: on.into(),
            source,
        }
    }

    /// The exit code that the conventions of Docker give: 127 for a command that is not there, 126 for one that cannot
    /// be invoked, 125 for everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Command {
                source: Errno::NOENT,
                ..
            }
            | Self::Interpreter { .. } => 127,
            Self::Command { .. } | Self::OwnExecutable { .. } => 126,
            _ => 125,
        }
    }

    /// What the operator can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Unmapped { confined: true, .. } => {
                "an ordinary user has its own id alone until it is given a range in /etc/subuid and /etc/subgid \
                 (`usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER`) and newuidmap is installed; \
                 running containers keep the ids that they started with"
            }
            Self::Unmapped {
                confined: false, ..
            } => "choose an id that --userns maps, or map this one",
            Self::Clone { source } => return clone_hint(*source),
            Self::Step {
                step: Step::CreatingNamespaces,
                source,
                ..
            } => return clone_hint(*source),
            Self::Host {
                source: Errno::PERM,
                ..
            }
            | Self::Overlay {
                source: Errno::PERM,
                ..
            } => {
                "the caller lacks a privilege for this; run as root, or rootless with directories of its own"
            }
            Self::Host {
                action: "mapping the ids of",
                source: Errno::INVAL,
                ..
            } => {
                "this file system has no id mapping on this kernel; keep the data on ext4, xfs, btrfs or tmpfs, \
                 or run with --userns host"
            }
            Self::Layer {
                source: Errno::NOTBLK | Errno::NODEV,
                ..
            } => {
                "this kernel cannot mount EROFS straight from a file (Linux 6.12); use the store's directory driver"
            }
            Self::Overlay {
                source: Errno::TOOBIG,
                ..
            } => {
                "this kernel takes the layers in one page of text; flatten the image to fewer layers"
            }
            Self::Overlay {
                source: Errno::NODEV,
                ..
            } => "the kernel has no overlay file system: modprobe overlay",
            Self::Overlay { message, .. }
                if message.contains("incompat") || message.contains("volatile") =>
            {
                "the upper directory was used by a volatile container that did not end cleanly; it cannot be used again"
            }
            Self::Step {
                step: Step::Pivoting,
                source: Errno::INVAL,
                ..
            } => {
                "the host's root is an initramfs, which nothing can pivot out of; boot from a real root file system"
            }
            Self::Step {
                step: Step::PreparingMount | Step::MountingProcForSysctl,
                source: Errno::PERM,
                ..
            } => {
                "the kernel lets a user namespace mount proc and sysfs only where the caller sees them whole: \
                 something is mounted over parts of /proc or /sys here"
            }
            Self::Step {
                step: Step::JoiningKeyring,
                source: Errno::DQUOT,
                ..
            } => "the user's key quota is used up: raise /proc/sys/kernel/keys/maxkeys",
            Self::Step {
                step: Step::TargetOnProc,
                ..
            } => "nothing but a few files may be mounted inside of /proc",
            Self::Command {
                source: Errno::NOENT,
                ..
            } => {
                "the command is not in the container's PATH, or the path does not exist in the image"
            }
            Self::Command {
                source: Errno::ACCESS,
                ..
            } => {
                "the file is not executable for this user, is a directory, or lies on a noexec mount"
            }
            Self::Command {
                source: Errno::NOEXEC,
                ..
            } => "the file is a program of another architecture, or a script without a #! line",
            Self::Interpreter { .. } => {
                "the image lacks the program's dynamic loader, or the script's interpreter (line ends of DOS?)"
            }
            Self::OwnExecutable { .. } => {
                "the command is a link to /proc/self/exe or its like, which only an attack has (CVE-2019-5736); \
                 to run the engine inside, bind its file to a path of the container"
            }
            Self::Unsealed => "start the engine through coracle_runtime::seal::ensure",
            Self::Gone { .. } => "start the container first",
            _ => return None,
        };
        Some(text.to_owned())
    }
}

/// What the child of `plan`, which has ended before its exec, says of the reason.
pub(crate) fn describe(plan: &Plan) -> Error {
    let read = |index| plan.mailbox.word(index).load(Ordering::Acquire);
    let step = Step::from_word(read(word::STEP));
    let errno = read(word::ERRNO);
    if errno == 0 {
        return Error::Killed { during: step };
    }
    let source = Errno::from_raw_os_error(errno as i32);
    of_step(
        step,
        object(plan, step, read(word::ON) as usize),
        &plan.name,
        source,
    )
}

/// The failure of one step; `command` is what was to be executed, `on` the step's object.
pub(crate) fn of_step(step: Step, on: Option<String>, command: &str, source: Errno) -> Error {
    let command = command.to_owned();
    match step {
        Step::Executing => Error::Command { command, source },
        Step::ExecutingInterpreted => Error::Interpreter { command, source },
        Step::ExecutingEngine => Error::OwnExecutable { command, source },
        step => Error::Step { step, on, source },
    }
}

/// What the step was at.
fn object(plan: &Plan, step: Step, index: usize) -> Option<String> {
    let inside = |path: &std::ffi::CStr| format!("/{}", path.to_string_lossy());
    let container = match &plan.place {
        Place::Container(container) => Some(container),
        Place::Join(_) => None,
    };
    let tree = container.and_then(|container| container.file_system.as_ref());
    match step {
        Step::PreparingMount
        | Step::Mounting
        | Step::ResolvingTarget
        | Step::TargetOnProc
        | Step::MakingMountReadOnly => tree?.mounts.get(index).map(|mount| inside(&mount.target)),
        Step::MakingDevice => tree?.devices.get(index).map(|device| inside(&device.path)),
        Step::Linking => {
            let link = tree?.links.get(index)?;
            Some(format!(
                "{}/{}",
                inside(&link.directory),
                link.name.to_string_lossy()
            ))
        }
        Step::Masking => tree?.masked.get(index).map(|path| inside(path)),
        Step::MakingReadOnly => tree?.read_only.get(index).map(|path| inside(path)),
        Step::SettingSysctl => container?
            .sysctls
            .get(index)
            .map(|sysctl| inside(&sysctl.path)),
        Step::SettingHostName => container?
            .host_name
            .as_ref()
            .map(|name| name.to_string_lossy().into_owned()),
        Step::SettingDomainName => container?
            .domain_name
            .as_ref()
            .map(|name| name.to_string_lossy().into_owned()),
        Step::SettingRlimit => plan
            .command
            .rlimits
            .get(index)
            .map(|(resource, _)| format!("{resource:?}")),
        Step::EnteringWorkingDirectory
        | Step::WorkingDirectoryOutside
        | Step::MakingWorkingDirectory => Some(
            plan.command
                .working_directory
                .to_string_lossy()
                .into_owned(),
        ),
        Step::SettingUid => plan
            .command
            .identity
            .get()
            .map(|identity| identity.uid.as_raw().to_string()),
        Step::SettingGid => plan
            .command
            .identity
            .get()
            .map(|identity| identity.gid.as_raw().to_string()),
        _ => None,
    }
}

/// Why there is no process, or no namespace.
fn clone_hint(source: Errno) -> Option<String> {
    let limit = |name: &str| coracle_linux::kernel::sysctl(name);
    match source {
        Errno::PERM | Errno::NOSPC if limit("user/max_user_namespaces") == Some(0) => Some(
            "user.max_user_namespaces is 0 on this host; set it above 0, or run as root with --userns host".to_owned(),
        ),
        Errno::PERM if limit("kernel/unprivileged_userns_clone") == Some(0) => {
            Some("kernel.unprivileged_userns_clone is 0 on this host; set it to 1, or run as root".to_owned())
        }
        Errno::PERM if limit("kernel/apparmor_restrict_unprivileged_userns") == Some(1) => Some(
            "kernel.apparmor_restrict_unprivileged_userns is 1 on this host; set it to 0, or give the engine a profile"
                .to_owned(),
        ),
        Errno::PERM => Some("making namespaces needs CAP_SYS_ADMIN, or a user namespace of its own".to_owned()),
        Errno::NOSPC => Some("a limit under /proc/sys/user, or the depth of 32 namespaces, is reached".to_owned()),
        Errno::AGAIN => Some("a limit on processes is reached: ulimit -u, or pids.max of our cgroup".to_owned()),
        Errno::INVAL => Some("the kernel lacks a kind of namespace, or the time namespace (Linux 5.6)".to_owned()),
        _ => None,
    }
}
