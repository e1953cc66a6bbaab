//! Volumes: directories that outlive containers. `volumes/NAME/volume.json` says what it is, `_data` holds its files
//! with ids as containers see them (bound through the container's id mapping).
//!
//! Invariant: a volume appears whole and vanishes whole, by one rename from `.new-NAME-PID` and to `.rm-NAME`; what a
//! killed command leaves under those two is deleted by the next sweep.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use coracle_oci::ContainerName;
use rustix::fs::Mode;
use rustix::io::Errno;

use crate::answer::Volume;
use crate::error::{Error, Result};
use crate::events::Happening;
use crate::root::Ids;
use crate::state::{self, Lock, Record, VolumeFacts};
use crate::{Engine, verbs};

/// What the name of a directory begins with that becomes a volume, or was one.
const NEW: &str = ".new-";
const GONE: &str = ".rm-";

impl Engine {
    /// Makes a volume, or gives the one that is there.
    ///
    /// # Errors
    /// [`Error::Refused`] for a name outside Docker's rule for names.
    pub fn volume_create(
        &self,
        name: Option<&str>,
        labels: BTreeMap<String, String>,
    ) -> Result<Volume> {
        match name {
            Some(name) => self.volume_ensure(name, labels, false),
            None => self.volume_ensure(verbs::create::new_id()?.as_str(), labels, true),
        }
    }

    pub(crate) fn volume_ensure(
        &self,
        name: &str,
        labels: BTreeMap<String, String>,
        anonymous: bool,
    ) -> Result<Volume> {
        let directory = self.volume_directory(name)?;
        if let Some(volume) = state::load::<Volume>(&directory.join("volume.json"))? {
            return Ok(volume);
        }
        let volume = Volume {
            name: name.to_owned(),
            mountpoint: directory.join("_data").to_string_lossy().into_owned(),
            created: state::now(),
            labels,
            anonymous,
        };
        let made = self.volume_prepared(&volume)?;
        match rustix::fs::rename(&made.0, &directory) {
            Ok(()) => {}
            Err(Errno::EXIST | Errno::NOTEMPTY) => {
                state::delete_tree(&made.0)?;
                // Another command made it meanwhile.
                let there = state::load(&directory.join("volume.json"))?;
                return there.ok_or_else(|| {
                    Error::refused_with(
                        format!("{} is there, but not as a volume", directory.display()),
                        "nothing of the engine's leaves it so; move it away",
                    )
                });
            }
            Err(error) => {
                // The failure is what is reported; a sweep deletes what is left.
                let _ = state::delete_tree(&made.0);
                return Err(Error::file("making", &directory, error));
            }
        }
        self.happened(Happening::new("volume", "create", name, BTreeMap::new()))?;
        Ok(volume)
    }

    /// A new volume beside its place, locked, so that no sweep takes it for a leftover.
    fn volume_prepared(&self, volume: &Volume) -> Result<(PathBuf, Lock)> {
        let pid = rustix::process::getpid().as_raw_nonzero();
        let directory = self
            .paths
            .volumes()
            .join(format!("{NEW}{}-{pid}", volume.name));
        let lock = Lock::make(&directory)?;
        let fill = || -> Result<()> {
            let data = directory.join("_data");
            state::make_directory(&data)?;
            rustix::fs::chmod(&data, Mode::from_raw_mode(0o755))
                .map_err(|error| Error::file("opening up", &data, error))?;
            state::store(&directory.join("volume.json"), volume)
        };
        fill().inspect_err(|_| {
            // As in `volume_ensure`.
            let _ = state::delete_tree(&directory);
        })?;
        Ok((directory, lock))
    }

    /// Deletes what killed commands left of volumes.
    pub(crate) fn sweep_volumes(&self) -> Result<()> {
        for name in state::names_in(&self.paths.volumes())? {
            let directory = self.paths.volumes().join(&name);
            if name.starts_with(GONE) {
                state::delete_tree(&directory)?;
            } else if name.starts_with(NEW)
                && let Ok(Some(_lock)) = Lock::try_now(&directory)?
            {
                state::delete_tree(&directory)?;
            }
        }
        Ok(())
    }

    fn volume_directory(&self, name: &str) -> Result<PathBuf> {
        // One letter is a sound volume name in Docker, though not a container name.
        let sound = name.parse::<ContainerName>().is_ok()
            || (name.len() == 1 && name.as_bytes()[0].is_ascii_alphanumeric());
        match sound {
            true => Ok(self.paths.volumes().join(name)),
            false => Err(Error::refused_with(
                format!("invalid volume name {name:?}"),
                "a name matches [a-zA-Z0-9][a-zA-Z0-9_.-]*; a path on the host begins with a slash",
            )),
        }
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// What reading the state says.
    pub fn volume_list(&self) -> Result<Vec<Volume>> {
        let mut names = state::names_in(&self.paths.volumes())?;
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        let load = |name: String| {
            state::load(&self.paths.volumes().join(name).join("volume.json")).transpose()
        };
        names.into_iter().filter_map(load).collect()
    }

    /// One volume.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none of this name.
    pub fn volume_inspect(&self, name: &str) -> Result<Volume> {
        let path = self.volume_directory(name)?.join("volume.json");
        state::load(&path)?.ok_or_else(|| {
            Error::refused_with(
                format!("no such volume: {name}"),
                "`coracle volume ls` lists all volumes",
            )
        })
    }

    /// Removes a volume; with `force` it need not be there.
    ///
    /// # Errors
    /// [`Error::Refused`] when a container uses it or there is none.
    pub fn volume_remove(&self, name: &str, force: bool) -> Result<()> {
        match self.volume_inspect(name) {
            Ok(_) => {}
            Err(Error::Refused { .. }) if force => return Ok(()),
            Err(error) => return Err(error),
        }
        let users: Vec<String> = self
            .records()?
            .into_iter()
            .filter(|record| record.volumes.iter().any(|volume| volume.name == name))
            .map(|record| record.name)
            .collect();
        if !users.is_empty() {
            return Err(Error::refused_with(
                format!("volume {name} is in use by {}", users.join(", ")),
                "remove those containers first",
            ));
        }
        self.volume_delete(name)
    }

    fn volume_delete(&self, name: &str) -> Result<()> {
        let directory = self.volume_directory(name)?;
        let doomed = self.paths.volumes().join(format!("{GONE}{name}"));
        // One of the same name whose removal was killed.
        state::delete_tree(&doomed)?;
        match rustix::fs::rename(&directory, &doomed) {
            // Another command was quicker.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(Error::file("removing", &directory, error)),
        }
        state::delete_tree(&doomed)?;
        self.happened(Happening::new("volume", "destroy", name, BTreeMap::new()))
    }

    /// The volumes of a container: (directory on the host, target inside, read-only).
    pub(crate) fn volume_mounts(&self, record: &Record) -> Result<Vec<(PathBuf, String, bool)>> {
        let mount = |volume: &VolumeFacts| -> Result<(PathBuf, String, bool)> {
            let data = self.volume_inspect(&volume.name)?.mountpoint;
            Ok((data.into(), volume.target.clone(), volume.read_only))
        };
        record.volumes.iter().map(mount).collect()
    }

    /// Copies what the image has at a volume's target into the volume, while that is empty: Docker's rule.
    pub(crate) fn fill_volumes(
        &self,
        record: &Record,
        root: BorrowedFd<'_>,
        ids: &Ids,
    ) -> Result<()> {
        for volume in record.volumes.iter().filter(|volume| volume.copy_up) {
            let data = self.paths.volumes().join(&volume.name).join("_data");
            if !state::names_in(&data)?.is_empty() {
                continue;
            }
            verbs::copy::fill(root, &volume.target, &data, ids)?;
        }
        Ok(())
    }

    /// Removes the anonymous volumes of a container that is gone, unless another one uses them too.
    pub(crate) fn remove_anonymous_volumes(&self, record: &Record) -> Result<()> {
        for volume in record.volumes.iter().filter(|volume| volume.anonymous) {
            match self.volume_remove(&volume.name, true) {
                Ok(()) | Err(Error::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Removes volumes that no container uses: the anonymous ones, or all. Gives their names and the bytes freed.
    ///
    /// # Errors
    /// What removing says.
    pub fn volume_prune(&self, all: bool) -> Result<(Vec<String>, u64)> {
        let used: Vec<String> = self
            .records()?
            .into_iter()
            .flat_map(|record| record.volumes)
            .map(|volume| volume.name)
            .collect();
        let (mut names, mut freed) = (Vec::new(), 0);
        for volume in self.volume_list()? {
            if (all || volume.anonymous) && !used.contains(&volume.name) {
                freed += crate::root::disk_use(std::path::Path::new(&volume.mountpoint))?;
                self.volume_delete(&volume.name)?;
                names.push(volume.name);
            }
        }
        Ok((names, freed))
    }
}
