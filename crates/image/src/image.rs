//! An image as callers hold it.

use coracle_oci::{Digest, Platform, Reference};
use coracle_store::Layer;

use crate::{Config, ImageId};

/// An image whose layers are all in the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of its configuration.
    pub id: ImageId,
    /// Digest of the manifest that it came with; for an image that came without one, of the one that `save` writes.
    pub manifest: Digest,
    /// What it was built for.
    pub platform: Platform,
    /// RFC 3339, as the configuration says.
    pub created: Option<String>,
    /// Sum of the layers' file sizes in bytes.
    pub size: u64,
    /// What it says about how it is run.
    pub config: Config,
    /// Bottom first.
    pub layers: Vec<Layer>,
    /// The reference by which it was found, if by one. All names: [`crate::Images::names`].
    pub name: Option<Reference>,
}

impl Image {
    /// How listings call it: the reference it was found by, else the short id.
    pub fn display_name(&self) -> String {
        match &self.name {
            Some(name) => name.familiar(),
            None => self.id.short(),
        }
    }
}
