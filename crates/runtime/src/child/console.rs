//! The terminal: a pty of the container's own devpts, its master handed to the parent, its other end to the command.
//!
//! The other end is opened from the master by ioctl, never by its name in /dev/pts, which the container could have
//! mounted over (CVE-2025-52565); for the same reason /dev/console is bound from that descriptor.

use std::os::fd::{AsFd, BorrowedFd};

use coracle_linux::descriptor::Fd;
use rustix::fs::{FileType, Mode, OFlags, fstat, fstatfs, mknodat, openat};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use rustix::termios::{Winsize, tcsetwinsize};

use super::Walk;
use super::devices::open_directory;
use super::file_system::{attach, clone_mount};
use crate::plan::{Terminal, word};
use crate::step::Step;

const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;

impl Walk<'_> {
    /// Opens a pty in `root`'s devpts. The master goes to the parent; the other end is opened again when the streams are
    /// arranged, in a file table that the parent does not share.
    pub(super) fn make_terminal(
        &self,
        root: BorrowedFd<'_>,
        terminal: Terminal,
        console: bool,
    ) -> Result<(), Errno> {
        self.at(Step::MakingTerminal);
        let pts = open_directory(root, c"dev/pts")?;
        if fstatfs(&pts)?.f_type as u64 != DEVPTS_SUPER_MAGIC {
            return Err(Errno::NODEV);
        }
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let master = Fd::from(openat(&pts, c"ptmx", flags, Mode::empty())?);
        rustix::pty::unlockpt(&master)?;
        if let Some((rows, columns)) = terminal.size {
            tcsetwinsize(
                &master,
                Winsize {
                    ws_row: rows,
                    ws_col: columns,
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                },
            )?;
        }
        if console {
            self.at(Step::MakingConsole);
            let dev = open_directory(root, c"dev")?;
            match mknodat(
                &dev,
                c"console",
                FileType::RegularFile,
                Mode::from_raw_mode(0o600),
                0,
            ) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target = Fd::from(openat(&dev, c"console", flags, Mode::empty())?);
            match FileType::from_raw_mode(fstat(&target)?.st_mode) {
                FileType::RegularFile | FileType::CharacterDevice => {}
                _ => return Err(Errno::LOOP),
            }
            let peer = open_peer(master.as_fd())?;
            attach(clone_mount(peer.as_fd(), false)?.as_fd(), target.as_fd())?;
        }
        self.plan.mailbox.put(word::TERMINAL, master);
        Ok(())
    }
}

/// The end of a pty that the command gets.
pub(super) fn open_peer(master: BorrowedFd<'_>) -> Result<Fd, Errno> {
    ioctl_tiocgptpeer(
        master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )
    .map(Fd::from)
}
