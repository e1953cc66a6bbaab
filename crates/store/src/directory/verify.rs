//! Is a directory layer what its archive says? The archive is made again, hashed, and read; then the tree is compared with it,
//! name by name: what is missing, what is too much, and every mode, owner, time, target, device and attribute.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::path::Path;

use coracle_oci::{Digest, Hasher};
use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::place::Beneath;
use super::{Description, ROOT, SplitReader};
use crate::tar::TarReader;
use crate::tree::{NodeId, Tree};
use crate::{Error, Limits, Result};

struct Hashing {
    archive: SplitReader,
    hasher: Hasher,
}

impl Read for Hashing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.archive.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}

/// Compares the layer in this directory with its digest, and its tree with its archive.
pub(crate) fn verify(layer: &Path, diff_id: &Digest, limits: &Limits) -> Result<()> {
    let damaged = |reason: String| Error::Damaged {
        path: layer.to_owned(),
        reason,
    };
    let description = Description::load(layer)?;
    if description.diff_id != *diff_id {
        return Err(damaged("its description names another layer".into()));
    }
    let hashing = Hashing {
        archive: SplitReader::open(layer)?,
        hasher: Hasher::new(),
    };
    let mut reader = TarReader::new(BufReader::with_capacity(256 << 10, hashing), *limits);
    let mut tree = Tree::new(limits);
    loop {
        let entry = reader.next_entry().and_then(|entry| match entry {
            Some(entry) => tree.apply(&entry).map(|_| true),
            None => Ok(false),
        });
        match entry {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                let cause = std::error::Error::source(&error)
                    .map(|source| format!(": {source}"))
                    .unwrap_or_default();
                return Err(damaged(format!(
                    "its archive cannot be made again: {error}{cause}"
                )));
            }
        }
    }
    if reader.into_inner().into_inner().hasher.finish() != *diff_id {
        return Err(damaged("its files do not match its digest".into()));
    }
    let root = layer.join(ROOT);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root =
        rustix::fs::openat(CWD, &root, flags, Mode::empty()).map_err(Error::io("open", &root))?;
    let check = Check {
        tree: &tree,
        root: Beneath::new(root),
        squashed: description.squashed,
        layer,
    };
    check.all()
}

struct Check<'a> {
    tree: &'a Tree,
    root: Beneath,
    squashed: bool,
    layer: &'a Path,
}

impl Check<'_> {
    fn all(&self) -> Result<()> {
        let mut directories = vec![NodeId::ROOT];
        while let Some(node) = directories.pop() {
            let path = self.tree.path(node);
            let here = self
                .root
                .directory(&path)
                .map_err(|error| self.wrong(node, &format!("cannot be opened: {error}")))?;
            let inspect = |errno: Errno| Error::io("inspect", self.layer)(errno);
            let stat = rustix::fs::fstat(&here).map_err(inspect)?;
            let opaque = ["trusted.overlay.opaque", "user.overlay.opaque"]
                .iter()
                .any(|name| matches!(has_attribute(&here, name.as_bytes()), Ok(Some(value)) if value == b"y"));
            if opaque != self.tree.inode(node).opaque {
                return Err(self.wrong(node, "is opaque, or is not, against its archive"));
            }
            self.attributes(node, &here)?;
            let mut names = BTreeSet::new();
            for entry in Dir::read_from(&here).map_err(inspect)? {
                let name = entry.map_err(inspect)?.file_name().to_bytes().to_vec();
                if name != b"." && name != b".." {
                    names.insert(name);
                }
            }
            for child in self.tree.children(node) {
                let name = self.tree.name(child);
                names.remove(name);
                let stat = match rustix::fs::statat(&here, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => stat,
                    Err(Errno::NOENT) => return Err(self.wrong(child, "is missing")),
                    Err(errno) => return Err(inspect(errno)),
                };
                let inode = self.tree.inode(child);
                if inode.is_directory() {
                    directories.push(child);
                    continue;
                }
                self.compare(child, &stat)?;
                if inode.is_symlink() {
                    let target =
                        rustix::fs::readlinkat(&here, name, Vec::new()).map_err(inspect)?;
                    if target.to_bytes() != inode.target() {
                        return Err(self.wrong(child, "has another target"));
                    }
                }
                if inode.is_regular() && !inode.xattrs().is_empty() {
                    let flags =
                        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                    let file =
                        rustix::fs::openat(&here, name, flags, Mode::empty()).map_err(inspect)?;
                    self.attributes(child, &file)?;
                }
            }
            if let Some(name) = names.first() {
                let name = String::from_utf8_lossy(name).into_owned();
                return Err(self.wrong(
                    node,
                    &format!("has {name:?} in it, which the archive does not"),
                ));
            }
            // Last, because its time changes with whatever is wrong in it.
            self.compare(node, &stat)?;
        }
        Ok(())
    }

    fn compare(&self, node: NodeId, stat: &Stat) -> Result<()> {
        let inode = self.tree.inode(node);
        let device = rustix::fs::makedev(inode.device.0, inode.device.1);
        if stat.st_mode & 0o170000 != u32::from(inode.kind()) {
            return Err(self.wrong(node, "is another kind of file"));
        }
        if matches!(inode.kind(), 0o020000 | 0o060000) && stat.st_rdev != device {
            return Err(self.wrong(node, "is another device"));
        }
        if inode.is_whiteout() {
            return Ok(());
        }
        if !inode.is_symlink() && stat.st_mode != u32::from(inode.mode) {
            return Err(self.wrong(node, "has another mode"));
        }
        if !self.squashed && (stat.st_uid, stat.st_gid) != (inode.uid, inode.gid) {
            return Err(self.wrong(node, "has another owner"));
        }
        // File systems keep times as finely as they can; seconds all of them keep.
        if stat.st_mtime != inode.mtime {
            return Err(self.wrong(node, "has another time"));
        }
        if inode.is_regular() && stat.st_size as u64 != inode.size {
            return Err(self.wrong(node, "has another size"));
        }
        Ok(())
    }

    fn attributes(&self, node: NodeId, file: impl AsFd) -> Result<()> {
        for (name, value) in self.tree.inode(node).xattrs() {
            if self.squashed && name == b"security.capability" {
                continue;
            }
            let found = has_attribute(&file, name).map_err(Error::io("inspect", self.layer))?;
            // In a user namespace the kernel shows capabilities in another form than they were given.
            if found.is_none() || (name != b"security.capability" && found.as_ref() != Some(value))
            {
                return Err(self.wrong(node, "has another extended attribute"));
            }
        }
        Ok(())
    }

    fn wrong(&self, node: NodeId, what: &str) -> Error {
        let path = self.tree.path(node);
        let name = if path.is_empty() {
            "its root".into()
        } else {
            String::from_utf8_lossy(&path)
        };
        Error::Damaged {
            path: self.layer.to_owned(),
            reason: format!("{name} {what}"),
        }
    }
}

fn has_attribute(file: impl AsFd, name: &[u8]) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut value = Vec::with_capacity(64 << 10);
    match rustix::fs::fgetxattr(file, name, spare_capacity(&mut value)) {
        Ok(_) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}
