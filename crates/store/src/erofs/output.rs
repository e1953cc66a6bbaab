//! Where the index is written: behind the archive, hashed on the way.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use coracle_oci::{Digest, Hasher};

use crate::{Error, Result};

/// A file that is written from a place on, without its cursor.
struct FileAt<'a> {
    file: &'a File,
    at: u64,
}

impl Write for FileAt<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let length = self.file.write_at(data, self.at)?;
        self.at += length as u64;
        Ok(length)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hashes and writes.
pub(super) struct Output<'a> {
    file: BufWriter<FileAt<'a>>,
    hasher: Hasher,
    /// The next byte's place in the file.
    pub(super) at: u64,
    pub(super) path: &'a Path,
}

impl<'a> Output<'a> {
    pub(super) fn new(file: &'a File, path: &'a Path, at: u64) -> Output<'a> {
        let file = BufWriter::with_capacity(256 << 10, FileAt { file, at });
        Output {
            file,
            hasher: Hasher::new(),
            at,
            path,
        }
    }

    pub(super) fn write(&mut self, data: &[u8]) -> Result<()> {
        self.hasher.update(data);
        self.at += data.len() as u64;
        self.file
            .write_all(data)
            .map_err(Error::io("write", self.path))
    }

    pub(super) fn zeros_to(&mut self, end: u64) -> Result<()> {
        while self.at < end {
            let length = (end - self.at).min(4096) as usize;
            self.write(&[0; 4096][..length])?;
        }
        Ok(())
    }

    /// The digest of everything that was written.
    pub(super) fn finish(mut self) -> Result<Digest> {
        self.file.flush().map_err(Error::io("write", self.path))?;
        Ok(self.hasher.finish())
    }
}
