//! An archive that comes once, from a pipe or out of a compressed file.
//!
//! Which entries are layers is said by `manifest.json` or the manifest blobs, and these may come last. So an entry that looks like an
//! archive goes into the store as a layer at once, unread twice and never on disk but as the layer that it is; small entries that may be
//! documents are kept in memory; all else passes by. What turns out to belong to no image is freed afterwards.

use std::collections::HashSet;
use std::io::{self, BufReader, Cursor, Read};
use std::sync::Arc;

use coracle_oci::Digest;
use coracle_store::Limits;
use coracle_store::tar::{EntryKind, TarReader};

use super::content::{Checked, Content, Names, Origin, blob_digest, starts_compressed};
use super::indexed::described;
use super::ingest;
use crate::{Error, Images, MAX_DOCUMENT, Result};

/// Bytes of all documents of one archive that are held in memory.
const MAX_DOCUMENTS: u64 = 64 << 20;
/// Entries of one archive.
const MAX_NAMES: usize = 200_000;
/// A tar header: enough to see what something is.
const HEAD: usize = 512;

enum Spooled {
    Document(Arc<[u8]>),
    Layer(Digest),
    Skipped(u64),
}

/// What passed.
pub(crate) struct Spool {
    name: String,
    names: Names<Spooled>,
}

impl Spool {
    /// Reads an archive to its end. Layers that were not in the store before are added to `brought`, also on failure.
    pub(crate) fn read(
        images: &Images,
        reader: Box<dyn Read + Send + '_>,
        name: &str,
        brought: &mut Vec<Digest>,
    ) -> Result<Spool> {
        let limits = Limits::default();
        let plain =
            coracle_store::decompress(reader, limits.decompressed_bytes).map_err(|source| {
                Error::Read {
                    what: "the beginning".into(),
                    origin: name.to_owned(),
                    source,
                }
            })?;
        let mut archive = TarReader::new(BufReader::with_capacity(256 << 10, plain), limits);
        let mut spool = Spool {
            name: name.to_owned(),
            names: Names::default(),
        };
        let mut held = 0;
        let refused = |reason: String| Error::Archive {
            origin: name.to_owned(),
            reason,
        };
        while let Some(entry) = archive
            .next_entry()
            .map_err(|error| refused(described(&error)))?
        {
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            let link = String::from_utf8_lossy(&entry.link);
            match entry.kind {
                EntryKind::Symlink => spool.names.symlink(&path, &link),
                EntryKind::HardLink => spool.names.hard_link(&path, &link),
                EntryKind::Regular if entry.sparse.is_some() => {
                    return Err(refused(format!("{path:?} is a sparse file")));
                }
                EntryKind::Regular => {
                    let mut data = Data(&mut archive);
                    let mut head = Vec::with_capacity(HEAD);
                    (&mut data)
                        .take(HEAD as u64)
                        .read_to_end(&mut head)
                        .map_err(|source| Error::Read {
                            what: path.clone(),
                            origin: name.to_owned(),
                            source,
                        })?;
                    let content = if is_layer(&head) {
                        let (diff_id, new) =
                            ingest_passing(images, &path, name, Cursor::new(head).chain(data))?;
                        if new {
                            brought.push(diff_id);
                        }
                        Spooled::Layer(diff_id)
                    } else if may_be_document(&path) && entry.size <= MAX_DOCUMENT {
                        held += entry.size;
                        if held > MAX_DOCUMENTS {
                            return Err(Error::TooLarge {
                                document: "the sum of all documents".into(),
                                origin: name.to_owned(),
                                size: held,
                                limit: MAX_DOCUMENTS,
                            });
                        }
                        data.read_to_end(&mut head).map_err(|source| Error::Read {
                            what: path.clone(),
                            origin: name.to_owned(),
                            source,
                        })?;
                        Spooled::Document(head.into())
                    } else {
                        Spooled::Skipped(entry.size)
                    };
                    spool.names.insert(&path, content);
                }
                _ => {}
            }
            if spool.names.len() > MAX_NAMES {
                return Err(refused(format!("it has more than {MAX_NAMES} files")));
            }
        }
        Ok(spool)
    }
}

impl Origin for Spool {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self, path: &str) -> Result<Option<Content>> {
        Ok(self.names.get(path).map(|content| match content {
            Spooled::Document(bytes) => Content::Bytes(bytes.clone()),
            Spooled::Layer(diff_id) => Content::Layer(*diff_id),
            Spooled::Skipped(size) => Content::Skipped(*size),
        }))
    }
}

/// Puts a layer into the store whose diff id nobody has said yet. Whether it is new there.
fn ingest_passing(
    images: &Images,
    path: &str,
    origin: &str,
    data: impl Read + Send,
) -> Result<(Digest, bool)> {
    let blob = blob_digest(path);
    let (mut checked, at_end) = Checked::new(data, blob, format!("blob {path}"), origin.to_owned());
    // A plain layer's blob digest is its diff id: what is there already only has to be what it claims.
    if let Some(blob) = blob
        && images
            .store()
            .layer(&blob)
            .map_err(Error::store("look for a layer"))?
            .is_some()
    {
        return match io::copy(&mut checked, &mut io::sink()) {
            Ok(_) => Ok((blob, false)),
            Err(source) => Err(source
                .downcast::<Error>()
                .unwrap_or_else(|source| Error::Read {
                    what: path.to_owned(),
                    origin: origin.to_owned(),
                    source,
                })),
        };
    }
    let before: HashSet<Digest> = images
        .store()
        .layers()
        .map_err(Error::store("list the layers"))?
        .into_iter()
        .collect();
    let layer = ingest::store_layer(images, checked, &at_end, None, path, origin)?;
    Ok((layer.diff_id, !before.contains(&layer.diff_id)))
}

/// Whether content is an archive: compressed, with tar's magic, or nothing but the end-of-archive block.
fn is_layer(head: &[u8]) -> bool {
    starts_compressed(head)
        || head.get(257..262) == Some(b"ustar")
        || (head.len() == HEAD && head.iter().all(|byte| *byte == 0))
}

fn may_be_document(path: &str) -> bool {
    path.ends_with(".json") || path.ends_with("oci-layout") || path.contains("blobs/sha256/")
}

/// The data of the archive's current entry.
struct Data<'a, R>(&'a mut TarReader<R>);

impl<R: io::BufRead> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.0.data().map_err(io::Error::other)?;
        let length = piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&piece[..length]);
        self.0.consume(length);
        Ok(length)
    }
}
