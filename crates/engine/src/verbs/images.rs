//! `rmi` and `image prune`: removing what no container uses. All else about images is [`coracle_image::Images`]'s own.

use std::collections::BTreeMap;

use coracle_image::{ImageId, Use};

use crate::Engine;
use crate::error::Result;
use crate::events::Happening;

impl Engine {
    /// What containers stand on.
    fn image_uses(&self) -> Result<Vec<Use>> {
        let mut uses = Vec::new();
        for record in self.records()? {
            let running = self.observe(&record)?.run.is_some();
            uses.extend(record.image.map(|image| Use {
                container: record.name,
                image: ImageId(image.id),
                layers: image.layers,
                running,
            }));
        }
        Ok(uses)
    }

    /// Removes a name of an image, and the image with its last name. Gives Docker's lines: `Untagged: …`, `Deleted: …`.
    ///
    /// # Errors
    /// When a container uses it (with `force` only a running one counts), or there is none.
    pub fn remove_image(&self, reference: &str, force: bool) -> Result<Vec<String>> {
        let removed = self
            .images()?
            .remove_with(reference, force, &|| Ok(self.image_uses()?))?;
        self.let_go_of_layers()?;
        let mut lines = Vec::new();
        for name in &removed.untagged {
            lines.push(format!("Untagged: {}", name.familiar()));
            let name = name.to_string();
            self.happened(Happening::new("image", "untag", &name, BTreeMap::new()))?;
        }
        if let Some(id) = &removed.deleted {
            lines.push(format!("Deleted: {id}"));
            self.happened(Happening::new(
                "image",
                "delete",
                &id.to_string(),
                BTreeMap::new(),
            ))?;
        }
        Ok(lines)
    }

    /// Removes images that no container uses: those without a name, or all. Gives their ids and the bytes freed.
    ///
    /// # Errors
    /// What removing says.
    pub fn image_prune(&self, all: bool) -> Result<(Vec<String>, u64)> {
        let filter = coracle_image::ListFilter::default();
        let pruned = self
            .images()?
            .prune_with(all, &filter, &|| Ok(self.image_uses()?))?;
        self.let_go_of_layers()?;
        let ids = pruned
            .removed
            .iter()
            .filter_map(|removed| removed.deleted.as_ref())
            .map(ToString::to_string);
        Ok((ids.collect(), pruned.bytes))
    }
}
