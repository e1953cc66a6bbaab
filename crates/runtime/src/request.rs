//! What a caller asks for: one container's start, or one more process in it.
//!
//! The OCI document says most of it. What the document cannot say is a field beside it here, never an annotation.
//! Nothing in this module does I/O; `resolve` turns a request into a `Plan`, once.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use coracle_cgroup::Entry;
use oci_spec::runtime::{LinuxSeccomp, Process, Spec};

/// One range of an id mapping: `count` ids from `inside` on are `outside` and on in the caller's user namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Map {
    /// First id inside the container.
    pub inside: u32,
    /// First id outside, in the user namespace of the caller.
    pub outside: u32,
    /// Number of ids.
    pub count: u32,
}

/// A read-only layer of an overlay.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Lower {
    /// A directory that holds the layer's files; also a directory of the host (`@host` is `/`).
    Directory(PathBuf),
    /// A file with an EROFS file system, mounted straight from the file (Linux 6.12).
    Erofs(PathBuf),
}

/// Whose ids the files of a root carry on the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ownership {
    /// Ids as the image has them: 0 is the container's root. Mounted through an id mapping when the container has a
    /// user namespace; nothing is chowned.
    Inside,
    /// Ids as the caller's user namespace sees them; the files are used as they are (OCI bundles, rootless).
    Outside,
}

/// The root file system.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Root {
    /// A directory, used in place.
    Directory {
        /// The directory on the host.
        path: PathBuf,
        /// Whose ids its files carry.
        ownership: Ownership,
    },
    /// An overlay over layers.
    Overlay {
        /// Read-only layers, topmost first; at least one, at most 500.
        lowers: Vec<Lower>,
        /// The writable directory. It and `work` lie on one mount, under one directory.
        upper: PathBuf,
        /// Overlay's scratch directory, empty at the first start.
        work: PathBuf,
        /// Nothing is synced, the upper is worthless after a crash of the host: for what is thrown away anyway.
        volatile: bool,
        /// Whose ids the layers and the upper carry.
        ownership: Ownership,
        /// Where layer files stay mounted for the next container; without it each is mounted for this one alone.
        kept: Option<crate::KeptLayers>,
    },
}

/// The container's user namespace.
#[derive(Debug)]
pub enum IdMapping {
    /// The caller's own: no new user namespace (`--userns host`, or the caller made an outer one already).
    Host,
    /// A new one with these maps. Either the caller may set any id (CAP_SETUID and CAP_SETGID), or each map is the one
    /// id that the caller is itself.
    Own {
        /// User ids.
        uids: Vec<Map>,
        /// Group ids.
        gids: Vec<Map>,
    },
    /// An existing one; the maps are what it was made with.
    Join {
        /// The namespace.
        namespace: OwnedFd,
        /// Its user ids.
        uids: Vec<Map>,
        /// Its group ids.
        gids: Vec<Map>,
    },
}

/// Where standard input, output and error of the process lead.
#[derive(Debug)]
pub enum Stdio {
    /// Descriptors of the caller: pipes, files, anything.
    Pipes {
        /// Becomes 0.
        stdin: OwnedFd,
        /// Becomes 1.
        stdout: OwnedFd,
        /// Becomes 2.
        stderr: OwnedFd,
    },
    /// A new terminal of the container's own devpts; its size is `process.consoleSize`, its other end comes back in
    /// [`crate::Running::terminal`].
    Terminal,
}

/// All that starts a container.
pub struct Start<'a> {
    /// The OCI document: namespaces, mounts, process, masked paths, seccomp, capabilities, sysctls. Its `root.path` and
    /// its id mappings are not read: [`Start::root`] and [`Start::ids`] stand for them. `root.readonly` is.
    pub spec: &'a Spec,
    /// The root file system.
    pub root: Root,
    /// The user namespace.
    pub ids: IdMapping,
    /// How the process gets into its cgroup; `None` stays in the caller's.
    pub cgroup: Option<Entry>,
    /// Standard streams.
    pub stdio: Stdio,
    /// Become 3, 4, … inside.
    pub preserved: Vec<OwnedFd>,
    /// Put the built-in init before the command: the caller's own executable, bound read-only at `/dev/init`, which
    /// must call [`crate::init_main`] when its name is `init`.
    pub init: bool,
    /// Lower what this host does not permit (hard limits, `oom_score_adj`) to what it does, and say so in
    /// [`crate::Creating::clamped`]; otherwise it is an error.
    pub clamp: bool,
    /// Files of the container's own that are mounted after all else: what it writes to them is gone with it.
    pub files: Vec<OwnFile>,
    /// Instead of [`crate::Created::start`], wait for a byte (or the end) on this descriptor: for OCI's `create`, whose
    /// caller exits before `start` ([`crate::Created::release`]).
    pub gate: Option<Gate>,
    /// Where a start differs from what it is by default.
    pub deviations: Deviations,
    /// Called with the root file system as soon as it is there, in the caller, while the process makes its other mounts: the
    /// place to look up the user in the image's own files and to fill new volumes from it.
    pub prepare: Option<&'a mut Prepare<'a>>,
}

/// A file that exists for one container alone, on a small tmpfs of its own (1 MiB for all of them).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OwnFile {
    /// Where it is mounted: an absolute path in the root.
    pub target: PathBuf,
    /// What is in it at the start. Mode 0644, owned by the container's root.
    pub content: Vec<u8>,
}

/// Where a container waits for its start, when its creator is gone by then.
///
/// Both are named pipes, opened for reading and writing, so that neither end's absence means anything to the waiting
/// process: one byte in `start` lets it go on, and `outcome` is closed by its exec, or else has eight bytes in it that say
/// what failed ([`crate::open_gate`]).
#[derive(Debug)]
pub struct Gate {
    /// Read by the process.
    pub start: OwnedFd,
    /// Written by the process.
    pub outcome: OwnedFd,
}

/// What an OCI runtime's callers may ask for and the document has no member for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Deviations {
    /// The process stays in its caller's session keyring (`--no-new-keyring`).
    pub keep_keyring: bool,
    /// The root becomes the root by chroot(2), and the host's tree stays below it (`--no-pivot`): for a host that runs from
    /// an initramfs, which cannot be pivoted away from. A container with enough rights can leave such a root.
    pub no_pivot: bool,
}

/// See [`Start::prepare`]. The descriptor is the root directory (`O_PATH`); the image behind it is hostile.
pub type Prepare<'a> = dyn FnMut(BorrowedFd<'_>) -> Result<RunAs, BoxError> + 'a;

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// As whom the command runs, when that is known only from the root file system: stands for `process.user` then.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RunAs {
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Supplementary groups inside.
    pub groups: Vec<u32>,
    /// Added behind `process.env`.
    pub env: Vec<String>,
}

/// A running container, as another process finds it again from what was stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct Target {
    /// Its first process, in the caller's pid namespace.
    pub pid: i32,
    /// That process's start time ([`crate::process::start_time`]), so that a reused pid is not taken for it.
    pub start_time: u64,
}

/// One more process in a running container.
#[derive(Debug)]
pub struct Exec<'a> {
    /// The container.
    pub target: Target,
    /// What to run, as whom, with which capabilities and limits.
    pub process: &'a Process,
    /// The filter of the container, if it has one.
    pub seccomp: Option<&'a LinuxSeccomp>,
    /// How the process gets into the container's cgroup; `None` stays in the caller's.
    pub cgroup: Option<Entry>,
    /// Standard streams.
    pub stdio: Stdio,
    /// Become 3, 4, … inside.
    pub preserved: Vec<OwnedFd>,
    /// As [`Start::clamp`].
    pub clamp: bool,
}
