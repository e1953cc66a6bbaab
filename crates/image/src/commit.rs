//! A new image on top of another: one layer more, another configuration.

use std::io::{Cursor, Read};

use coracle_oci::{Digest, Platform, Reference};
use coracle_store::Layer;
use serde_json::{Map, Value};

use crate::document::{Manifest, check_layer_count, encode};
use crate::record::Record;
use crate::{
    Config, Error, History, Image, ImageConfiguration, ImageId, Images, Result, change, document,
};

/// What a committed image is to be.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The image below; none: the layer stands alone (a container of `@host` or `--rootfs`).
    pub parent: Option<ImageId>,
    /// How the container was run, where that is to be the image's default; none: as the parent says.
    pub config: Option<Config>,
    /// Dockerfile instructions on top of that; see [`crate::Change`].
    pub changes: Vec<String>,
    /// Its name.
    pub reference: Option<Reference>,
    /// Who.
    pub author: Option<String>,
    /// Why.
    pub message: Option<String>,
    /// The command that made the layer, for the history.
    pub created_by: Option<String>,
}

impl Images {
    /// Makes an image of a layer's archive (plain, or compressed by gzip or zstd) on top of a parent.
    pub fn commit(&self, layer: impl Read + Send, commit: &Commit) -> Result<Image> {
        // Before the layer is read: a mistyped change should cost nothing.
        change::apply_all(&commit.changes, &mut Config::default())?;
        let _loading = self.loading()?;
        let (mut raw, mut layers) = match &commit.parent {
            Some(parent) => {
                let image = self.get(parent)?;
                let bytes = self.configuration_bytes(parent)?;
                let raw: Map<String, Value> =
                    document::decode(&bytes, &format!("configuration {parent}"), "the store")?;
                (raw, image.layers)
            }
            None => (Map::new(), Vec::new()),
        };
        let mut configuration: ImageConfiguration = match &commit.parent {
            Some(parent) => self.configuration(parent)?,
            None => {
                let host = Platform::host();
                ImageConfiguration {
                    architecture: host.architecture,
                    os: host.os,
                    ..ImageConfiguration::default()
                }
            }
        };
        check_layer_count(layers.len() + 1, "the new image", "commit")?;
        let limit = coracle_store::Limits::default().decompressed_bytes;
        let plain = coracle_store::decompress(layer, limit).map_err(|source| Error::Read {
            what: "the layer".into(),
            origin: "commit".into(),
            source,
        })?;
        layers.push(
            self.store()
                .ingest_layer(plain, None)
                .map_err(Error::store("store the new layer"))?,
        );
        if let Some(config) = &commit.config {
            configuration.config = config.clone();
        }
        change::apply_all(&commit.changes, &mut configuration.config)?;
        configuration.created = Some(now());
        configuration.author = commit.author.clone().unwrap_or_default();
        configuration.comment = commit.message.clone().unwrap_or_default();
        configuration.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
        configuration.history.push(History {
            created: configuration.created.clone(),
            created_by: commit.created_by.clone().unwrap_or_default(),
            author: configuration.author.clone(),
            comment: configuration.comment.clone(),
            empty_layer: false,
        });
        overlay(&mut raw, &configuration);
        let names: Vec<Reference> = commit
            .reference
            .iter()
            .cloned()
            .map(Reference::or_latest)
            .collect();
        self.create(encode(&raw), &configuration, &layers, &names)
    }

    /// Stores the documents of an image that was made here, records and names it. The caller holds `loading`.
    pub(crate) fn create(
        &self,
        bytes: Vec<u8>,
        configuration: &ImageConfiguration,
        layers: &[Layer],
        names: &[Reference],
    ) -> Result<Image> {
        let id = ImageId(Digest::of(&bytes));
        let layer_sizes = layers.iter().map(|layer| (layer.diff_id, layer.size));
        let manifest = Manifest::plain(id.0, bytes.len() as u64, layer_sizes).encode();
        let put = |bytes: &[u8], what: &str| {
            let stored = self.store().put_blob(Cursor::new(bytes), None);
            stored.map_err(Error::store(format!("store the {what} of image {id}")))
        };
        put(&bytes, "configuration")?;
        let manifest = put(&manifest, "manifest")?.digest;
        let size = layers.iter().map(|layer| layer.content_size).sum();
        let record = Record::new(id, manifest, size, configuration);
        self.publish(&record, names)?;
        self.image(record, names.first().cloned())
    }
}

/// The fields of `config` that [`Config`] knows, so that one which was emptied is gone from the document too.
const CONFIG_FIELDS: &[&str] = &[
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "StopTimeout",
    "Healthcheck",
    "Shell",
    "OnBuild",
    "ArgsEscaped",
];

/// Writes what this engine knows over the parent's document; what it does not know (other tools' fields) stays.
fn overlay(raw: &mut Map<String, Value>, configuration: &ImageConfiguration) {
    let Ok(Value::Object(mut known)) = serde_json::to_value(configuration) else {
        unreachable!("a struct with string keys becomes an object")
    };
    // What Docker writes about the container that the parent's last layer was made in.
    for field in [
        "author",
        "comment",
        "container",
        "container_config",
        "docker_version",
        "id",
        "parent",
    ] {
        raw.remove(field);
    }
    let config = known.remove("config");
    raw.append(&mut known);
    let mut target = match raw.remove("config") {
        Some(Value::Object(target)) => target,
        _ => Map::new(),
    };
    target.retain(|field, _| !CONFIG_FIELDS.contains(&field.as_str()));
    if let Some(Value::Object(mut config)) = config {
        target.append(&mut config);
    }
    raw.insert("config".into(), Value::Object(target));
}

/// The time as an image's documents write it.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().to_string()
}
