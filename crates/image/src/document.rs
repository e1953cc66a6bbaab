//! The documents of an image as they are read from outside: size limits first, then shape, then what they claim.
//!
//! Own small structs instead of `oci_spec`'s: those refuse Docker's `null`s and schema 2 media types are strings to them
//! anyway. A document may not be manifest and index at once (CVE-2021-41190): what decides is its media type, and a document
//! without one that has both `layers` and `manifests` is refused.

use std::collections::BTreeMap;

use coracle_oci::{Digest, Platform};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Largest document (manifest, index, configuration, `manifest.json`) that is read, in bytes.
pub const MAX_DOCUMENT: u64 = 8 << 20;

/// Most layers of one image. Docker stops at 127; 500 is what one overlay takes.
pub(crate) const MAX_LAYERS: usize = 500;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Full name of the image, as containerd and Docker annotate it.
pub(crate) const ANNOTATION_NAME: &str = "io.containerd.image.name";
/// Tag or name of an image in a layout.
pub(crate) const ANNOTATION_REF: &str = "org.opencontainers.image.ref.name";

/// What a descriptor points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Index,
    Manifest,
}

/// `Descriptor` of the image specification.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<DescriptorPlatform>,
}

/// The platform that an index claims for an entry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DescriptorPlatform {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
}

impl Descriptor {
    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations
            .as_ref()
            .and_then(|all| all.get(key))
            .map(String::as_str)
    }

    pub(crate) fn platform(&self) -> Option<Platform> {
        let claimed = self.platform.as_ref()?;
        Some(Platform::new(
            &claimed.os,
            &claimed.architecture,
            claimed.variant.as_deref(),
        ))
    }

    /// Whether it is an attestation or a signature that hangs beside images in an index.
    pub(crate) fn is_attachment(&self) -> bool {
        self.annotation("vnd.docker.reference.type").is_some()
    }

    /// Index or manifest, by media type; anything else is refused by name.
    pub(crate) fn kind(&self, origin: &str) -> Result<Kind> {
        match essence(&self.media_type) {
            OCI_INDEX | DOCKER_INDEX => Ok(Kind::Index),
            OCI_MANIFEST | DOCKER_MANIFEST => Ok(Kind::Manifest),
            _ => Err(self.unsupported("manifest", origin)),
        }
    }

    fn unsupported(&self, what: &str, origin: &str) -> Error {
        Error::MediaType {
            media_type: quoted(&self.media_type),
            what: format!("{what} {}", self.digest),
            origin: origin.to_owned(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    #[serde(default)]
    pub(crate) manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing)]
    layers: Option<serde::de::IgnoredAny>,
}

impl Index {
    pub(crate) fn new(manifests: Vec<Descriptor>) -> Index {
        Index {
            schema_version: 2,
            media_type: Some(OCI_INDEX.into()),
            manifests,
            layers: None,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    pub(crate) config: Descriptor,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing)]
    manifests: Option<serde::de::IgnoredAny>,
}

impl Manifest {
    pub(crate) fn new(config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.into()),
            config,
            layers,
            manifests: None,
        }
    }

    /// The manifest of an image whose layers are plain archives, as `save` writes it.
    pub(crate) fn plain(
        config: Digest,
        config_size: u64,
        layers: impl Iterator<Item = (Digest, u64)>,
    ) -> Manifest {
        let descriptor = |media_type: &str, digest, size| Descriptor {
            media_type: media_type.into(),
            digest,
            size,
            annotations: None,
            platform: None,
        };
        let layers = layers
            .map(|(digest, size)| descriptor(OCI_LAYER, digest, size))
            .collect();
        Manifest::new(descriptor(OCI_CONFIG, config, config_size), layers)
    }

    /// Its bytes: what it is addressed by.
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(self)
    }
}

/// JSON of one of our own documents.
pub(crate) fn encode(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document)
        .expect("strings, numbers and maps with string keys always become JSON")
}

/// Parses an untrusted document. `document` says which one, `origin` where it is.
pub(crate) fn decode<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    document: &str,
    origin: &str,
) -> Result<T> {
    check_size(bytes.len() as u64, document, origin)?;
    serde_json::from_slice(bytes).map_err(|source| Error::Json {
        document: document.to_owned(),
        origin: origin.to_owned(),
        source,
    })
}

pub(crate) fn check_size(size: u64, document: &str, origin: &str) -> Result<()> {
    if size <= MAX_DOCUMENT {
        return Ok(());
    }
    Err(Error::TooLarge {
        document: document.to_owned(),
        origin: origin.to_owned(),
        size,
        limit: MAX_DOCUMENT,
    })
}

pub(crate) fn parse_index(bytes: &[u8], document: &str, origin: &str) -> Result<Index> {
    let index: Index = decode(bytes, document, origin)?;
    let refused = |reason: String| Error::Document {
        document: document.into(),
        origin: origin.into(),
        reason,
    };
    if index.schema_version != 2 {
        return Err(refused(format!(
            "its schema version is {}, not 2",
            index.schema_version
        )));
    }
    if index.layers.is_some() {
        return Err(refused("it is an index and a manifest at once".into()));
    }
    match index.media_type.as_deref().map(essence) {
        None | Some("" | OCI_INDEX | DOCKER_INDEX) => Ok(index),
        Some(other) => Err(refused(format!(
            "it is used as an index, but says it is {:?}",
            quoted(other)
        ))),
    }
}

pub(crate) fn parse_manifest(bytes: &[u8], document: &str, origin: &str) -> Result<Manifest> {
    let manifest: Manifest = decode(bytes, document, origin)?;
    let refused = |reason: String| Error::Document {
        document: document.into(),
        origin: origin.into(),
        reason,
    };
    if manifest.schema_version != 2 {
        return Err(refused(format!(
            "its schema version is {}, not 2",
            manifest.schema_version
        )));
    }
    if manifest.manifests.is_some() {
        return Err(refused("it is a manifest and an index at once".into()));
    }
    if let Some(other) = manifest.media_type.as_deref().map(essence)
        && !matches!(other, "" | OCI_MANIFEST | DOCKER_MANIFEST)
    {
        return Err(refused(format!(
            "it is used as a manifest, but says it is {:?}",
            quoted(other)
        )));
    }
    if !matches!(
        essence(&manifest.config.media_type),
        OCI_CONFIG | DOCKER_CONFIG
    ) {
        return Err(manifest.config.unsupported("configuration", origin));
    }
    check_layer_count(manifest.layers.len(), document, origin)?;
    for layer in &manifest.layers {
        check_layer(layer, origin)?;
    }
    Ok(manifest)
}

pub(crate) fn check_layer_count(count: usize, document: &str, origin: &str) -> Result<()> {
    if count <= MAX_LAYERS {
        return Ok(());
    }
    let reason = format!("it has {count} layers, at most {MAX_LAYERS} can be mounted");
    Err(Error::Document {
        document: document.into(),
        origin: origin.into(),
        reason,
    })
}

fn check_layer(layer: &Descriptor, origin: &str) -> Result<()> {
    let media_type = essence(&layer.media_type);
    let foreign = media_type.contains(".nondistributable.") || media_type.contains(".foreign.");
    if foreign {
        return Err(Error::ForeignLayer {
            digest: layer.digest,
            media_type: quoted(media_type),
            origin: origin.to_owned(),
        });
    }
    match media_type {
        OCI_LAYER
        | "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Ok(()),
        _ => Err(layer.unsupported("layer", origin)),
    }
}

/// A media type without parameters.
fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Untrusted text for an error: one line of it at most.
pub(crate) fn quoted(text: &str) -> String {
    text.chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(config_type: &str, layer_type: &str) -> Result<Manifest> {
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{config_type}","digest":"{DIGEST}","size":1}},
               "layers":[{{"mediaType":"{layer_type}","digest":"{DIGEST}","size":1}}]}}"#
        );
        parse_manifest(text.as_bytes(), "manifest", "test")
    }

    #[test]
    fn both_families_of_media_types_are_taken() {
        assert!(manifest(OCI_CONFIG, "application/vnd.oci.image.layer.v1.tar+zstd").is_ok());
        assert!(
            manifest(
                DOCKER_CONFIG,
                "application/vnd.docker.image.rootfs.diff.tar.gzip"
            )
            .is_ok()
        );
    }

    #[test]
    fn other_media_types_are_refused_by_name() {
        let error =
            manifest("application/vnd.cncf.helm.config.v1+json", OCI_LAYER).expect_err("a chart");
        assert!(error.to_string().contains("helm"), "{error}");
        let error = manifest(OCI_CONFIG, "application/x-lzma").expect_err("lzma");
        assert!(error.to_string().contains("application/x-lzma"), "{error}");
        let error = manifest(
            OCI_CONFIG,
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        );
        assert!(matches!(error, Err(Error::ForeignLayer { .. })));
    }

    #[test]
    fn a_document_that_is_both_is_refused() {
        let text = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{OCI_CONFIG}","digest":"{DIGEST}","size":1}},"layers":[],"manifests":[]}}"#
        );
        assert!(parse_manifest(text.as_bytes(), "manifest", "test").is_err());
        assert!(parse_index(text.as_bytes(), "index", "test").is_err());
        let as_index =
            format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","manifests":[]}}"#);
        assert!(parse_index(as_index.as_bytes(), "index", "test").is_err());
    }

    #[test]
    fn documents_beyond_the_limit_are_not_parsed() {
        let text = vec![b' '; MAX_DOCUMENT as usize + 1];
        assert!(matches!(
            parse_index(&text, "index", "test"),
            Err(Error::TooLarge { .. })
        ));
    }
}
