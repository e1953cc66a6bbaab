//! What can go wrong in the store, said so that a caller can act on it.

use std::io;
use std::path::{Path, PathBuf};

use coracle_oci::Digest;

use crate::tar::TarError;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation on the store that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on a file of the store, or on a tree it was given, failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The verb, as it reads after "cannot".
        action: &'static str,
        /// The file it was about.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The stream that was to be stored could not be read.
    #[error("cannot read the {what} that is being stored")]
    Read {
        /// "blob", "layer".
        what: &'static str,
        /// What the reader said.
        #[source]
        source: io::Error,
    },
    /// The content is not what its name promises.
    #[error("{what} digest mismatch: expected {expected}, got {actual}")]
    DigestMismatch {
        /// "blob", "layer".
        what: &'static str,
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// The content is longer or shorter than its descriptor promises.
    #[error("{what} size mismatch: expected {expected} bytes, got {actual}")]
    SizeMismatch {
        /// "blob".
        what: &'static str,
        /// The size that was asked for.
        expected: u64,
        /// The size of what came, or what came before it was refused.
        actual: u64,
    },
    /// No such blob or layer here.
    #[error("{what} {digest} is not in the store")]
    Missing {
        /// "blob", "layer".
        what: &'static str,
        /// Its address.
        digest: Digest,
    },
    /// The archive is malformed, hostile, or beyond a limit.
    #[error("the layer's archive cannot be accepted")]
    Tar(#[from] TarError),
    /// The archive is sound, but this entry of it cannot be made on this host.
    #[error("cannot unpack the layer's entry {entry:?}: {action} failed")]
    Unpack {
        /// The entry's path in the archive.
        entry: String,
        /// The step.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The archive needs more than the one-file layout can address.
    #[error("the layer is too large for its index: {what} needs {needed}, at most {limit} fit")]
    TooLarge {
        /// What overflowed.
        what: &'static str,
        /// How much was needed.
        needed: u64,
        /// How much fits.
        limit: u64,
    },
    /// The one-file driver was asked for, and this host cannot mount such layers.
    #[error("layers as single files cannot be mounted on this host: {reason}")]
    ErofsUnavailable {
        /// What the probe saw.
        reason: String,
    },
    /// Which form layers get here could not be found out.
    #[error("whether this host can mount layers as single files could not be found out: {reason}")]
    Probe {
        /// What failed.
        reason: String,
    },
    /// A file of the store is damaged.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The store was written by a version that this one does not understand.
    #[error("the store at {} has format {found}, which this version cannot use: {reason}", path.display())]
    Format {
        /// The store's directory.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// Why not.
        reason: String,
    },
    /// An upper directory holds what only a differently mounted overlay makes.
    #[error("cannot compare {}: it carries {attribute}, which this engine's overlays never write", path.display())]
    ForeignUpper {
        /// The file in the upper directory.
        path: PathBuf,
        /// The extended attribute.
        attribute: &'static str,
    },
    /// An owner in an upper directory is outside the container's range.
    #[error("{} belongs to {kind} {id}, which the container's id map does not hold", path.display())]
    Unmapped {
        /// The file.
        path: PathBuf,
        /// "user" or "group".
        kind: &'static str,
        /// The id on disk.
        id: u32,
    },
    /// A file cannot be said in a tar archive.
    #[error("cannot archive {}: {reason}", path.display())]
    Unarchivable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// The destination of an archive could not be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// A worker thread could not be started.
    #[error("cannot start a worker thread")]
    Thread(#[source] io::Error),
}

impl Error {
    /// What to do about it, where something can be done.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Io { source, .. } | Error::Unpack { source, .. } | Error::Write(source)
                if source.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error()) =>
            {
                Some("the disk is full: free space (`coracle system prune`), or move the store".into())
            }
            Error::Unpack { action, source, .. }
                if *action == "setting the owner"
                    && matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput) =>
            {
                Some(
                    "the user running this has no right to these ids: add ranges to /etc/subuid and /etc/subgid, \
                     run as root, or squash owners"
                        .into(),
                )
            }
            Error::Unpack { action, source, .. }
                if *action == "making the device node" && source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Some("device nodes in layers need root (CAP_MKNOD); use an image without them".into())
            }
            Error::DigestMismatch { .. } | Error::SizeMismatch { .. } => {
                Some("the content was changed or cut off on its way here; fetch it again".into())
            }
            Error::ErofsUnavailable { .. } => {
                Some("use the directory driver, or a kernel 6.12 or newer with CONFIG_EROFS_FS_BACKED_BY_FILE, as root".into())
            }
            Error::Probe { .. } => Some("try again: descriptors or memory ran out, or the disk failed".into()),
            Error::Damaged { .. } => Some("run the store's check with repair, then load the image again".into()),
            Error::Format { .. } => Some("use the version of coracle that wrote it, or another store directory".into()),
            Error::Tar(error) => error.hint(),
            _ => None,
        }
    }

    /// For `map_err`: the error of an action on a path.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Error {
        move |source| Error::Io {
            action,
            path: path.as_ref().to_owned(),
            source: source.into(),
        }
    }
}
