//! Everything that the process does between clone and exec, as data.
//!
//! Made by `resolve`, filled up by `parent` (the [`Slot`]s), walked by `child`. Every string that the child passes to the
//! kernel is here already as a C string, every filter compiled, every number computed.
//!
//! The two talk through the words of the [`Mailbox`]:
//!
//! ```text
//! word  writer  meaning
//! 0     both    LIFE: 1 under way, 2 in its namespaces, 3 before the pivot, if hooks run there, 4 created, 5 waiting
//!               at its gate without a parent; the kernel: 0 at exec and exit
//! 1     parent  IDS: 1 when the id maps are written
//! 2     parent  ROOT: 1 when root, bind sources and devices are in their slots
//! 3     parent  START: 1 when the command may be executed
//! 4     child   STEP: where it is
//! 5     child   ON: the index of what it is at, in the list that the step goes through
//! 6     child   ERRNO: not 0 when the step failed; then it exits
//! 7     child   TERMINAL: 1 + the number of the pty's master in the shared file table
//! 8     child   OWN_ROOT: 1 when the child has made the root itself and put it into its slot
//! 9     parent  HOOKS: 1 when the hooks that come before the pivot have run
//! 10    child   LISTENER: 1 + the number, in its own file table, of the seccomp filter's listener
//! ```

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use coracle_linux::capability::Set;
use coracle_linux::clone::Mailbox;
use coracle_linux::descriptor::Slot;
use coracle_linux::mount::Attributes;
use coracle_linux::process::{MEMORY_NODES, Scheduling, StringArray};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CpuSet, Gid, Uid};

use crate::seccomp::Program;

/// Words of the mailbox.
pub(crate) mod word {
    pub(crate) const LIFE: usize = super::Mailbox::LIFE;
    pub(crate) const IDS: usize = 1;
    pub(crate) const ROOT: usize = 2;
    pub(crate) const START: usize = 3;
    pub(crate) const STEP: usize = 4;
    pub(crate) const ON: usize = 5;
    pub(crate) const ERRNO: usize = 6;
    pub(crate) const TERMINAL: usize = 7;
    pub(crate) const OWN_ROOT: usize = 8;
    pub(crate) const HOOKS: usize = 9;
    pub(crate) const LISTENER: usize = 10;
}

/// Values of the life word after `Mailbox::UNDER_WAY`.
pub(crate) mod life {
    pub(crate) const IN_NAMESPACES: u32 = 2;
    pub(crate) const BEFORE_PIVOT: u32 = 3;
    pub(crate) const CREATED: u32 = 4;
    pub(crate) const RELEASED: u32 = 5;
}

/// The whole.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) mailbox: Mailbox,
    /// Our own pidfd: readable when the parent is dead.
    pub(crate) parent: OwnedFd,
    pub(crate) place: Place,
    pub(crate) command: Command,
    /// The command as it was asked for, for errors.
    pub(crate) name: String,
    /// What the engine itself executes, which the command must not lead to.
    pub(crate) engine: Executable,
}

/// A file as one mount shows it: a bind of it elsewhere (the built-in init, an engine for use inside) is another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Executable {
    pub(crate) device: (u32, u32),
    pub(crate) inode: u64,
    pub(crate) mount: u64,
}

impl AsRef<Mailbox> for Plan {
    fn as_ref(&self) -> &Mailbox {
        &self.mailbox
    }
}

/// How the process gets to where the command runs.
#[derive(Debug)]
pub(crate) enum Place {
    /// Into a container of its own making.
    Container(Box<Container>),
    /// Into a running one.
    Join(Join),
}

/// A container to be made.
#[derive(Debug)]
pub(crate) struct Container {
    /// `tasks` files of cgroup v1 hierarchies.
    pub(crate) tasks: Vec<OwnedFd>,
    /// A user namespace to join first.
    pub(crate) user_namespace: Option<OwnedFd>,
    /// Namespaces that the parent could not enter for us; joined after the user namespace.
    pub(crate) join: Vec<(OwnedFd, u64)>,
    /// After joining, a successor is born in these new namespaces and goes on: those (pid, time) that a process cannot
    /// make for itself.
    pub(crate) successor: Option<u64>,
    /// `CLONE_NEW*` that the child makes itself, while its parent writes the id maps.
    pub(crate) unshare: u64,
    /// Wait for the id maps.
    pub(crate) wait_for_ids: bool,
    /// The root of the user namespace, to be become; with whether groups may be set.
    pub(crate) root_ids: Option<(Uid, Gid, bool)>,
    /// The mount namespace is new: root and mounts are made.
    pub(crate) file_system: Option<FileSystem>,
    /// The network namespace is new: its loopback is brought up.
    pub(crate) loopback: bool,
    /// Before it leaves the host's root it waits until its parent has run the hooks.
    pub(crate) hooks: bool,
    pub(crate) host_name: Option<CString>,
    pub(crate) domain_name: Option<CString>,
    pub(crate) sysctls: Vec<Sysctl>,
}

/// A sysctl, written through a procfs that the child made itself.
#[derive(Debug)]
pub(crate) struct Sysctl {
    /// Below the root of procfs: `sys/net/ipv4/…`.
    pub(crate) path: CString,
    pub(crate) value: Vec<u8>,
}

/// The container's tree of mounts.
#[derive(Debug)]
pub(crate) struct FileSystem {
    /// The mount namespace was copied with shared mounts in it: make them ours first.
    pub(crate) detach_propagation: bool,
    pub(crate) root: Source,
    pub(crate) root_attributes: Attributes,
    pub(crate) mounts: Vec<MountStep>,
    /// Files of the container's own, with the configuration of the tmpfs that they are on.
    pub(crate) files: Vec<File>,
    pub(crate) files_config: Vec<(CString, Option<CString>)>,
    /// Mounts of which nothing is wanted any more: they are attached to the host's tree and go with it, since to close
    /// one that is detached makes the kernel wait for every processor.
    pub(crate) spent: Vec<Slot>,
    /// The procfs among `mounts` through which sysctls can be written.
    pub(crate) proc: Option<usize>,
    pub(crate) devices: Vec<Device>,
    pub(crate) links: Vec<Link>,
    /// `/dev/console` is made.
    pub(crate) console: bool,
    pub(crate) masked: Vec<CString>,
    pub(crate) read_only: Vec<CString>,
    pub(crate) root_read_only: bool,
    pub(crate) root_propagation: u64,
    /// Where the root is attached before it becomes the root: over the host's, unless hooks look for it elsewhere.
    pub(crate) attach_at: CString,
    /// chroot(2) in place of pivot_root(2).
    pub(crate) no_pivot: bool,
    /// Made if it is missing.
    pub(crate) working_directory: CString,
}

/// Where a mount comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A new file system, made by the child.
    New {
        kind: CString,
        /// Key, and value unless it is a flag.
        config: Vec<(CString, Option<CString>)>,
        attributes: u64,
        made: Slot,
    },
    /// Detached by the parent, or a [`File`]; its file type is already known.
    Given { mount: Slot },
    /// A path of the host that the child clones itself, because the parent may not.
    Path {
        path: CString,
        recursive: bool,
        made: Slot,
    },
}

/// What a mount target has to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Directory,
    File,
    /// Whatever the source turns out to be.
    AsSource,
}

/// One mount.
#[derive(Debug)]
pub(crate) struct MountStep {
    /// As the document names it, relative to the root: `proc`, `dev/pts`.
    pub(crate) target: CString,
    pub(crate) source: Source,
    pub(crate) kind: Kind,
    /// Set when it is detached still.
    pub(crate) attributes: Attributes,
    pub(crate) recursive_attributes: Attributes,
    /// Mounted on directories made in it.
    pub(crate) inner: Vec<Inner>,
    /// Becomes read-only when everything below it is there.
    pub(crate) late_read_only: Option<Slot>,
    /// No symbolic link may lead there: for kernel file systems, whose place other steps rely on.
    pub(crate) no_links: bool,
    /// It may lie on procfs (a file that lxcfs and its like stand in for).
    pub(crate) on_proc: bool,
}

/// A file system on a directory of another new one: one call of mount(2) instead of ten, by a name relative to a directory
/// that nobody else has seen yet.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) name: CString,
    pub(crate) kind: CString,
    pub(crate) data: CString,
    /// `MS_*`
    pub(crate) flags: u32,
}

/// A file of the container's own.
#[derive(Debug)]
pub(crate) struct File {
    /// The mount whose slot gets it.
    pub(crate) mount: usize,
    /// On the tmpfs.
    pub(crate) name: CString,
    pub(crate) content: Vec<u8>,
}

/// A device node.
#[derive(Debug)]
pub(crate) struct Device {
    /// Relative to the root.
    pub(crate) path: CString,
    /// The part below `dev/`, if that is all there is.
    pub(crate) name: Option<CString>,
    pub(crate) node: Node,
}

/// How a device node comes about.
#[derive(Debug)]
pub(crate) enum Node {
    /// mknod(2).
    Make {
        mode: u32,
        device: u64,
        uid: u32,
        gid: u32,
    },
    /// The host's own node, bound: nobody makes nodes in a user namespace.
    Bind { mount: Slot },
    /// As above, cloned by the child.
    BindPath { path: CString, device: u64 },
}

/// A symbolic link of the kind that every container has.
#[derive(Debug)]
pub(crate) struct Link {
    /// Relative to the root.
    pub(crate) directory: CString,
    pub(crate) name: CString,
    pub(crate) text: CString,
}

/// A container to be joined.
#[derive(Debug)]
pub(crate) struct Join {
    /// Its first process.
    pub(crate) pidfd: OwnedFd,
    /// `CLONE_NEW*` that differ from ours, without pid.
    pub(crate) namespaces: u64,
    /// `tasks` files of cgroup v1 hierarchies.
    pub(crate) tasks: Vec<OwnedFd>,
    /// Hard limits above the caller's, which only the caller's rights raise: an index into the command's limits, and the
    /// value until those are set.
    pub(crate) raise: Vec<(usize, Rlimit)>,
    /// The root of its user namespace, when that is not ours.
    pub(crate) root_ids: Option<(Uid, Gid, bool)>,
    /// The host's procfs and the value to write, when the child has to do that itself.
    pub(crate) oom_score_adj: Option<(OwnedFd, Vec<u8>)>,
}

/// See [`crate::Gate`].
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) start: Slot,
    pub(crate) outcome: Slot,
}

/// The most descriptors that can be preserved beside the streams.
pub(crate) const PRESERVED: usize = 61;

/// The process part of the document: what both a start and an exec end with.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) terminal: Option<Terminal>,
    /// Become 0, 1, 2; without them there is a terminal.
    pub(crate) streams: Option<[Slot; 3]>,
    /// Become 3 and on; at most [`PRESERVED`].
    pub(crate) preserved: Vec<Slot>,
    pub(crate) gate: Option<Gate>,
    /// Resolved in the container: `/` when it is not absolute there.
    pub(crate) working_directory: CString,
    pub(crate) rlimits: Vec<(Resource, Rlimit)>,
    pub(crate) scheduling: Option<Scheduling>,
    /// Only for a process that joins a container.
    pub(crate) affinity: Option<Affinity>,
    pub(crate) memory_policy: Option<MemoryPolicy>,
    pub(crate) labels: Option<Labels>,
    /// Class and level.
    pub(crate) io_priority: Option<(u16, u16)>,
    pub(crate) personality: Option<u32>,
    pub(crate) new_session_keyring: bool,
    pub(crate) no_new_privileges: bool,
    /// Known before [`word::ROOT`] is set, as is the identity.
    pub(crate) seccomp: OnceLock<Program>,
    pub(crate) umask: u32,
    pub(crate) identity: OnceLock<Identity>,
    /// `None` leaves all sets as they are.
    pub(crate) capabilities: Option<Capabilities>,
    pub(crate) arguments: StringArray,
}

impl Command {
    /// Whether its filter has a listener.
    pub(crate) fn notifies(&self) -> bool {
        self.seccomp.get().is_some_and(Program::needs_listener)
    }

    /// Closes the caller's copies of what the process has in its own table by now.
    pub(crate) fn close_streams(&self) {
        for slot in self.streams.iter().flatten().chain(&self.preserved).chain(
            self.gate
                .iter()
                .flat_map(|gate| [&gate.start, &gate.outcome]),
        ) {
            drop(slot.take());
        }
    }
}

/// As whom the command runs, and what depends on that.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// `None`: they cannot be set in this user namespace.
    pub(crate) groups: Option<Vec<Gid>>,
    pub(crate) environment: StringArray,
    /// What execve is tried on, in order.
    pub(crate) candidates: Vec<CString>,
}

/// The five sets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capabilities {
    pub(crate) bounding: Set,
    pub(crate) effective: Set,
    pub(crate) permitted: Set,
    pub(crate) inheritable: Set,
    pub(crate) ambient: Set,
}

/// The processors of a process: before it is in the container's cgroup, and afterwards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Affinity {
    pub(crate) initial: Option<CpuSet>,
    pub(crate) last: Option<CpuSet>,
}

/// See [`coracle_linux::process::set_memory_policy`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryPolicy {
    pub(crate) mode: u32,
    pub(crate) nodes: Option<[u64; MEMORY_NODES / 64]>,
}

/// What a process writes about its own exec.
#[derive(Debug)]
pub(crate) struct Labels {
    /// The host's procfs, whose `self` is the writer.
    pub(crate) proc: OwnedFd,
    pub(crate) all: Vec<Label>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Label {
    /// Below the procfs.
    pub(crate) path: CString,
    pub(crate) text: Vec<u8>,
}

/// A terminal to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    /// Rows and columns.
    pub(crate) size: Option<(u16, u16)>,
}
