//! How a run ended.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The end of a container's init.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It returned this code.
    Code(u8),
    /// A signal of this number killed it.
    Signal(u8),
    /// The monitor was not its parent and the kernel does not say.
    Unknown,
}

impl ExitStatus {
    /// The code a shell and Docker would show: the code, 128 + signal, or 255 for an unknown end.
    pub fn code(self) -> i32 {
        match self {
            ExitStatus::Code(code) => i32::from(code),
            ExitStatus::Signal(signal) => 128 + i32::from(signal),
            ExitStatus::Unknown => 255,
        }
    }

    /// How the ended process of this pidfd ended, where the kernel keeps it (Linux 6.15) although it was not our child.
    ///
    /// # Errors
    /// As ioctl(2), but not what a kernel says that keeps nothing.
    pub fn kept_by(
        pidfd: rustix::fd::BorrowedFd<'_>,
    ) -> Result<Option<ExitStatus>, rustix::io::Errno> {
        use rustix::io::Errno;
        match coracle_linux::exit_info::wait_status(pidfd) {
            Ok(status) => Ok(status.map(ExitStatus::from_wait_status)),
            Err(Errno::NOTTY | Errno::SRCH | Errno::INVAL) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// From the status word of wait(2), which is also what `PIDFD_GET_INFO` gives.
    pub(crate) fn from_wait_status(raw: i32) -> ExitStatus {
        let signal = raw & 0x7f;
        if signal == 0 {
            // The mask makes the conversion exact.
            ExitStatus::Code(((raw >> 8) & 0xff) as u8)
        } else {
            ExitStatus::Signal(signal as u8)
        }
    }
}

/// The record of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Code or signal.
    pub status: ExitStatus,
    /// When the run began.
    pub started_at: Timestamp,
    /// When the monitor saw it end.
    pub finished_at: Timestamp,
    /// A process of this run was killed for want of memory.
    pub oom: bool,
    /// A stop or kill was asked for (docs/format/attach.md), so that policies other than `no` do not bring it back.
    pub stopped_by_user: bool,
    /// Restarts before this run.
    pub restart_count: u32,
    /// Another run begins after this time; `None`: this was the last.
    pub restart_in: Option<Duration>,
    /// Set when a restart failed: then there was no run at all and `status` is the code for that (125 to 127).
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_status_words_become_codes_and_signals() {
        for (raw, status, code) in [
            (0, ExitStatus::Code(0), 0),
            (3 << 8, ExitStatus::Code(3), 3),
            (255 << 8, ExitStatus::Code(255), 255),
            (9, ExitStatus::Signal(9), 137),
            (15, ExitStatus::Signal(15), 143),
            (11 | 0x80, ExitStatus::Signal(11), 139),
        ] {
            assert_eq!(ExitStatus::from_wait_status(raw), status);
            assert_eq!(status.code(), code);
        }
        assert_eq!(ExitStatus::Unknown.code(), 255);
    }
}
