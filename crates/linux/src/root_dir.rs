//! A directory that paths cannot leave.
//!
//! The kernel resolves: `..` and absolute links stop at the directory, links of /proc that jump elsewhere are refused.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use rustix::path::Arg;

/// The handle.
#[derive(Debug)]
pub struct RootDir(OwnedFd);

impl RootDir {
    /// Opens the directory itself, by a path of the caller's world.
    ///
    /// # Errors
    /// As openat(2).
    pub fn open(path: &Path) -> Result<Self, Errno> {
        openat(
            CWD,
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map(Self)
    }

    /// Opens `path` inside of it. Close-on-exec is added.
    ///
    /// # Errors
    /// As openat2(2); ELOOP for a magic link.
    pub fn open_at(&self, path: impl Arg, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        open_in(self.as_fd(), path, flags, mode)
    }
}

impl From<OwnedFd> for RootDir {
    fn from(directory: OwnedFd) -> Self {
        Self(directory)
    }
}

impl AsFd for RootDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// As [`RootDir::open_at`], for a directory that is only borrowed. Allocates nothing for a C string.
///
/// # Errors
/// As openat2(2).
pub fn open_in(
    root: BorrowedFd<'_>,
    path: impl Arg,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let path = path.into_c_str()?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // EAGAIN: something was renamed while the kernel looked at "..", and it will not vouch for the result. Somebody who
    // renames without end does not hold us up for ever.
    for _ in 0..128 {
        match openat2(root, &*path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}
