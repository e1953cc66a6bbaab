//! The session keyring.

use rustix::io::Errno;

use crate::raw;

const KEYCTL_JOIN_SESSION_KEYRING: usize = 1;

/// Gives the process a new, empty session keyring, so that it neither sees nor shares its parent's keys.
///
/// # Errors
/// ENOSYS on a kernel without keys, EDQUOT when the user's key quota is used up.
pub fn join_new_session() -> Result<(), Errno> {
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    raw::check(unsafe {
        raw::syscall(
            libc::SYS_keyctl,
            [KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0, 0],
        )
    })
    .map(drop)
}
