//! An image's id.

use std::fmt;

use coracle_oci::{Digest, DigestError};
use serde::{Deserialize, Serialize};

/// The digest of an image's configuration document, byte for byte as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(pub Digest);

impl ImageId {
    /// The digest itself.
    pub fn digest(&self) -> &Digest {
        &self.0
    }

    /// 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.hex()
    }

    /// The first twelve hexadecimal digits, as listings show it.
    pub fn short(&self) -> String {
        let mut hex = self.0.hex();
        hex.truncate(coracle_oci::SHORT_ID_LENGTH);
        hex
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for ImageId {
    type Err = DigestError;

    /// `sha256:` and 64 digits, or the digits alone.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text.strip_prefix("sha256:") {
            Some(hex) => Digest::from_hex(hex).map(ImageId),
            None => Digest::from_hex(text).map(ImageId),
        }
    }
}
