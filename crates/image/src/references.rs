//! The directory of names: `refs/<repository>/<tag>` is a symbolic link to the record of the image it names.
//!
//! ```text
//! refs/docker.io!library!busybox/latest -> ../../records/<64 hex>
//! refs/localhost:5000!tool/@sha256:<hex> -> ../../records/<64 hex>
//! ```
//!
//! `/` in a repository's name becomes `!`, which the grammar of names does not have; a tag never begins with `@`. So each name has
//! one file, opening it reads the record, and no index has to be kept in step.

use std::io;
use std::path::{Path, PathBuf};

use coracle_oci::Reference;
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use crate::{Error, ImageId, Result};

/// The directory `refs` under an image root.
#[derive(Debug, Clone)]
pub(crate) struct References {
    root: PathBuf,
}

impl References {
    pub(crate) fn new(images: &Path) -> References {
        References {
            root: images.join("refs"),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn repository(&self, reference: &Reference) -> PathBuf {
        self.root.join(reference.name().replace('/', "!"))
    }

    /// The file of this name; the tag is what counts where there is one.
    pub(crate) fn path(&self, reference: &Reference) -> PathBuf {
        let leaf = match (reference.tag(), reference.digest()) {
            (Some(tag), _) => tag.to_owned(),
            (None, Some(digest)) => format!("@{digest}"),
            (None, None) => coracle_oci::DEFAULT_TAG.to_owned(),
        };
        self.repository(reference).join(leaf)
    }

    /// Points `reference` at `id`; the caller holds the lock. `temporary` is on the same file system.
    pub(crate) fn set(&self, reference: &Reference, id: &ImageId, temporary: &Path) -> Result<()> {
        let path = self.path(reference);
        let repository = self.repository(reference);
        match rustix::fs::mkdir(&repository, Mode::from_raw_mode(0o711)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(Error::io("create", &repository)(error)),
        }
        match rustix::fs::unlink(temporary) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(Error::io("remove", temporary)(error)),
        }
        rustix::fs::symlink(format!("../../records/{}", id.hex()), temporary)
            .map_err(Error::io("create", temporary))?;
        rustix::fs::rename(temporary, &path).map_err(Error::io("name the image at", &path))
    }

    /// Takes the name away; whether it was there. The caller holds the lock.
    pub(crate) fn unset(&self, reference: &Reference) -> Result<bool> {
        let path = self.path(reference);
        let was_there = match rustix::fs::unlink(&path) {
            Ok(()) => true,
            Err(Errno::NOENT) => false,
            Err(error) => return Err(Error::io("remove", path)(error)),
        };
        remove_if_empty(&self.repository(reference))?;
        Ok(was_there)
    }

    /// Removes the directories of repositories whose last tag went with a command that was killed. The caller holds the
    /// lock.
    pub(crate) fn sweep(&self) -> Result<()> {
        for repository in entries(&self.root)? {
            remove_if_empty(&self.root.join(repository))?;
        }
        Ok(())
    }

    /// Every name and the image it points to, sorted by name.
    pub(crate) fn all(&self) -> Result<Vec<(Reference, ImageId)>> {
        let mut all = Vec::new();
        for repository in entries(&self.root)? {
            all.extend(self.in_directory(&repository)?);
        }
        all.sort();
        Ok(all)
    }

    /// Every name in the repository of this reference.
    pub(crate) fn of_repository(&self, reference: &Reference) -> Result<Vec<(Reference, ImageId)>> {
        let name = reference.name().replace('/', "!");
        let mut all = self.in_directory(&name)?;
        all.sort();
        Ok(all)
    }

    fn in_directory(&self, repository: &str) -> Result<Vec<(Reference, ImageId)>> {
        let directory = self.root.join(repository);
        let name = repository.replace('!', "/");
        let mut found = Vec::new();
        for leaf in entries(&directory)? {
            let path = directory.join(&leaf);
            let text = if leaf.starts_with('@') {
                format!("{name}{leaf}")
            } else {
                format!("{name}:{leaf}")
            };
            let reference: Reference = text.parse().map_err(|_| Error::Damaged {
                path: path.clone(),
                reason: "its name is no reference".into(),
            })?;
            // Removed since the directory was read: not an error.
            if let Some(id) = read_target(&path)? {
                found.push((reference, id));
            }
        }
        Ok(found)
    }
}

fn remove_if_empty(repository: &Path) -> Result<()> {
    match rustix::fs::unlinkat(rustix::fs::CWD, repository, AtFlags::REMOVEDIR) {
        // Other tags are in it, or it was never there.
        Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(()),
        Err(error) => Err(Error::io("remove", repository)(error)),
    }
}

/// Names in a directory; none where there is no such directory.
pub(crate) fn entries(directory: &Path) -> Result<Vec<String>> {
    let listing = match std::fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", directory)(error)),
    };
    let mut names = Vec::new();
    for entry in listing {
        let name = entry.map_err(Error::io("list", directory))?.file_name();
        let name = name.into_string().map_err(|name| Error::Damaged {
            path: directory.join(name),
            reason: "its name is not UTF-8".into(),
        })?;
        names.push(name);
    }
    Ok(names)
}

fn read_target(path: &Path) -> Result<Option<ImageId>> {
    let target = match rustix::fs::readlink(path, Vec::new()) {
        Ok(target) => target,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(Error::io("read the link", path)(error)),
    };
    let hex = target
        .to_str()
        .ok()
        .and_then(|target| target.strip_prefix("../../records/"));
    match hex.and_then(|hex| hex.parse().ok()) {
        Some(id) => Ok(Some(id)),
        None => Err(Error::Damaged {
            path: path.to_owned(),
            reason: "it does not point to a record".into(),
        }),
    }
}
