//! Content digests: `sha256:` and 64 lower-case hexadecimal digits.
//!
//! Invariant: a [`Digest`] is always whole and lower-case, so that two are equal exactly when their texts are, and the
//! hexadecimal part is safe as a file name. SHA-512, which the specification also registers, is refused by name: nothing
//! in the field writes it, and one algorithm means one address for one content.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::shorten;

/// A text that is no digest this engine takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid digest {0:?}: expected sha256: and 64 lower-case hexadecimal digits")]
pub struct DigestError(String);

/// The SHA-256 of some content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of this content.
    pub fn of(content: &[u8]) -> Digest {
        Digest(Sha256::digest(content).into())
    }

    /// A digest from its raw 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// The raw 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hexadecimal digits without the algorithm: a file name.
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.0
            .iter()
            .flat_map(|byte| {
                [
                    DIGITS[usize::from(byte >> 4)] as char,
                    DIGITS[usize::from(byte & 15)] as char,
                ]
            })
            .collect()
    }

    /// The digest of 64 lower-case hexadecimal digits.
    pub fn from_hex(hex: &str) -> Result<Digest, DigestError> {
        let nibble = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let digits = hex.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 64 {
            return Err(DigestError(shorten(hex)));
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = match (nibble(pair[0]), nibble(pair[1])) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(DigestError(shorten(hex))),
            };
        }
        Ok(Digest(bytes))
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let hex = text
            .strip_prefix("sha256:")
            .ok_or_else(|| DigestError(shorten(text)))?;
        Digest::from_hex(hex).map_err(|_| DigestError(shorten(text)))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Digest, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// A digest in the making: content comes in pieces.
#[derive(Debug, Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Nothing hashed yet.
    pub fn new() -> Hasher {
        Hasher::default()
    }

    /// The next piece of the content.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The digest of all pieces.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_form_round_trips() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(digest));
        assert_eq!(Digest::from_hex(&digest.hex()), Ok(digest));
        assert_eq!(
            serde_json::from_str::<Digest>(&format!("\"{EMPTY}\"")).ok(),
            Some(digest)
        );
    }

    #[test]
    fn pieces_hash_as_the_whole() {
        let mut hasher = Hasher::new();
        hasher.update(b"cor");
        hasher.update(b"acle");
        assert_eq!(hasher.finish(), Digest::of(b"coracle"));
    }

    #[test]
    fn anything_else_is_refused() {
        let upper = EMPTY.to_uppercase();
        let long = format!("{EMPTY}0");
        for text in [
            "",
            "sha256:",
            &EMPTY[7..],
            &EMPTY[..70],
            &upper,
            &long,
            "sha512:00",
            "sha256:../../../../../../etc/passwd",
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text:?}");
        }
    }
}
