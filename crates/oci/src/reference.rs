//! Image references, in the grammar that Docker made:
//!
//! ```text
//! reference  = [domain "/"] path [":" tag] ["@" digest]
//! domain     = host [":" port]            host = name | "[" IPv6 "]"
//! path       = component *("/" component)
//! component  = [a-z0-9]+ *( ("." | "_" | "__" | "-"+) [a-z0-9]+ )
//! tag        = [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}
//! ```
//!
//! A [`Reference`] is always in its full form: what stands before the first slash is a domain if it has a dot, a colon
//! or an upper-case letter or is `localhost`; else the domain is `docker.io`, where a single component lives under
//! `library/`. The familiar form leaves out again what was filled in.
//!
//! Source: github.com/distribution/reference, `reference.go` and `normalize.go`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::id::{is_lower_hex, shorten};

const DEFAULT_DOMAIN: &str = "docker.io";
const OFFICIAL: &str = "library/";
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// The tag that is meant when none is given.
pub const DEFAULT_TAG: &str = "latest";

/// Why a text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The repository part breaks the grammar.
    #[error("invalid image reference {reference:?}: {reason}")]
    Grammar {
        /// What was given.
        reference: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// 64 hexadecimal digits: taken for an image id, never for a name.
    #[error("invalid image reference {0:?}: 64 hexadecimal digits are an image id, not a name")]
    Id(String),
}

/// A named image: repository, and tag or digest or both or neither.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository inside the registry: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag as given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest as given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The name as users write it: `busybox`, `user/tool`, `quay.io/a/b`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL) {
            // "library/a/b" without "library/" would read as the user a's.
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The whole reference as users write it: `busybox:latest`.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_name(), self.suffix())
    }

    /// The same reference with the tag `latest` if it has neither tag nor digest.
    pub fn or_latest(mut self) -> Reference {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same repository with another tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Reference, ReferenceError> {
        check_tag(tag).map_err(|reason| ReferenceError::Grammar {
            reference: shorten(tag),
            reason,
        })?;
        Ok(Reference {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        })
    }

    /// The same repository at a digest, without a tag.
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    fn suffix(&self) -> String {
        let mut text = String::new();
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let refused = |reason| ReferenceError::Grammar {
            reference: shorten(text),
            reason,
        };
        if text.len() == 64 && is_lower_hex(text) {
            return Err(ReferenceError::Id(text.to_owned()));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse::<Digest>();
                (
                    rest,
                    Some(digest.map_err(|_| {
                        refused("the digest after @ is not sha256:<64 hexadecimal digits>")
                    })?),
                )
            }
            None => (text, None),
        };
        // A colon before the last slash belongs to the port.
        let (name, tag) = match rest.rfind(':') {
            Some(at) if !rest[at..].contains('/') => (&rest[..at], Some(&rest[at + 1..])),
            _ => (rest, None),
        };
        if let Some(tag) = tag {
            check_tag(tag).map_err(refused)?;
        }
        let (domain, path) = split_domain(name);
        check_domain(domain).map_err(refused)?;
        check_path(&path).map_err(refused)?;
        if domain.len() + 1 + path.len() > NAME_MAX {
            return Err(refused("the repository name is longer than 255 characters"));
        }
        Ok(Reference {
            domain: domain.to_owned(),
            path,
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

fn split_domain(name: &str) -> (&str, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    };
    let domain = if domain == "index.docker.io" {
        DEFAULT_DOMAIN
    } else {
        domain
    };
    if domain == DEFAULT_DOMAIN && !path.contains('/') {
        (domain, format!("{OFFICIAL}{path}"))
    } else {
        (domain, path.to_owned())
    }
}

fn check_domain(domain: &str) -> Result<(), &'static str> {
    const REASON: &str = "the registry's host name is malformed";
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or(REASON)?;
            let hex_and_colons = address
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || byte == b':');
            if address.is_empty() || !hex_and_colons {
                return Err(REASON);
            }
            match after {
                "" => return Ok(()),
                after => ("v6", Some(after.strip_prefix(':').ok_or(REASON)?)),
            }
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let port_is_sound =
        port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    if host.split('.').all(label) && port_is_sound {
        Ok(())
    } else {
        Err(REASON)
    }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("the repository name must be lower case");
    }
    if path.split('/').all(is_component) {
        Ok(())
    } else {
        Err("the repository name is malformed")
    }
}

fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    alphanumeric(*first)
        && alphanumeric(*last)
        && bytes.split(|byte| alphanumeric(*byte)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__")
                || separator.iter().all(|byte| *byte == b'-')
        })
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let bytes = tag.as_bytes();
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if bytes.is_empty() || bytes.len() > TAG_MAX {
        return Err("a tag has 1 to 128 characters");
    }
    if word(bytes[0]) && bytes.iter().all(|byte| word(*byte) || b".-".contains(byte)) {
        Ok(())
    } else {
        Err("a tag is [A-Za-z0-9_][A-Za-z0-9_.-]*")
    }
}

impl fmt::Display for Reference {
    /// The full form: `docker.io/library/busybox:latest`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.domain, self.path, self.suffix())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reference({self})")
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;
    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn familiar_names_are_completed_and_shortened_again() {
        for (text, full, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            (
                "busybox:1.36",
                "docker.io/library/busybox:1.36",
                "busybox:1.36",
            ),
            ("user/tool", "docker.io/user/tool", "user/tool"),
            (
                "index.docker.io/busybox",
                "docker.io/library/busybox",
                "busybox",
            ),
            (
                "docker.io/library/a/b",
                "docker.io/library/a/b",
                "library/a/b",
            ),
            ("localhost/x", "localhost/x", "localhost/x"),
            (
                "localhost:5000/x:y",
                "localhost:5000/x:y",
                "localhost:5000/x:y",
            ),
            ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
            ("[fe80::1]/x", "[fe80::1]/x", "[fe80::1]/x"),
            (
                "quay.io/a/b__c.d-e",
                "quay.io/a/b__c.d-e",
                "quay.io/a/b__c.d-e",
            ),
            ("HOST/a", "HOST/a", "HOST/a"),
        ] {
            let reference: Reference = text
                .parse()
                .unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(full.parse(), Ok(reference));
        }
    }

    #[test]
    fn digest_and_tag_are_kept_apart() {
        let reference: Reference = format!("a.b/c:t@sha256:{HEX}")
            .parse()
            .expect("a reference");
        assert_eq!(reference.tag(), Some("t"));
        assert_eq!(
            reference.digest().map(ToString::to_string),
            Some(format!("sha256:{HEX}"))
        );
        assert_eq!(reference.or_latest().tag(), Some("t"));
        let plain: Reference = "c".parse().expect("a reference");
        assert_eq!(plain.or_latest().familiar(), "c:latest");
    }

    #[test]
    fn malformed_references_are_refused() {
        let long_tag = format!("a:{}", "t".repeat(129));
        let long_name = "a/".repeat(150) + "a";
        let digest_in_tag = format!("a@sha256:{}", &HEX[1..]);
        for text in [
            "",
            ":",
            "a:",
            "a@",
            "A",
            "a/B",
            "a//b",
            "/a",
            "a/",
            "../a",
            "a/../b",
            "-a",
            "a-",
            "a___b",
            "a..b",
            "a._b",
            "a b",
            "a:b c",
            "a:-x",
            "a.b-/c",
            "-x.y/c",
            "h:port/c",
            "[::1/c",
            "[::1]x/c",
            "[zz]/c",
            HEX,
            &long_tag,
            &long_name,
            &digest_in_tag,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }
}
