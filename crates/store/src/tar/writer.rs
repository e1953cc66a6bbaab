//! The writer: ustar, with PAX records for what ustar cannot say. No clock, no user names: equal input, equal bytes.

use std::io::{self, Read, Write};

use super::header::{
    CHECKSUM, GID, LINK, MAGIC, MAJOR, MINOR, MODE, MTIME, NAME, PREFIX, SIZE, TYPE, UID, checksums,
};
use super::{BLOCK, Entry, EntryKind};

/// Writes an archive; [`TarWriter::finish`] must end it.
#[derive(Debug)]
pub struct TarWriter<W: Write> {
    out: W,
}

impl<W: Write> TarWriter<W> {
    /// A writer into `out`, which should be buffered.
    pub fn new(out: W) -> TarWriter<W> {
        TarWriter { out }
    }

    /// Writes an entry, and `entry.size` bytes of `data` if it is a regular file. Sparse maps are not written: holes become zeros.
    /// A source that ends early is an error, and the archive is then broken.
    pub fn append(&mut self, entry: &Entry, data: &mut dyn Read) -> io::Result<()> {
        let size = if entry.kind == EntryKind::Regular {
            entry.size
        } else {
            0
        };
        self.header(entry, size)?;
        if size == 0 {
            return Ok(());
        }
        let copied = io::copy(&mut data.take(size), &mut self.out)?;
        if copied != size {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file shrank while it was archived",
            ));
        }
        self.pad(size)
    }

    /// Writes the end of the archive and gives the destination back.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = (size.wrapping_neg() % BLOCK as u64) as usize;
        self.out.write_all(&[0; BLOCK][..padding])
    }

    fn header(&mut self, entry: &Entry, size: u64) -> io::Result<()> {
        let mut records = Vec::new();
        let mut block = [0u8; BLOCK];
        if let Some(split) = split_path(&entry.path) {
            block[NAME][..entry.path.len() - split.1].copy_from_slice(&entry.path[split.1..]);
            block[PREFIX][..split.0].copy_from_slice(&entry.path[..split.0]);
        } else {
            record(&mut records, b"path", &entry.path);
            let length = entry.path.len().min(NAME.len());
            block[NAME][..length].copy_from_slice(&entry.path[..length]);
        }
        if entry.link.len() > LINK.len() {
            record(&mut records, b"linkpath", &entry.link);
        }
        let length = entry.link.len().min(LINK.len());
        block[LINK][..length].copy_from_slice(&entry.link[..length]);
        octal(&mut block[MODE], u64::from(entry.mode));
        for (field, key, value) in [
            (UID, "uid", u64::from(entry.uid)),
            (GID, "gid", u64::from(entry.gid)),
            (SIZE, "size", size),
        ] {
            if !octal(&mut block[field], value) {
                record(&mut records, key.as_bytes(), value.to_string().as_bytes());
            }
        }
        let whole = u64::try_from(entry.mtime)
            .ok()
            .filter(|_| entry.mtime_nsec == 0);
        if !whole.is_some_and(|seconds| octal(&mut block[MTIME], seconds)) {
            octal(
                &mut block[MTIME],
                u64::try_from(entry.mtime).unwrap_or(0).min(0o77777777777),
            );
            record(
                &mut records,
                b"mtime",
                time(entry.mtime, entry.mtime_nsec).as_bytes(),
            );
        }
        block[TYPE] = match entry.kind {
            EntryKind::Regular => b'0',
            EntryKind::HardLink => b'1',
            EntryKind::Symlink => b'2',
            EntryKind::Character => b'3',
            EntryKind::Block => b'4',
            EntryKind::Directory => b'5',
            EntryKind::Fifo => b'6',
        };
        octal(&mut block[MAJOR], u64::from(entry.device.0));
        octal(&mut block[MINOR], u64::from(entry.device.1));
        for (name, value) in &entry.xattrs {
            record(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        if !records.is_empty() {
            let mut extended = [0u8; BLOCK];
            extended[NAME][..9].copy_from_slice(b"PaxHeader");
            octal(&mut extended[MODE], 0o644);
            for field in [UID, GID, MTIME, MAJOR, MINOR] {
                octal(&mut extended[field], 0);
            }
            octal(&mut extended[SIZE], records.len() as u64);
            extended[TYPE] = b'x';
            self.block(extended)?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.block(block)
    }

    fn block(&mut self, mut block: [u8; BLOCK]) -> io::Result<()> {
        block[MAGIC].copy_from_slice(b"ustar\x0000");
        let sum = checksums(&block).0;
        octal(&mut block[CHECKSUM][..7], u64::from(sum));
        block[CHECKSUM][7] = b' ';
        self.out.write_all(&block)
    }
}

/// Where a path is cut into prefix and name: (end of the prefix, start of the name). `None` if ustar cannot hold it.
fn split_path(path: &[u8]) -> Option<(usize, usize)> {
    if path.len() <= NAME.len() {
        return Some((0, 0));
    }
    let slash = (1..path.len() - 1)
        .filter(|index| path[*index] == b'/')
        .find(|index| path.len() - index - 1 <= NAME.len())?;
    (slash <= PREFIX.len()).then_some((slash, slash + 1))
}

/// Octal digits, zero-padded, and a NUL. False, and zeros, if they do not fit.
fn octal(field: &mut [u8], value: u64) -> bool {
    let digits = field.len() - 1;
    let fits = digits * 3 >= 64 || value < 1 << (digits * 3);
    let mut rest = if fits { value } else { 0 };
    for place in field[..digits].iter_mut().rev() {
        *place = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
    fits
}

fn time(seconds: i64, nanoseconds: u32) -> String {
    let (sign, seconds, nanoseconds) = match (seconds < 0, nanoseconds) {
        (false, _) => ("", seconds.unsigned_abs(), nanoseconds),
        (true, 0) => ("-", seconds.unsigned_abs(), 0),
        (true, _) => ("-", seconds.unsigned_abs() - 1, 1_000_000_000 - nanoseconds),
    };
    let text = format!("{sign}{seconds}.{nanoseconds:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}
