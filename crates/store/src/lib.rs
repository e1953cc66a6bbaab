//! The content-addressed store: blobs, layers, and what a container's upper directory changed.
//!
//! Job: to keep bytes under their digests and to make layers mountable. It knows nothing of images, names or
//! containers; who calls [`Store::collect`] says what is in use.
//!
//! Invariants:
//! - What has its final name is whole and verified: everything is written under `tmp/` and renamed.
//! - An archive is hostile until read: names, sizes, links and attributes are checked before anything is made of them.
//! - A layer gives back, byte for byte, the archive it came from ([`Layer::tar`]), whichever form it is kept in.
//! - Who stores holds the store's lock shared, the collector holds it alone; a crash leaves only files in `tmp/`, which the
//!   next opening sweeps.
//!
//! On disk: docs/format/store.md (directories, locks) and docs/format/layer.md (the one-file layer, the directory layer).

mod blob;
mod collect;
mod compress;
mod directory;
mod erofs;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod layer;
mod options;
mod pipeline;
mod store;
pub mod tar;
mod temporary;
mod tree;
mod upper;

pub use blob::Stored;
pub use collect::{Collected, InUse, Problem, Report};
pub use compress::{Compression, decompress};
pub use error::{Error, Result};
pub use layer::{Layer, LayerForm, LayerTar};
pub use options::{Driver, Durability, Limits, Options, Ownership};
pub use store::Store;
pub use upper::{Change, ChangeKind, IdMap, IdRange, diff, tar_of_tree, tar_of_upper};
