//! Capabilities: their names, and the five sets of a thread.

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use crate::raw;

/// The kernel's names in the order of their numbers.
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A set of capabilities, a bit each.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Set(pub u64);

impl Set {
    /// Adds number `capability`.
    pub fn insert(&mut self, capability: u32) {
        self.0 |= 1 << capability;
    }

    /// Whether number `capability` is in it.
    #[must_use]
    pub fn contains(self, capability: u32) -> bool {
        self.0 >> capability & 1 == 1
    }
}

/// The number of a name, with or without `CAP_`, in any case.
#[must_use]
pub fn number(name: &str) -> Option<u32> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    NAMES
        .iter()
        .position(|known| &known[4..] == name)
        .map(|position| position as u32)
}

/// The effective capabilities of the calling thread.
///
/// # Errors
/// None known.
pub fn effective() -> Result<Set, Errno> {
    Ok(Set(rustix::thread::capabilities(None)?.effective.bits()))
}

/// Sets effective, permitted and inheritable of the calling thread.
///
/// # Errors
/// EPERM when a permitted one is new, or an inheritable one is outside of the bounding set.
pub fn set(effective: Set, permitted: Set, inheritable: Set) -> Result<(), Errno> {
    set_capabilities(
        None,
        CapabilitySets {
            effective: CapabilitySet::from_bits_retain(effective.0),
            permitted: CapabilitySet::from_bits_retain(permitted.0),
            inheritable: CapabilitySet::from_bits_retain(inheritable.0),
        },
    )
}

fn prctl(operation: i32, arguments: [usize; 2]) -> Result<usize, Errno> {
    // SAFETY: only operations without memory arguments are called through here.
    raw::check(unsafe {
        raw::syscall(
            libc::SYS_prctl,
            [operation as usize, arguments[0], arguments[1], 0, 0, 0],
        )
    })
}

/// Drops all but `keep` from the bounding set of the calling thread.
///
/// # Errors
/// EPERM without CAP_SETPCAP.
pub fn bound(keep: Set) -> Result<(), Errno> {
    for capability in 0..64 {
        if keep.contains(capability) {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, [capability as usize, 0]) {
            Ok(_) => {}
            // Past the last one that this kernel knows.
            Err(Errno::INVAL) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes exactly `set` ambient. Each must be permitted and inheritable.
///
/// # Errors
/// EPERM when one is not permitted and inheritable.
pub fn set_ambient(set: Set) -> Result<(), Errno> {
    prctl(
        libc::PR_CAP_AMBIENT,
        [libc::PR_CAP_AMBIENT_CLEAR_ALL as usize, 0],
    )?;
    for capability in 0..64 {
        if set.contains(capability) {
            prctl(
                libc::PR_CAP_AMBIENT,
                [libc::PR_CAP_AMBIENT_RAISE as usize, capability as usize],
            )?;
        }
    }
    Ok(())
}
