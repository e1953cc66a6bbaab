//! `diff` and `export`: what a container changed, and all that it sees.

use std::io::Write;

use coracle_oci::ContainerId;
use coracle_store::{ChangeKind, IdMap, LayerForm};

use crate::Engine;
use crate::error::Result;
use crate::state::Record;

impl Engine {
    /// What changed since the image: `A`dded, `C`hanged or `D`eleted, and the path, in Docker's order.
    ///
    /// # Errors
    /// What reading the writable layer says.
    pub fn diff(&self, id: &ContainerId) -> Result<Vec<(char, String)>> {
        let record = self.existing(id)?;
        let upper = self.paths.upper(id);
        let changes = coracle_store::diff(&upper, &self.layer_forms(&record)?, &IdMap::identity())?;
        let letter = |kind| match kind {
            ChangeKind::Added => 'A',
            ChangeKind::Modified => 'C',
            ChangeKind::Deleted => 'D',
        };
        let all = changes.into_iter().map(|change| {
            (
                letter(change.kind),
                change.path.to_string_lossy().into_owned(),
            )
        });
        let (ours, mut theirs): (Vec<_>, Vec<_>) =
            all.partition(|(_, path)| is_ours(&record, path));
        // A directory that changed only because a mount target was made in it did not change for the user.
        let below = |list: &[(char, String)], path: &str| {
            list.iter().any(|(_, other)| {
                other
                    .strip_prefix(path)
                    .is_some_and(|rest| rest.starts_with('/'))
            })
        };
        let kept = theirs.clone();
        theirs.retain(|(letter, path)| *letter != 'C' || below(&kept, path) || !below(&ours, path));
        if self.in_parts(&record) {
            // As well those that are only the upper directory of a part.
            let frame = self.host_frame(&record);
            let kept: Vec<_> = theirs
                .iter()
                .filter(|(letter, path)| *letter != 'C' || !frame.join(&path[1..]).is_dir())
                .cloned()
                .collect();
            theirs.retain(|change| kept.contains(change) || below(&kept, &change.1));
        }
        Ok(theirs)
    }

    /// The whole root as a tar archive.
    ///
    /// # Errors
    /// What reading the root or writing the archive says.
    pub fn export(&self, id: &ContainerId, out: &mut dyn Write) -> Result<()> {
        let record = self.existing(id)?;
        let root = self.open_root(&record)?;
        coracle_store::tar_of_tree(root.fd(), &root.ids.map(), out)?;
        Ok(())
    }

    pub(crate) fn layer_forms(&self, record: &Record) -> Result<Vec<LayerForm>> {
        let form = |lower| match lower {
            coracle_runtime::Lower::Erofs(path) => LayerForm::Erofs(path),
            coracle_runtime::Lower::Directory(path) => LayerForm::Directory(path),
        };
        Ok(self.lowers(record)?.into_iter().map(form).collect())
    }
}

/// Mount targets that the engine made in the writable layer, not the container.
pub(crate) fn is_ours(record: &Record, path: &str) -> bool {
    const MADE: [&str; 6] = [
        "/dev",
        "/proc",
        "/sys",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
    ];
    MADE.contains(&path)
        || record.spec.mounts.iter().any(|mount| mount.target == path)
        || record.volumes.iter().any(|volume| volume.target == path)
}
