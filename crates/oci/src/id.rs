//! What a container is called: its id and its name.
//!
//! Invariants: a [`ContainerId`] is 64 lower-case hexadecimal digits, a [`ContainerName`] fits Docker's rule
//! `[a-zA-Z0-9][a-zA-Z0-9_.-]+` and one directory entry. Both are therefore safe as a file name: neither holds a
//! slash, neither is `.` or `..`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Digits in the short form of an id, as Docker prints it.
pub const SHORT_ID_LENGTH: usize = 12;

/// Longest container name: one directory entry (NAME_MAX).
pub const NAME_MAX: usize = 255;

/// Why a text is no container id or name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not 64 lower-case hexadecimal digits.
    #[error("invalid container id {0:?}: an id is 64 lower-case hexadecimal digits")]
    Id(String),
    /// Outside Docker's rule for names.
    #[error("invalid container name {0:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-]+ is allowed")]
    Name(String),
    /// Longer than a directory entry.
    #[error("invalid container name: {0} bytes, at most {NAME_MAX} are allowed")]
    TooLong(usize),
}

/// A container's id: 256 random bits as 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// The id made of these bits; the caller draws them from the kernel's generator.
    ///
    /// The first twelve digits are never all decimal: the short form is a container's default host name, and
    /// some resolvers take a name of digits for an address.
    pub fn from_bytes(mut bits: [u8; 32]) -> Self {
        if bits[..SHORT_ID_LENGTH / 2]
            .iter()
            .all(|byte| byte >> 4 < 10 && byte & 15 < 10)
        {
            bits[0] |= 0xa0;
        }
        Self(hex(&bits))
    }

    /// All 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, as listings show it.
    pub fn short(&self) -> &str {
        &self.0[..SHORT_ID_LENGTH]
    }
}

impl FromStr for ContainerId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() == 64 && is_lower_hex(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Id(shorten(text)))
        }
    }
}

/// A container's name, unique on its host, without the leading slash that Docker's API prints.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerName(String);

impl ContainerName {
    /// The name without a slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerName {
    type Err = NameError;

    /// Accepts one leading slash, because Docker's API prints names with it.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = text.strip_prefix('/').unwrap_or(text);
        if name.len() > NAME_MAX {
            return Err(NameError::TooLong(name.len()));
        }
        let bytes = name.as_bytes();
        let allowed = bytes.len() >= 2
            && bytes[0].is_ascii_alphanumeric()
            && bytes[1..]
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte));
        if allowed {
            Ok(Self(name.to_owned()))
        } else {
            Err(NameError::Name(shorten(text)))
        }
    }
}

macro_rules! text_newtype {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }
    };
}
text_newtype!(ContainerId);
text_newtype!(ContainerName);

/// Whether every byte is a digit of lower-case hexadecimal.
pub(crate) fn is_lower_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

/// Untrusted text as an error quotes it: not more than a line of it.
pub(crate) fn shorten(text: &str) -> String {
    const QUOTED: usize = 120;
    if text.len() <= QUOTED {
        return text.to_owned();
    }
    let end = (0..=QUOTED)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_sixty_four_lower_hex_digits() {
        let id = ContainerId::from_bytes([0xab; 32]);
        assert_eq!(id.as_str(), "ab".repeat(32));
        assert_eq!(id.short(), "abababababab");
        assert_eq!(id.as_str().parse::<ContainerId>(), Ok(id));
        for bad in [
            "",
            "ab",
            &"AB".repeat(32),
            &"g".repeat(64),
            &"a".repeat(65),
            "../../etc",
        ] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn short_id_is_never_a_decimal_number() {
        let id = ContainerId::from_bytes([0x12; 32]);
        assert!(id.short().bytes().any(|byte| byte.is_ascii_lowercase()));
    }

    #[test]
    fn name_follows_dockers_rule() {
        for good in ["web", "a1", "A_b.c-d", "0x", &"n".repeat(255)] {
            assert_eq!(
                good.parse::<ContainerName>().map(String::from),
                Ok(good.to_owned())
            );
        }
        assert_eq!(
            "/web".parse::<ContainerName>().map(String::from),
            Ok("web".to_owned())
        );
        for bad in [
            "",
            "a",
            "/",
            "//web",
            "-a",
            ".hidden",
            "..",
            "a/b",
            "a b",
            "ä1",
            "a\n",
            &"n".repeat(256),
        ] {
            assert!(bad.parse::<ContainerName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn documents_with_a_bad_name_do_not_parse() {
        assert!(serde_json::from_str::<ContainerName>("\"../x\"").is_err());
        assert!(serde_json::from_str::<ContainerId>("\"abc\"").is_err());
    }
}
