//! A tree as an archive: an upper directory as a layer (commit), or a merged root as it is (export).
//!
//! The order is that of names, a directory before what is in it, so that equal trees give equal bytes. The first name of a file
//! carries its data, further ones are hard links to it. Sockets are left out: they mean nothing without their process.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use coracle_oci::{Digest, Hasher};
use rustix::fs::{OFlags, Stat};

use super::IdMap;
use super::lower::join;
use super::read::{Item, Reader, attributes};
use crate::tar::{Entry, EntryKind, TarWriter};
use crate::{Error, Result};

/// The upper directory as a layer's archive: whiteouts and opaque directories as OCI says them, overlayfs' own attributes left out.
/// Returns the archive's digest, which is the layer's diff id.
pub fn tar_of_upper(upper: &Path, ids: &IdMap, out: impl Write) -> Result<Digest> {
    Archiver::run(Reader::open(upper)?, ids, true, out)
}

/// A whole tree, such as a container's merged root, as it is. Directories on which something else is mounted are left empty.
/// Returns the archive's digest.
pub fn tar_of_tree(root: BorrowedFd<'_>, ids: &IdMap, out: impl Write) -> Result<Digest> {
    Archiver::run(Reader::of(root)?, ids, false, out)
}

struct Hashing<W> {
    out: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let length = self.out.write(data)?;
        self.hasher.update(&data[..length]);
        Ok(length)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

struct Archiver<'a, W: Write> {
    reader: Reader,
    ids: &'a IdMap,
    /// Whiteouts and opaque marks have their meaning.
    upper: bool,
    tar: TarWriter<BufWriter<Hashing<W>>>,
    /// Device and inode of files with several names → the first name.
    linked: HashMap<(u64, u64), Vec<u8>>,
}

impl<'a, W: Write> Archiver<'a, W> {
    fn run(reader: Reader, ids: &'a IdMap, upper: bool, out: W) -> Result<Digest> {
        let out = BufWriter::with_capacity(
            256 << 10,
            Hashing {
                out,
                hasher: Hasher::new(),
            },
        );
        let mut archiver = Archiver {
            reader,
            ids,
            upper,
            tar: TarWriter::new(out),
            linked: HashMap::new(),
        };
        archiver.directory(b"", None)?;
        let out = archiver.tar.finish().map_err(Error::Write)?;
        let hashing = out
            .into_inner()
            .map_err(|error| Error::Write(error.into_error()))?;
        Ok(hashing.hasher.finish())
    }

    fn directory(&mut self, path: &[u8], stat: Option<&Stat>) -> Result<()> {
        let inspect = |reader: &Reader, errno| Error::io("inspect", reader.full(path))(errno);
        let directory = match self.reader.directory(path) {
            Ok(directory) => directory,
            // Something is mounted here: the name is part of the tree, the content is not.
            Err(rustix::io::Errno::XDEV) => {
                let Some(stat) = stat else { return Ok(()) };
                let entry = self.entry(EntryKind::Directory, path, stat)?;
                return self.append(&entry, &mut io::empty(), path);
            }
            Err(errno) => return Err(Error::io("open", self.reader.full(path))(errno)),
        };
        let stat = rustix::fs::fstat(&directory).map_err(|errno| inspect(&self.reader, errno))?;
        let mut entry = self.entry(EntryKind::Directory, path, &stat)?;
        entry.xattrs = attributes(directory.as_fd(), self.ids)
            .map_err(|errno| inspect(&self.reader, errno))?;
        self.append(&entry, &mut io::empty(), path)?;
        if self.upper && self.reader.is_opaque(&directory, path)? {
            let mark = Entry::new(EntryKind::Regular, &join(path, b".wh..wh..opq"));
            self.append(&mark, &mut io::empty(), path)?;
        }
        let items = self
            .reader
            .list(&directory)
            .map_err(Error::io("list", self.reader.full(path)))?;
        // Closed before going down: depth is the container's choice, the number of descriptors is not.
        drop(directory);
        for item in items {
            self.item(&join(path, &item.name), path, &item)?;
        }
        Ok(())
    }

    fn item(&mut self, path: &[u8], parent: &[u8], item: &Item) -> Result<()> {
        if self.upper && item.is_whiteout() {
            let whiteout = Entry::new(
                EntryKind::Regular,
                &join(parent, &[b".wh.", &item.name[..]].concat()),
            );
            return self.append(&whiteout, &mut io::empty(), path);
        }
        if self.upper && item.name.starts_with(b".wh.") {
            return Err(Error::Unarchivable {
                path: self.reader.full(path),
                reason: "in a layer its name would mean that another file is deleted",
            });
        }
        if item.is_directory() {
            return self.directory(path, Some(&item.stat));
        }
        let kind = match item.kind() {
            0o100000 => EntryKind::Regular,
            0o120000 => EntryKind::Symlink,
            0o020000 => EntryKind::Character,
            0o060000 => EntryKind::Block,
            0o010000 => EntryKind::Fifo,
            _ => return Ok(()),
        };
        if item.stat.st_nlink > 1 {
            let identity = (item.stat.st_dev, item.stat.st_ino);
            if let Some(first) = self.linked.get(&identity) {
                let mut link = Entry::new(EntryKind::HardLink, path);
                link.link = first.clone();
                return self.append(&link, &mut io::empty(), path);
            }
            self.linked.insert(identity, path.to_vec());
        }
        if item.is_regular() {
            return self.file(path);
        }
        let mut entry = self.entry(kind, path, &item.stat)?;
        if item.is_symlink() {
            entry.link = self.link(parent, item, path)?;
        }
        self.append(&entry, &mut io::empty(), path)
    }

    fn file(&mut self, path: &[u8]) -> Result<()> {
        let full = self.reader.full(path);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match self.reader.open_at(path, flags) {
            Ok(file) => file,
            // Another file is mounted over it (a running container's /etc/hosts): its place, as with a directory.
            Err(rustix::io::Errno::XDEV) => {
                let mut place = Entry::new(EntryKind::Regular, path);
                place.mode = 0o644;
                return self.append(&place, &mut io::empty(), path);
            }
            Err(error) => return Err(Error::io("open", &full)(error)),
        };
        if self.upper {
            self.reader.refuse_foreign(file.as_fd(), path)?;
        }
        // Of what was opened, which may not be what was listed.
        let stat = rustix::fs::fstat(&file).map_err(Error::io("inspect", &full))?;
        if stat.st_mode & 0o170000 != 0o100000 {
            return Err(Error::Unarchivable {
                path: full,
                reason: "it was replaced while it was read",
            });
        }
        let mut entry = self.entry(EntryKind::Regular, path, &stat)?;
        entry.size = stat.st_size as u64;
        entry.xattrs = attributes(file.as_fd(), self.ids).map_err(Error::io("inspect", &full))?;
        self.append(&entry, &mut File::from(file), path)
    }

    fn link(&self, parent: &[u8], item: &Item, path: &[u8]) -> Result<Vec<u8>> {
        let read = |errno| Error::io("read", self.reader.full(path))(errno);
        let directory = self.reader.directory(parent).map_err(read)?;
        let target =
            rustix::fs::readlinkat(&directory, &item.name[..], Vec::new()).map_err(read)?;
        Ok(target.into_bytes())
    }

    fn entry(&self, kind: EntryKind, path: &[u8], stat: &Stat) -> Result<Entry> {
        let name = match (path.is_empty(), kind) {
            (true, _) => b"./".to_vec(),
            (false, EntryKind::Directory) => [path, b"/"].concat(),
            _ => path.to_vec(),
        };
        let mut entry = Entry::new(kind, &name);
        entry.mode = stat.st_mode & 0o7777;
        (entry.uid, entry.gid) = self.reader.owner(stat, self.ids, path)?;
        entry.mtime = stat.st_mtime;
        entry.mtime_nsec = stat.st_mtime_nsec as u32;
        if matches!(kind, EntryKind::Character | EntryKind::Block) {
            entry.device = (
                rustix::fs::major(stat.st_rdev),
                rustix::fs::minor(stat.st_rdev),
            );
        }
        Ok(entry)
    }

    fn append(&mut self, entry: &Entry, data: &mut dyn io::Read, path: &[u8]) -> Result<()> {
        self.tar
            .append(entry, data)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => Error::Unarchivable {
                    path: self.reader.full(path),
                    reason: "it shrank while it was read",
                },
                _ => Error::Write(error),
            })
    }
}
