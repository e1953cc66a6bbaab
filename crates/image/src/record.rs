//! The record of an image: all that starting a container needs, in one small file named by the image's id.
//!
//! It can be made again from the configuration and manifest blobs; it exists so that `run` parses one kilobyte instead of
//! two documents whose history alone is often longer. Layout: docs/format/images.md.

use coracle_oci::{Digest, Platform};
use serde::{Deserialize, Serialize};

use crate::{Config, ImageConfiguration, ImageId};

pub(crate) const VERSION: u32 = 1;

/// The file `records/<hex>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) id: ImageId,
    /// Of the manifest it came with, or of the one that `save` would write.
    pub(crate) manifest: Digest,
    pub(crate) platform: Platform,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<String>,
    /// Sum of the layers' file sizes.
    pub(crate) size: u64,
    /// Diff ids, bottom first.
    pub(crate) layers: Vec<Digest>,
    pub(crate) config: Config,
}

impl Record {
    pub(crate) fn new(
        id: ImageId,
        manifest: Digest,
        size: u64,
        configuration: &ImageConfiguration,
    ) -> Record {
        Record {
            version: VERSION,
            id,
            manifest,
            platform: configuration.platform(),
            created: configuration.created.clone(),
            size,
            layers: configuration.rootfs.diff_ids.clone(),
            config: configuration.config.clone(),
        }
    }

    /// Parses a record and checks that it is the one its file name says.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Record, String> {
        let record: Record = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match record.version {
            VERSION => Ok(record),
            other => Err(format!(
                "its version is {other}, this engine knows {VERSION}"
            )),
        }
    }
}
