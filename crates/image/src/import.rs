//! A root file system becomes an image of one layer.

use std::io::Read;

use coracle_oci::{Platform, Reference};
use coracle_store::Limits;

use crate::commit::now;
use crate::{Config, Error, History, Image, ImageConfiguration, Images, Result, RootFs, change};

/// What an imported image is to be.
#[derive(Debug, Clone, Default)]
pub struct Import {
    /// Its name.
    pub reference: Option<Reference>,
    /// Dockerfile instructions; see [`crate::Change`].
    pub changes: Vec<String>,
    /// What its history says.
    pub message: Option<String>,
    /// What it is for; default: this host's system and architecture.
    pub platform: Option<Platform>,
}

impl Images {
    /// Makes an image of a tar archive, plain or compressed by gzip or zstd. `name` is what errors call the archive.
    pub fn import(&self, archive: impl Read + Send, name: &str, import: &Import) -> Result<Image> {
        let mut config = Config::default();
        change::apply_all(&import.changes, &mut config)?;
        let _loading = self.loading()?;
        let plain = coracle_store::decompress(archive, Limits::default().decompressed_bytes)
            .map_err(|source| Error::Read {
                what: "the beginning".into(),
                origin: name.to_owned(),
                source,
            })?;
        let layer = self
            .store()
            .ingest_layer(plain, None)
            .map_err(Error::store(format!("import {name}")))?;
        let platform = import.platform.clone().unwrap_or_else(|| Platform {
            variant: None,
            ..Platform::host()
        });
        let created = Some(now());
        let comment = import
            .message
            .clone()
            .unwrap_or_else(|| format!("Imported from {name}"));
        let configuration = ImageConfiguration {
            created: created.clone(),
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant,
            comment: comment.clone(),
            config,
            rootfs: RootFs {
                diff_ids: vec![layer.diff_id],
                ..RootFs::default()
            },
            history: vec![History {
                created,
                comment,
                ..History::default()
            }],
            ..ImageConfiguration::default()
        };
        let names: Vec<Reference> = import
            .reference
            .iter()
            .cloned()
            .map(Reference::or_latest)
            .collect();
        self.create(
            crate::document::encode(&configuration),
            &configuration,
            &[layer],
            &names,
        )
    }
}
