//! The streaming reader: headers to [`Entry`], data in place.

use std::io::BufRead;

use super::header::{self, Dialect, Header};
use super::pax::Records;
use super::{BLOCK, Entry, EntryKind, PATH_MAX, TarError, sparse};
use crate::Limits;

/// Reads an archive once, front to back.
///
/// After [`TarReader::next_entry`] the entry's data comes from [`TarReader::data`]; what is not taken is skipped.
/// After the last entry everything up to the end of the stream has been read, so that a digest of the stream is whole.
#[derive(Debug)]
pub struct TarReader<R> {
    input: R,
    limits: Limits,
    /// Bytes read so far.
    offset: u64,
    /// Data of the current entry that nobody took yet.
    data: u64,
    /// Zeros after it.
    padding: u64,
    entries: u64,
    content: u64,
    global: Records,
    done: bool,
}

impl<R: BufRead> TarReader<R> {
    /// A reader of this archive, which gives up at these limits.
    pub fn new(input: R, limits: Limits) -> TarReader<R> {
        TarReader {
            input,
            limits,
            offset: 0,
            data: 0,
            padding: 0,
            entries: 0,
            content: 0,
            global: Records::default(),
            done: false,
        }
    }

    /// Bytes of the archive read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next entry, or `None` when the archive and the stream are at their end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.done {
            return Ok(None);
        }
        self.skip_data()?;
        let mut local = Records::default();
        let (mut long_name, mut long_link) = (None, None);
        let mut header_bytes = 0u64;
        loop {
            let at = self.offset;
            let Some(block) =
                self.block_or_end("where a header or the end-of-archive block should be")?
            else {
                return Err(TarError::Truncated {
                    offset: at,
                    within: "without an end-of-archive block",
                });
            };
            if block.iter().all(|byte| *byte == 0) {
                if header_bytes > 0 {
                    return Err(TarError::Header {
                        offset: at,
                        reason: "the archive ends after an extended header",
                    });
                }
                self.finish()?;
                return Ok(None);
            }
            let header = Header::parse(&block, at)?;
            let kind = block[header::TYPE];
            if matches!(kind, b'x' | b'g' | b'L' | b'K') {
                let size: u64 = header.bounded(header::SIZE, "size")?;
                header_bytes = header_bytes
                    .saturating_add(size)
                    .saturating_add(BLOCK as u64);
                if header_bytes > self.limits.header_bytes {
                    let limit = self.limits.header_bytes;
                    return Err(TarError::Limit {
                        what: "bytes of headers before one entry",
                        limit,
                    });
                }
                let body = self.body(size)?;
                match kind {
                    b'x' => local.parse(&body, at, false)?,
                    b'g' => self.global.parse(&body, at, true)?,
                    b'L' => long_name = Some(until_nul(body)),
                    _ => long_link = Some(until_nul(body)),
                }
                continue;
            }
            if kind == b'V' && header.dialect() != Dialect::Ustar {
                // A volume label names the archive, not a file.
                let size: u64 = header.bounded(header::SIZE, "size")?;
                self.expect_data(size)?;
                self.skip_data()?;
                continue;
            }
            local.fill_from(&self.global);
            let entry = self.entry(&header, local, long_name, long_link)?;
            return Ok(Some(entry));
        }
    }

    /// The next piece of the current entry's data; empty when it is all taken.
    pub fn data(&mut self) -> Result<&[u8], TarError> {
        if self.data == 0 {
            return Ok(&[]);
        }
        let offset = self.offset;
        let piece = self
            .input
            .fill_buf()
            .map_err(|source| TarError::Read { offset, source })?;
        if piece.is_empty() {
            return Err(TarError::Truncated {
                offset,
                within: "in the middle of a file's data",
            });
        }
        let length = piece
            .len()
            .min(usize::try_from(self.data).unwrap_or(usize::MAX));
        Ok(&piece[..length])
    }

    /// Says that so many bytes of what [`TarReader::data`] returned were taken.
    pub fn consume(&mut self, amount: usize) {
        let amount = amount.min(usize::try_from(self.data).unwrap_or(usize::MAX));
        self.input.consume(amount);
        self.offset += amount as u64;
        self.data -= amount as u64;
    }

    /// The source, between two entries or before an entry's data.
    pub(crate) fn input_mut(&mut self) -> &mut R {
        &mut self.input
    }

    /// The source back, after the last entry.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn entry(
        &mut self,
        header: &Header<'_>,
        mut pax: Records,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, TarError> {
        let at = header.offset;
        let path = pax
            .sparse
            .name
            .take()
            .or(pax.path.take())
            .or(long_name)
            .unwrap_or_else(|| header.path());
        check_name(&path, true)?;
        let flag = header.block[header::TYPE];
        let kind = match flag {
            // A directory of the days before type 5.
            0 if path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' | b'S' => EntryKind::Regular,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::Character,
            b'4' => EntryKind::Block,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            _ => return Err(TarError::entry(&path, "its type is unknown")),
        };
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(TarError::Limit {
                what: "entries",
                limit: self.limits.entries,
            });
        }
        let owner = |pax: Option<u64>, range, field| -> Result<u32, TarError> {
            let id = match pax {
                Some(id) => u32::try_from(id).ok(),
                None => Some(header.bounded(range, field)?),
            };
            // The last id means "unchanged" to chown(2).
            id.filter(|id| *id != u32::MAX).ok_or(TarError::Field {
                offset: at,
                field,
                reason: "out of range",
            })
        };
        let mut entry = Entry::new(kind, &path);
        entry.mode = header.number(header::MODE, "mode")?.rem_euclid(0o10000) as u32;
        entry.uid = owner(pax.uid, header::UID, "uid")?;
        entry.gid = owner(pax.gid, header::GID, "gid")?;
        (entry.mtime, entry.mtime_nsec) = match pax.mtime {
            Some(time) => time,
            None => (header.bounded(header::MTIME, "mtime")?, 0),
        };
        entry.xattrs = pax.take_xattrs();
        self.check_xattrs(&entry)?;
        match kind {
            EntryKind::HardLink | EntryKind::Symlink => {
                entry.link = pax
                    .link
                    .take()
                    .or(long_link)
                    .unwrap_or_else(|| header.text(header::LINK).to_vec());
                check_name(&entry.link, false).map_err(|_| {
                    TarError::entry(
                        &path,
                        "the target of this link is empty, too long, or has a NUL in it",
                    )
                })?;
            }
            EntryKind::Character | EntryKind::Block if header.dialect() != Dialect::V7 => {
                // Linux has 12 bits of major and 20 of minor.
                entry.device = (
                    header.bounded(header::MAJOR, "major number")?,
                    header.bounded(header::MINOR, "minor number")?,
                );
                if entry.device.0 >= 1 << 12 || entry.device.1 >= 1 << 20 {
                    return Err(TarError::entry(&path, "its device number is out of range"));
                }
            }
            EntryKind::Regular => self.sizes(header, &pax, flag, &mut entry)?,
            _ => {}
        }
        self.content = self.content.saturating_add(entry.size);
        if self.content > self.limits.content_bytes {
            return Err(TarError::Limit {
                what: "bytes of content",
                limit: self.limits.content_bytes,
            });
        }
        entry.data_offset = self.offset;
        self.expect_data(entry.data_size)?;
        Ok(entry)
    }

    /// Size, data and sparse map of a regular file; reads the map where it lies outside the header.
    fn sizes(
        &mut self,
        header: &Header<'_>,
        pax: &Records,
        flag: u8,
        entry: &mut Entry,
    ) -> Result<(), TarError> {
        let at = header.offset;
        let limit = self.limits.header_bytes;
        let error = |reason| TarError::Field {
            offset: at,
            field: "size",
            reason,
        };
        let mut stored = match pax.size {
            Some(size) => size,
            None => header.bounded(header::SIZE, "size")?,
        };
        if stored > i64::MAX as u64 {
            return Err(error("out of range"));
        }
        let version = (pax.sparse.major, pax.sparse.minor);
        let map = if flag == b'S' {
            let (map, size) = sparse::old_gnu(header, limit, || self.block("in a sparse map"))?;
            Some((map, size))
        } else if let (Some(major), minor) = version
            && (major, minor.unwrap_or(0)) != (0, 0)
            && (major, minor.unwrap_or(0)) != (0, 1)
        {
            if (major, minor.unwrap_or(0)) != (1, 0) {
                return Err(TarError::entry(&entry.path, "its sparse format is unknown"));
            }
            let size = pax
                .sparse
                .real_size
                .ok_or_else(|| error("a sparse file without its real size"))?;
            let (map, taken) =
                sparse::version_1(at, limit.min(stored), || self.block("in a sparse map"))?;
            stored -= taken;
            Some((map, size))
        } else if let Some(size) = pax.sparse.real_size {
            let map = pax.sparse.map.clone().unwrap_or_default();
            if pax
                .sparse
                .blocks
                .is_some_and(|count| count != map.len() as u64)
            {
                return Err(error("the sparse map has another length than it says"));
            }
            Some((map, size))
        } else if pax.sparse.map.is_some() {
            return Err(error("a sparse file without its real size"));
        } else {
            None
        };
        entry.size = stored;
        entry.data_size = stored;
        if let Some((map, size)) = map {
            if size > i64::MAX as u64 {
                return Err(error("out of range"));
            }
            entry.sparse = Some(sparse::checked(map, size, stored, at)?);
            entry.size = size;
        }
        Ok(())
    }

    fn check_xattrs(&self, entry: &Entry) -> Result<(), TarError> {
        let mut sum = 0;
        for (name, value) in &entry.xattrs {
            if name.is_empty() || name.len() > 255 || name.contains(&0) {
                return Err(TarError::entry(
                    &entry.path,
                    "an extended attribute has an impossible name",
                ));
            }
            sum += name.len() + value.len();
        }
        if sum as u64 > self.limits.xattr_bytes {
            let limit = self.limits.xattr_bytes;
            return Err(TarError::Limit {
                what: "bytes of extended attributes of one entry",
                limit,
            });
        }
        Ok(())
    }

    fn expect_data(&mut self, size: u64) -> Result<(), TarError> {
        let padding = size.wrapping_neg() % BLOCK as u64;
        let end = self
            .offset
            .checked_add(size)
            .and_then(|end| end.checked_add(padding));
        if end.is_none_or(|end| end > self.limits.archive_bytes) {
            return Err(TarError::Limit {
                what: "bytes",
                limit: self.limits.archive_bytes,
            });
        }
        self.data = size;
        self.padding = padding;
        Ok(())
    }

    fn skip_data(&mut self) -> Result<(), TarError> {
        self.data += std::mem::take(&mut self.padding);
        loop {
            match self.data()?.len() {
                0 => return Ok(()),
                length => self.consume(length),
            }
        }
    }

    /// The body of an extended header, which the caller has bounded.
    fn body(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        self.expect_data(size)?;
        let mut body = Vec::new();
        loop {
            let piece = self.data()?;
            let length = piece.len();
            if length == 0 {
                break;
            }
            body.extend_from_slice(piece);
            self.consume(length);
        }
        self.skip_data()?;
        Ok(body)
    }

    fn block(&mut self, within: &'static str) -> Result<[u8; BLOCK], TarError> {
        self.block_or_end(within)?.ok_or(TarError::Truncated {
            offset: self.offset,
            within,
        })
    }

    /// The next block, or `None` where the stream ends exactly before it.
    fn block_or_end(&mut self, within: &'static str) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let offset = self.offset;
            let piece = self
                .input
                .fill_buf()
                .map_err(|source| TarError::Read { offset, source })?;
            if piece.is_empty() {
                if filled == 0 {
                    return Ok(None);
                }
                return Err(TarError::Truncated { offset, within });
            }
            let length = piece.len().min(BLOCK - filled);
            block[filled..filled + length].copy_from_slice(&piece[..length]);
            self.input.consume(length);
            self.offset += length as u64;
            filled += length;
        }
        if self.offset > self.limits.archive_bytes {
            return Err(TarError::Limit {
                what: "bytes",
                limit: self.limits.archive_bytes,
            });
        }
        Ok(Some(block))
    }

    /// After the first zero block: the second one (or the end), then whatever the writer padded with.
    fn finish(&mut self) -> Result<(), TarError> {
        let at = self.offset;
        if let Some(block) = self.block_or_end("in the end-of-archive block")?
            && block.iter().any(|byte| *byte != 0)
        {
            return Err(TarError::Header {
                offset: at,
                reason: "a single zero block in the middle of the archive",
            });
        }
        loop {
            let offset = self.offset;
            let length = self
                .input
                .fill_buf()
                .map_err(|source| TarError::Read { offset, source })?
                .len();
            if length == 0 {
                break;
            }
            self.input.consume(length);
            self.offset += length as u64;
            if self.offset > self.limits.archive_bytes {
                return Err(TarError::Limit {
                    what: "bytes",
                    limit: self.limits.archive_bytes,
                });
            }
        }
        self.done = true;
        Ok(())
    }
}

/// A name is there, fits the kernel, and has no NUL. A path may be longer by the slashes that normalising drops.
fn check_name(name: &[u8], path: bool) -> Result<(), TarError> {
    let longest = if path { 2 * PATH_MAX } else { PATH_MAX };
    if name.is_empty() {
        return Err(TarError::entry(name, "its name is empty"));
    }
    if name.len() > longest {
        return Err(TarError::entry(
            &name[..80],
            "its name is longer than PATH_MAX",
        ));
    }
    if name.contains(&0) {
        return Err(TarError::entry(name, "its name has a NUL in it"));
    }
    Ok(())
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    text.truncate(
        text.iter()
            .position(|byte| *byte == 0)
            .unwrap_or(text.len()),
    );
    text
}
