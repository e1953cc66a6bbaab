//! The one-file layer: header, the archive as it came, and an EROFS index that points into it (docs/format/layer.md).
//!
//! [`index`] writes the index, [`header`] the layer's own header, [`reader`] walks an index without mounting it,
//! [`probe`] finds out whether this kernel can mount such a file.

mod chunks;
pub(crate) mod header;
mod index;
mod layout;
mod output;
pub(crate) mod probe;
pub(crate) mod reader;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use coracle_oci::{Digest, Hasher};

use self::header::{HEADER_SIZE, Header, TAR_OFFSET};
use self::layout::{BLOCK, SUPERBLOCK_OFFSET};
use crate::pipeline::{self, Sink};
use crate::tar::TarReader;
use crate::tree::Tree;
use crate::{Durability, Error, Limits, Result};

/// Writes the archive at its place and hashes it on the way.
struct Archive<'a> {
    file: &'a File,
    path: &'a Path,
    hasher: Hasher,
    at: u64,
    /// Up to here the kernel was asked to write out; `None` if nobody will wait for it.
    started: Option<u64>,
}

/// How much is collected before the kernel is asked to write it out.
const WRITEBACK: u64 = 8 << 20;

impl Sink for Archive<'_> {
    fn take(&mut self, data: &[u8]) -> Result<()> {
        self.hasher.update(data);
        self.file
            .write_all_at(data, self.at)
            .map_err(Error::io("write", self.path))?;
        self.at += data.len() as u64;
        if let Some(started) = self.started
            && self.at - started >= WRITEBACK
        {
            // So that the fdatasync at the end has little left to wait for.
            coracle_linux::file::start_writeback(self.file, started, self.at - started)
                .map_err(Error::io("write", self.path))?;
            self.started = Some(self.at);
        }
        Ok(())
    }
}

/// Makes a layer file of an archive. `file` is empty; when this fails it holds garbage.
pub(crate) fn ingest(
    archive: impl Read + Send,
    file: &File,
    path: &Path,
    limits: &Limits,
    durability: Durability,
) -> Result<Header> {
    let started = (durability == Durability::Synced).then_some(TAR_OFFSET);
    let mut sink = Archive {
        file,
        path,
        hasher: Hasher::new(),
        at: TAR_OFFSET,
        started,
    };
    let tree = pipeline::run(archive, &mut sink, |feed| {
        let mut tree = Tree::new(limits);
        let mut reader = TarReader::new(feed, *limits);
        while let Some(entry) = reader.next_entry()? {
            tree.apply(&entry)?;
        }
        Ok(tree)
    })?;
    let diff_id = sink.hasher.finish();
    let index_offset = sink.at.next_multiple_of(BLOCK);
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&diff_id.as_bytes()[..16]);
    let index = index::write(&tree, file, path, index_offset, uuid)?;
    let header = Header {
        tar_size: sink.at - TAR_OFFSET,
        index_offset,
        index_size: index.size,
        content_size: tree.content_size(),
        inodes: index.inodes,
        implicit: tree.implicit_count(),
        diff_id,
        index_digest: index.digest,
    };
    file.write_all_at(&index.superblock, SUPERBLOCK_OFFSET)
        .map_err(Error::io("write", path))?;
    file.write_all_at(&header.encode(), 0)
        .map_err(Error::io("write", path))?;
    if durability == Durability::Synced {
        file.sync_data().map_err(Error::io("sync", path))?;
    }
    Ok(header)
}

/// Makes the header and the checksums of a damaged layer file fit its length and content, so that what is read after
/// them is reached.
#[cfg(feature = "fuzzing")]
pub(crate) fn seal(bytes: &mut [u8]) {
    let length = bytes.len() as u64;
    if bytes.len() < HEADER_SIZE {
        return;
    }
    let offset = u64::from_le_bytes(bytes[40..48].try_into().unwrap_or_default());
    if let Some(size) = length.checked_sub(offset) {
        bytes[48..56].copy_from_slice(&size.to_le_bytes());
    }
    header::seal(bytes);
    let superblock = SUPERBLOCK_OFFSET as usize..(SUPERBLOCK_OFFSET + BLOCK) as usize;
    if let Some(block) = bytes.get_mut(superblock) {
        block[..4].copy_from_slice(&layout::MAGIC.to_le_bytes());
        block[4..8].fill(0);
        let sum = layout::crc32c(!0, block);
        block[4..8].copy_from_slice(&sum.to_le_bytes());
    }
}

/// The header of a layer file.
pub(crate) fn read_header(file: &File, path: &Path) -> Result<Header> {
    let damaged = |reason: &str| Error::Damaged {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let mut data = [0; HEADER_SIZE];
    file.read_exact_at(&mut data, 0)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => damaged("it is shorter than its header"),
            _ => Error::io("read", path)(error),
        })?;
    let header = Header::decode(&data).map_err(damaged)?;
    let size = file.metadata().map_err(Error::io("inspect", path))?.len();
    if size != header.file_size() {
        return Err(damaged(&format!(
            "it has {size} bytes, its header says {}",
            header.file_size()
        )));
    }
    Ok(header)
}

/// Reads the whole file and compares it with its header.
pub(crate) fn verify(file: &File, path: &Path, diff_id: &Digest) -> Result<()> {
    let damaged = |reason: &str| Error::Damaged {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let header = read_header(file, path)?;
    if header.diff_id != *diff_id {
        return Err(damaged("its header names another layer"));
    }
    let hash = |start: u64, end: u64| -> Result<Digest> {
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        let mut at = start;
        while at < end {
            let length = (end - at).min(buffer.len() as u64) as usize;
            file.read_exact_at(&mut buffer[..length], at)
                .map_err(Error::io("read", path))?;
            hasher.update(&buffer[..length]);
            at += length as u64;
        }
        Ok(hasher.finish())
    };
    if hash(TAR_OFFSET, TAR_OFFSET + header.tar_size)? != header.diff_id {
        return Err(damaged("the archive in it does not match its digest"));
    }
    let mut superblock = [0; BLOCK as usize];
    file.read_exact_at(&mut superblock, SUPERBLOCK_OFFSET)
        .map_err(Error::io("read", path))?;
    let mut hasher = Hasher::new();
    hasher.update(&superblock);
    hasher.update(hash(header.index_offset, header.file_size())?.as_bytes());
    if hasher.finish() != header.index_digest {
        return Err(damaged("its index does not match its digest"));
    }
    Ok(())
}
