//! The handle on all images of a store: finding one, and the files that say what is there.
//!
//! [`Images::resolve`] is on the path of every `run`: by name it costs one open (through the name's link to the record), one
//! read, one parse, and one look for each layer.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_oci::{Digest, Reference};
use coracle_store::{InUse, Store};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::lock::{self, Held};
use crate::record::Record;
use crate::references::{References, entries};
use crate::{Error, Image, ImageConfiguration, ImageId, Result, document};

/// Digits that an id prefix must have to be tried at all: one would match by chance.
const SHORTEST_PREFIX: usize = 2;

/// All images of one store. Cheap to clone; holds no lock and no state beyond paths.
#[derive(Debug, Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    root: PathBuf,
    references: References,
}

impl Images {
    /// Opens the images of a store, making their directories at the first time.
    pub fn open(store: Store) -> Result<Images> {
        let root = store.root().join("images");
        let references = References::new(&root);
        // The last directory made is looked for first: one call where all is there.
        let last = root.join("memos");
        if rustix::fs::access(&last, rustix::fs::Access::EXISTS).is_err() {
            // Searchable by others: a rootless reader of a shared store opens records by name.
            for directory in [
                root.as_path(),
                &root.join("records"),
                references.root(),
                &last,
            ] {
                match rustix::fs::mkdir(directory, Mode::from_raw_mode(0o711)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(Error::io("create", directory)(error)),
                }
            }
        }
        Ok(Images {
            inner: Arc::new(Inner {
                store,
                root,
                references,
            }),
        })
    }

    /// The store that holds the layers and blobs.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Finds an image by what a user types: a reference, an id, or the first digits of one. A name wins over a prefix.
    pub fn resolve(&self, text: &str) -> Result<Image> {
        let (record, name) = self.look_up(text)?;
        self.image(record, name)
    }

    /// Finds an image by its id.
    pub fn get(&self, id: &ImageId) -> Result<Image> {
        match self.record(id)? {
            Some(record) => self.image(record, None),
            None => Err(Error::NoSuchImage(id.to_string())),
        }
    }

    /// All names of an image, sorted.
    pub fn names(&self, id: &ImageId) -> Result<Vec<Reference>> {
        let all = self.inner.references.all()?;
        Ok(all
            .into_iter()
            .filter(|(_, target)| target == id)
            .map(|(name, _)| name)
            .collect())
    }

    /// Gives an image one more name; a name that another image had moves.
    pub fn tag(&self, image: &str, name: &Reference) -> Result<()> {
        let name = name.clone().or_latest();
        if name.digest().is_some() {
            return Err(Error::Document {
                document: format!("the name {:?}", name.familiar()),
                origin: "tag".into(),
                reason: "a digest cannot be given to an image".into(),
            });
        }
        let _lock = self.lock()?;
        let (record, _) = self.look_up(image)?;
        self.inner
            .references
            .set(&name, &record.id, &self.temporary())
    }

    /// The whole configuration document.
    pub fn configuration(&self, id: &ImageId) -> Result<ImageConfiguration> {
        let bytes = self.configuration_bytes(id)?;
        document::decode(&bytes, &format!("configuration {id}"), "the store")
    }

    /// What the images here need: roots for [`Store::collect`]. Containers' layers are the caller's to add.
    pub fn in_use(&self) -> Result<InUse> {
        let mut in_use = InUse::default();
        for record in self.records()? {
            in_use.blobs.insert(record.id.0);
            in_use.blobs.insert(record.manifest);
            in_use.layers.extend(record.layers);
        }
        Ok(in_use)
    }

    pub(crate) fn configuration_bytes(&self, id: &ImageId) -> Result<Vec<u8>> {
        self.blob(&id.0, &format!("configuration {id}"))
    }

    /// A whole document from the store.
    pub(crate) fn blob(&self, digest: &Digest, what: &str) -> Result<Vec<u8>> {
        let file = self
            .store()
            .blob(digest)
            .map_err(Error::store(format!("read {what}")))?;
        let mut bytes = Vec::new();
        let limit = document::MAX_DOCUMENT + 1;
        file.take(limit)
            .read_to_end(&mut bytes)
            .map_err(|source| Error::Read {
                what: what.to_owned(),
                origin: "the store".into(),
                source,
            })?;
        document::check_size(bytes.len() as u64, what, "the store")?;
        Ok(bytes)
    }

    /// The record that a user's text means, and the name if it was one.
    pub(crate) fn look_up(&self, text: &str) -> Result<(Record, Option<Reference>)> {
        if let Ok(id) = text.parse::<ImageId>() {
            return match self.record(&id)? {
                Some(record) => Ok((record, None)),
                None => Err(Error::NoSuchImage(text.to_owned())),
            };
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let may_be_prefix = (SHORTEST_PREFIX..64).contains(&prefix.len())
            && prefix
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match text.parse::<Reference>() {
            Ok(reference) => {
                let reference = reference.or_latest();
                if let Some(record) = self.find(&reference)? {
                    return Ok((record, Some(reference)));
                }
            }
            Err(error) if !may_be_prefix => return Err(error.into()),
            Err(_) => {}
        }
        if !may_be_prefix {
            return Err(Error::NoSuchImage(text.to_owned()));
        }
        let matching: Vec<String> = entries(&self.records_directory())?
            .into_iter()
            .filter(|name| name.starts_with(prefix))
            .collect();
        match matching.as_slice() {
            [] => Err(Error::NoSuchImage(text.to_owned())),
            [only] => match self.record_at(&self.records_directory().join(only))? {
                Some(record) => Ok((record, None)),
                None => Err(Error::NoSuchImage(text.to_owned())),
            },
            several => Err(Error::Ambiguous {
                prefix: text.to_owned(),
                count: several.len(),
            }),
        }
    }

    /// The record that exactly this name points to.
    pub(crate) fn find(&self, reference: &Reference) -> Result<Option<Record>> {
        let found = self.record_at(&self.inner.references.path(reference))?;
        let Some(digest) = reference.digest() else {
            return Ok(found);
        };
        // A digest may be the manifest's or, as Docker's users write it, the image id.
        let fits = |record: &Record| record.manifest == *digest || record.id.0 == *digest;
        if reference.tag().is_some() || found.is_some() {
            return Ok(found.filter(fits));
        }
        for (_, id) in self.inner.references.of_repository(reference)? {
            if let Some(record) = self.record(&id)?.filter(fits) {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    pub(crate) fn record(&self, id: &ImageId) -> Result<Option<Record>> {
        self.record_at(&self.records_directory().join(id.hex()))
    }

    /// Every record, in no order.
    pub(crate) fn records(&self) -> Result<Vec<Record>> {
        let directory = self.records_directory();
        let mut records = Vec::new();
        for name in entries(&directory)? {
            // Removed since the directory was read: not an error.
            records.extend(self.record_at(&directory.join(name))?);
        }
        Ok(records)
    }

    fn record_at(&self, path: &Path) -> Result<Option<Record>> {
        let file = match rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        let mut bytes = Vec::with_capacity(8 << 10);
        loop {
            match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes)) {
                Ok(0) => break,
                Ok(_) if bytes.len() as u64 > document::MAX_DOCUMENT => {
                    return Err(Error::Damaged {
                        path: path.to_owned(),
                        reason: "it is too long".into(),
                    });
                }
                Ok(_) => bytes.reserve(8 << 10),
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::io("read", path)(error)),
            }
        }
        Record::parse(&bytes)
            .map(Some)
            .map_err(|reason| Error::Damaged {
                path: path.to_owned(),
                reason,
            })
    }

    /// The image of a record, which has all its layers.
    pub(crate) fn image(&self, record: Record, name: Option<Reference>) -> Result<Image> {
        let mut layers = Vec::with_capacity(record.layers.len());
        for diff_id in &record.layers {
            match self
                .store()
                .layer(diff_id)
                .map_err(Error::store(format!("look for layer {diff_id}")))?
            {
                Some(layer) => layers.push(layer),
                None => {
                    return Err(Error::LayerMissing {
                        image: record.id,
                        layer: *diff_id,
                    });
                }
            }
        }
        Ok(Image {
            id: record.id,
            manifest: record.manifest,
            platform: record.platform,
            created: record.created,
            size: record.size,
            config: record.config,
            layers,
            name,
        })
    }

    /// Writes a record and its names. The caller holds `loading` and has put all that the record names into the store.
    pub(crate) fn publish(&self, record: &Record, names: &[Reference]) -> Result<()> {
        let _lock = self.lock()?;
        let set = |name: &Reference| {
            self.inner
                .references
                .set(name, &record.id, &self.temporary())
        };
        // A name that leads to no record yet is nobody's: with such names first, the record makes image and names
        // appear at once. A name that another image has moves only once there is something to move it to.
        let taken = |name: &&Reference| self.inner.references.path(name).exists();
        let (moved, new): (Vec<&Reference>, Vec<&Reference>) = names.iter().partition(taken);
        new.into_iter().try_for_each(set)?;
        self.replace(
            &self.records_directory().join(record.id.hex()),
            &document::encode(record),
            true,
        )?;
        moved.into_iter().try_for_each(set)
    }

    /// Replaces a small file of ours. The caller holds the lock.
    pub(crate) fn replace(&self, path: &Path, content: &[u8], durable: bool) -> Result<()> {
        let temporary = self.temporary();
        let write = || -> io::Result<()> {
            match rustix::fs::unlink(&temporary) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
            std::fs::write(&temporary, content)?;
            if durable {
                std::fs::File::open(&temporary)?.sync_data()?;
            }
            std::fs::rename(&temporary, path)
        };
        write().map_err(Error::io("write", path))
    }

    pub(crate) fn references(&self) -> &References {
        &self.inner.references
    }

    pub(crate) fn records_directory(&self) -> PathBuf {
        self.inner.root.join("records")
    }

    pub(crate) fn memos_directory(&self) -> PathBuf {
        self.inner.root.join("memos")
    }

    pub(crate) fn temporary(&self) -> PathBuf {
        self.inner.root.join("tmp")
    }

    /// See [`crate::lock`].
    pub(crate) fn lock(&self) -> Result<Held> {
        lock::exclusive(&self.inner.root.join("lock"))
    }

    /// See [`crate::lock`].
    pub(crate) fn loading(&self) -> Result<Held> {
        lock::shared(&self.inner.root.join("loading"))
    }

    /// See [`crate::lock`].
    pub(crate) fn nobody_loads(&self) -> Result<Option<Held>> {
        lock::try_exclusive(&self.inner.root.join("loading"))
    }
}
