//! tar archives, in and out.
//!
//! [`TarReader`] reads ustar, v7, GNU (long names, base-256 numbers, old sparse) and PAX (records local and global, extended
//! attributes, sparse 0.0, 0.1 and 1.0) as a stream, and says where in the archive each file's bytes lie.
//! [`TarWriter`] writes ustar headers, with PAX records only for what ustar cannot say; equal input gives equal bytes.
//!
//! The reader trusts nothing: it either returns an [`Entry`] whose numbers fit together, or a [`TarError`]. What a *path* may be
//! is not its business but that of the tree (crate::tree): the reader checks lengths and NULs only.

mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use reader::TarReader;
pub use writer::TarWriter;

/// The size of everything in an archive.
pub(crate) const BLOCK: usize = 512;
/// Linux' PATH_MAX without the NUL.
pub(crate) const PATH_MAX: usize = 4095;
/// Linux' NAME_MAX.
pub(crate) const NAME_MAX: usize = 255;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A file with data.
    Regular,
    /// Another name of a file before it; the target is in [`Entry::link`].
    HardLink,
    /// A symbolic link to [`Entry::link`].
    Symlink,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// Extended attributes: names and values.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// A run of data in a sparse file; between runs are holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file.
    pub offset: u64,
    /// How many bytes. Never 0 in an [`Entry`].
    pub length: u64,
}

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name as it is in the archive, without NULs.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Target of a link; empty otherwise.
    pub link: Vec<u8>,
    /// Permission bits, at most 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size of the file, holes included. 0 for what has no data.
    pub size: u64,
    /// Modification time: seconds since 1970.
    pub mtime: i64,
    /// And its nanoseconds, below 1,000,000,000.
    pub mtime_nsec: u32,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes, each name once, sorted by name.
    pub xattrs: Xattrs,
    /// The runs of a sparse file in order; `None` for an ordinary one.
    pub sparse: Option<Vec<Segment>>,
    /// Where in the archive the data begins: a multiple of 512.
    pub data_offset: u64,
    /// How many bytes of data are there: `size`, or the sum of the segments.
    pub data_size: u64,
}

impl Entry {
    /// An empty entry of this kind and name, owned by root, with no time: a start for a writer.
    pub fn new(kind: EntryKind, path: &[u8]) -> Entry {
        Entry {
            path: path.to_vec(),
            kind,
            link: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            mtime_nsec: 0,
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
            data_offset: 0,
            data_size: 0,
        }
    }
}

/// An archive that is refused. Offsets are bytes from its beginning.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The source failed.
    #[error("reading the archive at byte {offset} failed")]
    Read {
        /// Where.
        offset: u64,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The archive ends in the middle.
    #[error("the archive ends at byte {offset}, {within}")]
    Truncated {
        /// Where.
        offset: u64,
        /// In the middle of what.
        within: &'static str,
    },
    /// A block that should be a header is none.
    #[error("no tar header at byte {offset}: {reason}")]
    Header {
        /// Where.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A field of a header cannot be what it says.
    #[error("the header at byte {offset} has an invalid {field}: {reason}")]
    Field {
        /// Where the header is.
        offset: u64,
        /// Which field.
        field: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// An entry that no layer may have.
    #[error("entry {entry:?}: {reason}")]
    Entry {
        /// Its name in the archive.
        entry: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// More than [`crate::Limits`] allow.
    #[error("the archive has more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
}

impl TarError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            TarError::Limit { .. } => Some("the archive may be a bomb; if it is not, raise the store's limits".into()),
            TarError::Read { .. } => None,
            TarError::Truncated { .. } => Some("the archive was cut off; fetch or make it again".into()),
            _ => Some("the archive is malformed or hostile; make it again with a tool that follows POSIX tar".into()),
        }
    }

    pub(crate) fn entry(path: &[u8], reason: &'static str) -> TarError {
        TarError::Entry {
            entry: String::from_utf8_lossy(path).into_owned(),
            reason,
        }
    }
}
