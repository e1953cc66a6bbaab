//! What the parent does: the clone, and then, beside its child, all that needs rights which the child does not have.

mod binds;
mod copy_up;
mod ids;
mod overlay;
mod users;

pub(crate) use overlay::mount_layer;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub(crate) use users::maps as maps_of_namespace;

use coracle_linux::clone::{Birth, Entry, Process, Sharing};
use coracle_linux::descriptor::Slot;
use coracle_linux::namespace::Visit;
use coracle_linux::procfs::Proc;
use coracle_linux::{futex, pidfd};
use rustix::io::Errno;
use rustix::process::prlimit;

use crate::child;
use crate::error::describe;
use crate::plan::{Container, Node, Place, Plan, Source, word};
use crate::request::IdMapping;
use crate::resolve::{ExecWork, Host, Raise, Work, compile, identity};
use crate::state::Clamp;
use crate::{Error, Root, process};

/// Enough for three paths of 4 KiB and the frames around them, also without optimization.
const STACK: usize = 128 * 1024;

/// Clones the container's first process.
pub(crate) fn spawn(plan: Plan, work: &mut Work<'_>) -> Result<Process<Plan>, Error> {
    let mut visit = Visit::new();
    let mut visited = Vec::new();
    for (fd, kind) in std::mem::take(&mut work.visits) {
        match visit.enter(fd.as_fd(), kind) {
            Ok(()) => visited.push(fd),
            Err(source) => {
                return Err(Error::host(
                    "joining",
                    "a namespace of another container",
                    source,
                ));
            }
        }
    }
    let birth = Birth {
        namespaces: work.clone,
        cgroup: work.cgroup.as_ref().map(AsFd::as_fd),
        sharing: Sharing::Memory,
        stack: STACK,
        successor: matches!(&plan.place, Place::Container(container) if container.successor.is_some()),
    };
    let entry = Entry {
        child: child::run,
        successor: child::run_successor,
    };
    Process::spawn(&birth, plan, entry).map_err(|source| Error::Clone { source })
}

/// Clones a process that goes into a running container. The thread stays in its pid namespace where it has no rights to
/// come back from there ([`ExecWork::may_return`]), and must end.
pub(crate) fn spawn_into(plan: Plan, work: &ExecWork) -> Result<Process<Plan>, Error> {
    let mut visit = Visit::new();
    if let Some(pid_namespace) = &work.pid_namespace {
        let pid = coracle_linux::namespace::PID;
        match work.may_return {
            true => visit.enter(pid_namespace.as_fd(), pid),
            false => coracle_linux::namespace::join(pid_namespace.as_fd(), pid),
        }
        .map_err(|source| Error::host("joining", "the container's pid namespace", source))?;
    }
    let birth = Birth {
        namespaces: 0,
        cgroup: work.cgroup.as_ref().map(AsFd::as_fd),
        sharing: if work.own_memory {
            Sharing::Copy
        } else {
            Sharing::Memory
        },
        stack: STACK,
        successor: false,
    };
    let entry = Entry {
        child: child::run,
        successor: child::run_successor,
    };
    Process::spawn(&birth, plan, entry).map_err(|source| Error::Clone { source })
}

/// See [`crate::mount_root`].
pub(crate) fn mount_root(root: &Root) -> Result<OwnedFd, Error> {
    let host = Host::look(&IdMapping::Host)?;
    Ok(overlay::root(root, None, &IdMapping::Host, host.initial)?.root)
}

/// Everything that the child waits for.
pub(crate) fn serve(process: &mut Process<Plan>, work: &mut Work<'_>) -> Result<(), Error> {
    if matches!(&process.plan().place, Place::Container(container) if container.successor.is_some())
    {
        process.wait_while(coracle_linux::clone::Mailbox::UNDER_WAY);
        if process.follow().is_err() {
            return Err(describe(process.plan()));
        }
    }
    let pid = process.pid().as_raw_nonzero().get();
    let proc = Proc::host().map_err(|source| Error::host("opening", "/proc", source))?;
    write_ids(process, work)?;
    futex::set(process.plan().mailbox.word(word::IDS), 1);
    raise(process, &work.raise)?;
    let Place::Container(container) = &process.plan().place else {
        return Ok(());
    };
    let namespace = match &work.ids {
        IdMapping::Host => None,
        IdMapping::Join { namespace, .. } => Some(
            rustix::io::fcntl_dupfd_cloexec(namespace, 3)
                .map_err(|source| Error::host("copying", "the user namespace", source))?,
        ),
        IdMapping::Own { .. } if work.root.is_some() => {
            Some(user_namespace(process.pidfd(), pid, proc)?)
        }
        IdMapping::Own { .. } => None,
    };
    let namespace = namespace.as_ref().map(AsFd::as_fd);
    let prepared = give_mounts(container, work, namespace, process)?;
    if let Some(user) = prepared {
        let identity = identity(&work.process, &user)?;
        if process.plan().command.identity.set(identity).is_err() {
            return Err(Error::invalid("prepare", "the user is known already"));
        }
    }
    if let Some(filter) = work.filter {
        // New, so that it cannot be set already.
        let _ = process.plan().command.seccomp.set(compile(filter)?);
    }
    futex::set(process.plan().mailbox.word(word::ROOT), 1);
    Ok(())
}

/// The id maps and the clocks of the new namespaces, once.
pub(crate) fn write_ids(process: &Process<Plan>, work: &mut Work<'_>) -> Result<(), Error> {
    let pid = process.pid().as_raw_nonzero().get();
    let proc = Proc::host().map_err(|source| Error::host("opening", "/proc", source))?;
    if std::mem::replace(&mut work.ids_written, true) {
        return Ok(());
    }
    if let IdMapping::Own { uids, gids } = &work.ids {
        ids::write(proc, pid, uids, gids, work.host.may_map_any())?;
    }
    if let Some(offsets) = &work.time_offsets {
        let path = format!("{pid}/timens_offsets");
        proc.write(&path, offsets)
            .map_err(|source| Error::host("writing", format!("/proc/{path}"), source))?;
    }
    Ok(())
}

/// The root, the bind sources and the devices, into their slots; then the caller's look at the root.
fn give_mounts(
    container: &Container,
    work: &mut Work<'_>,
    namespace: Option<BorrowedFd<'_>>,
    process: &Process<Plan>,
) -> Result<Option<crate::RunAs>, Error> {
    let Some(tree) = &container.file_system else {
        return match &mut work.prepare {
            None => Ok(None),
            Some(_) => Err(Error::invalid(
                "prepare",
                "a container without a mount namespace has no root to look at",
            )),
        };
    };
    let root = match &tree.root {
        Source::Given { mount } => {
            if let Some(root) = work.root.take() {
                let made = overlay::root(&root, namespace, &work.ids, work.host.initial)?;
                mount.put(made.root);
                for (slot, spent) in tree.spent.iter().zip(made.spent) {
                    slot.put(spent);
                }
            }
            mount
        }
        Source::New { made, .. } | Source::Path { made, .. } => {
            if work.prepare.is_some() {
                wait_for_own_root(process)?;
            }
            made
        }
    };
    let mountinfo = binds::mount_table(&work.binds)?;
    for bind in &work.binds {
        let Some(Source::Given { mount }) = tree.mounts.get(bind.mount).map(|step| &step.source)
        else {
            continue;
        };
        mount.put(binds::open(bind, &mountinfo, namespace)?);
    }
    for copy in &work.copies {
        let Some(Source::Given { mount }) = tree.mounts.get(copy.mount).map(|step| &step.source)
        else {
            continue;
        };
        mount.put(copy_up::make(copy, borrow(root)?)?);
    }
    for device in &work.devices {
        let Some(Node::Bind { mount }) = tree.devices.get(device.device).map(|device| &device.node)
        else {
            continue;
        };
        mount.put(binds::open_device(device)?);
    }
    let Some(prepare) = &mut work.prepare else {
        return Ok(None);
    };
    let root = borrow(root)?;
    prepare(root).map(Some).map_err(Error::Prepare)
}

fn borrow(slot: &Slot) -> Result<BorrowedFd<'_>, Error> {
    slot.borrow()
        .ok_or_else(|| Error::host("opening", "the root file system", Errno::BADF))
}

/// Until the child has made its root, or failed.
fn wait_for_own_root(process: &Process<Plan>) -> Result<(), Error> {
    let plan = process.plan();
    let watch = std::time::Duration::from_millis(50);
    while futex::wait_while(plan.mailbox.word(word::OWN_ROOT), 0, Some(watch)) == 0 {
        if pidfd::has_ended(process.pidfd()).unwrap_or(true) {
            return Err(describe(plan));
        }
    }
    Ok(())
}

/// The user namespace of the child.
fn user_namespace(pidfd: BorrowedFd<'_>, pid: i32, proc: &Proc) -> Result<OwnedFd, Error> {
    match coracle_linux::pidfd::namespace(pidfd, coracle_linux::namespace::USER) {
        Ok(fd) => Ok(fd),
        // Before Linux 6.11.
        Err(Errno::NOTTY | Errno::INVAL) => proc
            .namespace(pid, "user")
            .map_err(|source| Error::host("opening", format!("/proc/{pid}/ns/user"), source)),
        Err(source) => Err(Error::host(
            "opening",
            "the container's user namespace",
            source,
        )),
    }
}

/// Hard limits that only we may raise; the child sets the exact values in the end.
fn raise(process: &Process<Plan>, limits: &[Raise]) -> Result<(), Error> {
    for raise in limits {
        prlimit(Some(process.pid()), raise.resource, raise.limit)
            .map_err(|source| Error::host("raising the hard limit", &raise.name, source))?;
    }
    Ok(())
}

/// Sets the score of a process. While it shares our memory, the kernel sets ours as well: [`OomScore::drop`] brings that
/// back.
#[derive(Debug)]
pub(crate) struct OomScore {
    own: i32,
    /// One start at a time may change the score of all who share our memory.
    _alone: std::sync::MutexGuard<'static, ()>,
}

static OOM_SCORE: std::sync::Mutex<()> = std::sync::Mutex::new(());

impl OomScore {
    pub(crate) fn set(
        pid: i32,
        asked: i32,
        clamp: bool,
        clamped: &mut Vec<Clamp>,
    ) -> Result<Option<Self>, Error> {
        let alone = OOM_SCORE
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let own = crate::resolve::own_oom_score_adj()?;
        let score = Self { own, _alone: alone };
        match process::write_oom_score_adj(pid, asked) {
            Ok(()) => Ok(Some(score)),
            Err(Errno::ACCESS | Errno::PERM) if clamp => {
                clamped.push(Clamp {
                    what: "oom_score_adj".to_owned(),
                    asked: asked.into(),
                    given: own.into(),
                });
                Ok(None)
            }
            Err(source) => Err(Error::host(
                "writing",
                format!("/proc/{pid}/oom_score_adj"),
                source,
            )),
        }
    }
}

impl Drop for OomScore {
    fn drop(&mut self) {
        // What was ours is not below the least that we may have.
        let _ = process::write_oom_score_adj(
            rustix::process::getpid().as_raw_nonzero().get(),
            self.own,
        );
    }
}
