//! Namespaces: their flags, leaving and joining them.
//!
//! A namespace is entered either by a process that never comes back (a child between clone and exec), or by a thread under a
//! [`Visit`] or [`MountVisit`] that puts it back. A thread that cannot be put back ends the program: nothing may run on in
//! a namespace that it does not know it is in.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::{chroot, fchdir};

use crate::raw;

/// Mount namespace.
pub const MOUNT: u64 = libc::CLONE_NEWNS as u64;
/// Cgroup namespace.
pub const CGROUP: u64 = libc::CLONE_NEWCGROUP as u64;
/// UTS namespace: host name and domain name.
pub const UTS: u64 = libc::CLONE_NEWUTS as u64;
/// IPC namespace.
pub const IPC: u64 = libc::CLONE_NEWIPC as u64;
/// User namespace.
pub const USER: u64 = libc::CLONE_NEWUSER as u64;
/// Pid namespace.
pub const PID: u64 = libc::CLONE_NEWPID as u64;
/// Network namespace.
pub const NETWORK: u64 = libc::CLONE_NEWNET as u64;
/// Time namespace (Linux 5.6).
pub const TIME: u64 = 0x80;

/// Every kind with the name that its file in `/proc/PID/ns` has, user first: the others are joined with its rights.
pub const KINDS: [(u64, &str); 8] = [
    (USER, "user"),
    (NETWORK, "net"),
    (IPC, "ipc"),
    (UTS, "uts"),
    (CGROUP, "cgroup"),
    (TIME, "time"),
    (PID, "pid"),
    (MOUNT, "mnt"),
];

/// Gives the calling thread new namespaces (`CLONE_NEW*`), or its own file table (`CLONE_FILES`).
///
/// For a child between clone and exec, which alone uses its table afterwards.
///
/// # Errors
/// As unshare(2): EPERM, ENOSPC at the limit of /proc/sys/user, EUSERS when nested too deep.
pub fn unshare(flags: u64) -> Result<(), Errno> {
    // SAFETY: no memory is passed. With CLONE_FILES, descriptors that the thread had stay open in its copy, so none that
    // it borrows becomes dangling.
    raw::check(unsafe { raw::syscall(libc::SYS_unshare, [flags as usize, 0, 0, 0, 0, 0]) })
        .map(drop)
}

/// Gives the calling thread a mount namespace of its own, with its own root and working directory. It must end in it.
///
/// # Errors
/// As unshare(2).
pub fn unshare_mounts() -> Result<(), Errno> {
    unshare(MOUNT | libc::CLONE_FS as u64)
}

/// Gives the calling process a file table of its own.
///
/// # Errors
/// ENOMEM.
pub fn unshare_files() -> Result<(), Errno> {
    unshare(libc::CLONE_FILES as u64)
}

/// Moves the calling thread into the namespace of a namespace file, or with a pidfd into all namespaces of that process
/// that `flags` names, at once.
///
/// # Errors
/// As setns(2).
pub fn join(fd: BorrowedFd<'_>, flags: u64) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    // SAFETY: no memory is passed.
    raw::check(unsafe {
        raw::syscall(
            libc::SYS_setns,
            [fd.as_raw_fd() as usize, flags as usize, 0, 0, 0, 0],
        )
    })
    .map(drop)
}

/// A stay of the calling thread in other namespaces; dropping it brings the thread back.
///
/// Not for mount namespaces ([`MountVisit`]), nor user and time namespaces, which a thread with siblings may not join. Coming back takes rights over the
/// namespace that was left, so that only root of the first user namespace may visit.
#[derive(Debug, Default)]
pub struct Visit {
    back: Vec<(u64, OwnedFd)>,
    /// Its thread must drop it.
    _thread: std::marker::PhantomData<*const ()>,
}

impl Visit {
    /// A visit to nowhere yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters the namespace `fd` of kind `kind`.
    ///
    /// # Errors
    /// As setns(2); the thread is then where it was before the call.
    pub fn enter(&mut self, fd: BorrowedFd<'_>, kind: u64) -> Result<(), Errno> {
        let name = KINDS
            .iter()
            .find(|(flag, _)| *flag == kind)
            .ok_or(Errno::INVAL)?
            .1;
        let own = openat(
            CWD,
            format!("/proc/thread-self/ns/{name}"),
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        join(fd, kind)?;
        self.back.push((kind, own));
        Ok(())
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        for (kind, own) in self.back.drain(..).rev() {
            if join(own.as_fd(), kind).is_err() {
                // See the module's header.
                std::process::abort();
            }
        }
    }
}

/// A stay of the calling thread in another mount namespace; dropping it brings the thread back, with the root and the
/// working directory that it had.
#[derive(Debug)]
pub struct MountVisit {
    namespace: OwnedFd,
    root: OwnedFd,
    working_directory: OwnedFd,
    /// Its thread must drop it.
    _thread: std::marker::PhantomData<*const ()>,
}

impl MountVisit {
    /// Enters the mount namespace `fd`; root and working directory are then its root. From now on the thread's root
    /// and working directory are its own (CLONE_FS), which the kernel wants of who joins a mount namespace.
    ///
    /// # Errors
    /// As setns(2): EPERM without CAP_SYS_ADMIN over the namespace and CAP_SYS_ADMIN and CAP_SYS_CHROOT over the own
    /// one; the thread is then where it was before the call.
    pub fn enter(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        let open = |path: &std::ffi::CStr, flags| {
            openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
        };
        let namespace = open(c"/proc/thread-self/ns/mnt", OFlags::RDONLY)?;
        let root = open(c"/", OFlags::PATH | OFlags::DIRECTORY)?;
        let working_directory = open(c".", OFlags::PATH | OFlags::DIRECTORY)?;
        unshare(libc::CLONE_FS as u64)?;
        join(fd, MOUNT)?;
        Ok(Self {
            namespace,
            root,
            working_directory,
            _thread: std::marker::PhantomData,
        })
    }

    fn come_back(&self) -> Result<(), Errno> {
        join(self.namespace.as_fd(), MOUNT)?;
        fchdir(&self.root)?;
        chroot(c".")?;
        fchdir(&self.working_directory)
    }
}

impl Drop for MountVisit {
    fn drop(&mut self) {
        if self.come_back().is_err() {
            // See the module's header.
            std::process::abort();
        }
    }
}
