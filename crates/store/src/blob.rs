//! Blobs: content under its own digest.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;

use coracle_oci::{Digest, Hasher};

use crate::store::names;
use crate::temporary::{Mode, Temporary, touch};
use crate::{Durability, Error, Result, Store};

const COPY: usize = 256 << 10;

/// What was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its address.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

impl Store {
    /// Stores content under its digest. With `expected`, content that is another is refused and nothing stays.
    pub fn put_blob(&self, reader: impl Read, expected: Option<&Digest>) -> Result<Stored> {
        self.put(reader, expected, None)
    }

    /// As [`Store::put_blob`], for content whose size is known: reading stops where it is exceeded.
    pub fn put_blob_sized(
        &self,
        reader: impl Read,
        expected: &Digest,
        size: u64,
    ) -> Result<Stored> {
        self.put(reader, Some(expected), Some(size))
    }

    /// A blob, opened for reading.
    pub fn blob(&self, digest: &Digest) -> Result<File> {
        let path = self.blob_path(digest);
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::Missing {
                what: "blob",
                digest: *digest,
            },
            _ => Error::io("open", &path)(error),
        })
    }

    /// A blob's size, or `None` if it is not here.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.blob_path(digest);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("inspect", &path)(error)),
        }
    }

    /// Is this blob here? One that cannot be seen is not.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).exists()
    }

    /// Removes a blob at once, in use or not. False if it was not here.
    pub fn remove_blob(&self, digest: &Digest) -> Result<bool> {
        let path = self.blob_path(digest);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("remove", &path)(error)),
        }
    }

    /// All blobs, in no order.
    pub fn blobs(&self) -> Result<Vec<Digest>> {
        let names = names(&self.blobs_directory())?;
        Ok(names
            .iter()
            .filter_map(|name| Digest::from_hex(name).ok())
            .collect())
    }

    fn put(
        &self,
        mut reader: impl Read,
        expected: Option<&Digest>,
        size: Option<u64>,
    ) -> Result<Stored> {
        let _shared = self.lock(Mode::Shared)?;
        let (temporary, mut file) = Temporary::file(&self.temporary())?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; COPY];
        let mut actual = 0u64;
        loop {
            let length = match reader.read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(Error::Read {
                        what: "blob",
                        source,
                    });
                }
            };
            actual += length as u64;
            let wrong = size.filter(|size| actual > *size || (length == 0 && actual != *size));
            if let Some(expected) = wrong {
                return Err(Error::SizeMismatch {
                    what: "blob",
                    expected,
                    actual,
                });
            }
            if length == 0 {
                break;
            }
            hasher.update(&buffer[..length]);
            file.write_all(&buffer[..length])
                .map_err(Error::io("write", temporary.path()))?;
        }
        let digest = hasher.finish();
        if let Some(expected) = expected
            && *expected != digest
        {
            return Err(Error::DigestMismatch {
                what: "blob",
                expected: *expected,
                actual: digest,
            });
        }
        file.set_permissions(fs::Permissions::from_mode(0o444))
            .map_err(Error::io("protect", temporary.path()))?;
        if self.0.options.durability == Durability::Synced {
            file.sync_data()
                .map_err(Error::io("sync", temporary.path()))?;
        }
        let path = self.blob_path(&digest);
        if !temporary.publish(&path, self.0.options.durability)? {
            touch(&path)?;
        }
        Ok(Stored {
            digest,
            size: actual,
        })
    }
}
