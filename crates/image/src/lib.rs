//! Images: references, archives in and out, and what an image says about how it is run.
//!
//! Job: to turn what somebody hands over (an OCI layout, an archive of either kind, a root file system) into layers and
//! documents of [`coracle_store`] and to find them again by name. It mounts nothing and starts nothing.
//!
//! Invariants:
//! - An image's id is the digest of its configuration's bytes; those bytes are kept as they came, so that what is saved and
//!   loaded elsewhere has the same id.
//! - Every blob that came with a digest was compared with it, and every layer with its diff id, before a record names it.
//! - A record is written after all that it names, and makes the image appear together with its new names: a reference to no
//!   record is nobody's name. Whatever is killed before leaves layers that nobody names, which [`Images::prune`] or the next
//!   removal frees.
//! - Everything read from an image is hostile: documents have a size limit ([`MAX_DOCUMENT`]), indexes a depth limit, and no
//!   path in an archive or layout leads out of it.
//!
//! On disk: docs/format/images.md. Walk: [`Source::parse`] → [`Images::obtain`] → `load` (plan, then layers, then record).

mod change;
mod commit;
mod config;
mod document;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod glob;
mod id;
mod image;
mod images;
mod import;
mod inspect;
mod list;
mod load;
mod lock;
mod obtain;
mod record;
mod references;
mod remove;
mod save;
mod source;

pub use change::Change;
pub use commit::Commit;
pub use config::{Config, Healthcheck, History, ImageConfiguration, RootFs};
pub use document::MAX_DOCUMENT;
pub use error::{Error, Result};
pub use id::ImageId;
pub use image::Image;
pub use images::Images;
pub use import::Import;
pub use inspect::HistoryLine;
pub use list::{ListFilter, Summary};
pub use load::{Input, LoadOptions, Loaded};
pub use remove::{Hold, Pruned, Removed, Use, Uses};
pub use save::SaveFormat;
pub use source::{ArchiveKind, Source, SourceError};
