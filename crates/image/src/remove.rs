//! Names and images taken away, and what nobody needs any more freed.
//!
//! Order: the name, then the record, then layers and blobs. Whatever is killed between leaves something that nobody names, which the
//! next [`Images::prune`] frees. Layers are freed only while nobody loads (see `lock`): a load that has found a layer will use it.

use std::collections::HashSet;
use std::time::Duration;

use coracle_oci::{Digest, Reference};
use coracle_store::InUse;

use crate::lock::Held;
use crate::record::Record;
use crate::{Error, ImageId, Images, ListFilter, Result};

/// A container's claim on an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// What errors call the container.
    pub container: String,
    /// The image that it was made from.
    pub image: ImageId,
    /// The layers that its root is made of.
    pub layers: Vec<Digest>,
    /// Whether it runs; then not even force takes its image.
    pub running: bool,
}

/// See [`Images::hold`].
#[derive(Debug)]
pub struct Hold(#[expect(dead_code, reason = "dropping it lets go")] Held);

/// What a removal did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone.
    pub untagged: Vec<Reference>,
    /// The image, if it is gone.
    pub deleted: Option<ImageId>,
    /// Layers that are gone.
    pub layers: Vec<Digest>,
    /// Bytes on disk that were freed.
    pub bytes: u64,
}

/// What pruning did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Each image that was removed.
    pub removed: Vec<Removed>,
    /// Bytes on disk that were freed, those of no image included.
    pub bytes: u64,
    /// Whether freeing had to be left to a later time, because somebody loads an image now.
    pub postponed: bool,
}

/// Who says what containers use, asked while nothing else can change.
pub type Uses<'a> = &'a dyn Fn() -> Result<Vec<Use>, Box<dyn std::error::Error + Send + Sync>>;

impl Images {
    /// Keeps layers from being freed until what is returned is dropped. For who is about to use an image and has not written down yet that
    /// it does: take this before [`Images::resolve`] or [`Images::obtain`].
    pub fn hold(&self) -> Result<Hold> {
        self.loading().map(Hold)
    }

    /// As [`Images::remove_with`], with uses that were gathered before.
    pub fn remove(&self, image: &str, force: bool, uses: &[Use]) -> Result<Removed> {
        self.remove_with(image, force, &|| Ok(uses.to_vec()))
    }

    /// Takes an image's name, and with its last name the image.
    ///
    /// Without `force`, refuses what a container uses, and an id that has names in several repositories. With it, removes the image of a
    /// container that does not run (the container keeps its layers), and takes only the name where one runs.
    pub fn remove_with(&self, image: &str, force: bool, uses: Uses<'_>) -> Result<Removed> {
        let quiet = self.nobody_loads()?;
        let _lock = self.lock()?;
        let (record, name) = self.look_up(image)?;
        let names = self.names(&record.id)?;
        let uses = uses().map_err(Error::Uses)?;
        let conflict = |reason: String, can_be_forced| Error::Conflict {
            image: image.to_owned(),
            reason,
            can_be_forced,
        };
        let users: Vec<&Use> = uses.iter().filter(|user| user.image == record.id).collect();
        let running = users.iter().find(|user| user.running);
        // A reference by digest means the image; only a name that is there can be taken alone.
        let name = name.filter(|name| names.contains(name));
        let only_a_name = name.is_some() && names.len() > 1;
        if !only_a_name {
            if let (Some(user), None) = (running, &name) {
                return Err(conflict(
                    format!("running container {} uses it", user.container),
                    false,
                ));
            }
            if let (Some(user), false) = (users.first(), force) {
                return Err(conflict(
                    format!("container {} uses it", user.container),
                    running.is_none(),
                ));
            }
        }
        let mut repositories: Vec<String> = names.iter().map(Reference::name).collect();
        repositories.dedup();
        if name.is_none() && repositories.len() > 1 && !force {
            return Err(conflict(
                "it has names in several repositories".into(),
                true,
            ));
        }
        let mut removed = Removed::default();
        for name in if only_a_name {
            name.into_iter().collect()
        } else {
            names
        } {
            if self.references().unset(&name)? {
                removed.untagged.push(name);
            }
        }
        if !only_a_name && running.is_none() {
            self.remove_record(&record)?;
            removed.deleted = Some(record.id);
            if let Some(quiet) = quiet {
                self.free(&quiet, &record.layers, &uses, &mut removed)?;
                self.free_documents(&record, &mut removed)?;
            }
        }
        Ok(removed)
    }

    /// As [`Images::prune_with`], with uses that were gathered before.
    pub fn prune(&self, all: bool, filter: &ListFilter, uses: &[Use]) -> Result<Pruned> {
        self.prune_with(all, filter, &|| Ok(uses.to_vec()))
    }

    /// Removes the images that nobody uses and no name keeps; with `all`, also those with names. Then frees every layer and blob that no
    /// image and no container needs. Of the filter, `until` and labels count.
    pub fn prune_with(&self, all: bool, filter: &ListFilter, uses: Uses<'_>) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        let filter = ListFilter {
            dangling: if all { None } else { Some(true) },
            until: filter.until,
            labels: filter.labels.clone(),
            without_labels: filter.without_labels.clone(),
            ..ListFilter::default()
        };
        let quiet = self.nobody_loads()?;
        let _lock = self.lock()?;
        let uses = uses().map_err(Error::Uses)?;
        let used: HashSet<ImageId> = uses.iter().map(|user| user.image).collect();
        for image in self.list(&filter)? {
            if used.contains(&image.id) {
                continue;
            }
            let mut removed = Removed {
                deleted: Some(image.id),
                ..Removed::default()
            };
            for name in image.names {
                if self.references().unset(&name)? {
                    removed.untagged.push(name);
                }
            }
            let record = self.record(&image.id)?;
            if let Some(record) = record {
                self.remove_record(&record)?;
                if let Some(quiet) = &quiet {
                    self.free(quiet, &record.layers, &uses, &mut removed)?;
                }
            }
            pruned.bytes += removed.bytes;
            pruned.removed.push(removed);
        }
        self.sweep_memos()?;
        self.references().sweep()?;
        if quiet.is_none() {
            pruned.postponed = true;
            return Ok(pruned);
        }
        let mut in_use = self.in_use()?;
        in_use
            .layers
            .extend(uses.iter().flat_map(|user| &user.layers));
        let collected = self
            .store()
            .collect(&in_use, Duration::ZERO)
            .map_err(Error::store("free unused layers"))?;
        pruned.bytes += collected.bytes;
        Ok(pruned)
    }

    fn remove_record(&self, record: &Record) -> Result<()> {
        let path = self.records_directory().join(record.id.hex());
        std::fs::remove_file(&path).map_err(Error::io("remove", path))
    }

    fn free_documents(&self, record: &Record, removed: &mut Removed) -> Result<()> {
        let in_use = self.in_use()?;
        for blob in [record.id.0, record.manifest] {
            if !in_use.blobs.contains(&blob) {
                let size = self
                    .store()
                    .blob_size(&blob)
                    .map_err(Error::store(format!("look at blob {blob}")))?;
                if self
                    .store()
                    .remove_blob(&blob)
                    .map_err(Error::store(format!("remove blob {blob}")))?
                {
                    removed.bytes += size.unwrap_or(0);
                }
            }
        }
        Ok(())
    }

    /// Frees those of these layers that no record and no container needs. `_quiet`: nobody loads meanwhile.
    pub(crate) fn free(
        &self,
        _quiet: &Held,
        layers: &[Digest],
        uses: &[Use],
        removed: &mut Removed,
    ) -> Result<()> {
        if layers.is_empty() {
            return Ok(());
        }
        let InUse {
            layers: mut needed, ..
        } = self.in_use()?;
        needed.extend(uses.iter().flat_map(|user| &user.layers));
        for diff_id in layers {
            if !needed.insert(*diff_id) {
                continue;
            }
            let doing = || Error::store(format!("remove layer {diff_id}"));
            if let Some(layer) = self.store().layer(diff_id).map_err(doing())?
                && self.store().remove_layer(diff_id).map_err(doing())?
            {
                removed.layers.push(*diff_id);
                removed.bytes += layer.disk_size;
            }
        }
        Ok(())
    }

    /// Frees what a load brought and no image names, unless somebody else loads: then the next `prune` does it.
    pub(crate) fn free_brought(&self, layers: &[Digest]) -> Result<()> {
        match self.nobody_loads()? {
            Some(quiet) => self.free(&quiet, layers, &[], &mut Removed::default()),
            None => Ok(()),
        }
    }
}
