//! The root file system of a container: which layers below, which directory above, and what that takes on the disk.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use coracle_runtime::{KeptLayers, Lower, Map, Ownership, Root};
use coracle_store::{IdMap, IdRange, LayerForm};

use rustix::fs::Mode;

use crate::Engine;
use crate::error::{Error, Result};
use crate::start::Maps;
use crate::state::{self, Record, Run};
use crate::verbs::exec::root_of;

impl Engine {
    /// The root of a container.
    pub(crate) fn root_of(&self, record: &Record) -> Result<Root> {
        let ownership = if self.config.rootless {
            Ownership::Outside
        } else {
            Ownership::Inside
        };
        let lowers = if self.in_parts(record) {
            let frame = self.host_frame(record);
            // Not started yet.
            if !frame.exists() {
                self.host_parts(record)?;
            }
            vec![Lower::Directory(frame)]
        } else {
            self.lowers(record)?
        };
        Ok(Root::Overlay {
            lowers,
            upper: self.paths.upper(&record.id),
            work: self.paths.work(&record.id),
            volatile: record.spec.auto_remove,
            ownership,
            kept: (!self.config.rootless).then(|| self.kept_layers()),
        })
    }

    fn kept_layers(&self) -> KeptLayers {
        KeptLayers::at(self.paths.kept_layers())
    }

    /// Unmounts layer files that the store does not have any more.
    pub(crate) fn let_go_of_layers(&self) -> Result<()> {
        let files = self.images()?.store().layer_files()?;
        Ok(self.kept_layers().retain(&files)?)
    }

    /// The read-only layers, topmost first.
    pub(crate) fn lowers(&self, record: &Record) -> Result<Vec<Lower>> {
        if let Some(rootfs) = &record.spec.rootfs {
            return Ok(vec![Lower::Directory(rootfs.clone())]);
        }
        let Some(image) = &record.image else {
            return Ok(vec![Lower::Directory(PathBuf::from("/"))]);
        };
        let store = self.images()?.store();
        let lower = |digest| -> Result<Lower> {
            let layer = store.layer(digest)?.ok_or_else(|| {
                Error::refused_with(
                    format!(
                        "layer {digest} of image {} is gone from the store",
                        record.spec.image
                    ),
                    "load the image again: the container's own changes are not lost",
                )
            })?;
            Ok(match layer.form {
                LayerForm::Erofs(path) => Lower::Erofs(path),
                LayerForm::Directory(path) => Lower::Directory(path),
            })
        };
        let mut lowers = image
            .layers
            .iter()
            .rev()
            .map(lower)
            .collect::<Result<Vec<_>>>()?;
        lowers.push(Lower::Directory(self.skeleton()?));
        Ok(lowers)
    }
}

/// What every container needs as mount targets and not every image has.
const TARGETS: [&str; 3] = ["dev", "proc", "sys"];
const TARGET_FILES: [&str; 3] = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];

impl Engine {
    /// The layer below all layers: empty mount targets, made once. Without it each container would make them in its own
    /// layer, where `diff` and `commit` would find them, and where each costs a file to make and one to delete.
    fn skeleton(&self) -> Result<PathBuf> {
        let directory = self.paths.root.join("skeleton");
        let last = directory.join(TARGET_FILES[2]);
        if last.exists() {
            return Ok(directory);
        }
        let open_up = |path: &Path| {
            rustix::fs::chmod(path, Mode::from_raw_mode(0o755))
                .map_err(|error| Error::file("opening up", path, error))
        };
        for name in TARGETS.into_iter().chain(["etc"]) {
            state::make_directory(&directory.join(name))?;
            open_up(&directory.join(name))?;
        }
        open_up(&directory)?;
        for name in TARGET_FILES {
            let path = directory.join(name);
            let mut options = std::fs::OpenOptions::new();
            let made = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o644)
                .open(&path);
            made.map_err(|source| Error::file("making", &path, source))?;
        }
        Ok(directory)
    }
}

/// A handle to the root of a container that runs or not.
#[derive(Debug)]
pub(crate) struct OpenRoot {
    fd: OwnedFd,
    /// The run, when it runs: then the handle is the root that its processes see.
    pub run: Option<Run>,
    pub ids: Ids,
}

impl OpenRoot {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How owners on the root's files read inside.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ids(Maps);

impl Ids {
    pub(crate) fn new(maps: Maps) -> Self {
        Ids(maps)
    }

    pub(crate) fn uid_inside(&self, outside: u32) -> u32 {
        inside(&self.0.uids, outside)
    }

    pub(crate) fn gid_inside(&self, outside: u32) -> u32 {
        inside(&self.0.gids, outside)
    }

    /// As the store takes them.
    pub(crate) fn map(&self) -> IdMap {
        let ranges = |maps: &[Map]| {
            maps.iter()
                .map(|map| IdRange {
                    inside: map.inside,
                    outside: map.outside,
                    count: map.count,
                })
                .collect()
        };
        match self.0.uids.is_empty() {
            true => IdMap::identity(),
            false => IdMap {
                uids: ranges(&self.0.uids),
                gids: ranges(&self.0.gids),
            },
        }
    }
}

/// No maps: the numbers are the same.
fn inside(maps: &[Map], outside: u32) -> u32 {
    if maps.is_empty() {
        return outside;
    }
    let found = maps.iter().find_map(|map| {
        let offset = outside
            .checked_sub(map.outside)
            .filter(|offset| *offset < map.count)?;
        Some(map.inside + offset)
    });
    // The kernel's own number for "somebody who is not here".
    found.unwrap_or(65_534)
}

impl Engine {
    /// The root as the container's processes see it, or, when it does not run, its layers and its own changes.
    pub(crate) fn open_root(&self, record: &Record) -> Result<OpenRoot> {
        let observed = self.observe(record)?;
        if let Some(run) = observed.running() {
            let maps = self.maps(record, run.ids)?.unwrap_or_default();
            return Ok(OpenRoot {
                fd: root_of(run)?,
                run: Some(run.clone()),
                ids: Ids(maps),
            });
        }
        let fd = coracle_runtime::mount_root(&self.root_of(record)?)?;
        Ok(OpenRoot {
            fd,
            run: None,
            ids: Ids::default(),
        })
    }
}

/// Bytes that a tree takes on its disk; hard links count once for each name, as the difference is small here.
pub(crate) fn disk_use(path: &Path) -> Result<u64> {
    let mut total = 0;
    let mut pending = vec![path.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            // A running container may remove what was just listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => return Err(Error::file("listing", &directory, source)),
        };
        for entry in entries {
            let entry = entry.map_err(|source| Error::file("listing", &directory, source))?;
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            total += metadata.blocks() * 512;
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(total)
}
