//! What an origin has under a path, and how it is read.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coracle_oci::{Digest, Hasher};

use crate::{Error, Result, document};

/// Links that are followed before a path counts as circular.
const MAX_LINKS: usize = 8;

/// Where an image comes from: a set of paths with content.
pub(crate) trait Origin: Sync {
    /// What errors call it.
    fn name(&self) -> &str;

    /// What is at this path, which has no leading slash; none where nothing is.
    fn open(&self, path: &str) -> Result<Option<Content>>;
}

/// The bytes at a path.
pub(crate) enum Content {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// In a file.
    Section(Section),
    /// Passed by in a stream and is in the store as the layer with this diff id.
    Layer(Digest),
    /// Passed by in a stream and was too large for a document.
    Skipped(u64),
}

/// A run of bytes in a file, read by position: many can be read at once.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    pub(crate) file: Arc<File>,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer
            .len()
            .min(usize::try_from(self.length).unwrap_or(usize::MAX));
        let got = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        if got == 0 && wanted > 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file was cut off while it was read",
            ));
        }
        self.offset += got as u64;
        self.length -= got as u64;
        Ok(got)
    }
}

/// Whole bytes of a document, compared with its digest and size where these are known.
pub(crate) fn read_document(
    origin: &dyn Origin,
    path: &str,
    what: &str,
    expected: Option<&Digest>,
    size: Option<u64>,
) -> Result<Vec<u8>> {
    if let Some(size) = size {
        document::check_size(size, what, origin.name())?;
    }
    let bytes = match origin.open(path)? {
        None => {
            return Err(Error::Missing {
                what: format!("{what} ({path})"),
                origin: origin.name().to_owned(),
            });
        }
        Some(Content::Bytes(bytes)) => bytes.to_vec(),
        Some(Content::Section(mut section)) => {
            document::check_size(section.length, what, origin.name())?;
            let mut bytes = Vec::with_capacity(section.length as usize);
            section
                .read_to_end(&mut bytes)
                .map_err(|source| Error::Read {
                    what: what.to_owned(),
                    origin: origin.name().to_owned(),
                    source,
                })?;
            bytes
        }
        Some(Content::Skipped(size)) => {
            document::check_size(size, what, origin.name())?;
            return Err(Error::Missing {
                what: format!("{what} ({path})"),
                origin: origin.name().to_owned(),
            });
        }
        Some(Content::Layer(_)) => {
            return Err(Error::Document {
                document: what.to_owned(),
                origin: origin.name().to_owned(),
                reason: "it is an archive, not JSON".into(),
            });
        }
    };
    if let Some(size) = size
        && size != bytes.len() as u64
    {
        return Err(Error::SizeMismatch {
            what: what.to_owned(),
            origin: origin.name().to_owned(),
            expected: size,
            actual: bytes.len() as u64,
        });
    }
    if let Some(expected) = expected {
        let actual = Digest::of(&bytes);
        if actual != *expected {
            return Err(Error::DigestMismatch {
                what: what.to_owned(),
                origin: origin.name().to_owned(),
                expected: *expected,
                actual,
            });
        }
    }
    Ok(bytes)
}

/// A reader that fails at its end if what came was not what was promised.
///
/// The failure comes out of the store as the reader's error, before the store keeps anything.
pub(crate) struct Checked<R> {
    inner: R,
    hasher: Option<Hasher>,
    expected: Digest,
    what: String,
    origin: String,
    at_end: Arc<AtomicBool>,
}

impl<R> Checked<R> {
    /// `expected` is not computed where it is the diff id too: then the store compares it.
    pub(crate) fn new(
        inner: R,
        expected: Option<Digest>,
        what: String,
        origin: String,
    ) -> (Checked<R>, Arc<AtomicBool>) {
        let at_end = Arc::new(AtomicBool::new(false));
        let hasher = expected.map(|_| Hasher::new());
        let expected = expected.unwrap_or(Digest::from_bytes([0; 32]));
        (
            Checked {
                inner,
                hasher,
                expected,
                what,
                origin,
                at_end: at_end.clone(),
            },
            at_end,
        )
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        if got > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[..got]);
            }
        } else if !buffer.is_empty() {
            self.at_end.store(true, Ordering::Release);
            if let Some(actual) = self.hasher.take().map(Hasher::finish)
                && actual != self.expected
            {
                return Err(io::Error::other(Error::DigestMismatch {
                    what: self.what.clone(),
                    origin: self.origin.clone(),
                    expected: self.expected,
                    actual,
                }));
            }
        }
        Ok(got)
    }
}

/// Whether a file begins as gzip or zstd does.
pub(crate) fn is_compressed(file: &File, path: &Path) -> Result<bool> {
    let mut head = [0; 4];
    let got = file
        .read_at(&mut head, 0)
        .map_err(Error::io("read", path))?;
    Ok(starts_compressed(&head[..got]))
}

pub(crate) fn starts_compressed(head: &[u8]) -> bool {
    head.starts_with(&[0x1f, 0x8b]) || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

/// The digest in `blobs/sha256/<hex>`.
pub(crate) fn blob_digest(path: &str) -> Option<Digest> {
    path.strip_prefix("blobs/sha256/")
        .and_then(|hex| Digest::from_hex(hex).ok())
}

pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A path in an archive without `.`, empty parts and `..`; none where it leads out.
pub(crate) fn normal_path(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Names in an archive, links among them included. A link is a name for another entry of the archive and never more.
#[derive(Debug)]
pub(crate) struct Names<T> {
    entries: HashMap<String, T>,
    links: HashMap<String, String>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Names {
            entries: HashMap::new(),
            links: HashMap::new(),
        }
    }
}

impl<T> Names<T> {
    /// An entry with content. As when unpacking, a later one replaces an earlier one of its name.
    pub(crate) fn insert(&mut self, path: &str, content: T) {
        if let Some(path) = normal_path(path) {
            self.links.remove(&path);
            self.entries.insert(path, content);
        }
    }

    /// A symbolic link, relative to its own directory; an absolute one or one that leads out names nothing.
    pub(crate) fn symlink(&mut self, path: &str, target: &str) {
        let Some(path) = normal_path(path) else {
            return;
        };
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        if !target.starts_with('/')
            && let Some(target) = normal_path(&format!("{directory}/{target}"))
        {
            self.entries.remove(&path);
            self.links.insert(path, target);
        }
    }

    /// A hard link, relative to the archive's root.
    pub(crate) fn hard_link(&mut self, path: &str, target: &str) {
        if let (Some(path), Some(target)) = (normal_path(path), normal_path(target))
            && path != target
        {
            self.entries.remove(&path);
            self.links.insert(path, target);
        }
    }

    /// What a path means, links followed.
    pub(crate) fn get(&self, path: &str) -> Option<&T> {
        let mut path = normal_path(path)?;
        for _ in 0..=MAX_LINKS {
            if let Some(content) = self.entries.get(&path) {
                return Some(content);
            }
            path = self.links.get(&path)?.clone();
        }
        None
    }

    /// How many names there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() + self.links.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_entries_and_never_out() {
        let mut names = Names::default();
        names.insert("./a/layer.tar", 1);
        names.symlink("b/layer.tar", "../a/layer.tar");
        names.symlink("c/layer.tar", "../../etc/passwd");
        names.symlink("d/layer.tar", "/a/layer.tar");
        names.hard_link("e/layer.tar", "b/layer.tar");
        names.symlink("loop1", "loop2");
        names.symlink("loop2", "loop1");
        names.insert("../out", 2);
        for (path, found) in [
            ("a/layer.tar", Some(&1)),
            ("a//./layer.tar", Some(&1)),
            ("b/layer.tar", Some(&1)),
            ("e/layer.tar", Some(&1)),
            ("c/layer.tar", None),
            ("d/layer.tar", None),
            ("loop1", None),
            ("../a/layer.tar", None),
            ("out", None),
        ] {
            assert_eq!(names.get(path), found, "{path}");
        }
    }

    #[test]
    fn checked_reader_fails_at_its_end() {
        let read = |expected: Digest| {
            let (mut checked, at_end) =
                Checked::new(&b"abc"[..], Some(expected), "blob".into(), "test".into());
            let result = checked.read_to_end(&mut Vec::new());
            assert!(at_end.load(Ordering::Acquire));
            result
        };
        assert!(read(Digest::of(b"abc")).is_ok());
        let error = read(Digest::of(b"abd")).expect_err("a lie");
        assert!(error.to_string().contains(&Digest::of(b"abc").to_string()));
    }
}
