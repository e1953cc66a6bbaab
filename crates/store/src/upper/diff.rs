//! `docker diff`: the upper directory against the layers below, in Docker's own sense (moby, pkg/archive, ChangesDirs).
//!
//! - A file is changed if type, mode, owner, device, size, time or capability differ; copied up and untouched is no change.
//!   Times are equal if the seconds are, and one of them has no nanoseconds (an archive had none).
//! - A directory is changed if mode or owner differ, or if anything below it changed; its size and time do not count.
//! - An added directory reports all that is in it; a deleted one only itself.
//! - What replaces an opaque directory's old content is compared one by one; what is not there any more is deleted.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::IdMap;
use super::lower::{Found, Merged, from_stat, join};
use super::read::{Item, Reader, attribute, inside_capability};
use crate::{Error, LayerForm, Result};

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// Docker's `C`.
    Modified,
    /// Docker's `A`.
    Added,
    /// Docker's `D`.
    Deleted,
}

impl ChangeKind {
    /// Docker's letter.
    pub fn letter(self) -> char {
        match self {
            ChangeKind::Modified => 'C',
            ChangeKind::Added => 'A',
            ChangeKind::Deleted => 'D',
        }
    }
}

/// One changed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// Absolute, as the container sees it.
    pub path: PathBuf,
}

/// What the upper directory changes of the layers (topmost first), sorted by path, a directory before what is in it.
pub fn diff(upper: &Path, lowers: &[LayerForm], ids: &IdMap) -> Result<Vec<Change>> {
    let walk = Walk {
        upper: Reader::open(upper)?,
        ids,
    };
    let mut changes = Vec::new();
    walk.directory(b"", Some(&Merged::root(lowers)?), &mut changes)?;
    Ok(changes)
}

struct Walk<'a> {
    upper: Reader,
    ids: &'a IdMap,
}

impl Walk<'_> {
    /// `lower` is the directory that is below this one, `None` if it is new.
    fn directory(
        &self,
        path: &[u8],
        lower: Option<&Merged>,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        let directory = self
            .upper
            .directory(path)
            .map_err(Error::io("open", self.upper.full(path)))?;
        let opaque = self.upper.is_opaque(&directory, path)?;
        let mut items = self
            .upper
            .list(&directory)
            .map_err(Error::io("list", self.upper.full(path)))?
            .into_iter()
            .peekable();
        drop(directory);
        // Only an opaque directory deletes by not having; otherwise whiteouts say it.
        let gone = match lower {
            Some(lower) if opaque => lower.names()?,
            _ => Vec::new(),
        };
        let mut gone = gone.into_iter().peekable();
        loop {
            let next_gone = gone.peek();
            let item_first = match (items.peek(), next_gone) {
                (Some(item), Some(name)) => item.name <= *name,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => return Ok(()),
            };
            if item_first {
                let Some(item) = items.next() else { continue };
                gone.next_if(|name| *name == item.name);
                self.item(path, &item, lower, changes)?;
            } else if let Some(name) = gone.next() {
                push(changes, ChangeKind::Deleted, &join(path, &name));
            }
        }
    }

    fn item(
        &self,
        parent: &[u8],
        item: &Item,
        lower: Option<&Merged>,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        let path = join(parent, &item.name);
        let below = lower
            .map(|lower| lower.lookup(&item.name))
            .transpose()?
            .flatten();
        if item.is_whiteout() {
            if below.is_some() {
                push(changes, ChangeKind::Deleted, &path);
            }
            return Ok(());
        }
        let Some((found, merged)) = below else {
            push(changes, ChangeKind::Added, &path);
            if item.is_directory() {
                self.directory(&path, None, changes)?;
            }
            return Ok(());
        };
        let at = changes.len();
        if item.is_directory() {
            self.directory(&path, merged.as_ref(), changes)?;
        }
        if changes.len() > at || self.differs(&path, item, &found)? {
            changes.insert(at, change(ChangeKind::Modified, &path));
        }
        Ok(())
    }

    fn differs(&self, path: &[u8], item: &Item, lower: &Found) -> Result<bool> {
        let mut upper = from_stat(&item.stat);
        (upper.uid, upper.gid) = self.upper.owner(&item.stat, self.ids, path)?;
        if upper.mode != lower.mode
            || (upper.uid, upper.gid) != (lower.uid, lower.gid)
            || (!item.is_directory() && upper.device != lower.device)
        {
            return Ok(true);
        }
        if item.is_directory() {
            return Ok(false);
        }
        let same_time = upper.mtime.0 == lower.mtime.0
            && (upper.mtime.1 == lower.mtime.1 || upper.mtime.1 == 0 || lower.mtime.1 == 0);
        if !same_time || upper.size != lower.size {
            return Ok(true);
        }
        if !item.is_regular() {
            return Ok(false);
        }
        let inspect = |errno| Error::io("inspect", self.upper.full(path))(errno);
        let file = self
            .upper
            .open_at(path, OFlags::RDONLY | OFlags::NONBLOCK)
            .map_err(inspect)?;
        self.upper.refuse_foreign(file.as_fd(), path)?;
        let capability = attribute(file.as_fd(), b"security.capability").map_err(inspect)?;
        Ok(capability.map(|value| inside_capability(value, self.ids)) != lower.capability)
    }
}

fn push(changes: &mut Vec<Change>, kind: ChangeKind, path: &[u8]) {
    changes.push(change(kind, path));
}

fn change(kind: ChangeKind, path: &[u8]) -> Change {
    Change {
        kind,
        path: Path::new("/").join(std::ffi::OsStr::from_bytes(path)),
    }
}
