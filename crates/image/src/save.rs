//! Images to an archive: an OCI layout in a tar, with Docker's `manifest.json` and `repositories` beside it or without them.
//!
//! ```text
//! blobs/sha256/<hex>   configurations, manifests, and layers as plain archives: their digests are their diff ids
//! index.json           one entry a name
//! manifest.json        Docker's list            (docker form only)
//! oci-layout
//! repositories         Docker's oldest list     (docker form only)
//! ```
//!
//! Equal images under equal names give equal bytes: entries are sorted, carry no time and no owner but root, and a layer is written
//! exactly as it came. Manifests are made anew, because layers are no longer compressed; the configuration, and with it the id, stays.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use coracle_oci::{Digest, Reference};
use coracle_store::Layer;
use coracle_store::tar::{Entry, EntryKind, TarWriter};
use serde::Serialize;

use crate::document::{
    ANNOTATION_NAME, ANNOTATION_REF, Descriptor, DescriptorPlatform, Index, Manifest, OCI_MANIFEST,
    encode,
};
use crate::{Error, Image, Images, Result};

/// Which kind of archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SaveFormat {
    /// What `docker load` and every OCI tool reads.
    #[default]
    Docker,
    /// An OCI layout and nothing else.
    Oci,
}

/// Docker's entry in `manifest.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

enum Blob {
    Document(Vec<u8>),
    Layer(Layer),
}

impl Images {
    /// Writes these images (names, ids, or a repository without a tag: all its tags) as one archive.
    pub fn save(&self, images: &[String], format: SaveFormat, out: impl Write) -> Result<()> {
        let chosen = self.choose_for_saving(images)?;
        let mut blobs: BTreeMap<Digest, Blob> = BTreeMap::new();
        let mut entries = Vec::new();
        let mut items = Vec::new();
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for (image, names) in chosen {
            let configuration = self.configuration_bytes(&image.id)?;
            let layers = image.layers.iter().map(|layer| (layer.diff_id, layer.size));
            let manifest = Manifest::plain(image.id.0, configuration.len() as u64, layers).encode();
            entries.extend(descriptors(&image, &manifest, &names));
            let tags: Vec<String> = names.iter().map(Reference::familiar).collect();
            for name in &names {
                if let (Some(tag), Some(top)) = (name.tag(), image.layers.last()) {
                    repositories
                        .entry(name.familiar_name())
                        .or_default()
                        .insert(tag.into(), top.diff_id.hex());
                }
            }
            items.push(Item {
                config: blob_path(&image.id.0),
                repo_tags: (!tags.is_empty()).then_some(tags),
                layers: image
                    .layers
                    .iter()
                    .map(|layer| blob_path(&layer.diff_id))
                    .collect(),
            });
            blobs.insert(image.id.0, Blob::Document(configuration));
            blobs.insert(Digest::of(&manifest), Blob::Document(manifest));
            blobs.extend(
                image
                    .layers
                    .into_iter()
                    .map(|layer| (layer.diff_id, Blob::Layer(layer))),
            );
        }
        let mut archive = Archive {
            tar: TarWriter::new(out),
        };
        archive.directory("blobs/")?;
        archive.directory("blobs/sha256/")?;
        for (digest, blob) in &blobs {
            match blob {
                Blob::Document(bytes) => archive.document(&blob_path(digest), bytes)?,
                Blob::Layer(layer) => {
                    let mut tar = layer
                        .tar()
                        .map_err(Error::store(format!("read layer {digest}")))?;
                    archive.file(&blob_path(digest), layer.size, &mut tar)?;
                }
            }
        }
        archive.document("index.json", &encode(&Index::new(entries)))?;
        if format == SaveFormat::Docker {
            archive.document("manifest.json", &encode(&items))?;
        }
        archive.document("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        if format == SaveFormat::Docker && !repositories.is_empty() {
            archive.document("repositories", &encode(&repositories))?;
        }
        archive
            .tar
            .finish()
            .and_then(|mut out| out.flush())
            .map_err(Error::Write)
    }

    /// The images meant, each once, in the order of their first mention, with the names that go along.
    fn choose_for_saving(&self, images: &[String]) -> Result<Vec<(Image, Vec<Reference>)>> {
        let mut chosen: Vec<(Image, Vec<Reference>)> = Vec::new();
        let mut add = |image: Image, name: Option<Reference>| {
            let at = chosen
                .iter()
                .position(|(other, _)| other.id == image.id)
                .unwrap_or_else(|| {
                    chosen.push((image, Vec::new()));
                    chosen.len() - 1
                });
            let names = &mut chosen[at].1;
            names.extend(name.filter(|name| !names.contains(name)));
        };
        for text in images {
            let whole_repository = match text.parse::<Reference>() {
                Ok(reference) if reference.tag().is_none() && reference.digest().is_none() => {
                    self.references().of_repository(&reference)?
                }
                _ => Vec::new(),
            };
            if whole_repository.is_empty() {
                let image = self.resolve(text)?;
                let name = image.name.clone();
                add(image, name);
            }
            for (name, id) in whole_repository {
                add(self.get(&id)?, Some(name));
            }
        }
        Ok(chosen)
    }
}

fn descriptors(image: &Image, manifest: &[u8], names: &[Reference]) -> Vec<Descriptor> {
    let descriptor = |annotations| Descriptor {
        media_type: OCI_MANIFEST.into(),
        digest: Digest::of(manifest),
        size: manifest.len() as u64,
        annotations,
        platform: Some(DescriptorPlatform {
            architecture: image.platform.architecture.clone(),
            os: image.platform.os.clone(),
            variant: image.platform.variant.clone(),
        }),
    };
    if names.is_empty() {
        return vec![Descriptor {
            platform: None,
            ..descriptor(None)
        }];
    }
    let annotated = |name: &Reference| {
        let tag = name
            .tag()
            .map(|tag| (ANNOTATION_REF.to_owned(), tag.to_owned()));
        let full = std::iter::once((ANNOTATION_NAME.to_owned(), name.to_string()));
        descriptor(Some(full.chain(tag).collect()))
    };
    names.iter().map(annotated).collect()
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

struct Archive<W: Write> {
    tar: TarWriter<W>,
}

impl<W: Write> Archive<W> {
    fn directory(&mut self, path: &str) -> Result<()> {
        let entry = Entry {
            mode: 0o755,
            ..Entry::new(EntryKind::Directory, path.as_bytes())
        };
        self.tar
            .append(&entry, &mut std::io::empty())
            .map_err(Error::Write)
    }

    fn document(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.file(path, bytes.len() as u64, &mut &bytes[..])
    }

    fn file(&mut self, path: &str, size: u64, data: &mut dyn Read) -> Result<()> {
        let entry = Entry {
            mode: 0o644,
            size,
            data_size: size,
            ..Entry::new(EntryKind::Regular, path.as_bytes())
        };
        self.tar.append(&entry, data).map_err(Error::Write)
    }
}
