//! What this kernel can do and permits: probed at run time, never read from a version number.

use std::os::fd::AsFd;
use std::sync::OnceLock;

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use crate::procfs::Proc;

/// The highest capability number that this kernel knows.
#[must_use]
pub fn last_capability() -> u32 {
    static LAST: OnceLock<u32> = OnceLock::new();
    *LAST.get_or_init(|| {
        (0..64)
            .take_while(|&number| in_bounding_set_known(number))
            .last()
            .unwrap_or(0)
    })
}

/// Whether the kernel knows capability `number` at all: reading the bounding set of an unknown one is EINVAL.
fn in_bounding_set_known(number: u32) -> bool {
    // SAFETY: PR_CAPBSET_READ takes no memory.
    crate::raw::check(unsafe {
        crate::raw::syscall(
            libc::SYS_prctl,
            [libc::PR_CAPBSET_READ as usize, number as usize, 0, 0, 0, 0],
        )
    })
    .is_ok()
}

/// Whether the caller may make detached mounts in its own mount namespace: it has CAP_SYS_ADMIN over it and the kernel has
/// the mount API (Linux 5.2).
#[must_use]
pub fn may_mount() -> bool {
    open_tree(
        CWD,
        c"/",
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
    .is_ok()
}

/// Whether a process that was born with a new time namespace for its children, in shared memory, is in it after its exec.
///
/// The kernel does that since Linux 6.2 ("fs/exec: switch timens when a task gets a new mm"), and no call tells it; one that can
/// name the time namespace of a process (Linux 6.11) does it for certain. On those in between, and those before, a time
/// namespace is not for the asking.
#[must_use]
pub fn enters_time_namespace_at_exec() -> bool {
    static ENTERS: OnceLock<bool> = OnceLock::new();
    *ENTERS.get_or_init(|| {
        pidfd_open(getpid(), PidfdFlags::empty())
            .and_then(|own| crate::pidfd::namespace(own.as_fd(), crate::namespace::TIME))
            .is_ok()
    })
}

/// A limit under /proc/sys, as it is now.
#[must_use]
pub fn sysctl(path: &str) -> Option<u64> {
    Proc::host()
        .ok()?
        .read(&format!("sys/{path}"))
        .ok()?
        .trim()
        .parse()
        .ok()
}
