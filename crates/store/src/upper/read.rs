//! Reading a tree that may be hostile and may be changing: every path beneath its root, no symlink followed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::IdMap;
use crate::{Error, Result};

const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];
const FOREIGN: [&str; 4] = [
    "trusted.overlay.redirect",
    "user.overlay.redirect",
    "trusted.overlay.metacopy",
    "user.overlay.metacopy",
];

/// A tree below a directory.
#[derive(Debug)]
pub(super) struct Reader {
    root: OwnedFd,
    /// For messages.
    path: PathBuf,
}

/// One name of a directory.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) name: Vec<u8>,
    pub(super) stat: Stat,
}

impl Item {
    pub(super) fn kind(&self) -> u32 {
        self.stat.st_mode & 0o170000
    }
    pub(super) fn is_directory(&self) -> bool {
        self.kind() == 0o040000
    }
    pub(super) fn is_regular(&self) -> bool {
        self.kind() == 0o100000
    }
    pub(super) fn is_symlink(&self) -> bool {
        self.kind() == 0o120000
    }
    pub(super) fn is_whiteout(&self) -> bool {
        self.kind() == 0o020000 && self.stat.st_rdev == 0
    }
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Reader> {
        let root = rustix::fs::openat(
            rustix::fs::CWD,
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(Error::io("open", path))?;
        Ok(Reader {
            root,
            path: path.to_owned(),
        })
    }

    pub(super) fn of(root: BorrowedFd<'_>) -> Result<Reader> {
        let path = PathBuf::from("the tree");
        let root = root
            .try_clone_to_owned()
            .map_err(Error::io("open", &path))?;
        Ok(Reader { root, path })
    }

    /// For messages: a path of this tree as the host sees it.
    pub(super) fn full(&self, path: &[u8]) -> PathBuf {
        self.path.join(std::ffi::OsStr::from_bytes(path))
    }

    /// Opens a file or directory; the empty path is the root.
    pub(super) fn open_at(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Without NO_XDEV a lower layer that is the host's root would show what is mounted on it.
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        loop {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    pub(super) fn directory(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// A name in an open directory, or `None`.
    pub(super) fn stat(
        &self,
        directory: &OwnedFd,
        name: &[u8],
    ) -> rustix::io::Result<Option<Stat>> {
        match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// All names of an open directory, sorted; one that vanishes meanwhile is left out.
    pub(super) fn list(&self, directory: &OwnedFd) -> rustix::io::Result<Vec<Item>> {
        let mut items = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if let Some(stat) = self.stat(directory, name)? {
                items.push(Item {
                    name: name.to_vec(),
                    stat,
                });
            }
        }
        items.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(items)
    }

    /// Is this directory of an upper or lower one opaque? Refuses what only other overlay options write.
    pub(super) fn is_opaque(&self, directory: &OwnedFd, path: &[u8]) -> Result<bool> {
        self.refuse_foreign(directory.as_fd(), path)?;
        for name in OPAQUE {
            match attribute(directory.as_fd(), name.as_bytes())
                .map_err(Error::io("inspect", self.full(path)))?
            {
                Some(value) if value == b"y" => return Ok(true),
                // "x": the directory holds whiteouts in the form of attributes.
                Some(value) if value == b"x" => {
                    return Err(Error::ForeignUpper {
                        path: self.full(path),
                        attribute: name,
                    });
                }
                _ => {}
            }
        }
        Ok(false)
    }

    /// Refuses a file or directory with a redirect or without its data.
    pub(super) fn refuse_foreign(&self, file: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        for name in FOREIGN {
            let value =
                attribute(file, name.as_bytes()).map_err(Error::io("inspect", self.full(path)))?;
            if value.is_some() {
                return Err(Error::ForeignUpper {
                    path: self.full(path),
                    attribute: name,
                });
            }
        }
        Ok(())
    }

    /// Owner and group as the container sees them.
    pub(super) fn owner(&self, stat: &Stat, ids: &IdMap, path: &[u8]) -> Result<(u32, u32)> {
        let unmapped = |kind, id| Error::Unmapped {
            path: self.full(path),
            kind,
            id,
        };
        Ok((
            ids.uid(stat.st_uid)
                .ok_or_else(|| unmapped("user", stat.st_uid))?,
            ids.gid(stat.st_gid)
                .ok_or_else(|| unmapped("group", stat.st_gid))?,
        ))
    }
}

/// An extended attribute's value; `None` if it is not there, or nothing can be there.
pub(super) fn attribute(file: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Option<Vec<u8>>> {
    // The largest that Linux has.
    let mut value = Vec::new();
    for size in [256, 64 << 10] {
        value.clear();
        value.reserve(size);
        match rustix::fs::fgetxattr(file, name, spare_capacity(&mut value)) {
            Ok(_) => return Ok(Some(value)),
            Err(Errno::RANGE) => {}
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::RANGE)
}

/// The attributes that a layer may hold, sorted by name: `user.*` but overlayfs' own, and `security.capability`.
pub(super) fn attributes(
    file: BorrowedFd<'_>,
    ids: &IdMap,
) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = Vec::new();
    for size in [1 << 10, 64 << 10] {
        names.clear();
        names.reserve(size);
        match rustix::fs::flistxattr(file, spare_capacity(&mut names)) {
            Ok(_) => break,
            Err(Errno::RANGE) if size == 1 << 10 => {}
            Err(Errno::OPNOTSUPP) => break,
            Err(errno) => return Err(errno),
        }
    }
    let mut out = Vec::new();
    for name in names.split(|byte| *byte == 0) {
        let user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
        if (user || name == b"security.capability")
            && let Some(value) = attribute(file, name)?
        {
            let value = if user {
                value
            } else {
                inside_capability(value, ids)
            };
            out.push((name.to_vec(), value));
        }
    }
    out.sort();
    Ok(out)
}

/// A file capability as the container sees it. One that was set in a user namespace is of revision 3 and names the id that was
/// root there; if that is the container's root, it is revision 2 inside (linux/capability.h).
pub(super) fn inside_capability(mut value: Vec<u8>, ids: &IdMap) -> Vec<u8> {
    const REVISION_2: u8 = 2;
    const REVISION_3: u8 = 3;
    if value.len() == 24 && value[3] == REVISION_3 {
        let root = u32::from_le_bytes([value[20], value[21], value[22], value[23]]);
        if ids.uid(root) == Some(0) {
            value.truncate(20);
            value[3] = REVISION_2;
        }
    }
    value
}
