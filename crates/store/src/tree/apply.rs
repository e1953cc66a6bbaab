//! Taking an archive's entries into the tree: the table in docs/format/layer.md, row by row.

use super::{
    Applied, Extra, Inode, MAX_LINKS, NodeId, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG,
    Tree,
};
use crate::tar::{Entry, EntryKind, NAME_MAX, PATH_MAX, Segment, TarError, Xattrs};

impl Tree {
    /// Takes an entry in.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<Applied, TarError> {
        let path = normalise(&entry.path).map_err(|reason| TarError::entry(&entry.path, reason))?;
        if path
            .split(|byte| *byte == b'/')
            .any(|name| name.starts_with(b".wh..wh.") && name != b".wh..wh..opq")
        {
            return Ok(Applied::Nothing);
        }
        let (parent_path, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], &path[..]),
        };
        if parent_path
            .split(|byte| *byte == b'/')
            .any(|name| name.starts_with(b".wh."))
        {
            return Err(TarError::entry(
                &entry.path,
                "a whiteout cannot have entries below it",
            ));
        }
        if name.is_empty() {
            if entry.kind != EntryKind::Directory {
                return Err(TarError::entry(
                    &entry.path,
                    "the root of a layer is a directory",
                ));
            }
            return self.place_directory(NodeId::ROOT, entry);
        }
        let parent = self.parent(parent_path, entry)?;
        if name == b".wh..wh..opq" {
            self.inode_mut(parent).opaque = true;
            return Ok(Applied::Nothing);
        }
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.white_out(parent, hidden, entry);
        }
        let existing = self.child(parent, name);
        match entry.kind {
            EntryKind::Directory => match existing {
                Some(node) if self.inode(node).is_directory() => self.place_directory(node, entry),
                _ => {
                    let whited = existing.is_some_and(|node| self.nodes[node.0 as usize].whited);
                    let removed = existing.inspect(|node| self.remove(*node));
                    let node = self.add(parent, name, Inode::directory(0o755))?;
                    self.place_directory(node, entry)?;
                    self.inode_mut(node).opaque = whited;
                    Ok(Applied::Placed { node, removed })
                }
            },
            EntryKind::HardLink => {
                let target = self.link_target(entry)?;
                if existing == Some(target)
                    || existing.is_some_and(|node| self.same_inode(node, target))
                {
                    return Ok(Applied::Nothing);
                }
                if existing.is_some_and(|node| self.is_below(target, node)) {
                    return Err(TarError::entry(
                        &entry.path,
                        "this hard link would replace the directory its target is in",
                    ));
                }
                let inode = self.nodes[target.0 as usize].inode;
                let removed = existing.inspect(|node| self.remove(*node));
                let node = self.add_existing(parent, name, inode)?;
                self.inodes[inode as usize].links += 1;
                Ok(Applied::Placed { node, removed })
            }
            _ => {
                let inode = self.make_inode(entry)?;
                let whited = existing.is_some_and(|node| self.nodes[node.0 as usize].whited);
                let removed = existing.inspect(|node| self.remove(*node));
                let node = self.add(parent, name, inode)?;
                self.nodes[node.0 as usize].whited = whited;
                Ok(Applied::Placed { node, removed })
            }
        }
    }

    fn place_directory(&mut self, node: NodeId, entry: &Entry) -> Result<Applied, TarError> {
        let xattrs = kept_xattrs(entry)?;
        self.charge(
            xattrs
                .iter()
                .map(|(name, value)| name.len() + value.len() + 48)
                .sum(),
        )?;
        let inode = self.inode_mut(node);
        inode.mode = S_IFDIR | entry.mode as u16;
        inode.uid = entry.uid;
        inode.gid = entry.gid;
        inode.mtime = entry.mtime;
        inode.mtime_nsec = entry.mtime_nsec;
        inode.implicit = false;
        inode.extra = (!xattrs.is_empty()).then(|| {
            Box::new(Extra {
                xattrs,
                ..Extra::default()
            })
        });
        Ok(Applied::Placed {
            node,
            removed: None,
        })
    }

    fn white_out(
        &mut self,
        parent: NodeId,
        hidden: &[u8],
        entry: &Entry,
    ) -> Result<Applied, TarError> {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(TarError::entry(&entry.path, "this whiteout names no file"));
        }
        if let Some(node) = self.child(parent, hidden) {
            // A whiteout hides lower layers only: a directory of this layer stays, and hides what is below it.
            self.nodes[node.0 as usize].whited = true;
            let inode = self.inode_mut(node);
            if inode.is_directory() {
                inode.opaque = true;
            }
            return Ok(Applied::Nothing);
        }
        let node = self.add(parent, hidden, Inode::whiteout(entry))?;
        self.nodes[node.0 as usize].whited = true;
        Ok(Applied::Placed {
            node,
            removed: None,
        })
    }

    fn make_inode(&mut self, entry: &Entry) -> Result<Inode, TarError> {
        let kind = match entry.kind {
            EntryKind::Regular => S_IFREG,
            EntryKind::Symlink => S_IFLNK,
            EntryKind::Character => S_IFCHR,
            EntryKind::Block => S_IFBLK,
            EntryKind::Fifo => S_IFIFO,
            // apply() has arms of its own for these.
            EntryKind::Directory | EntryKind::HardLink => S_IFDIR,
        };
        let xattrs = kept_xattrs(entry)?;
        let target = if entry.kind == EntryKind::Symlink {
            entry.link.clone()
        } else {
            Vec::new()
        };
        let sparse = entry.sparse.clone();
        self.charge(
            target.len()
                + xattrs
                    .iter()
                    .map(|(name, value)| name.len() + value.len() + 48)
                    .sum::<usize>()
                + sparse
                    .as_ref()
                    .map_or(0, |map| map.len() * size_of::<Segment>()),
        )?;
        let extra = (!target.is_empty() || !xattrs.is_empty() || sparse.is_some()).then(|| {
            Box::new(Extra {
                target,
                xattrs,
                sparse,
            })
        });
        Ok(Inode {
            mode: kind
                | if kind == S_IFLNK {
                    0o777
                } else {
                    entry.mode as u16
                },
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            mtime_nsec: entry.mtime_nsec,
            size: if kind == S_IFLNK {
                entry.link.len() as u64
            } else {
                entry.size
            },
            links: 1,
            data_offset: entry.data_offset,
            device: entry.device,
            opaque: false,
            implicit: false,
            extra,
        })
    }

    /// The directory that this path leads to; made where it is missing.
    fn parent(&mut self, path: &[u8], entry: &Entry) -> Result<NodeId, TarError> {
        if self.recent.0 == path {
            return Ok(self.recent.1);
        }
        let node = self
            .walk(path, true)?
            .map_err(|reason| TarError::entry(&entry.path, reason))?;
        self.recent = (path.to_vec(), node);
        Ok(node)
    }

    fn link_target(&mut self, entry: &Entry) -> Result<NodeId, TarError> {
        let error = |reason| TarError::entry(&entry.path, reason);
        let path = normalise(&entry.link)
            .map_err(|_| error("its hard link target leads out of the layer"))?;
        let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], &path[..]),
        };
        let missing = "its hard link target is not in the layer";
        let parent = self.walk(parent, false)?.map_err(|_| error(missing))?;
        let node = self.child(parent, name).ok_or_else(|| error(missing))?;
        let inode = self.inode(node);
        if inode.is_directory() {
            return Err(error("its hard link target is a directory"));
        }
        if inode.is_whiteout() {
            return Err(error(missing));
        }
        Ok(node)
    }

    /// Follows a path to a directory; symlinks lead on inside this tree. With `make`, what is missing is made.
    fn walk(&mut self, path: &[u8], make: bool) -> Result<Result<NodeId, &'static str>, TarError> {
        let mut at = NodeId::ROOT;
        // Components still to go, the next one last.
        let mut rest: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == b".." {
                at = self.parent_of(at);
                continue;
            }
            let child = self.child(at, &name);
            at = match child {
                Some(node) if self.inode(node).is_directory() => node,
                Some(node) if self.inode(node).is_symlink() => {
                    links += 1;
                    let target = self.inode(node).target();
                    if links > MAX_LINKS || rest.len() > PATH_MAX {
                        return Ok(Err("its parent goes through too many symlinks"));
                    }
                    let absolute = target.starts_with(b"/");
                    let more: Vec<Vec<u8>> = components(target).rev().map(<[u8]>::to_vec).collect();
                    if more
                        .iter()
                        .any(|name| name.len() > NAME_MAX || name.starts_with(b".wh."))
                    {
                        return Ok(Err("its parent is a symlink to an impossible name"));
                    }
                    rest.extend(more);
                    if absolute { NodeId::ROOT } else { at }
                }
                Some(node) if self.inode(node).is_whiteout() && make => {
                    self.remove(node);
                    let node = self.add(at, &name, Inode::directory(0o755))?;
                    self.inode_mut(node).opaque = true;
                    node
                }
                Some(_) => return Ok(Err("its parent is not a directory")),
                None if make => self.add(at, &name, Inode::directory(0o755))?,
                None => return Ok(Err("a parent of it is missing")),
            };
        }
        Ok(Ok(at))
    }
}

/// Components without empty ones and `.`.
fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
}

/// A path relative to the layer's root: no empty components, no `.`, and a refusal for `..` and what Linux could not open.
fn normalise(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(path.len());
    for name in components(path) {
        if name == b".." {
            return Err("its path has a `..` in it");
        }
        if name.len() > NAME_MAX {
            return Err("a name in its path is longer than NAME_MAX");
        }
        if !out.is_empty() {
            out.push(b'/');
        }
        out.extend_from_slice(name);
    }
    if out.len() > PATH_MAX {
        return Err("its path is longer than PATH_MAX");
    }
    Ok(out)
}

/// The extended attributes that a layer may set.
fn kept_xattrs(entry: &Entry) -> Result<Xattrs, TarError> {
    let mut kept = Vec::new();
    for (name, value) in &entry.xattrs {
        let user =
            name.starts_with(b"user.") && name.len() > 5 && !name.starts_with(b"user.overlay.");
        let keep = match entry.kind {
            EntryKind::Regular if name == b"security.capability" => {
                // Three revisions, three sizes (linux/capability.h); the kernel refuses others when a file is run.
                if !matches!(value.len(), 12 | 20 | 24) {
                    return Err(TarError::entry(
                        &entry.path,
                        "its security.capability is malformed",
                    ));
                }
                true
            }
            EntryKind::Regular | EntryKind::Directory => user,
            _ => false,
        };
        if keep {
            if value.len() > usize::from(u16::MAX) {
                return Err(TarError::entry(
                    &entry.path,
                    "an extended attribute is longer than 65535 bytes",
                ));
            }
            kept.push((name.clone(), value.clone()));
        }
    }
    Ok(kept)
}
