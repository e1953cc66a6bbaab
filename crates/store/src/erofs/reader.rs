//! Walking an index without mounting it: what [`crate::diff`] compares an upper directory with.
//!
//! The file is this engine's own, but it may be damaged: every address is checked, and nothing is believed beyond the file's end.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::layout::*;
use crate::{Error, Result};

/// Directories and symlinks beyond this are damage: names of 4 million entries need less.
const MAX_CONTENT: u64 = 1 << 31;

/// An index that can be walked.
#[derive(Debug)]
pub(crate) struct Image {
    file: File,
    path: PathBuf,
    size: u64,
    inodes: u64,
    /// The directory that was looked in last, and its names.
    recent: RefCell<Option<(u64, Names)>>,
}

/// Sorted names, and their inodes.
type Names = Rc<Vec<(Vec<u8>, u64)>>;

/// What an inode says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) nid: u64,
    pub(crate) mode: u16,
    pub(crate) size: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: i64,
    pub(crate) mtime_nsec: u32,
    pub(crate) links: u32,
    pub(crate) device: (u32, u32),
    layout: u16,
    location: u32,
    xattr_size: u64,
}

impl Stat {
    pub(crate) fn is_directory(&self) -> bool {
        self.mode & 0o170000 == 0o040000
    }
    pub(crate) fn is_whiteout(&self) -> bool {
        self.mode & 0o170000 == 0o020000 && self.device == (0, 0)
    }
}

impl Image {
    pub(crate) fn open(path: &Path) -> Result<Image> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let size = super::read_header(&file, path)?.file_size();
        let mut image = Image {
            file,
            path: path.to_owned(),
            size,
            inodes: 0,
            recent: RefCell::new(None),
        };
        let mut block = [0; BLOCK as usize];
        image.read(&mut block, SUPERBLOCK_OFFSET)?;
        let stored = u32_at(&block, 4);
        block[4..8].fill(0);
        if u32_at(&block, 0) != MAGIC || crc32c(!0, &block) != stored {
            return Err(image.damaged("its superblock's checksum does not match"));
        }
        image.inodes = u64::from(u32_at(&block, 40)) * BLOCK;
        Ok(image)
    }

    pub(crate) fn root(&self) -> Result<Stat> {
        self.stat(0)
    }

    pub(crate) fn stat(&self, nid: u64) -> Result<Stat> {
        let mut raw = [0; INODE_SIZE as usize];
        self.read(&mut raw, self.inode_offset(nid)?)?;
        let u16_at = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
        let format = u16_at(0);
        if format & INODE_EXTENDED == 0 {
            return Err(self.damaged("an inode has a format that is never written"));
        }
        let count = u64::from(u16_at(2));
        let location = u32_at(&raw, 16);
        Ok(Stat {
            nid,
            mode: u16_at(4),
            size: u64_at(&raw, 8),
            uid: u32_at(&raw, 24),
            gid: u32_at(&raw, 28),
            mtime: u64_at(&raw, 32) as i64,
            mtime_nsec: u32_at(&raw, 40),
            links: u32_at(&raw, 44),
            device: decode_device(location),
            layout: format >> 1 & 7,
            location,
            xattr_size: if count == 0 {
                0
            } else {
                XATTR_HEADER_SIZE as u64 + (count - 1) * 4
            },
        })
    }

    /// Names and inodes of a directory, in order, without `.` and `..`.
    pub(crate) fn list(&self, directory: &Stat) -> Result<Vec<(Vec<u8>, u64)>> {
        let content = self.content(directory)?;
        let mut out = Vec::new();
        for block in content.chunks(BLOCK as usize) {
            let bad = || self.damaged("a directory's block contradicts itself");
            let first = block
                .get(8..10)
                .map(|raw| usize::from(u16::from_le_bytes([raw[0], raw[1]])))
                .ok_or_else(bad)?;
            if first % DIRENT_SIZE != 0 || first == 0 || first > block.len() {
                return Err(bad());
            }
            let offset = |index: usize| {
                let at = index * DIRENT_SIZE + 8;
                usize::from(u16::from_le_bytes([block[at], block[at + 1]]))
            };
            let count = first / DIRENT_SIZE;
            for index in 0..count {
                let start = offset(index);
                let end = if index + 1 < count {
                    offset(index + 1)
                } else {
                    block.len()
                };
                let name = block.get(start..end).ok_or_else(bad)?;
                let name = &name[..name
                    .iter()
                    .position(|byte| *byte == 0)
                    .unwrap_or(name.len())];
                if name != b"." && name != b".." {
                    out.push((name.to_vec(), u64_at(block, index * DIRENT_SIZE)));
                }
            }
        }
        Ok(out)
    }

    /// A name in a directory. Lookups come directory by directory, so the last one is kept.
    pub(crate) fn lookup(&self, directory: &Stat, name: &[u8]) -> Result<Option<Stat>> {
        if !directory.is_directory() {
            return Ok(None);
        }
        let known = self
            .recent
            .borrow()
            .as_ref()
            .filter(|(nid, _)| *nid == directory.nid)
            .map(|(_, list)| Rc::clone(list));
        let list = match known {
            Some(list) => list,
            None => {
                let list = Rc::new(self.list(directory)?);
                self.recent.replace(Some((directory.nid, Rc::clone(&list))));
                list
            }
        };
        match list.binary_search_by(|(other, _)| other.as_slice().cmp(name)) {
            Ok(index) => self.stat(list[index].1).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// All extended attributes, in the order they were written.
    pub(crate) fn xattrs(&self, stat: &Stat) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut raw = vec![0; stat.xattr_size as usize];
        self.read(&mut raw, self.inode_offset(stat.nid)? + INODE_SIZE)?;
        let mut out = Vec::new();
        let mut at = XATTR_HEADER_SIZE;
        while at < raw.len() {
            let bad = || self.damaged("an inode's attributes contradict themselves");
            let head = raw.get(at..at + 4).ok_or_else(bad)?;
            let name_length = usize::from(head[0]);
            let value_length = usize::from(u16::from_le_bytes([head[2], head[3]]));
            let prefix = xattr_prefix(head[1]).ok_or_else(bad)?;
            let name = raw.get(at + 4..at + 4 + name_length).ok_or_else(bad)?;
            let value = raw
                .get(at + 4 + name_length..at + 4 + name_length + value_length)
                .ok_or_else(bad)?;
            out.push(([prefix, name].concat(), value.to_vec()));
            at = (at + 4 + name_length + value_length).next_multiple_of(4);
        }
        Ok(out)
    }

    /// A symlink's target or a directory's blocks.
    pub(crate) fn content(&self, stat: &Stat) -> Result<Vec<u8>> {
        if stat.size > MAX_CONTENT || stat.size > self.size {
            return Err(self.damaged("a directory is larger than it can be"));
        }
        let mut out = vec![0; stat.size as usize];
        let tail = if stat.layout == LAYOUT_FLAT_INLINE {
            (stat.size % BLOCK) as usize
        } else {
            0
        };
        let whole = out.len() - tail;
        self.read(&mut out[..whole], u64::from(stat.location) * BLOCK)?;
        let inline = self.inode_offset(stat.nid)? + INODE_SIZE + stat.xattr_size;
        self.read(&mut out[whole..], inline)?;
        Ok(out)
    }

    fn inode_offset(&self, nid: u64) -> Result<u64> {
        nid.checked_mul(1 << NID_BITS)
            .and_then(|offset| offset.checked_add(self.inodes))
            .filter(|offset| *offset < self.size)
            .ok_or_else(|| self.damaged("an inode lies outside of the file"))
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        self.file
            .read_exact_at(buffer, at)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => self.damaged("it points outside of itself"),
                _ => Error::io("read", &self.path)(error),
            })
    }

    fn damaged(&self, reason: &str) -> Error {
        Error::Damaged {
            path: self.path.clone(),
            reason: reason.to_owned(),
        }
    }
}

fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(data[at..at + 4].try_into().unwrap_or_default())
}

fn u64_at(data: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(data[at..at + 8].try_into().unwrap_or_default())
}
