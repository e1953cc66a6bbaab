//! The layer as a directory: for kernels that cannot mount a layer file, and for rootless use (docs/format/layer.md).
//!
//! Files are written where they belong while the archive streams by; everything else (links, devices, whiteouts, owners and
//! times of directories) is made at the end from the tree, in its order. Every path is opened beneath the layer's own root,
//! with no symlink followed: openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS).

mod place;
mod split;
mod unpack;
mod verify;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use coracle_oci::Digest;
use serde::{Deserialize, Serialize};

pub(crate) use split::SplitReader;
pub(crate) use unpack::ingest;
pub(crate) use verify::verify;

use crate::{Error, Result};

/// The tree, in a layer's directory.
pub(crate) const ROOT: &str = "root";
const REPLACED: &str = "replaced";
const SPLIT: &str = "split.zst";
const DESCRIPTION: &str = "layer.json";
const VERSION: u32 = 1;

/// layer.json.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    pub(crate) version: u32,
    pub(crate) diff_id: Digest,
    pub(crate) size: u64,
    pub(crate) content_size: u64,
    pub(crate) disk_size: u64,
    pub(crate) inodes: u64,
    pub(crate) implicit: u64,
    /// Owners were not set.
    pub(crate) squashed: bool,
    /// Inode → where its data is instead, relative to the layer's directory; hexadecimal, for a path is bytes.
    pub(crate) moved: BTreeMap<u32, String>,
}

impl Description {
    pub(crate) fn load(layer: &Path) -> Result<Description> {
        let path = layer.join(DESCRIPTION);
        let damaged = |reason: String| Error::Damaged {
            path: path.clone(),
            reason,
        };
        let text = fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => damaged("it is missing".into()),
            _ => Error::io("read", &path)(error),
        })?;
        let description: Description = serde_json::from_slice(&text)
            .map_err(|error| damaged(format!("it cannot be understood: {error}")))?;
        if description.version != VERSION {
            return Err(damaged(format!(
                "its version {} is unknown to this program",
                description.version
            )));
        }
        Ok(description)
    }

    fn store(&self, layer: &Path) -> Result<()> {
        let path = layer.join(DESCRIPTION);
        let text = serde_json::to_vec(self)
            .map_err(|error| Error::io("write", &path)(std::io::Error::from(error)))?;
        fs::write(&path, text).map_err(Error::io("write", &path))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
        .collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(
        digits
            .chunks_exact(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect(),
    )
}
