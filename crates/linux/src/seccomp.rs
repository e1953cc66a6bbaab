//! Installing a seccomp filter in the calling thread.
//!
//! The compiler of filters lives in the runtime crate; here is only the kernel's form of an instruction and the one
//! system call that takes a program. After [`install`] the thread and all that it starts are under the filter for ever.

use std::os::fd::{FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::raw;

/// Also log every action but ALLOW (`SECCOMP_FILTER_FLAG_LOG`, Linux 4.14).
pub const FLAG_LOG: u32 = 1 << 1;
/// Leave the speculative store bypass mitigation off (`SECCOMP_FILTER_FLAG_SPEC_ALLOW`, Linux 4.17).
pub const FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// Return a descriptor that receives notifications (`SECCOMP_FILTER_FLAG_NEW_LISTENER`, Linux 5.0).
pub const FLAG_NEW_LISTENER: u32 = 1 << 3;
/// A notifying thread waits killable only, once its notification was received
/// (`SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, Linux 5.19).
pub const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

const SECCOMP_SET_MODE_FILTER: usize = 1;

/// One classic BPF instruction, `struct sock_filter` of `<linux/filter.h>`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct SockFilter {
    /// Operation: class, size, mode.
    pub code: u16,
    /// How many instructions a conditional jump skips when true.
    pub jt: u8,
    /// How many it skips when false.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// Puts the calling thread under `filter` with `SECCOMP_FILTER_FLAG_*` `flags`.
///
/// The thread needs `no_new_privs` or CAP_SYS_ADMIN in its user namespace. Allocates nothing and touches no thread-local storage, so it may run between a
/// clone and an exec. With [`FLAG_NEW_LISTENER`] the listener is returned (the kernel makes it close-on-exec).
///
/// # Errors
/// EINVAL for a malformed program or unknown flag, EACCES without the privilege, ENOSYS or EINVAL on a kernel without
/// seccomp filters, EBUSY for a second listener, ENOMEM past 32,768 instructions over all filters of the thread.
pub fn install(filter: &[SockFilter], flags: u32) -> Result<Option<OwnedFd>, Errno> {
    let len = u16::try_from(filter.len()).map_err(|_| Errno::INVAL)?;
    // The kernel only reads through this pointer; sock_fprog lacks `const`.
    let program = libc::sock_fprog {
        len,
        filter: filter.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `program` is a live sock_fprog whose pointer and length describe `filter`, which this borrow keeps alive
    // over the call; SockFilter has the layout of sock_filter (repr(C), same fields). The kernel copies and keeps neither.
    let result = unsafe {
        let program = (&raw const program) as usize;
        raw::syscall(
            libc::SYS_seccomp,
            [SECCOMP_SET_MODE_FILTER, flags as usize, program, 0, 0, 0],
        )
    };
    let descriptor = raw::check(result)?;
    if flags & FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with NEW_LISTENER a result that is not negative is a new descriptor that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(descriptor as i32) }))
}

/// As [`install`], for a program that asks for no listener.
///
/// # Errors
/// As [`install`]; EINVAL for [`FLAG_NEW_LISTENER`], whose descriptor would be lost here.
pub fn install_bare(filter: &[SockFilter], flags: u32) -> Result<(), Errno> {
    if flags & FLAG_NEW_LISTENER != 0 {
        return Err(Errno::INVAL);
    }
    install(filter, flags).map(drop)
}
