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
