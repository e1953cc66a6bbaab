//! The second half: everything but file data, from the finished tree, and the metadata of directories last.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
    makedev,
};
use rustix::io::Errno;

use super::ROOT;
use super::unpack::State;
use crate::tree::{Inode, NodeId, Tree};
use crate::{Error, Ownership, Result};

/// A directory below which paths are opened and no symlink is followed.
pub(super) struct Beneath(OwnedFd);

impl Beneath {
    pub(super) fn new(root: OwnedFd) -> Beneath {
        Beneath(root)
    }

    /// A directory by its path from the root; the empty path is the root.
    pub(super) fn directory(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve) {
                // The kernel asks to try again when somebody renames meanwhile, elsewhere in the file system.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }
}

/// A step that failed, and why.
type Failed = (&'static str, Errno);

/// Owner, mode, attributes and times of an open file, in the order in which they do not undo each other:
/// chown clears set-user-id bits and capabilities, everything touches the times.
pub(super) fn file_metadata(
    file: BorrowedFd<'_>,
    inode: &Inode,
    ownership: Ownership,
) -> Result<(), Failed> {
    let stat = rustix::fs::fstat(file).map_err(|errno| ("inspecting what was made", errno))?;
    // Asking is several times cheaper than setting what is right already.
    let owned = (stat.st_uid, stat.st_gid) == (inode.uid, inode.gid);
    if ownership == Ownership::Exact && !owned {
        rustix::fs::fchown(file, owner(inode).0, owner(inode).1)
            .map_err(|errno| ("setting the owner", errno))?;
    }
    // A new owner takes set-user-id bits away, so only a mode that was never right or has none is left alone.
    if stat.st_mode & 0o7777 != u32::from(inode.mode) & 0o7777 || inode.mode & 0o6000 != 0 {
        rustix::fs::fchmod(file, permissions(inode))
            .map_err(|errno| ("setting the mode", errno))?;
    }
    for (name, value) in inode.xattrs() {
        if name == b"security.capability" && ownership == Ownership::Squash {
            // An owner that is not the archive's must not lend the program its capabilities.
            continue;
        }
        rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty())
            .map_err(|errno| ("setting an extended attribute", errno))?;
    }
    rustix::fs::futimens(file, &times(inode)).map_err(|errno| ("setting the time", errno))
}

fn owner(inode: &Inode) -> (Option<Uid>, Option<Gid>) {
    // The reader refuses the one id that means "none".
    (
        Some(Uid::from_raw(inode.uid)),
        Some(Gid::from_raw(inode.gid)),
    )
}

pub(super) fn permissions(inode: &Inode) -> Mode {
    Mode::from_raw_mode(u32::from(inode.mode) & 0o7777)
}

fn times(inode: &Inode) -> Timestamps {
    let time = Timespec {
        tv_sec: inode.mtime,
        tv_nsec: i64::from(inode.mtime_nsec),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Which attribute marks an opaque directory here; found out by the first one.
struct Opaque(Option<&'static str>);

impl Opaque {
    fn mark(&mut self, directory: &OwnedFd) -> Result<(), Failed> {
        let names: &[&'static str] = match &self.0 {
            Some(name) => &[name],
            None => &["trusted.overlay.opaque", "user.overlay.opaque"],
        };
        let mut last = Errno::PERM;
        for name in names {
            match rustix::fs::fsetxattr(directory, *name, b"y", XattrFlags::empty()) {
                Ok(()) => {
                    self.0 = Some(name);
                    return Ok(());
                }
                Err(errno) => last = errno,
            }
            // Only a refusal for lack of privilege makes the other name right.
            if last != Errno::PERM {
                break;
            }
        }
        Err(("marking an opaque directory", last))
    }
}

/// Makes what the streaming half left out.
pub(super) fn finish(tree: &Tree, state: &mut State, ownership: Ownership) -> Result<()> {
    let fail = |node: NodeId, (action, errno): Failed| Error::Unpack {
        entry: String::from_utf8_lossy(&tree.path(node)).into_owned(),
        action,
        source: errno.into(),
    };
    let open = |state: &State, node: NodeId| {
        state
            .root
            .directory(&tree.path(node))
            .map_err(|source| Error::Unpack {
                entry: String::from_utf8_lossy(&tree.path(node)).into_owned(),
                action: "opening the directory",
                source,
            })
    };
    let mut directories = vec![NodeId::ROOT];
    // Inodes that are no regular files and have a place already: their further names are links to it.
    let mut first: HashMap<u32, NodeId> = HashMap::new();
    let mut next = 0;
    while let Some(directory) = directories.get(next).copied() {
        next += 1;
        let here = open(state, directory)?;
        for node in tree.children(directory) {
            let inode = tree.inode(node);
            let number = tree.inode_number(node);
            if inode.is_directory() {
                if !state.made.get(node.0 as usize).copied().unwrap_or(false) {
                    rustix::fs::mkdirat(&here, tree.name(node), Mode::RWXU)
                        .map_err(|errno| fail(node, ("making the directory", errno)))?;
                }
                directories.push(node);
                continue;
            }
            let home = if inode.is_regular() {
                state.homes.get(&number)
            } else {
                first.get(&number)
            };
            match home.copied() {
                Some(home) if home == node => {}
                Some(home) => {
                    let from = open(state, tree.parent_of(home))?;
                    rustix::fs::linkat(
                        &from,
                        tree.name(home),
                        &here,
                        tree.name(node),
                        AtFlags::empty(),
                    )
                    .map_err(|errno| fail(node, ("making the hard link", errno)))?;
                }
                None if inode.is_regular() => {
                    // The name under which its data came was replaced: this one becomes its home.
                    let moved = state.moved.get(&number).ok_or(Errno::NOENT);
                    moved
                        .and_then(|moved| {
                            rustix::fs::renameat(&state.layer, &moved[..], &here, tree.name(node))
                        })
                        .map_err(|errno| fail(node, ("making the hard link", errno)))?;
                    let path = [ROOT.as_bytes(), b"/", &tree.path(node)].concat();
                    state.moved.insert(number, path);
                    state.homes.insert(number, node);
                }
                None => {
                    special(&here, tree.name(node), inode, ownership)
                        .map_err(|failed| fail(node, failed))?;
                    first.insert(number, node);
                }
            }
        }
    }
    let mut opaque = Opaque(None);
    // Children before parents: a parent may forbid its owner to go through it.
    for directory in directories.into_iter().rev() {
        let here = open(state, directory)?;
        let inode = tree.inode(directory);
        if inode.opaque {
            opaque
                .mark(&here)
                .map_err(|failed| fail(directory, failed))?;
        }
        file_metadata(here.as_fd(), inode, ownership).map_err(|failed| fail(directory, failed))?;
    }
    Ok(())
}

/// A symlink, device, pipe or whiteout.
fn special(
    directory: &OwnedFd,
    name: &[u8],
    inode: &Inode,
    ownership: Ownership,
) -> Result<(), Failed> {
    if inode.is_symlink() {
        rustix::fs::symlinkat(inode.target(), directory, name)
            .map_err(|errno| ("making the symlink", errno))?;
    } else {
        let (kind, action) = match inode.kind() {
            0o010000 => (FileType::Fifo, "making the pipe"),
            0o060000 => (FileType::BlockDevice, "making the device node"),
            // A whiteout needs no privilege (Linux 5.8).
            _ if inode.is_whiteout() => (FileType::CharacterDevice, "making the whiteout"),
            _ => (FileType::CharacterDevice, "making the device node"),
        };
        let device = makedev(inode.device.0, inode.device.1);
        rustix::fs::mknodat(directory, name, kind, permissions(inode), device)
            .map_err(|errno| (action, errno))?;
        if inode.is_whiteout() {
            return Ok(());
        }
    }
    if ownership == Ownership::Exact {
        rustix::fs::chownat(
            directory,
            name,
            owner(inode).0,
            owner(inode).1,
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(|errno| ("setting the owner", errno))?;
    }
    if !inode.is_symlink() {
        // Not a symlink: it was made above, in a directory that nobody else can write.
        rustix::fs::chmodat(directory, name, permissions(inode), AtFlags::empty())
            .map_err(|errno| ("setting the mode", errno))?;
    }
    rustix::fs::utimensat(directory, name, &times(inode), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| ("setting the time", errno))
}
