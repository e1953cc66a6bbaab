//! One container's process tree: a request is resolved into a plan, a process is cloned that only walks the plan, and
//! the kernel says when it has become the container's command.
//!
//! ```text
//! Start ── resolve ──► Plan ── clone3 ──► child: namespaces, mounts, pivot_root, credentials ──► execve
//!                        │                  ▲ futexes in shared memory, one file table ▲
//!                        └─► parent: id maps, layers, overlay, bind sources ───────────┘
//! Creating::begin ─────────────► Creating::finish ──► Created::start ──► Running
//! ```
//!
//! Invariants: after the clone the child allocates nothing, takes no lock, touches no thread-local storage and cannot
//! panic; it shares memory and file table with its parent until it execs. Every path inside the container's root is
//! resolved by the kernel under that root's handle, and every mount is attached by descriptor, never by a path that is
//! resolved twice.

mod child;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gate;
mod init;
mod kept;
mod parent;
mod plan;
pub mod process;
mod request;
mod resolve;
pub mod seal;
pub mod seccomp;
mod state;
mod step;

pub use error::Error;
pub use gate::open_gate;
pub use init::{init_main, is_init};
pub use kept::KeptLayers;
pub use request::{
    BoxError, Deviations, Exec, Gate, IdMapping, Lower, Map, OwnFile, Ownership, Prepare, Root,
    RunAs, Start, Stdio, Target,
};
pub use state::{Clamp, Created, Creating, OnListener, Running, exec, exec_listening};
pub use step::Step;

/// Whether AppArmor and SELinux confine processes on this host, in this order.
#[must_use]
pub fn security_modules() -> (bool, bool) {
    resolve::security_modules()
}

/// Every capability that this kernel knows.
#[must_use]
pub fn all_capabilities() -> Vec<oci_spec::runtime::Capability> {
    resolve::all_capabilities()
}

/// The id maps (users, groups) of a user namespace, as seen from the caller's: what [`IdMapping::Join`] needs.
///
/// # Errors
/// [`Error::Host`] when the namespace cannot be joined.
pub fn maps_of(namespace: &std::os::fd::OwnedFd) -> Result<(Vec<Map>, Vec<Map>), Error> {
    parent::maps_of_namespace(namespace)
}

/// The root file system of a container that does not run, as a detached mount with the ids that its files carry on the
/// disk: to read from it or write to it what the next start will see. It goes with the descriptor.
///
/// # Errors
/// [`Error::Host`] and what the overlay says.
pub fn mount_root(root: &Root) -> Result<std::os::fd::OwnedFd, Error> {
    parent::mount_root(root)
}
