//! Process descriptors: what rustix lacks, and the questions that everybody asks them.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::{namespace, raw};

/// The number of `PIDFD_GET_*_NAMESPACE` for a kind of namespace (Linux 6.11).
fn request(kind: u64) -> Option<usize> {
    let number = match kind {
        namespace::CGROUP => 1,
        namespace::IPC => 2,
        namespace::MOUNT => 3,
        namespace::NETWORK => 4,
        namespace::PID => 5,
        namespace::TIME => 7,
        namespace::USER => 9,
        namespace::UTS => 10,
        _ => return None,
    };
    Some(0xff00 | number)
}

/// A namespace of the process, without going through /proc.
///
/// # Errors
/// ENOTTY before Linux 6.11, EPERM without the right to inspect the process, ESRCH when it is gone.
pub fn namespace(pidfd: BorrowedFd<'_>, kind: u64) -> Result<OwnedFd, Errno> {
    let request = request(kind).ok_or(Errno::INVAL)?;
    // SAFETY: these requests take no argument.
    let fd = raw::check(unsafe {
        raw::syscall(
            libc::SYS_ioctl,
            [pidfd.as_raw_fd() as usize, request, 0, 0, 0, 0],
        )
    })?;
    // SAFETY: the kernel has just made this descriptor for us, close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Waits until the process has ended, at most `within`; whether it has.
///
/// # Errors
/// As poll(2), but not EINTR.
pub fn wait_exit(
    pidfd: BorrowedFd<'_>,
    within: Option<std::time::Duration>,
) -> Result<bool, Errno> {
    let deadline = within.map(|within| std::time::Instant::now() + within);
    loop {
        let left = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let mut set = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
        match poll(&mut set, left.as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether the process has ended (it may still be a zombie).
///
/// # Errors
/// EINTR.
pub fn has_ended(pidfd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut set = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    Ok(poll(
        &mut set,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    )? > 0)
}
