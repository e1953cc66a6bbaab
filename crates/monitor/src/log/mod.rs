//! Container logs in Docker's json-file form: docs/format/log.md.
//!
//! [`LogWriter`] is the monitor's; [`LogReader`] serves `logs` with or without a monitor running.

mod reader;
mod record;
mod writer;

use std::path::PathBuf;

pub use reader::{LogEntry, LogQuery, LogReader, Wake};
pub use record::Stream;
pub use writer::LogWriter;

/// Where a json-file log is and when it is rotated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonFile {
    /// The newest file; its directory exists.
    pub path: PathBuf,
    /// Bytes after which a new file is begun; `None` never does.
    pub max_size: Option<u64>,
    /// Files kept, the newest included; 0 counts as 1.
    pub max_files: u32,
}

/// `NAME.n`, or `NAME` for 0.
fn numbered(path: &std::path::Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_path_buf();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// One line of a log, and any text as a line.
///
/// # Panics
/// Where a line is written in another way than it can be read again.
#[cfg(feature = "fuzzing")]
pub fn line_for_fuzzing(bytes: &[u8]) {
    let mut written = Vec::new();
    if let Some((text, stream, time)) = record::parse(bytes) {
        record::append(&mut written, text.as_bytes(), stream, &time.to_string());
        assert_eq!(record::parse(&written), Some((text, stream, time)));
    }
    written.clear();
    let time = "2026-01-02T03:04:05.123456789Z";
    record::append(&mut written, bytes, Stream::Stdout, time);
    assert_eq!(written.iter().filter(|byte| **byte == b'\n').count(), 1);
    let (text, ..) = record::parse(&written).expect("its own writing");
    assert_eq!(text, String::from_utf8_lossy(bytes));
}
