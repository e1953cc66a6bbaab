//! Layer files that stay mounted between containers.
//!
//! A file that is mounted anew has a page cache of its own: each start would read its layers again, and each container
//! pay for them in memory. So the first container that needs a layer mounts it in a mount namespace that holds nothing
//! else and that no process is in, and later ones take copies of that mount.
//!
//! ```text
//! PIN             a file with the namespace mounted on it, which keeps it alive
//! PIN.lock        flock: held while a layer comes or goes
//! in the namespace:
//! /               a tmpfs with nothing but mount points
//! /DEVICE-INODE   where the file of these numbers (hexadecimal) is mounted
//! ```
//!
//! Invariants: a mount point without a mount (a process died in between) counts as nothing. The numbers of a mounted file
//! cannot become another's. Who takes a copy needs no lock.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use coracle_linux::namespace::{self, MountVisit};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, fstatfs, mkdirat, openat, stat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{fchdir, pivot_root};

use crate::Error;
use crate::parent::mount_layer;

const EROFS_MAGIC: i64 = 0xE0F5_E1E2;
const NSFS_MAGIC: i64 = 0x6E73_6673;

/// The mounted layer files of one engine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeptLayers {
    pin: PathBuf,
}

/// A file as the namespace names it.
fn name(device: u64, inode: u64) -> String {
    let mut name = String::with_capacity(24);
    // Writing to a String cannot fail.
    let _ = write!(name, "/{device:x}-{inode:x}");
    name
}

impl KeptLayers {
    /// Those kept alive by the file `pin`, which is made when the first layer is mounted. Its directory must be one that
    /// is empty after a reboot.
    #[must_use]
    pub fn at(pin: PathBuf) -> Self {
        Self { pin }
    }

    /// Detached copies of the mounts of these files, in their order; mounts those that are not mounted yet.
    pub(crate) fn copies(&self, files: &[&Path]) -> Result<Vec<OwnedFd>, Error> {
        let names = files
            .iter()
            .map(|file| {
                let status = stat(*file)
                    .map_err(|source| Error::host("looking at the layer", *file, source))?;
                Ok(name(status.st_dev, status.st_ino))
            })
            .collect::<Result<Vec<_>, Error>>()?;
        if let Some(namespace) = self.open()?
            && let Some(copies) = self.take(namespace.as_fd(), &names)?
        {
            return Ok(copies);
        }
        let _lock = self.lock()?;
        let namespace = match self.open()? {
            Some(namespace) => namespace,
            None => self.create()?,
        };
        self.add(namespace.as_fd(), files, &names)?;
        self.take(namespace.as_fd(), &names)?
            .ok_or_else(|| self.failed(Errno::NOENT))
    }

    /// Lets go of every layer whose device and inode are not among `keep`, and of the namespace with the last of them.
    /// Containers that use one of them keep what they have.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn retain(&self, keep: &HashSet<(u64, u64)>) -> Result<(), Error> {
        if self.open()?.is_none() {
            return Ok(());
        }
        let _lock = self.lock()?;
        let Some(namespace) = self.open()? else {
            return Ok(());
        };
        let keep: HashSet<String> = keep
            .iter()
            .map(|(device, inode)| name(*device, *inode))
            .collect();
        let mut left = false;
        {
            let _visit = self.visit(namespace.as_fd())?;
            let names = std::fs::read_dir("/").and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let names = names
                .map_err(|error| self.failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
            for path in names.iter().map(std::fs::DirEntry::path) {
                if path.to_str().is_some_and(|name| keep.contains(name)) {
                    left = true;
                    continue;
                }
                match unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                    // A mount point without a mount.
                    Ok(()) | Err(Errno::INVAL) => {}
                    Err(source) => return Err(self.failed(source)),
                }
                rustix::fs::rmdir(&path).map_err(|source| self.failed(source))?;
            }
        }
        if !left {
            unmount(&self.pin, UnmountFlags::DETACH).map_err(|source| self.failed(source))?;
            rustix::fs::unlink(&self.pin).map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    fn failed(&self, source: Errno) -> Error {
        Error::host("keeping layers mounted in", &self.pin, source)
    }

    fn visit(&self, namespace: BorrowedFd<'_>) -> Result<MountVisit, Error> {
        MountVisit::enter(namespace).map_err(|source| self.failed(source))
    }

    fn lock(&self) -> Result<OwnedFd, Error> {
        let path = self.pin.with_extension("lock");
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let fail = |source| Error::host("locking", &path, source);
        let file = openat(CWD, &path, flags, Mode::RUSR | Mode::WUSR).map_err(fail)?;
        flock(&file, FlockOperation::LockExclusive).map_err(fail)?;
        Ok(file)
    }

    /// The namespace, if there is one.
    fn open(&self) -> Result<Option<OwnedFd>, Error> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = match openat(CWD, &self.pin, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(source) => return Err(self.failed(source)),
        };
        let kind = fstatfs(&file).map_err(|source| self.failed(source))?.f_type;
        Ok((kind == NSFS_MAGIC).then_some(file))
    }

    /// Copies of all, or nothing when one is missing.
    fn take(
        &self,
        namespace: BorrowedFd<'_>,
        names: &[String],
    ) -> Result<Option<Vec<OwnedFd>>, Error> {
        let _visit = self.visit(namespace)?;
        let mut copies = Vec::with_capacity(names.len());
        for name in names {
            match self.copy(name)? {
                Some(copy) => copies.push(copy),
                None => return Ok(None),
            }
        }
        Ok(Some(copies))
    }

    /// To be called in the namespace.
    fn copy(&self, name: &str) -> Result<Option<OwnedFd>, Error> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let copy = match open_tree(CWD, name, flags) {
            Ok(copy) => copy,
            Err(Errno::NOENT) => return Ok(None),
            Err(source) => return Err(self.failed(source)),
        };
        let kind = fstatfs(&copy).map_err(|source| self.failed(source))?.f_type;
        Ok((kind == EROFS_MAGIC).then_some(copy))
    }

    fn add(
        &self,
        namespace: BorrowedFd<'_>,
        files: &[&Path],
        names: &[String],
    ) -> Result<(), Error> {
        for (file, name) in files.iter().zip(names) {
            let mount = mount_layer(file)?;
            let _visit = self.visit(namespace)?;
            if self.copy(name)?.is_some() {
                continue;
            }
            match mkdirat(CWD, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(source) => return Err(self.failed(source)),
            }
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            move_mount(&mount, c"", CWD, name, flags).map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    /// Makes the namespace by a thread that ends in it, and pins it.
    fn create(&self) -> Result<OwnedFd, Error> {
        let namespace = coracle_linux::process::in_thread(empty_namespace)
            .flatten()
            .map_err(|source| self.failed(source))?;
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let pin = openat(CWD, &self.pin, flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .map_err(|source| self.failed(source))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH;
        let flags_of_move =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        open_tree(&namespace, c"", flags)
            .and_then(|tree| move_mount(&tree, c"", &pin, c"", flags_of_move))
            .map_err(|source| self.failed(source))?;
        Ok(namespace)
    }
}

/// A mount namespace with nothing but an empty tmpfs. The calling thread must end in it.
fn empty_namespace() -> Result<OwnedFd, Errno> {
    namespace::unshare_mounts()?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = openat(CWD, c"/proc/thread-self/ns/mnt", flags, Mode::empty())?;
    mount_change(
        c"/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, c"mode", c"0700")?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(
        &root,
        c"",
        CWD,
        c"/",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )?;
    fchdir(&root)?;
    // Both the same: the old root ends up mounted over the new one, from where it is taken off.
    pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    Ok(namespace)
}
