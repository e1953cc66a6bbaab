//! Where an image is to come from, as a user types it. Parsing only: nothing here looks at a file.
//!
//! ```text
//! @host                                the host's own root
//! oci:DIR[:TAG]                        an OCI image layout
//! oci-archive:FILE[:REF]               a tar of one, plain or compressed
//! docker-archive:FILE[:REF]            what `docker save` writes, plain or compressed
//! PATH.tar[.gz|.zst]  PATH.tgz  .tzst  either kind of archive
//! anything else                        a reference or an id in the store
//! ```
//!
//! A directory or file whose name holds a colon cannot be said with a prefix (as with skopeo, the first colon ends it).

use std::fmt;
use std::path::PathBuf;

/// A text that is no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image {text:?}: {reason}")]
pub struct SourceError {
    text: String,
    reason: &'static str,
}

/// What an archive is said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArchiveKind {
    /// Whatever its content shows.
    Any,
    /// `docker save`: manifest.json.
    Docker,
    /// OCI layout: index.json.
    Oci,
}

/// Where an image is to come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// The host's own root as a read-only lower layer.
    Host,
    /// A reference or id prefix in the store, as typed.
    Local(String),
    /// A directory in OCI image layout.
    OciLayout {
        /// The directory.
        dir: PathBuf,
        /// `org.opencontainers.image.ref.name`, where the layout holds several images.
        tag: Option<String>,
    },
    /// A tar archive.
    Archive {
        /// What it is said to be.
        kind: ArchiveKind,
        /// The file.
        path: PathBuf,
        /// Which of its images.
        reference: Option<String>,
    },
}

const SUFFIXES: &[&str] = &[".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.zstd", ".tzst"];

impl Source {
    /// What this text means.
    pub fn parse(text: &str) -> Result<Source, SourceError> {
        let refused = |reason| SourceError {
            text: text.to_owned(),
            reason,
        };
        if text.is_empty() {
            return Err(refused("it is empty"));
        }
        if text.contains('\0') {
            return Err(refused("it contains a NUL byte"));
        }
        if let Some(special) = text.strip_prefix('@') {
            return match special {
                "host" => Ok(Source::Host),
                _ => Err(refused("the only image that begins with @ is @host")),
            };
        }
        let split = |rest: &str| {
            let (path, tag) = match rest.split_once(':') {
                Some((path, tag)) => (path, Some(tag.to_owned())),
                None => (rest, None),
            };
            if path.is_empty() {
                return Err(refused("a path must follow the first colon"));
            }
            if tag.as_deref() == Some("") {
                return Err(refused("nothing follows the last colon"));
            }
            Ok((PathBuf::from(path), tag))
        };
        if let Some(rest) = text.strip_prefix("oci:") {
            let (dir, tag) = split(rest)?;
            return Ok(Source::OciLayout { dir, tag });
        }
        for (prefix, kind) in [
            ("docker-archive:", ArchiveKind::Docker),
            ("oci-archive:", ArchiveKind::Oci),
        ] {
            if let Some(rest) = text.strip_prefix(prefix) {
                let (path, reference) = split(rest)?;
                return Ok(Source::Archive {
                    kind,
                    path,
                    reference,
                });
            }
        }
        if SUFFIXES
            .iter()
            .any(|suffix| text.len() > suffix.len() && text.ends_with(suffix))
        {
            return Ok(Source::Archive {
                kind: ArchiveKind::Any,
                path: PathBuf::from(text),
                reference: None,
            });
        }
        Ok(Source::Local(text.to_owned()))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, path, tag) = match self {
            Source::Host => return f.write_str("@host"),
            Source::Local(text) => return f.write_str(text),
            Source::OciLayout { dir, tag } => ("oci:", dir, tag),
            Source::Archive {
                kind: ArchiveKind::Docker,
                path,
                reference,
            } => ("docker-archive:", path, reference),
            Source::Archive {
                kind: ArchiveKind::Oci,
                path,
                reference,
            } => ("oci-archive:", path, reference),
            Source::Archive {
                kind: ArchiveKind::Any,
                path,
                reference,
            } => ("", path, reference),
        };
        write!(f, "{prefix}{}", path.display())?;
        match tag {
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_recognised() {
        let layout = |dir: &str, tag: Option<&str>| Source::OciLayout {
            dir: dir.into(),
            tag: tag.map(Into::into),
        };
        let archive = |kind, path: &str, reference: Option<&str>| Source::Archive {
            kind,
            path: path.into(),
            reference: reference.map(Into::into),
        };
        for (text, source) in [
            ("@host", Source::Host),
            ("busybox:latest", Source::Local("busybox:latest".into())),
            ("oci:/a/b", layout("/a/b", None)),
            ("oci:b:t", layout("b", Some("t"))),
            (
                "oci-archive:x.tar",
                archive(ArchiveKind::Oci, "x.tar", None),
            ),
            (
                "docker-archive:/x.tar:busybox:1",
                archive(ArchiveKind::Docker, "/x.tar", Some("busybox:1")),
            ),
            (
                "./x.tar.zst",
                archive(ArchiveKind::Any, "./x.tar.zst", None),
            ),
            ("a.tgz", archive(ArchiveKind::Any, "a.tgz", None)),
        ] {
            assert_eq!(Source::parse(text).as_ref(), Ok(&source), "{text}");
            assert_eq!(source.to_string(), text);
        }
        for bad in [
            "",
            "@",
            "@hosts",
            "oci:",
            "oci::t",
            "oci:a:",
            "docker-archive:",
            "a\0b",
        ] {
            assert!(Source::parse(bad).is_err(), "{bad:?}");
        }
    }
}
