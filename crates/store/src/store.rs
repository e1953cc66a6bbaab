//! The store's directory: opening, blobs, layers (docs/format/store.md).

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use coracle_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::temporary::{Lock, Mode, Temporary, remove_tree, sync_directory, touch};
use crate::{Driver, Durability, Error, Layer, Options, Result, directory, erofs};

const VERSION: u32 = 1;

/// store.json.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Format {
    version: u32,
    compatible: u64,
    read_only_compatible: u64,
    incompatible: u64,
}

/// A store. Cheap to clone; any number of threads and processes may use one directory.
#[derive(Debug, Clone)]
pub struct Store(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) options: Options,
    /// What the probe found; `Err` is the reason why layers are directories.
    driver: OnceLock<std::result::Result<(), NotMountable>>,
}

/// Why a layer file is not mounted here.
#[derive(Debug)]
enum NotMountable {
    /// The kernel said no.
    No(String),
    /// It could not be asked: nothing may be decided by that.
    Unknown(String),
}

impl NotMountable {
    fn text(&self) -> &str {
        let (NotMountable::No(reason) | NotMountable::Unknown(reason)) = self;
        reason
    }
}

impl Store {
    /// Opens the store in this directory, which is made if it is not there, and sweeps what dead processes left.
    pub fn open(root: &Path, options: &Options) -> Result<Store> {
        let store = Store(Arc::new(Inner {
            root: root.to_owned(),
            options: *options,
            driver: OnceLock::new(),
        }));
        if !store.check_format()? {
            store.create()?;
        }
        store.sweep()?;
        if options.driver == Driver::Erofs
            && let Err(reason) = store.mountable()
        {
            return Err(Error::ErofsUnavailable {
                reason: reason.text().to_owned(),
            });
        }
        Ok(store)
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// The form that new layers get: [`Driver::Erofs`] or [`Driver::Directory`]. Probes at the first call.
    pub fn driver(&self) -> Driver {
        match self.0.options.driver {
            Driver::Auto if matches!(self.mountable(), Err(NotMountable::No(_))) => {
                Driver::Directory
            }
            Driver::Auto => Driver::Erofs,
            chosen => chosen,
        }
    }

    /// Why layers cannot be single files on this host; `None` if they can.
    pub fn driver_reason(&self) -> Option<&str> {
        self.mountable().as_ref().err().map(NotMountable::text)
    }

    /// Makes a layer of an uncompressed archive (see [`crate::decompress`]), whatever follows its end included.
    ///
    /// With `expected`, a layer that is here already is returned without reading the archive; two callers with the same
    /// `expected` take turns, so that the second finds the work done. The archive is read on a thread of its own.
    pub fn ingest_layer(
        &self,
        archive: impl Read + Send,
        expected: Option<&Digest>,
    ) -> Result<Layer> {
        let _shared = self.lock(Mode::Shared)?;
        let _turn = match expected {
            Some(diff_id) => {
                let turn = Lock::take(
                    &self.0.root.join("locks").join(diff_id.hex()),
                    Mode::Exclusive,
                )?;
                if let Some(layer) = self.layer(diff_id)? {
                    touch(&self.layer_path(&layer))?;
                    return Ok(layer);
                }
                Some(turn)
            }
            None => None,
        };
        let Options {
            ownership,
            durability,
            ref limits,
            ..
        } = self.0.options;
        if let (Driver::Auto, Err(NotMountable::Unknown(reason))) =
            (self.0.options.driver, self.mountable())
        {
            return Err(Error::Probe {
                reason: reason.clone(),
            });
        }
        let (temporary, diff_id, suffix) = if self.driver() == Driver::Erofs {
            let (temporary, file) = Temporary::file(&self.temporary())?;
            let header = erofs::ingest(archive, &file, temporary.path(), limits, durability)?;
            (temporary, header.diff_id, "erofs")
        } else {
            let temporary = Temporary::directory(&self.temporary())?;
            let description =
                directory::ingest(archive, temporary.path(), limits, ownership, durability)?;
            (temporary, description.diff_id, "dir")
        };
        if let Some(expected) = expected
            && *expected != diff_id
        {
            return Err(Error::DigestMismatch {
                what: "layer",
                expected: *expected,
                actual: diff_id,
            });
        }
        let path = self
            .layers_directory()
            .join(format!("{}.{suffix}", diff_id.hex()));
        if !temporary.publish(&path, durability)? {
            touch(&path)?;
        }
        self.layer(&diff_id)?.ok_or(Error::Missing {
            what: "layer",
            digest: diff_id,
        })
    }

    /// A layer, or `None` if it is not here.
    pub fn layer(&self, diff_id: &Digest) -> Result<Option<Layer>> {
        for path in self.layer_candidates(diff_id) {
            let erofs = path
                .extension()
                .is_some_and(|extension| extension == "erofs");
            match fs::symlink_metadata(&path) {
                Ok(_) if erofs => return Layer::from_file(&path).map(Some),
                Ok(_) => return Layer::from_directory(&path).map(Some),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("inspect", &path)(error)),
            }
        }
        Ok(None)
    }

    /// Is this layer here? Cheaper than [`Store::layer`]: nothing is read.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layer_candidates(diff_id)
            .iter()
            .any(|path| path.exists())
    }

    /// All layers, in no order.
    pub fn layers(&self) -> Result<Vec<Digest>> {
        let mut digests: Vec<Digest> = names(&self.layers_directory())?
            .iter()
            .filter_map(|name| {
                Digest::from_hex(name.strip_suffix(".erofs").or(name.strip_suffix(".dir"))?).ok()
            })
            .collect();
        digests.sort();
        digests.dedup();
        Ok(digests)
    }

    /// Removes a layer at once, in all its forms, in use or not. False if it was not here.
    pub fn remove_layer(&self, diff_id: &Digest) -> Result<bool> {
        let _shared = self.lock(Mode::Shared)?;
        let mut any = false;
        for suffix in ["erofs", "dir"] {
            any |= self.discard(
                &self
                    .layers_directory()
                    .join(format!("{}.{suffix}", diff_id.hex())),
            )?;
        }
        Ok(any)
    }

    /// Device and inode of every layer file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn layer_files(&self) -> Result<HashSet<(u64, u64)>> {
        let directory = self.layers_directory();
        let mut files = HashSet::new();
        for name in names(&directory)? {
            let path = directory.join(&name);
            if path
                .extension()
                .is_some_and(|extension| extension == "erofs")
            {
                match fs::symlink_metadata(&path) {
                    Ok(file) => drop(files.insert((file.dev(), file.ino()))),
                    // Somebody removes layers beside us.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(Error::io("inspect", &path)(error)),
                }
            }
        }
        Ok(files)
    }

    /// Where a layer is looked for, the store's own form first.
    ///
    /// A layer file is skipped where it could not be mounted.
    fn layer_candidates(&self, diff_id: &Digest) -> Vec<PathBuf> {
        let path = |suffix| {
            self.layers_directory()
                .join(format!("{}.{suffix}", diff_id.hex()))
        };
        let (file, directory) = (path("erofs"), path("dir"));
        match self.driver() {
            Driver::Directory if matches!(self.mountable(), Err(NotMountable::No(_))) => {
                vec![directory]
            }
            Driver::Directory => vec![directory, file],
            Driver::Auto | Driver::Erofs => vec![file, directory],
        }
    }

    /// Takes a blob or layer out of sight at once, then removes it. Who calls holds the lock.
    pub(crate) fn discard(&self, path: &Path) -> Result<bool> {
        let temporary = Temporary::name(&self.temporary())?;
        match fs::rename(path, temporary.path()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io("remove", path)(error)),
        }
        remove_tree(temporary.path()).map_err(Error::io("remove", temporary.path()))?;
        Ok(true)
    }

    pub(crate) fn lock(&self, mode: Mode) -> Result<Lock> {
        Lock::take(&self.0.root.join("lock"), mode)
    }

    pub(crate) fn temporary(&self) -> PathBuf {
        self.0.root.join("tmp")
    }

    pub(crate) fn blobs_directory(&self) -> PathBuf {
        self.0.root.join("blobs/sha256")
    }

    pub(crate) fn layers_directory(&self) -> PathBuf {
        self.0.root.join("layers")
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs_directory().join(digest.hex())
    }

    fn layer_path(&self, layer: &Layer) -> PathBuf {
        match &layer.form {
            crate::LayerForm::Erofs(path) => path.clone(),
            crate::LayerForm::Directory(root) => root.parent().unwrap_or(root).to_owned(),
        }
    }

    fn mountable(&self) -> &std::result::Result<(), NotMountable> {
        self.0.driver.get_or_init(|| {
            match erofs::probe::probe(&self.0.root.join("erofs-probe.json"), &self.temporary()) {
                Ok(found) => found.map_err(NotMountable::No),
                Err(error) => {
                    let cause = std::error::Error::source(&error)
                        .map(|source| format!(": {source}"))
                        .unwrap_or_default();
                    Err(NotMountable::Unknown(format!("{error}{cause}")))
                }
            }
        })
    }

    /// False if there is no store yet.
    fn check_format(&self) -> Result<bool> {
        let path = self.0.root.join("store.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let format: Format = serde_json::from_slice(&text).map_err(|error| Error::Damaged {
            path: path.clone(),
            reason: format!("it cannot be understood: {error}"),
        })?;
        let refuse = |reason: &str| Error::Format {
            path: self.0.root.clone(),
            found: format.version,
            reason: reason.to_owned(),
        };
        if format.version != VERSION {
            return Err(refuse("its version is another"));
        }
        if format.incompatible != 0 || format.read_only_compatible != 0 {
            return Err(refuse("it uses features of a later version"));
        }
        Ok(true)
    }

    fn create(&self) -> Result<()> {
        let root = &self.0.root;
        let make = |path: PathBuf, mode| {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(&path)
                .map_err(Error::io("create", path))
        };
        // A directory layer holds set-user-id programs of whoever made the image: no user of the host may get through to
        // them (as with CVE-2021-41091). Containers reach layers by mounts that this process makes, never by these paths.
        make(root.clone(), 0o700)?;
        make(self.blobs_directory(), 0o700)?;
        make(self.layers_directory(), 0o700)?;
        make(root.join("locks"), 0o700)?;
        make(self.temporary(), 0o700)?;
        // Alone, so that two first openings do not both write.
        let _alone = self.lock(Mode::Exclusive)?;
        if self.check_format()? {
            return Ok(());
        }
        let (temporary, mut file) = Temporary::file(&self.temporary())?;
        let format = Format {
            version: VERSION,
            compatible: 0,
            read_only_compatible: 0,
            incompatible: 0,
        };
        let path = root.join("store.json");
        let text = serde_json::to_vec(&format)
            .map_err(|error| Error::io("write", &path)(io::Error::from(error)))?;
        file.write_all(&text)
            .and_then(|()| file.sync_data())
            .map_err(Error::io("write", temporary.path()))?;
        temporary.publish(&path, self.0.options.durability)?;
        if self.0.options.durability == Durability::Synced {
            sync_directory(root)?;
        }
        Ok(())
    }

    /// Removes leftovers, if nobody is storing anything: then nothing in `tmp/` has an owner.
    fn sweep(&self) -> Result<()> {
        if names(&self.temporary())?.is_empty() {
            return Ok(());
        }
        if let Some(_alone) = Lock::try_exclusive(&self.0.root.join("lock"))? {
            self.sweep_alone()?;
        }
        Ok(())
    }

    /// As [`Store::sweep`], by who holds the lock alone. How many names and bytes went.
    pub(crate) fn sweep_alone(&self) -> Result<(u64, u64)> {
        let (mut count, mut bytes) = (0, 0);
        for name in names(&self.temporary())? {
            let path = self.temporary().join(name);
            bytes += disk_usage(&path);
            remove_tree(&path).map_err(Error::io("remove", &path))?;
            count += 1;
        }
        Ok((count, bytes))
    }
}

/// The names in a directory.
pub(crate) fn names(path: &Path) -> Result<Vec<String>> {
    let read = |path: &Path| -> io::Result<Vec<String>> {
        fs::read_dir(path)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    read(path).map_err(Error::io("list", path))
}

/// Bytes on disk of a file or tree; what cannot be read counts as nothing.
pub(crate) fn disk_usage(path: &Path) -> u64 {
    let mut sum = 0;
    let mut stack = vec![path.to_owned()];
    while let Some(path) = stack.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        sum += metadata.blocks() * 512;
        if metadata.is_dir()
            && let Ok(entries) = fs::read_dir(&path)
        {
            stack.extend(entries.flatten().map(|entry| entry.path()));
        }
    }
    sum
}
