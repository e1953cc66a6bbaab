//! The streaming half: regular files into their places, everything else into the tree.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use coracle_oci::Hasher;
use rustix::fs::{CWD, Mode, OFlags};

use super::place::{self, Beneath};
use super::split::Recorder;
use super::{Description, REPLACED, ROOT, VERSION, hex};
use crate::pipeline::{self, Feed, Sink};
use crate::tar::{Entry, Segment, TarReader};
use crate::tree::{Applied, NodeId, Tree};
use crate::{Durability, Error, Limits, Ownership, Result};

/// Only hashes: the data goes into files on the parsing thread.
struct Digesting {
    hasher: Hasher,
    size: u64,
}

impl Sink for Digesting {
    fn take(&mut self, data: &[u8]) -> Result<()> {
        self.hasher.update(data);
        self.size += data.len() as u64;
        Ok(())
    }
}

/// Makes a directory layer of an archive in `layer`, an empty directory. When this fails it holds garbage.
pub(crate) fn ingest(
    archive: impl Read + Send,
    layer: &Path,
    limits: &Limits,
    ownership: Ownership,
    durability: Durability,
) -> Result<Description> {
    let mut sink = Digesting {
        hasher: Hasher::new(),
        size: 0,
    };
    let (tree, mut unpacked, split_size) = pipeline::run(archive, &mut sink, |feed| {
        let mut unpacker = Unpacker::new(layer, limits, ownership)?;
        let mut reader = TarReader::new(Recorder::new(feed, layer)?, *limits);
        while let Some(entry) = reader.next_entry()? {
            unpacker.entry(&entry, &mut reader)?;
        }
        let size = reader
            .into_inner()
            .finish()
            .map_err(Error::io("write", layer))?;
        let Unpacker { tree, state, .. } = unpacker;
        Ok((tree, state, size))
    })?;
    place::finish(&tree, &mut unpacked, ownership)?;
    let inodes: Vec<_> = (0..tree.inode_count() as u32)
        .map(|number| tree.inode_at(number))
        .filter(|inode| inode.links > 0)
        .collect();
    // Blocks of 4096 bytes, and one for each directory: an estimate, for listing only.
    let blocks: u64 = inodes
        .iter()
        .map(|inode| {
            if inode.is_regular() {
                inode.size.div_ceil(4096)
            } else {
                1
            }
        })
        .sum();
    let description = Description {
        version: VERSION,
        diff_id: sink.hasher.finish(),
        size: sink.size,
        content_size: tree.content_size(),
        disk_size: blocks * 4096 + split_size,
        inodes: inodes.len() as u64,
        implicit: tree.implicit_count(),
        squashed: ownership == Ownership::Squash,
        moved: unpacked
            .moved
            .iter()
            .map(|(inode, path)| (*inode, hex(path)))
            .collect(),
    };
    description.store(layer)?;
    if durability == Durability::Synced {
        let directory = File::open(layer).map_err(Error::io("open", layer))?;
        rustix::fs::syncfs(&directory).map_err(Error::io("sync", layer))?;
    }
    Ok(description)
}

/// Where things are on disk.
pub(super) struct State {
    pub(super) root: Beneath,
    pub(super) layer: OwnedFd,
    /// By node: a directory that exists.
    pub(super) made: Vec<bool>,
    /// By inode number: the node under which its file was made.
    pub(super) homes: BTreeMap<u32, NodeId>,
    /// Inode number → path below the layer's directory, for data whose node is gone.
    pub(super) moved: BTreeMap<u32, Vec<u8>>,
}

struct Unpacker {
    tree: Tree,
    state: State,
    ownership: Ownership,
    /// The directory of the file before.
    recent: Option<(NodeId, OwnedFd)>,
    replaced: u64,
}

impl Unpacker {
    fn new(layer: &Path, limits: &Limits, ownership: Ownership) -> Result<Unpacker> {
        let open = |path: &Path| {
            rustix::fs::openat(
                CWD,
                path,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(Error::io("open", path))
        };
        let root = layer.join(ROOT);
        fs::create_dir(&root).map_err(Error::io("create", &root))?;
        let state = State {
            root: Beneath::new(open(&root)?),
            layer: open(layer)?,
            made: vec![true],
            homes: BTreeMap::new(),
            moved: BTreeMap::new(),
        };
        Ok(Unpacker {
            tree: Tree::new(limits),
            state,
            ownership,
            recent: None,
            replaced: 0,
        })
    }

    fn entry(&mut self, entry: &Entry, reader: &mut TarReader<Recorder<&mut Feed>>) -> Result<()> {
        let Applied::Placed { node, removed } = self.tree.apply(entry)? else {
            return Ok(());
        };
        if let Some(removed) = removed {
            self.set_aside(removed, entry)?;
        }
        // A hard link's inode is regular too, but its data came with another entry.
        let inode = self.tree.inode(node);
        if !inode.is_regular() || inode.links != 1 || entry.kind != crate::tar::EntryKind::Regular {
            return Ok(());
        }
        let unpack = |action| {
            let entry = String::from_utf8_lossy(&entry.path).into_owned();
            move |source: io::Error| Error::Unpack {
                entry,
                action,
                source,
            }
        };
        let name = self.tree.name(node).to_vec();
        let mode =
            place::permissions(self.tree.inode(node)) & (Mode::RWXU | Mode::RWXG | Mode::RWXO);
        let parent = self
            .enter(self.tree.parent_of(node))
            .map_err(unpack("making its directory"))?;
        let file = rustix::fs::openat(
            parent,
            &name[..],
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            mode,
        )
        .map_err(|errno| unpack("creating the file")(errno.into()))?;
        let file = File::from(file);
        let number = self.tree.inode_number(node);
        let path = self.tree.path(node);
        self.state.homes.insert(number, node);
        let whole = [Segment {
            offset: 0,
            length: entry.data_size,
        }];
        let segments = entry.sparse.as_deref().unwrap_or(&whole);
        for segment in segments.iter().filter(|segment| segment.length > 0) {
            reader
                .input_mut()
                .data(number, &path, segment.offset, segment.length)
                .map_err(unpack("recording the archive"))?;
            let (mut at, end) = (segment.offset, segment.offset + segment.length);
            while at < end {
                let piece = reader.data()?;
                let length = piece
                    .len()
                    .min(usize::try_from(end - at).unwrap_or(usize::MAX));
                file.write_all_at(&piece[..length], at)
                    .map_err(unpack("writing the file"))?;
                reader.consume(length);
                at += length as u64;
            }
        }
        if entry.sparse.is_some() {
            file.set_len(entry.size)
                .map_err(unpack("setting the size"))?;
        }
        place::file_metadata(file.as_fd(), self.tree.inode(node), self.ownership)
            .map_err(|(action, errno)| unpack(action)(errno.into()))
    }

    /// Opens the directory of a node as `recent`; made with its parents where it is missing.
    fn enter(&mut self, node: NodeId) -> io::Result<&OwnedFd> {
        let directory = match self.recent.take() {
            Some((recent, directory)) if recent == node => directory,
            _ => {
                self.state.make_directories(&self.tree, node)?;
                self.state.root.directory(&self.tree.path(node))?
            }
        };
        Ok(&self.recent.insert((node, directory)).1)
    }

    /// Moves what was replaced out of the tree: its data is needed to make the archive again.
    fn set_aside(&mut self, removed: NodeId, entry: &Entry) -> Result<()> {
        self.recent = None;
        let mut any = false;
        let base = self.tree.path(removed).len();
        let target = format!("{REPLACED}/{}", self.replaced);
        for node in self.tree.subtree(removed) {
            if let Some(made) = self.state.made.get_mut(node.0 as usize) {
                any |= std::mem::take(made);
            }
            let number = self.tree.inode_number(node);
            if self.state.homes.get(&number) == Some(&node) {
                any = true;
                self.state.homes.remove(&number);
                let path = [target.as_bytes(), &self.tree.path(node)[base..]].concat();
                self.state.moved.insert(number, path);
            }
        }
        if !any {
            return Ok(());
        }
        let unpack = |source: rustix::io::Errno| Error::Unpack {
            entry: String::from_utf8_lossy(&entry.path).into_owned(),
            action: "setting aside what it replaces",
            source: source.into(),
        };
        if self.replaced == 0 {
            rustix::fs::mkdirat(&self.state.layer, REPLACED, Mode::RWXU).map_err(unpack)?;
        }
        self.replaced += 1;
        let parent = self
            .state
            .root
            .directory(&self.tree.path(self.tree.parent_of(removed)))
            .map_err(|source| {
                unpack(rustix::io::Errno::from_io_error(&source).unwrap_or(rustix::io::Errno::IO))
            })?;
        rustix::fs::renameat(&parent, self.tree.name(removed), &self.state.layer, &target)
            .map_err(unpack)
    }
}

impl State {
    /// Makes a directory and its parents, for the owner only: they get their own metadata at the end.
    pub(super) fn make_directories(&mut self, tree: &Tree, node: NodeId) -> io::Result<()> {
        self.made.resize(tree.node_count(), false);
        let mut missing = Vec::new();
        let mut at = node;
        while !self.made[at.0 as usize] {
            missing.push(at);
            at = tree.parent_of(at);
        }
        for node in missing.into_iter().rev() {
            let parent = self.root.directory(&tree.path(tree.parent_of(node)))?;
            rustix::fs::mkdirat(&parent, tree.name(node), Mode::RWXU)?;
            self.made[node.0 as usize] = true;
        }
        Ok(())
    }
}
