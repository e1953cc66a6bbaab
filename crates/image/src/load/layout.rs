//! An OCI image layout in a directory.
//!
//! The directory may be hostile: paths are opened beneath it (symbolic links that leave it are refused by the kernel), and what is
//! not a regular file is refused, so that nothing blocks on a pipe or reads a device.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::content::{Content, Origin, Section, read_document};
use crate::{Error, Result, document};

pub(crate) struct Layout {
    root: OwnedFd,
    name: String,
}

impl Layout {
    pub(crate) fn open(dir: &Path) -> Result<Layout> {
        let root = rustix::fs::open(
            dir,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(Error::io("open the image layout", dir))?;
        let layout = Layout {
            root,
            name: dir.display().to_string(),
        };
        if layout.open("oci-layout")?.is_none() {
            return Err(Error::NoImage {
                origin: layout.name,
                reason: "it has no file oci-layout, so it is no OCI image layout".into(),
            });
        }
        check_version(&layout)?;
        Ok(layout)
    }
}

/// Refuses a layout of a version that this engine does not know.
pub(crate) fn check_version(origin: &dyn Origin) -> Result<()> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Marker {
        image_layout_version: String,
    }
    let bytes = read_document(origin, "oci-layout", "oci-layout", None, None)?;
    let marker: Marker = document::decode(&bytes, "oci-layout", origin.name())?;
    if marker.image_layout_version.starts_with("1.") {
        return Ok(());
    }
    Err(Error::Document {
        document: "oci-layout".into(),
        origin: origin.name().to_owned(),
        reason: format!(
            "its version is {:?}, not 1.x",
            document::quoted(&marker.image_layout_version)
        ),
    })
}

impl Origin for Layout {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self, path: &str) -> Result<Option<Content>> {
        let full = Path::new(&self.name).join(path);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = loop {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Ok(file) => break file,
                // A rename raced with the walk; openat2(2) says to try again.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(Error::io("open", full)(error)),
            }
        };
        let stat = rustix::fs::fstat(&file).map_err(Error::io("look at", &full))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::Document {
                document: path.to_owned(),
                origin: self.name.clone(),
                reason: "it is not a regular file".into(),
            });
        }
        let length = u64::try_from(stat.st_size).unwrap_or_default();
        Ok(Some(Content::Section(Section {
            file: Arc::new(File::from(file)),
            offset: 0,
            length,
        })))
    }
}
