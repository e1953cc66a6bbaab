//! The merged view of lower layers, as overlayfs has it, without mounting them.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::rc::Rc;

use rustix::fs::Stat;
use rustix::io::Errno;

use super::read::{Reader, attribute};
use crate::erofs::reader::{Image, Stat as ImageStat};
use crate::{Error, LayerForm, Result};

/// A layer that is read.
#[derive(Debug)]
enum Layer {
    Directory(Reader),
    Image(Image),
}

/// A directory as the layers below the upper one show it: its parts, topmost first.
#[derive(Debug, Clone)]
pub(super) struct Merged(Vec<(Rc<Layer>, Part)>);

#[derive(Debug, Clone)]
enum Part {
    /// Path from the layer's root.
    Directory(Vec<u8>),
    Image(ImageStat),
}

/// What is compared of a lower file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) mtime: (i64, u32),
    pub(super) device: (u32, u32),
    pub(super) capability: Option<Vec<u8>>,
}

impl Found {
    pub(super) fn is_directory(&self) -> bool {
        self.mode & 0o170000 == 0o040000
    }
}

impl Merged {
    /// The root of these layers, topmost first.
    pub(super) fn root(layers: &[LayerForm]) -> Result<Merged> {
        let mut parts = Vec::new();
        for form in layers {
            let (layer, part) = match form {
                LayerForm::Directory(path) => (
                    Layer::Directory(Reader::open(path)?),
                    Part::Directory(Vec::new()),
                ),
                LayerForm::Erofs(path) => {
                    let image = Image::open(path)?;
                    let root = image.root()?;
                    (Layer::Image(image), Part::Image(root))
                }
            };
            parts.push((Rc::new(layer), part));
        }
        Ok(Merged(parts))
    }

    /// A name in this directory, and what it is as a directory if it is one.
    pub(super) fn lookup(&self, name: &[u8]) -> Result<Option<(Found, Option<Merged>)>> {
        let mut top: Option<Found> = None;
        let mut parts = Vec::new();
        for (layer, part) in &self.0 {
            let Some((found, child, whiteout)) = layer.lookup(part, name)? else {
                continue;
            };
            if whiteout || (top.is_some() && !found.is_directory()) {
                break;
            }
            let directory = found.is_directory();
            top.get_or_insert(found);
            if !directory {
                break;
            }
            let opaque = layer.is_opaque(&child)?;
            parts.push((Rc::clone(layer), child));
            if opaque {
                break;
            }
        }
        Ok(top.map(|found| {
            let merged = found.is_directory().then_some(Merged(parts));
            (found, merged)
        }))
    }

    /// The names in this directory, sorted.
    pub(super) fn names(&self) -> Result<Vec<Vec<u8>>> {
        let (mut seen, mut visible) = (BTreeSet::new(), BTreeSet::new());
        for (layer, part) in &self.0 {
            for (name, whiteout) in layer.list(part)? {
                if seen.insert(name.clone()) && !whiteout {
                    visible.insert(name);
                }
            }
        }
        Ok(visible.into_iter().collect())
    }
}

impl Layer {
    /// What a name is here, where it is as a directory, and whether it is a whiteout.
    fn lookup(&self, part: &Part, name: &[u8]) -> Result<Option<(Found, Part, bool)>> {
        match (self, part) {
            (Layer::Directory(reader), Part::Directory(path)) => {
                let Some(directory) = open(reader, path)? else {
                    return Ok(None);
                };
                let child = join(path, name);
                let inspect = |errno| Error::io("inspect", reader.full(&child))(errno);
                let Some(stat) = reader.stat(&directory, name).map_err(inspect)? else {
                    return Ok(None);
                };
                let mut found = from_stat(&stat);
                if found.mode & 0o170000 == 0o100000 {
                    match reader.open_at(
                        &child,
                        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK,
                    ) {
                        Ok(file) => {
                            found.capability =
                                attribute(file.as_fd(), b"security.capability").map_err(inspect)?;
                        }
                        // A file on the host that this user may not read, or that something is mounted on.
                        Err(Errno::ACCESS | Errno::XDEV | Errno::NOENT) => {}
                        Err(errno) => return Err(inspect(errno)),
                    }
                }
                let whiteout = found.mode & 0o170000 == 0o020000 && found.device == (0, 0);
                Ok(Some((found, Part::Directory(child), whiteout)))
            }
            (Layer::Image(image), Part::Image(directory)) => {
                let Some(stat) = image.lookup(directory, name)? else {
                    return Ok(None);
                };
                let attributes = image.xattrs(&stat)?;
                let capability = attributes
                    .into_iter()
                    .find(|(name, _)| name == b"security.capability");
                let found = Found {
                    mode: u32::from(stat.mode),
                    uid: stat.uid,
                    gid: stat.gid,
                    size: stat.size,
                    mtime: (stat.mtime, stat.mtime_nsec),
                    device: stat.device,
                    capability: capability.map(|(_, value)| value),
                };
                let whiteout = stat.is_whiteout();
                Ok(Some((found, Part::Image(stat), whiteout)))
            }
            // root() pairs them, and children keep their parents' kind.
            _ => Ok(None),
        }
    }

    fn is_opaque(&self, part: &Part) -> Result<bool> {
        match (self, part) {
            (Layer::Directory(reader), Part::Directory(path)) => match open(reader, path)? {
                Some(directory) => reader.is_opaque(&directory, path),
                None => Ok(false),
            },
            (Layer::Image(image), Part::Image(stat)) => Ok(image
                .xattrs(stat)?
                .iter()
                .any(|(name, value)| name == b"trusted.overlay.opaque" && value == b"y")),
            _ => Ok(false),
        }
    }

    /// Names, and whether each is a whiteout.
    fn list(&self, part: &Part) -> Result<Vec<(Vec<u8>, bool)>> {
        match (self, part) {
            (Layer::Directory(reader), Part::Directory(path)) => {
                let Some(directory) = open(reader, path)? else {
                    return Ok(Vec::new());
                };
                let items = reader
                    .list(&directory)
                    .map_err(Error::io("list", reader.full(path)))?;
                Ok(items
                    .into_iter()
                    .map(|item| (item.is_whiteout(), item.name))
                    .map(|(white, name)| (name, white))
                    .collect())
            }
            (Layer::Image(image), Part::Image(stat)) => image
                .list(stat)?
                .into_iter()
                .map(|(name, nid)| Ok((name, image.stat(nid)?.is_whiteout())))
                .collect(),
            _ => Ok(Vec::new()),
        }
    }
}

/// A directory of a lower layer; `None` where something is mounted: the overlay sees what lies below, which is nothing as a rule.
fn open(reader: &Reader, path: &[u8]) -> Result<Option<std::os::fd::OwnedFd>> {
    match reader.directory(path) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::XDEV) => Ok(None),
        Err(errno) => Err(Error::io("open", reader.full(path))(errno)),
    }
}

pub(super) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() {
        name.to_vec()
    } else {
        [path, b"/", name].concat()
    }
}

pub(super) fn from_stat(stat: &Stat) -> Found {
    Found {
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: stat.st_size as u64,
        mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
        device: (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        ),
        capability: None,
    }
}
