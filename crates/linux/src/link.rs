//! Network links: bringing the loopback up in the calling thread's network namespace.
//!
//! By ioctl rather than netlink: two system calls on one socket, and no buffers.

use std::os::fd::AsRawFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::descriptor::Fd;
use crate::raw;

/// Sets `lo` up; the kernel then gives it 127.0.0.1/8 and ::1 itself.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN over the namespace.
pub fn loopback_up() -> Result<(), Errno> {
    let socket = Fd::from(socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?);
    // SAFETY: ifreq is plain old data; all zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives over the call.
    raw::check(unsafe {
        raw::syscall(
            libc::SYS_ioctl,
            [
                socket.as_raw_fd() as usize,
                libc::SIOCSIFFLAGS as usize,
                (&raw const request) as usize,
                0,
                0,
                0,
            ],
        )
    })
    .map(drop)
}
