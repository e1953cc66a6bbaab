//! An OCI image layout's documents: index → (index →)* manifest → configuration.
//!
//! Entries of `index.json` with one name are one image for several platforms. Without names, those that claim a platform are one
//! image together, and each other one is an image of its own. Nested indexes are followed to a small depth, a digest at most once.

use coracle_oci::{Platform, Reference};

use super::content::{Origin, blob_path, read_document};
use super::layout::check_version;
use super::{Choice, Plan, PlannedLayer, Wanted};
use crate::document::{
    ANNOTATION_NAME, ANNOTATION_REF, Descriptor, Kind, parse_index, parse_manifest,
};
use crate::{Error, Result};

/// Indexes inside indexes.
const MAX_DEPTH: usize = 4;
/// Entries of one index.
const MAX_ENTRIES: usize = 10_000;

/// Entries of `index.json` that are one image.
struct Group {
    /// The tag or name in the layout.
    name: Option<String>,
    /// The full name, where something says it.
    full: Option<String>,
    entries: Vec<Descriptor>,
}

impl Group {
    fn reference(&self) -> Option<Reference> {
        let name = self.full.as_deref().or_else(|| {
            // A bare tag names no repository.
            self.name
                .as_deref()
                .filter(|name| name.contains(['/', ':']))
        })?;
        name.parse::<Reference>().ok().map(Reference::or_latest)
    }

    fn is_called(&self, wanted: &str) -> bool {
        let same_text =
            self.name.as_deref() == Some(wanted) || self.full.as_deref() == Some(wanted);
        let parsed = wanted.parse::<Reference>().ok().map(Reference::or_latest);
        same_text || (parsed.is_some() && self.reference() == parsed)
    }

    fn label(&self) -> &str {
        self.name
            .as_deref()
            .or(self.full.as_deref())
            .unwrap_or("<none>")
    }
}

pub(crate) fn plan(origin: &dyn Origin, wanted: &Wanted<'_>) -> Result<Vec<Plan>> {
    if origin.open("oci-layout")?.is_some() {
        check_version(origin)?;
    }
    let bytes = read_document(origin, "index.json", "index.json", None, None)?;
    let index = parse_index(&bytes, "index.json", origin.name())?;
    check_entries(index.manifests.len(), "index.json", origin)?;
    let groups = groups(index.manifests);
    if groups.is_empty() {
        return Err(Error::NoImage {
            origin: origin.name().to_owned(),
            reason: "index.json lists none".into(),
        });
    }
    let choice = |asked: String| Error::Choice {
        origin: origin.name().to_owned(),
        found: groups
            .iter()
            .map(Group::label)
            .take(20)
            .collect::<Vec<_>>()
            .join(", "),
        asked,
    };
    let chosen: Vec<&Group> = match wanted.choice {
        Choice::All => groups.iter().collect(),
        Choice::Named(name) => match groups.iter().find(|group| group.is_called(name)) {
            Some(group) => vec![group],
            None => return Err(choice(format!("{name} was asked for"))),
        },
        Choice::Only if groups.len() > 1 => return Err(choice("none of them was named".into())),
        Choice::Only => groups.iter().collect(),
    };
    chosen
        .into_iter()
        .map(|group| plan_group(origin, wanted, group))
        .collect()
}

fn groups(entries: Vec<Descriptor>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for entry in entries.into_iter().filter(|entry| !entry.is_attachment()) {
        let name = entry.annotation(ANNOTATION_REF).map(str::to_owned);
        let full = entry.annotation(ANNOTATION_NAME).map(str::to_owned);
        let named = name.is_some() || full.is_some();
        let together = groups.iter_mut().find(|group| {
            let same = group.name == name && group.full == full;
            same && (named
                || (entry.platform.is_some()
                    && group.entries.iter().all(|other| other.platform.is_some())))
        });
        match together {
            Some(group) => group.entries.push(entry),
            None => groups.push(Group {
                name,
                full,
                entries: vec![entry],
            }),
        }
    }
    groups
}

fn plan_group(origin: &dyn Origin, wanted: &Wanted<'_>, group: &Group) -> Result<Plan> {
    let mut seen = Vec::new();
    let descriptor = match group.entries.as_slice() {
        // Nothing to choose: an image for another architecture can be loaded, and is refused when it is run.
        [only] if only.kind(origin.name())? == Kind::Manifest => only.clone(),
        entries => choose(origin, &wanted.platform, entries, &mut seen)?,
    };
    let what = format!("manifest {}", descriptor.digest);
    let path = blob_path(&descriptor.digest);
    let bytes = read_document(
        origin,
        &path,
        &what,
        Some(&descriptor.digest),
        Some(descriptor.size),
    )?;
    let manifest = parse_manifest(&bytes, &what, origin.name())?;
    let config = &manifest.config;
    let what = format!("configuration {}", config.digest);
    let configuration = read_document(
        origin,
        &blob_path(&config.digest),
        &what,
        Some(&config.digest),
        Some(config.size),
    )?;
    let mut plan = Plan::new(configuration, manifest.layers.len(), origin, wanted)?;
    plan.layers = std::iter::zip(&plan.configuration.rootfs.diff_ids, &manifest.layers)
        .map(|(diff_id, layer)| PlannedLayer {
            diff_id: *diff_id,
            path: blob_path(&layer.digest),
            blob: Some(layer.digest),
            size: Some(layer.size),
        })
        .collect();
    plan.manifest = Some(bytes);
    plan.names.extend(group.reference());
    Ok(plan)
}

/// The manifest that suits the platform best, through nested indexes.
fn choose(
    origin: &dyn Origin,
    platform: &Platform,
    entries: &[Descriptor],
    seen: &mut Vec<coracle_oci::Digest>,
) -> Result<Descriptor> {
    let mut best: Option<(u32, &Descriptor)> = None;
    let mut available = Vec::new();
    for entry in entries.iter().filter(|entry| !entry.is_attachment()) {
        let rank = match entry.platform() {
            // An entry that claims nothing: better than nothing, worse than one that fits.
            None => Some(0),
            Some(claimed) => {
                available.push(claimed.to_string());
                platform.rank(&claimed)
            }
        };
        if let Some(rank) = rank
            && best.is_none_or(|(other, _)| rank > other)
        {
            best = Some((rank, entry));
        }
    }
    let Some((_, best)) = best else {
        available.truncate(20);
        return Err(Error::Platform {
            origin: origin.name().to_owned(),
            wanted: platform.clone(),
            available: if available.is_empty() {
                "none at all".into()
            } else {
                available.join(", ")
            },
        });
    };
    if best.kind(origin.name())? == Kind::Manifest {
        return Ok(best.clone());
    }
    let what = format!("index {}", best.digest);
    let refused = |reason: String| Error::Document {
        document: what.clone(),
        origin: origin.name().into(),
        reason,
    };
    if seen.contains(&best.digest) {
        return Err(refused("it contains itself".into()));
    }
    if seen.len() >= MAX_DEPTH {
        return Err(refused(format!(
            "indexes are nested more than {MAX_DEPTH} deep"
        )));
    }
    seen.push(best.digest);
    let bytes = read_document(
        origin,
        &blob_path(&best.digest),
        &what,
        Some(&best.digest),
        Some(best.size),
    )?;
    let index = parse_index(&bytes, &what, origin.name())?;
    check_entries(index.manifests.len(), &what, origin)?;
    choose(origin, platform, &index.manifests, seen)
}

fn check_entries(count: usize, what: &str, origin: &dyn Origin) -> Result<()> {
    if count <= MAX_ENTRIES {
        return Ok(());
    }
    let reason = format!("it has {count} entries, at most {MAX_ENTRIES} are read");
    Err(Error::Document {
        document: what.to_owned(),
        origin: origin.name().to_owned(),
        reason,
    })
}
