//! `commit`: the writable layer becomes the top layer of a new image.

use std::collections::BTreeMap;

use coracle_image::{Commit, ImageId};
use coracle_oci::ContainerId;
use coracle_store::IdMap;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::Engine;
use crate::answer::Status;
use crate::error::{Error, Result};
use crate::events::Happening;
use crate::request::CommitOptions;

impl Engine {
    /// Makes an image of the container's image and its changes; gives the image's id.
    ///
    /// # Errors
    /// [`Error::Refused`] for a container that has no image; what the store says.
    pub fn commit(&self, id: &ContainerId, options: &CommitOptions) -> Result<String> {
        let record = self.existing(id)?;
        let Some(image) = &record.image else {
            return Err(Error::refused_with(
                format!(
                    "container {} has no image: its root is the host's or a directory",
                    record.name
                ),
                "`coracle export` writes all that it sees; `coracle import` makes an image of that",
            ));
        };
        let pause = options.pause && self.observe(&record)?.status == Status::Running;
        if pause {
            self.pause(id)?;
        }
        let made = self.make_image(&record, image, options);
        if pause {
            // The image's error, if any, is the one to report; but a container must not stay frozen in silence.
            let thawed = self.unpause(id);
            if made.is_ok() {
                thawed?;
            }
        }
        let made = made?;
        self.happened(Happening::container("commit", &record).with("imageID", &made))?;
        self.happened(Happening::new("image", "create", &made, BTreeMap::new()))?;
        Ok(made)
    }

    fn make_image(
        &self,
        record: &crate::state::Record,
        image: &crate::state::ImageFacts,
        options: &CommitOptions,
    ) -> Result<String> {
        let upper = self.paths.upper(&record.id);
        let failed = |error: rustix::io::Errno| Error::file("making a pipe for", &upper, error);
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        let reference = options.reference.as_deref().map(str::parse).transpose();
        let commit = Commit {
            parent: Some(ImageId(image.id)),
            config: None,
            changes: options.changes.clone(),
            reference: reference
                .map_err(|error: coracle_oci::ReferenceError| Error::refused(error.to_string()))?,
            author: options.author.clone(),
            message: options.message.clone(),
            created_by: Some(record.process.args.join(" ")),
        };
        // One thread reads the tree, this one stores what comes: the layer is never whole in memory or on disk twice.
        std::thread::scope(|scope| {
            let writer = std::thread::Builder::new()
                .spawn_scoped(scope, || {
                    let out = std::io::BufWriter::new(std::fs::File::from(write));
                    coracle_store::tar_of_upper(&upper, &IdMap::identity(), out)
                })
                .map_err(|source| Error::file("starting a thread to read", &upper, source))?;
            let made = self.images()?.commit(std::fs::File::from(read), &commit);
            // If reading failed, storing failed only because of it.
            writer
                .join()
                .map_err(|_| Error::refused("reading the writable layer panicked"))??;
            Ok(made?.id.to_string())
        })
    }
}
