//! How a process that is not our child ended, asked through its pidfd (Linux 6.15, `PIDFD_GET_INFO` with
//! `PIDFD_INFO_EXIT`). The kernel keeps the answer as long as a pidfd opened before the end is open.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// `struct pidfd_info` of Linux 6.13 (`PIDFD_INFO_SIZE_VER0`, 64 bytes); later kernels take this size too.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    /// pid, tgid, ppid, and the real, effective, saved and file system user and group ids.
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_INFO_EXIT`
const EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)`
const GET_INFO: u32 = (3 << 30) | ((size_of::<PidfdInfo>() as u32) << 16) | (0xff << 8) | 11;

/// The status word of the ended process, as wait(2) would give it. `None` while nobody has reaped it, and on kernels
/// that do not keep it.
///
/// # Errors
/// ENOTTY before Linux 6.13; ESRCH where the process was reaped and its end was not kept.
pub fn wait_status(pidfd: impl AsFd) -> Result<Option<i32>, Errno> {
    let mut info = PidfdInfo {
        mask: EXIT,
        ..PidfdInfo::default()
    };
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: the request says the size of what it points to; `info` is that size, ours alone, and outlives the call.
    let result = unsafe { libc::ioctl(fd, libc::Ioctl::from(GET_INFO), &raw mut info) };
    if result != 0 {
        // SAFETY: errno is this thread's own and always readable.
        return Err(Errno::from_raw_os_error(unsafe {
            *libc::__errno_location()
        }));
    }
    Ok((info.mask & EXIT != 0).then_some(info.exit_code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    #[test]
    fn end_of_a_reaped_process_is_known() {
        for (script, status) in [("exit 7", 7 << 8), ("kill -9 $$", 9)] {
            let mut child = std::process::Command::new("sh")
                .args(["-c", &format!("read line; {script}")])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .expect("a child");
            let pid = Pid::from_child(&child);
            let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("a pidfd");
            match wait_status(&pidfd) {
                Ok(before) => assert_eq!(before, None, "it has not ended"),
                Err(Errno::NOTTY) => {
                    eprintln!(
                        "SKIP: end_of_a_reaped_process_is_known: no PIDFD_GET_INFO before Linux 6.13"
                    );
                    child.kill().and_then(|()| child.wait()).expect("reaped");
                    return;
                }
                Err(error) => panic!("{error}"),
            }
            drop(child.stdin.take());
            child.wait().expect("reaped");
            match wait_status(&pidfd) {
                Ok(Some(after)) => assert_eq!(after, status, "{script}"),
                Ok(None) | Err(Errno::SRCH) => {
                    eprintln!(
                        "SKIP: end_of_a_reaped_process_is_known: exit status not kept before Linux 6.15"
                    );
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}
