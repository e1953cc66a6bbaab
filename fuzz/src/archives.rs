//! tar archives on their way in, layer files, and compressed streams.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use coracle_store::Limits;
use coracle_store::tar::{Entry, EntryKind, TarError, TarReader, TarWriter};

use crate::scratch::Scratch;

/// Small enough that whatever keeps to them is quick.
pub(crate) const LIMITS: Limits = Limits {
    entries: 512,
    archive_bytes: 4 << 20,
    content_bytes: 16 << 20,
    header_bytes: 64 << 10,
    xattr_bytes: 16 << 10,
    metadata_bytes: 1 << 20,
    decompressed_bytes: 4 << 20,
};

/// What was read, up to the end or to what is wrong.
type Read1 = (Vec<(Entry, Vec<u8>)>, Option<String>);

/// The reader alone: the same whatever pieces the bytes come in; what it accepts is written and read again as the same.
pub(crate) fn reader(data: &[u8]) {
    let (entries, problem) = read(data);
    let pieces = read(BufReader::with_capacity(7, data));
    assert_eq!((&entries, &problem), (&pieces.0, &pieces.1));
    for (entry, _) in &entries {
        assert!(!entry.path.is_empty() && !entry.path.contains(&0));
        assert!(entry.data_offset.is_multiple_of(512));
        assert!(entry.data_size <= entry.size);
        assert!(entry.uid != u32::MAX && entry.gid != u32::MAX);
        assert!(entry.mtime_nsec < 1_000_000_000 && entry.mode <= 0o7777);
        let names = entry.xattrs.iter().map(|(name, _)| name);
        assert!(names.is_sorted_by(|a, b| a < b));
    }
    let plain: Vec<_> = entries
        .into_iter()
        .filter(|(entry, _)| entry.sparse.is_none())
        .collect();
    let mut writer = TarWriter::new(Vec::new());
    for (entry, data) in &plain {
        if data.len() as u64 == entry.data_size {
            writer
                .append(entry, &mut &data[..])
                .expect("what was read can be written");
        }
    }
    let written = writer.finish().expect("memory takes it");
    let (again, problem) = read(&written[..]);
    assert_eq!(problem, None);
    let whole = plain
        .iter()
        .filter(|(entry, data)| data.len() as u64 == entry.data_size);
    for ((entry, data), (other, other_data)) in whole.zip(&again) {
        let entry = Entry {
            data_offset: other.data_offset,
            ..entry.clone()
        };
        assert_eq!((&entry, data), (other, other_data));
    }
}

fn read(input: impl BufRead) -> Read1 {
    let mut entries = Vec::new();
    let mut reader = TarReader::new(input, LIMITS);
    let problem = loop {
        match next(&mut reader) {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    (entries, problem)
}

fn next<R: BufRead>(reader: &mut TarReader<R>) -> Result<Option<(Entry, Vec<u8>)>, TarError> {
    let Some(entry) = reader.next_entry()? else {
        return Ok(None);
    };
    let mut content = Vec::new();
    loop {
        let piece = reader.data()?;
        if piece.is_empty() {
            return Ok(Some((entry, content)));
        }
        content.extend_from_slice(piece);
        let length = piece.len();
        reader.consume(length);
    }
}

/// A layer by both drivers.
pub(crate) fn ingest(data: &[u8]) {
    let scratch = Scratch::new();
    coracle_store::fuzzing::ingest(data, &scratch.inside(), &LIMITS);
    scratch.check();
}

/// A layer file that was damaged.
pub(crate) fn index(data: &[u8]) {
    let scratch = Scratch::new();
    coracle_store::fuzzing::index(data, &scratch.inside().join("layer.erofs"));
    scratch.check();
}

/// What `cp` unpacks on the host: the first byte says whether the top entry gets another name.
pub(crate) fn copied(data: &[u8]) {
    let Some((first, archive)) = data.split_first() else {
        return;
    };
    // The engine's default limits hold there, and a sparse file of terabytes is a matter of the host's quota.
    let too_much = |(entry, _): &(Entry, Vec<u8>)| {
        entry.kind == EntryKind::Regular && entry.size > LIMITS.content_bytes
    };
    if read(archive).0.iter().any(too_much) {
        return;
    }
    let scratch = Scratch::new();
    let name = (first & 1 == 1).then_some(Path::new("renamed"));
    coracle_cli::fuzzing::copied(archive, &scratch.inside(), name);
    scratch.check();
}

/// Compressed streams: never more than the limit, and the same whatever pieces they come in.
pub(crate) fn decompress(data: &[u8]) {
    let limit = 1 << 20;
    let whole = inflate(data, limit);
    let pieces = inflate(Trickle(data), limit);
    assert_eq!(whole.as_ref().ok(), pieces.as_ref().ok());
    if let Ok(out) = &whole {
        assert!(out.len() as u64 <= limit);
        let less = inflate(data, (out.len() as u64).saturating_sub(1));
        assert!(out.is_empty() || less.is_err(), "a limit cuts silently");
    }
}

fn inflate(data: impl Read + Send, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    coracle_store::decompress(data, limit)?.read_to_end(&mut out)?;
    Ok(out)
}

/// At most three bytes at a time.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(3);
        self.0.read(&mut buffer[..length])
    }
}
