//! The cache folder: what is downloaded and made once, kept between runs and shared by checkouts.
//!
//! ```text
//! $XDG_CACHE_HOME/coracle-vm (or ~/.cache/coracle-vm)
//!   apt-SUITE/        apt's own lists and packages
//!   userland-N/       root/ as unpacked, root.ext4, xfs.img, ext4.img, btrfs.img
//!   kernel-NAME-N/    vmlinux, modules.erofs, early/NN-module.ko in the order of loading, version
//! ```
//! N is [`FORMAT`]. An entry is made beside its place and renamed, so that what is there is whole.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Problem, Result};

/// Changes whenever the making of an entry does.
const FORMAT: u32 = 2;

/// The cache folder.
pub(super) struct Cache(PathBuf);

impl Cache {
    /// Finds or makes it.
    pub(super) fn open() -> Result<Cache> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let parent = variable("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".cache")))
            .ok_or("neither XDG_CACHE_HOME nor HOME says where a cache may be")?;
        let path = parent.join("coracle-vm");
        fs::create_dir_all(&path).problem(|| format!("cannot make {}", path.display()))?;
        Ok(Cache(path))
    }

    /// Where something that keeps its own order is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The entry `name`, made by `make` in the folder that it is given if it is not there yet.
    pub(super) fn entry(
        &self,
        name: &str,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let path = self.0.join(format!("{name}-{FORMAT}"));
        if path.exists() {
            return Ok(path);
        }
        let fresh = tempfile::Builder::new()
            .prefix(&format!("{name}-new-"))
            .tempdir_in(&self.0)
            .problem(|| format!("cannot make a folder in {}", self.0.display()))?;
        // Its own mode is 700, and it becomes the root of a machine in which others live.
        let inner = fresh.path().join("entry");
        fs::create_dir(&inner).problem(|| format!("cannot make {}", inner.display()))?;
        make(&inner)?;
        match fs::rename(&inner, &path) {
            Ok(()) => Ok(path),
            // Another run has made it meanwhile.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(path),
            Err(error) => Err(format!("cannot put {} in place: {error}", path.display())),
        }
    }

    /// Removes everything, so that today's packages are taken.
    pub(super) fn clear(&self) -> Result<()> {
        fs::remove_dir_all(&self.0)
            .and_then(|()| fs::create_dir_all(&self.0))
            .problem(|| format!("cannot empty {}", self.0.display()))
    }
}
