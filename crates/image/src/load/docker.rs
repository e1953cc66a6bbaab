//! `docker save`'s archives: `manifest.json` lists images, each with a configuration's path and its layers' paths.
//!
//! Old ones have `<id>.json` and `<layer id>/layer.tar` (a layer that two images share is a symbolic link); those since Docker 25
//! are an OCI layout with a `manifest.json` beside it. Layers are plain archives; compressed ones are taken too.

use coracle_oci::{Digest, Reference};
use serde::Deserialize;

use super::content::{Origin, blob_digest, read_document};
use super::{Choice, Plan, PlannedLayer, Wanted};
use crate::{Error, Result, document};

pub(crate) const MANIFEST: &str = "manifest.json";

/// Most images in one archive.
const MAX_IMAGES: usize = 1000;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Item {
    fn tags(&self) -> impl Iterator<Item = &str> {
        self.repo_tags.iter().flatten().map(String::as_str)
    }

    fn is_called(&self, wanted: &str) -> bool {
        let parsed = wanted.parse::<Reference>().map(Reference::or_latest).ok();
        self.tags()
            .any(|tag| tag == wanted || (parsed.is_some() && tag.parse().ok() == parsed))
    }
}

pub(crate) fn plan(origin: &dyn Origin, wanted: &Wanted<'_>) -> Result<Vec<Plan>> {
    let bytes = read_document(origin, MANIFEST, MANIFEST, None, None)?;
    let items: Vec<Item> = document::decode(&bytes, MANIFEST, origin.name())?;
    if items.is_empty() || items.len() > MAX_IMAGES {
        return Err(Error::NoImage {
            origin: origin.name().to_owned(),
            reason: format!("manifest.json lists {} images", items.len()),
        });
    }
    let names = || {
        items
            .iter()
            .map(|item| item.tags().next().unwrap_or("<none>"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let chosen: Vec<&Item> = match wanted.choice {
        Choice::All => items.iter().collect(),
        Choice::Named(name) => items
            .iter()
            .filter(|item| item.is_called(name))
            .take(1)
            .collect(),
        Choice::Only => items.iter().collect(),
    };
    let choice = |asked: String| Error::Choice {
        origin: origin.name().to_owned(),
        found: names(),
        asked,
    };
    match wanted.choice {
        Choice::Named(name) if chosen.is_empty() => {
            return Err(choice(format!("{name} was asked for")));
        }
        Choice::Only if chosen.len() > 1 => return Err(choice("none of them was named".into())),
        _ => {}
    }
    chosen
        .into_iter()
        .map(|item| plan_item(origin, wanted, item))
        .collect()
}

fn plan_item(origin: &dyn Origin, wanted: &Wanted<'_>, item: &Item) -> Result<Plan> {
    let what = format!("configuration {}", document::quoted(&item.config));
    let bytes = read_document(
        origin,
        &item.config,
        &what,
        named_digest(&item.config).as_ref(),
        None,
    )?;
    let paths = item.layers.as_deref().unwrap_or_default();
    let mut plan = Plan::new(bytes, paths.len(), origin, wanted)?;
    plan.layers = std::iter::zip(&plan.configuration.rootfs.diff_ids, paths)
        .map(|(diff_id, path)| PlannedLayer {
            diff_id: *diff_id,
            path: path.clone(),
            blob: blob_digest(path),
            size: None,
        })
        .collect();
    for tag in item.tags() {
        plan.names.push(tag.parse::<Reference>()?.or_latest());
    }
    Ok(plan)
}

/// The digest that a configuration's path claims: `blobs/sha256/<hex>` or `<hex>.json`.
fn named_digest(path: &str) -> Option<Digest> {
    blob_digest(path).or_else(|| {
        path.strip_suffix(".json")
            .and_then(|hex| Digest::from_hex(hex).ok())
    })
}
