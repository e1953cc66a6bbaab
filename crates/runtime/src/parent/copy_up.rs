//! A tmpfs that begins with what the image has in its place (`tmpcopyup`).
//!
//! The image is hostile: nothing in it is followed or opened but directories and plain files, each by its name in a directory
//! that is held open; what is neither is made anew from its numbers.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use coracle_linux::root_dir::open_in;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, chmodat, chownat, fchmod, fchown, fstat, mkdirat,
    mknodat, openat, readlinkat, statat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};
use rustix::process::{Gid, Uid};

use crate::Error;
use crate::resolve::CopyUp;

/// Deeper trees are refused: each level holds two descriptors.
const DEPTH: usize = 128;

/// Makes it, with the files of `root` in it.
pub(super) fn make(copy: &CopyUp, root: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let target = copy.target.to_string_lossy().into_owned();
    let fail = |source| Error::host("copying the image's files to a tmpfs for", &target, source);
    let mount = new(copy).map_err(fail)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let from = match open_in(root, &copy.target, flags, Mode::empty()) {
        Ok(from) => from,
        // Nothing to begin with.
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(mount),
        Err(error) => return Err(fail(error)),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let to = openat(&mount, c".", flags, Mode::empty()).map_err(fail)?;
    if !copy.config.iter().any(|(key, _)| key.as_c_str() == c"mode") {
        own(to.as_fd(), &fstat(&from).map_err(fail)?).map_err(fail)?;
    }
    copy_tree(from, to.as_fd(), 0).map_err(fail)?;
    Ok(mount)
}

fn new(copy: &CopyUp) -> Result<OwnedFd, Errno> {
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in &copy.config {
        match value {
            Some(value) => {
                fsconfig_set_string(context.as_fd(), key.as_c_str(), value.as_c_str())?;
            }
            None => fsconfig_set_flag(context.as_fd(), key.as_c_str())?,
        }
    }
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::from_bits_retain(copy.attributes as u32);
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn own(file: BorrowedFd<'_>, status: &Stat) -> Result<(), Errno> {
    fchown(
        file,
        Some(Uid::from_raw(status.st_uid)),
        Some(Gid::from_raw(status.st_gid)),
    )?;
    // After the owner, whose change takes set-id bits away.
    fchmod(file, Mode::from_raw_mode(status.st_mode & 0o7777))
}

fn copy_tree(from: OwnedFd, to: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
    if depth > DEPTH {
        return Err(Errno::LOOP);
    }
    let mut entries = Dir::read_from(&from)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        copy_one(from.as_fd(), to, name, depth)?;
    }
    Ok(())
}

fn copy_one(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    depth: usize,
) -> Result<(), Errno> {
    let status = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(status.st_mode);
    let private = Mode::RUSR | Mode::WUSR;
    match kind {
        FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let below = openat(from, name, flags, Mode::empty())?;
            mkdirat(to, name, Mode::RWXU)?;
            let made = openat(to, name, flags, Mode::empty())?;
            copy_tree(below, made.as_fd(), depth + 1)?;
            own(made.as_fd(), &status)
        }
        FileType::RegularFile => {
            // Nothing else that may have come in its place makes the opening wait.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let mut source = File::from(openat(from, name, flags, Mode::empty())?);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mut made = File::from(openat(to, name, flags, private)?);
            std::io::copy(&mut source, &mut made)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            own(made.as_fd(), &status)
        }
        FileType::Symlink => {
            let text = readlinkat(from, name, Vec::new())?;
            symlinkat(text.as_c_str(), to, name)?;
            owned_link(to, name, &status)
        }
        kind => {
            mknodat(to, name, kind, private, status.st_rdev)?;
            owned_link(to, name, &status)?;
            chmodat(
                to,
                name,
                Mode::from_raw_mode(status.st_mode & 0o7777),
                AtFlags::empty(),
            )
        }
    }
}

fn owned_link(to: BorrowedFd<'_>, name: &CStr, status: &Stat) -> Result<(), Errno> {
    chownat(
        to,
        name,
        Some(Uid::from_raw(status.st_uid)),
        Some(Gid::from_raw(status.st_gid)),
        AtFlags::SYMLINK_NOFOLLOW,
    )
}
