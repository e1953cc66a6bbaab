//! From a request to a plan: everything is read, checked and computed here, before the clone.
//!
//! What comes out is in two parts: the [`Plan`] that the child walks, and the [`Work`] that its parent does meanwhile.

mod capabilities;
mod cgroups;
mod command;
mod devices;
mod hooks;
mod host;
mod limits;
mod mounts;
mod namespaces;
mod null;
mod options;
mod placement;
mod root;
mod sysctl;

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use coracle_linux::clone::Mailbox;
use coracle_linux::descriptor::Slot;
use coracle_linux::namespace;
use coracle_linux::procfs::Proc;
use oci_spec::runtime::LinuxSeccomp;
use rustix::process::{PidfdFlags, getpid, pidfd_open};

pub(crate) use capabilities::all as all_capabilities;
pub(crate) use command::{INIT, Process, compile, identity};
pub(crate) use host::{Host, outside};
pub(crate) use limits::{Raise, own_oom_score_adj};
pub(crate) use namespaces::maps_of;
pub(crate) use placement::security_modules;

use crate::Error;
use crate::plan::{Container, Gate, Join, Place, Plan};
use crate::request::{Exec, IdMapping, Map, Prepare, Root, Start};
use crate::seal;
use crate::state::Clamp;

/// Whose user namespace idmapped mounts are made with.
#[derive(Debug)]
pub(crate) enum Idmap {
    /// The container's.
    Container,
    /// One made for these maps alone.
    Own { uids: Vec<Map>, gids: Vec<Map> },
}

/// A bind source that the parent opens.
#[derive(Debug)]
pub(crate) struct Bind {
    /// The mount it is for, an index into the plan's.
    pub(crate) mount: usize,
    pub(crate) source: PathBuf,
    pub(crate) recursive: bool,
    /// With whether the mapping is recursive.
    pub(crate) idmap: Option<(Idmap, bool)>,
}

/// A tmpfs that the parent makes and fills from the image.
#[derive(Debug)]
pub(crate) struct CopyUp {
    /// The mount it is for, an index into the plan's.
    pub(crate) mount: usize,
    /// What it stands for, relative to the root.
    pub(crate) target: CString,
    /// As in [`crate::plan::Source::New`].
    pub(crate) config: Vec<(CString, Option<CString>)>,
    pub(crate) attributes: u64,
}

/// A device node of the host that the parent opens.
#[derive(Debug)]
pub(crate) struct HostDevice {
    /// An index into the plan's devices.
    pub(crate) device: usize,
    pub(crate) path: PathBuf,
    pub(crate) number: u64,
}

/// What the parent does, before the clone and beside the child.
pub(crate) struct Work<'a> {
    /// `CLONE_NEW*` for the clone itself.
    pub(crate) clone: u64,
    /// Namespaces that the cloning thread enters for the time of the clone.
    pub(crate) visits: Vec<(OwnedFd, u64)>,
    /// A cgroup v2 to be born in.
    pub(crate) cgroup: Option<OwnedFd>,
    pub(crate) ids: IdMapping,
    /// The root, when the parent makes it.
    pub(crate) root: Option<Root>,
    pub(crate) binds: Vec<Bind>,
    pub(crate) copies: Vec<CopyUp>,
    pub(crate) devices: Vec<HostDevice>,
    pub(crate) raise: Vec<Raise>,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) clamp: bool,
    pub(crate) clamped: Vec<Clamp>,
    pub(crate) time_offsets: Option<String>,
    pub(crate) ids_written: bool,
    pub(crate) prepare: Option<&'a mut Prepare<'a>>,
    /// Compiled while the process makes its namespaces.
    pub(crate) filter: Option<&'a LinuxSeccomp>,
    /// What an identity is made of, when `prepare` gives it.
    pub(crate) process: Process,
    pub(crate) host: Host,
}

/// Resolves a start.
pub(crate) fn start(start: Start<'_>) -> Result<(Plan, Work<'_>), Error> {
    let Start {
        spec,
        root,
        ids,
        cgroup,
        stdio,
        preserved,
        init,
        clamp,
        files,
        gate,
        deviations,
        prepare,
    } = start;
    let host = Host::look(&ids)?;
    let document = spec.process().as_ref().ok_or_else(|| {
        Error::invalid("process", "a container without a process cannot be started")
    })?;
    refuse_unsupported(spec)?;
    let mut clamped = Vec::new();
    let mut spaces = namespaces::resolve(spec, &ids, &host)?;
    let process = Process::resolve(document, &ids, &host, init)?;
    let limits = limits::resolve(
        document.rlimits().as_deref().unwrap_or_default(),
        clamp,
        &mut clamped,
        &host,
    )?;
    let mut command = command::resolve(
        document,
        None,
        stdio,
        preserved,
        command::Limits {
            rlimits: limits.exact,
            clamp,
            clamped: &mut clamped,
        },
        &process,
        &host,
    )?;
    command.gate = gate.map(|gate| Gate {
        start: Slot::from(gate.start),
        outcome: Slot::from(gate.outcome),
    });
    command.new_session_keyring = !deviations.keep_keyring;
    command.personality = command::personality(spec)?;
    command.memory_policy = placement::memory_policy(spec)?;
    if prepare.is_none() {
        // New, so that it cannot be set already.
        let _ = command.identity.set(process.own_identity()?);
    }
    let (file_system, root, binds, copies, host_devices) = if spaces.new_mount {
        let tree = mounts::resolve(
            spec,
            root,
            &ids,
            &spaces,
            &host,
            mounts::Beside {
                controllers: cgroup.as_ref().map(|entry| &entry.controllers[..]),
                terminal: command.terminal.is_some(),
                init,
                no_pivot: deviations.no_pivot,
                files,
            },
        )?;
        let plan = Some(tree.plan);
        (plan, tree.root, tree.binds, tree.copies, tree.devices)
    } else {
        (None, None, Vec::new(), Vec::new(), Vec::new())
    };
    let sysctls = sysctl::resolve(spec, &spaces)?;
    let own_root = host.root_ids(&ids);
    let (clone_into, tasks) = match cgroup {
        Some(entry) => (entry.clone_into, entry.tasks),
        None => (None, Vec::new()),
    };
    let linux = spec.linux().as_ref();
    let container = Container {
        tasks,
        user_namespace: match &ids {
            IdMapping::Join { namespace, .. } => Some(copy(namespace)?),
            IdMapping::Host | IdMapping::Own { .. } => None,
        },
        join: std::mem::take(&mut spaces.join),
        successor: spaces.successor,
        unshare: spaces.unshare,
        wait_for_ids: matches!(ids, IdMapping::Own { .. }),
        root_ids: own_root,
        file_system,
        loopback: spaces.unshare & namespace::NETWORK != 0,
        hooks: hooks::before_pivot(spec),
        host_name: spec
            .hostname()
            .as_deref()
            .map(|name| string("hostname", name))
            .transpose()?,
        domain_name: spec
            .domainname()
            .as_deref()
            .map(|name| string("domainname", name))
            .transpose()?,
        sysctls,
    };
    if (container.host_name.is_some() || container.domain_name.is_some())
        && !spaces.has(namespace::UTS)
    {
        return Err(Error::invalid(
            "hostname",
            "it would rename the host: there is no new UTS namespace",
        ));
    }
    let time_offsets = namespaces::time_offsets(linux, &spaces)?;
    let oom_score_adj = limits::oom_score_adj(document)?;
    let plan = Plan {
        mailbox: mailbox()?,
        parent: ourselves()?,
        place: Place::Container(Box::new(container)),
        command,
        name: process.command().to_owned(),
        engine: seal::executable()?,
    };
    let work = Work {
        clone: spaces.clone,
        visits: spaces.visits,
        cgroup: clone_into,
        ids,
        root,
        binds,
        copies,
        devices: host_devices,
        raise: limits.raise,
        oom_score_adj,
        clamp,
        clamped,
        time_offsets,
        ids_written: false,
        prepare,
        filter: linux.and_then(|linux| linux.seccomp().as_ref()),
        process,
        host,
    };
    Ok((plan, work))
}

/// What an exec's parent has to do.
pub(crate) struct ExecWork {
    pub(crate) cgroup: Option<OwnedFd>,
    /// The container's pid namespace, when it is not ours.
    pub(crate) pid_namespace: Option<OwnedFd>,
    /// The caller has the rights to come back to its own pid namespace.
    pub(crate) may_return: bool,
    /// The kernel lets only a process with memory of its own join the namespaces.
    pub(crate) own_memory: bool,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) clamp: bool,
}

/// Resolves an exec into the container whose first process `pidfd` is.
pub(crate) fn exec(exec: Exec<'_>, pidfd: OwnedFd) -> Result<(Plan, ExecWork), Error> {
    let Exec {
        target,
        process: document,
        seccomp,
        cgroup,
        stdio,
        preserved,
        clamp,
    } = exec;
    let proc = Proc::host().map_err(|source| Error::host("opening", "/proc", source))?;
    let joined = namespaces::of_target(target.pid, proc)?;
    let ids = joined.ids;
    let host = Host::look(&ids)?;
    let mut clamped = Vec::new();
    let process = Process::resolve(document, &ids, &host, false)?;
    let limits = limits::resolve(
        document.rlimits().as_deref().unwrap_or_default(),
        clamp,
        &mut clamped,
        &host,
    )?;
    let mut command = command::resolve(
        document,
        seccomp,
        stdio,
        preserved,
        command::Limits {
            rlimits: limits.exact,
            clamp,
            clamped: &mut clamped,
        },
        &process,
        &host,
    )?;
    command.affinity = placement::affinity(document)?;
    // New, so that it cannot be set already.
    let _ = command.identity.set(process.own_identity()?);
    let (clone_into, tasks) = match cgroup {
        Some(entry) => (entry.clone_into, entry.tasks),
        None => (None, Vec::new()),
    };
    // A copy of the page tables of this small program takes 0.1 ms, little enough to be in the container's clocks.
    let own_memory = joined.namespaces & namespace::TIME != 0;
    let oom_score_adj = limits::oom_score_adj(document)?;
    let by_child = match oom_score_adj {
        Some(value) if own_memory => Some((copy(&proc)?, value.to_string().into_bytes())),
        _ => None,
    };
    let raise = limits
        .raise
        .iter()
        .filter_map(|raise| {
            let mut all = command.rlimits.iter();
            let index = all.position(|(resource, _)| *resource == raise.resource)?;
            Some((index, raise.limit))
        })
        .collect();
    let join = Join {
        pidfd,
        raise,
        namespaces: joined.namespaces,
        tasks,
        root_ids: host.root_ids(&ids),
        oom_score_adj: by_child,
    };
    let plan = Plan {
        mailbox: mailbox()?,
        parent: ourselves()?,
        place: Place::Join(join),
        command,
        name: process.command().to_owned(),
        engine: seal::executable()?,
    };
    let work = ExecWork {
        cgroup: clone_into,
        pid_namespace: joined.pid,
        may_return: host.initial,
        own_memory,
        oom_score_adj: if own_memory { None } else { oom_score_adj },
        clamp,
    };
    Ok((plan, work))
}

fn mailbox() -> Result<Mailbox, Error> {
    Mailbox::new().map_err(|source| Error::host("mapping", "a page of shared memory", source))
}

fn ourselves() -> Result<OwnedFd, Error> {
    pidfd_open(getpid(), PidfdFlags::empty())
        .map_err(|source| Error::host("opening", "a descriptor of our own process", source))
}

/// Another descriptor of the same thing.
fn copy(fd: &impl std::os::fd::AsFd) -> Result<OwnedFd, Error> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3)
        .map_err(|source| Error::host("copying", "a descriptor", source))
}

/// A string of the document as the kernel takes it.
fn string(what: &str, text: &str) -> Result<CString, Error> {
    CString::new(text)
        .map_err(|_| Error::invalid(format!("{what} {text:?}"), "it has a null byte in it"))
}

/// An absolute path of the document, relative to the root: `proc` for `/proc`, `.` for `/`.
fn in_root(what: &str, path: &Path) -> Result<CString, Error> {
    let text = path
        .to_str()
        .ok_or_else(|| Error::invalid(format!("{what} {}", path.display()), "it is not UTF-8"))?;
    let Some(relative) = text.strip_prefix('/') else {
        return Err(Error::invalid(
            format!("{what} {text:?}"),
            "it is not an absolute path",
        ));
    };
    let relative = relative.trim_start_matches('/').trim_end_matches('/');
    if relative.len() >= 4096 {
        return Err(Error::invalid(
            format!("{what} {text:.40}…"),
            "a path has at most 4,095 bytes",
        ));
    }
    string(what, if relative.is_empty() { "." } else { relative })
}

/// What the document can ask for and this runtime does not do: refused rather than passed over.
fn refuse_unsupported(spec: &oci_spec::runtime::Spec) -> Result<(), Error> {
    let no = |what: &str, why: &str| Err(Error::invalid(what, why));
    let Some(linux) = spec.linux() else {
        return Ok(());
    };
    if linux.intel_rdt().is_some() {
        return no("linux.intelRdt", "Intel RDT is not supported");
    }
    if linux
        .net_devices()
        .as_ref()
        .is_some_and(|devices| !devices.is_empty())
    {
        return no(
            "linux.netDevices",
            "moving network devices is the engine's business",
        );
    }
    Ok(())
}
