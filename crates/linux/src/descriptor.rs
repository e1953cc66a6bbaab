//! Descriptors in a file table that two processes share.
//!
//! [`Fd`] closes itself by a bare system call: std's `OwnedFd` closes through libc, which may write `errno`. [`Slot`] hands a
//! descriptor from one process to the other by its number.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use crate::raw;

/// An owned descriptor that is safe to drop between a clone and an exec.
#[derive(Debug)]
pub struct Fd(RawFd);

impl From<OwnedFd> for Fd {
    fn from(fd: OwnedFd) -> Self {
        Self(fd.into_raw_fd())
    }
}

impl From<Fd> for OwnedFd {
    fn from(fd: Fd) -> Self {
        let fd = ManuallyDrop::new(fd);
        // SAFETY: `Fd` owned the descriptor and, wrapped, does not close it.
        unsafe { Self::from_raw_fd(fd.0) }
    }
}

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `self` owns an open descriptor for as long as the borrow lives.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: closing a descriptor that `self` owned and that nobody can use after this.
        // Linux frees the number whatever close says; there is nothing to do about an error.
        let _ = unsafe { raw::syscall(libc::SYS_close, [self.0 as usize, 0, 0, 0, 0, 0]) };
    }
}

/// A place for one descriptor, filled by one process and read by the other while they share a file table.
///
/// The memory orders make all writes before `put` visible after a `borrow` or `take` that sees it.
#[derive(Debug)]
pub struct Slot(AtomicI32);

impl Default for Slot {
    fn default() -> Self {
        Self::new()
    }
}

impl From<OwnedFd> for Slot {
    fn from(fd: OwnedFd) -> Self {
        Self(AtomicI32::new(fd.into_raw_fd()))
    }
}

impl Slot {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicI32::new(-1))
    }

    /// Fills it. What was in it before is closed.
    pub fn put(&self, fd: impl Into<Fd>) {
        let fd = ManuallyDrop::new(fd.into());
        let before = self.0.swap(fd.0, Ordering::AcqRel);
        if before >= 0 {
            drop(Fd(before));
        }
    }

    /// The descriptor, if it is there. Nobody may `take` it or `put` another while it is borrowed: the two processes
    /// order these by their signals.
    pub fn borrow(&self) -> Option<BorrowedFd<'_>> {
        let fd = self.0.load(Ordering::Acquire);
        // SAFETY: a number that is not negative was put by `put`, which gave up ownership to the slot; it stays open until
        // `take` or drop.
        (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// Takes it out.
    pub fn take(&self) -> Option<Fd> {
        let fd = self.0.swap(-1, Ordering::AcqRel);
        (fd >= 0).then(|| Fd(fd))
    }

    /// Forgets it without closing: for the process whose file table does not have it any more.
    pub fn forget(&self) {
        self.0.store(-1, Ordering::Release);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        drop(self.take());
    }
}
