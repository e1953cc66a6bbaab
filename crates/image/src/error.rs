//! What can go wrong with images, said so that a caller can act on it.

use std::io;
use std::path::{Path, PathBuf};

use coracle_oci::{Digest, Platform, ReferenceError};

use crate::ImageId;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation on images that failed. `origin` is always the archive or directory that was being read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No image here has this name or id.
    #[error("no such image: {0}")]
    NoSuchImage(String),
    /// Several ids begin so.
    #[error("image id prefix {prefix:?} is not unique: {count} images match")]
    Ambiguous {
        /// As typed.
        prefix: String,
        /// How many match.
        count: usize,
    },
    /// The text is no reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The text is no image source.
    #[error(transparent)]
    Source(#[from] crate::SourceError),
    /// `@host` was given where an image with layers is needed.
    #[error("@host is the host's own root, not an image: it cannot be {0}")]
    Host(&'static str),
    /// A system call on one of our files, or on a layout, failed.
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
    /// The archive's bytes could not be read or decompressed.
    #[error("cannot read {what} of {origin}")]
    Read {
        /// Which part.
        what: String,
        /// Of what.
        origin: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was to be written out could not be.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// A document is no JSON, or not of the shape its media type promises.
    #[error("{document} of {origin} is malformed")]
    Json {
        /// Which.
        document: String,
        /// Of what.
        origin: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A document is JSON and says something impossible.
    #[error("{document} of {origin} is refused: {reason}")]
    Document {
        /// Which.
        document: String,
        /// Of what.
        origin: String,
        /// The rule that it breaks.
        reason: String,
    },
    /// A document is larger than any honest one.
    #[error("{document} of {origin} has {size} bytes, at most {limit} are read")]
    TooLarge {
        /// Which.
        document: String,
        /// Of what.
        origin: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The archive itself is malformed.
    #[error("{origin} is not a sound tar archive: {reason}")]
    Archive {
        /// Which.
        origin: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// The archive or directory holds no image that this engine knows.
    #[error("{origin} holds no image: {reason}")]
    NoImage {
        /// What was read.
        origin: String,
        /// What was looked for.
        reason: String,
    },
    /// Something that is named is not there.
    #[error("{what} is missing from {origin}")]
    Missing {
        /// A blob's digest, or a path in the archive.
        what: String,
        /// Where it should be.
        origin: String,
    },
    /// A blob is not what its name promises.
    #[error("digest mismatch: {what} of {origin} should be {expected}, but is {actual}")]
    DigestMismatch {
        /// Which.
        what: String,
        /// Of what.
        origin: String,
        /// What it should be.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// A blob is longer or shorter than its descriptor says.
    #[error("size mismatch: {what} of {origin} should have {expected} bytes, but has {actual}")]
    SizeMismatch {
        /// Which.
        what: String,
        /// Of what.
        origin: String,
        /// What its descriptor says.
        expected: u64,
        /// What is there.
        actual: u64,
    },
    /// The image wants something that this engine does not take.
    #[error("media type {media_type:?} of {what} in {origin} is not supported")]
    MediaType {
        /// As the descriptor says.
        media_type: String,
        /// Of which blob.
        what: String,
        /// Where.
        origin: String,
    },
    /// A layer that may not be distributed and is therefore not in the archive.
    #[error(
        "layer {digest} of {origin} is a foreign layer ({media_type}): its content is elsewhere"
    )]
    ForeignLayer {
        /// Which.
        digest: Digest,
        /// Its media type.
        media_type: String,
        /// Of what.
        origin: String,
    },
    /// None of the images is for this host.
    #[error("{origin} has no image for {wanted}; it has {available}")]
    Platform {
        /// Which.
        origin: String,
        /// What was looked for.
        wanted: Platform,
        /// What is there.
        available: String,
    },
    /// Not exactly one image was meant.
    #[error("{origin} holds {found}, and {asked}")]
    Choice {
        /// Which.
        origin: String,
        /// What is there.
        found: String,
        /// What was asked for.
        asked: String,
    },
    /// A containing image, or its name, is needed by a container or by other names.
    #[error("cannot remove image {image}: {reason}")]
    Conflict {
        /// As typed.
        image: String,
        /// Who needs it.
        reason: String,
        /// Whether force helps.
        can_be_forced: bool,
    },
    /// What the containers use could not be found out.
    #[error("cannot find out which images are in use")]
    Uses(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A `--change` directive that is refused.
    #[error("invalid change {directive:?}: {reason}")]
    Change {
        /// As typed.
        directive: String,
        /// Why.
        reason: String,
    },
    /// A record names a layer that is gone.
    #[error("image {image} is incomplete: layer {layer} is not in the store")]
    LayerMissing {
        /// Which image.
        image: ImageId,
        /// Which layer.
        layer: Digest,
    },
    /// One of our own files is damaged.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// The store refused or failed.
    #[error("cannot {doing}")]
    Store {
        /// As it reads after "cannot".
        doing: String,
        /// Why.
        #[source]
        source: Box<coracle_store::Error>,
    },
}

impl Error {
    /// What to do about it, where something can be done.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::NoSuchImage(name) if name.contains('/') && std::path::Path::new(name).is_absolute() => {
                Some("a directory is run with --rootfs DIR, an OCI layout with oci:DIR".into())
            }
            Error::NoSuchImage(_) => Some(
                "load it from an archive (`coracle load -i FILE`), name one (`oci:DIR`, `docker-archive:FILE`), \
                 or run the host's own files with @host"
                    .into(),
            ),
            Error::Ambiguous { .. } => Some("give more digits of the id".into()),
            Error::Host(_) => Some("name an image, or make one of a directory with `coracle import`".into()),
            Error::Io { source, .. } | Error::Write(source)
                if source.raw_os_error() == Some(rustix::io::Errno::NOSPC.raw_os_error()) =>
            {
                Some("the disk is full: free space (`coracle system prune`)".into())
            }
            Error::NoImage { .. } => Some(
                "an image archive is made by `docker save`, `podman save` or `coracle save`; \
                 a root file system becomes an image with `coracle import`"
                    .into(),
            ),
            Error::Missing { .. }
            | Error::DigestMismatch { .. }
            | Error::SizeMismatch { .. }
            | Error::Archive { .. }
            | Error::Read { .. } => {
                Some("the archive was changed or cut off on its way here; make or fetch it again".into())
            }
            Error::ForeignLayer { .. } => {
                Some("such layers belong to Windows images; use an image made for Linux".into())
            }
            Error::Platform { .. } => Some("choose another with --platform".into()),
            Error::Choice { .. } => Some("name one of them after a colon, as in oci:DIR:TAG".into()),
            Error::Conflict { can_be_forced: true, .. } => Some("use --force to remove it all the same".into()),
            Error::Conflict { .. } => Some("stop and remove the container first".into()),
            Error::Damaged { .. } | Error::LayerMissing { .. } => Some("load the image again".into()),
            Error::Store { source, .. } => source.hint(),
            _ => None,
        }
    }

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

    /// The store's refusal, or the error of ours that a reader handed to the store and that it carries.
    pub(crate) fn store(doing: impl Into<String>) -> impl FnOnce(coracle_store::Error) -> Error {
        |error| match error {
            coracle_store::Error::Read { source, .. }
                if source.get_ref().is_some_and(|inner| inner.is::<Error>()) =>
            {
                match source.into_inner().map(|inner| inner.downcast::<Error>()) {
                    Some(Ok(ours)) => *ours,
                    // get_ref() above saw an Error of ours in there.
                    _ => unreachable!("an io::Error lost its content"),
                }
            }
            source => Error::Store {
                doing: doing.into(),
                source: Box::new(source),
            },
        }
    }
}
