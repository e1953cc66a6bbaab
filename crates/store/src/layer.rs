//! A layer in the store, and the archive that it came from.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};

use coracle_oci::Digest;

use crate::directory::{self, SplitReader};
use crate::erofs::{self, header::TAR_OFFSET};
use crate::{Error, Result};

/// How a layer is kept: what the runtime mounts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LayerForm {
    /// A file that is mounted as EROFS.
    Erofs(PathBuf),
    /// A directory that is used as it is.
    Directory(PathBuf),
}

/// A whole, verified layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// SHA-256 of the uncompressed archive.
    pub diff_id: Digest,
    /// Bytes of the uncompressed archive.
    pub size: u64,
    /// Sum of the sizes of its files: what image listings count.
    pub content_size: u64,
    /// Bytes it takes on disk, about.
    pub disk_size: u64,
    /// Directories that the archive uses but does not have: in an overlay they show as 0755, root, whatever is below.
    pub implicit_directories: u64,
    /// Where it is.
    pub form: LayerForm,
}

impl Layer {
    /// Exactly the bytes that came.
    pub fn tar(&self) -> Result<LayerTar> {
        match &self.form {
            LayerForm::Erofs(path) => {
                let mut file = File::open(path).map_err(Error::io("open", path))?;
                file.seek(SeekFrom::Start(TAR_OFFSET))
                    .map_err(Error::io("read", path))?;
                Ok(LayerTar(Source::File(file.take(self.size))))
            }
            LayerForm::Directory(root) => {
                let layer = root.parent().unwrap_or(root);
                Ok(LayerTar(Source::Split(Box::new(SplitReader::open(layer)?))))
            }
        }
    }

    pub(crate) fn from_file(path: &Path) -> Result<Layer> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let header = erofs::read_header(&file, path)?;
        Ok(Layer {
            diff_id: header.diff_id,
            size: header.tar_size,
            content_size: header.content_size,
            disk_size: header.file_size(),
            implicit_directories: header.implicit,
            form: LayerForm::Erofs(path.to_owned()),
        })
    }

    pub(crate) fn from_directory(path: &Path) -> Result<Layer> {
        let description = directory::Description::load(path)?;
        Ok(Layer {
            diff_id: description.diff_id,
            size: description.size,
            content_size: description.content_size,
            disk_size: description.disk_size,
            implicit_directories: description.implicit,
            form: LayerForm::Directory(path.join(directory::ROOT)),
        })
    }
}

/// The archive of a layer, as a stream.
#[derive(Debug)]
pub struct LayerTar(Source);

#[derive(Debug)]
enum Source {
    File(Take<File>),
    Split(Box<SplitReader>),
}

impl Read for LayerTar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Source::File(file) => file.read(buffer),
            Source::Split(split) => split.read(buffer),
        }
    }
}
