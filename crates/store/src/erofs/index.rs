//! Writing the index: from a tree and the archive that is already in the file to inodes, directories and a superblock.
//!
//! Two passes over the tree: the first gives each inode its place (breadth first, so that a directory's inodes lie together),
//! the second writes. Nothing is kept but places: names and attributes stay in the tree.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::path::Path;

use coracle_oci::{Digest, Hasher};

use super::chunks::{Chunks, copy_chunks};
use super::header::TAR_OFFSET;
use super::layout::*;
use super::output::Output;
use crate::tree::{Inode, NodeId, Tree};
use crate::{Error, Result};

const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// What was written.
pub(crate) struct Index {
    /// Bytes, a multiple of the block size.
    pub(crate) size: u64,
    /// Of the superblock's block and these bytes.
    pub(crate) digest: Digest,
    pub(crate) inodes: u64,
    /// The block at 1024.
    pub(crate) superblock: [u8; BLOCK as usize],
}

/// Where an inode goes.
struct Place {
    node: NodeId,
    /// From the first inode.
    start: u64,
    /// Size as the inode says it.
    size: u64,
    inline: bool,
    /// First block, counted from the first block after the inodes.
    block: u64,
    subdirectories: u32,
}

/// Writes the index of `tree` into `file` at `offset` (a multiple of the block size, behind the archive).
pub(crate) fn write(
    tree: &Tree,
    file: &File,
    path: &Path,
    offset: u64,
    uuid: [u8; 16],
) -> Result<Index> {
    let mut out = Output::new(file, path, offset);
    let chunks = copy_chunks(tree, file, &mut out)?;
    let inode_block = out.at / BLOCK;
    let plan = Plan::make(tree, &chunks)?;
    let data_block = inode_block + plan.inode_bytes.div_ceil(BLOCK);
    let end = data_block + plan.blocks;
    // The last address is "no block".
    if end >= u64::from(NULL_BLOCK) {
        return Err(Error::TooLarge {
            what: "its address space in 512-byte blocks",
            needed: end,
            limit: u64::from(NULL_BLOCK),
        });
    }
    let mut writer = Writer {
        tree,
        chunks: &chunks,
        plan: &plan,
        data_block,
        buffer: Vec::new(),
    };
    for (number, place) in plan.places.iter().enumerate() {
        writer.inode(number as u32 + 1, place)?;
        out.zeros_to(inode_block * BLOCK + place.start)?;
        out.write(&writer.buffer)?;
    }
    out.zeros_to(data_block * BLOCK)?;
    for place in &plan.places {
        writer.blocks(place);
        out.write(&writer.buffer)?;
    }
    let size = out.at - offset;
    let written = out.finish()?;
    let superblock = superblock(&plan, inode_block, end, uuid, !chunks.is_empty());
    let mut digest = Hasher::new();
    digest.update(&superblock);
    digest.update(written.as_bytes());
    Ok(Index {
        size,
        digest: digest.finish(),
        inodes: plan.places.len() as u64,
        superblock,
    })
}

fn superblock(
    plan: &Plan,
    inode_block: u64,
    end: u64,
    uuid: [u8; 16],
    chunked: bool,
) -> [u8; BLOCK as usize] {
    let mut block = [0; BLOCK as usize];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &MAGIC.to_le_bytes());
    put(8, &FEATURE_COMPAT.to_le_bytes());
    put(12, &[BLOCK_BITS as u8]);
    // root_nid stays 0: the root is the first inode.
    put(16, &(plan.places.len() as u64).to_le_bytes());
    put(36, &(end as u32).to_le_bytes());
    put(40, &(inode_block as u32).to_le_bytes());
    put(48, &uuid);
    put(
        80,
        &(if chunked {
            FEATURE_INCOMPAT_CHUNKED_FILE
        } else {
            0
        })
        .to_le_bytes(),
    );
    let crc = crc32c(!0, &block);
    block[4..8].copy_from_slice(&crc.to_le_bytes());
    block
}

struct Plan {
    places: Vec<Place>,
    /// Place of each inode number of the tree, or u32::MAX.
    by_inode: Vec<u32>,
    inode_bytes: u64,
    blocks: u64,
}

impl Plan {
    fn make(tree: &Tree, chunks: &HashMap<u32, Chunks>) -> Result<Plan> {
        let mut plan = Plan {
            places: Vec::new(),
            by_inode: vec![u32::MAX; tree.inode_count()],
            inode_bytes: 0,
            blocks: 0,
        };
        plan.place(tree, chunks, NodeId::ROOT, &tree.children(NodeId::ROOT))?;
        let mut queue = VecDeque::from([NodeId::ROOT]);
        while let Some(directory) = queue.pop_front() {
            for child in tree.children(directory) {
                if tree.inode(child).is_directory() {
                    plan.place(tree, chunks, child, &tree.children(child))?;
                    queue.push_back(child);
                } else if plan.by_inode[tree.inode_number(child) as usize] == u32::MAX {
                    plan.place(tree, chunks, child, &[])?;
                }
            }
        }
        Ok(plan)
    }

    fn place(
        &mut self,
        tree: &Tree,
        chunks: &HashMap<u32, Chunks>,
        node: NodeId,
        children: &[NodeId],
    ) -> Result<()> {
        let number = tree.inode_number(node);
        let inode = tree.inode(node);
        let head = INODE_SIZE + xattr_size(inode)? as u64;
        let size = if inode.is_directory() {
            directory_size(tree, children)
        } else {
            inode.size
        };
        // Only these have their content in the index.
        let own = inode.is_directory() || inode.is_symlink();
        let tail = if own { size % BLOCK } else { 0 };
        let mut start = self.inode_bytes.next_multiple_of(1 << NID_BITS);
        let fits = |start: u64| (start + head) % BLOCK + tail <= BLOCK;
        let mut inline = tail > 0;
        if inline && !fits(start) {
            if fits(0) {
                start = start.next_multiple_of(BLOCK);
            } else {
                inline = false;
            }
        }
        let after = match chunks.get(&number) {
            Some(chunks) => chunks.blocks.len() as u64 * 4,
            None if inline => tail,
            None => 0,
        };
        let blocks = match (own, inline) {
            (false, _) => 0,
            (true, true) => size / BLOCK,
            (true, false) => size.div_ceil(BLOCK),
        };
        let subdirectories = children
            .iter()
            .filter(|child| tree.inode(**child).is_directory())
            .count() as u32;
        self.by_inode[number as usize] = self.places.len() as u32;
        self.places.push(Place {
            node,
            start,
            size,
            inline,
            block: self.blocks,
            subdirectories,
        });
        self.inode_bytes = start + head + after;
        self.blocks += blocks;
        Ok(())
    }

    fn nid(&self, tree: &Tree, node: NodeId) -> u64 {
        self.places[self.by_inode[tree.inode_number(node) as usize] as usize].start >> NID_BITS
    }
}

struct Writer<'a> {
    tree: &'a Tree,
    chunks: &'a HashMap<u32, Chunks>,
    plan: &'a Plan,
    data_block: u64,
    buffer: Vec<u8>,
}

impl Writer<'_> {
    /// Fills the buffer with the inode, its attributes, and what lies behind them.
    fn inode(&mut self, ino: u32, place: &Place) -> Result<()> {
        let inode = self.tree.inode(place.node);
        let chunks = self.chunks.get(&self.tree.inode_number(place.node));
        let (layout, location) = if let Some(chunks) = chunks {
            (LAYOUT_CHUNK_BASED, chunks.bits - BLOCK_BITS)
        } else if inode.is_directory() || inode.is_symlink() {
            let layout = if place.inline {
                LAYOUT_FLAT_INLINE
            } else {
                LAYOUT_FLAT_PLAIN
            };
            (layout, (self.data_block + place.block) as u32)
        } else if inode.is_regular() {
            // Fits: the archive ends before the index, whose end was checked.
            let block = if inode.size == 0 {
                0
            } else {
                (TAR_OFFSET + inode.data_offset) / BLOCK
            };
            (LAYOUT_FLAT_PLAIN, block as u32)
        } else {
            (LAYOUT_FLAT_PLAIN, encode_device(inode.device))
        };
        let links = if inode.is_directory() {
            2 + place.subdirectories
        } else {
            inode.links
        };
        let xattr_count = match xattr_size(inode)? {
            0 => 0,
            size => (size - XATTR_HEADER_SIZE) / 4 + 1,
        };
        let out = &mut self.buffer;
        out.clear();
        out.extend_from_slice(&(layout << 1 | INODE_EXTENDED).to_le_bytes());
        out.extend_from_slice(&(xattr_count as u16).to_le_bytes());
        out.extend_from_slice(&inode.mode.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&place.size.to_le_bytes());
        out.extend_from_slice(&location.to_le_bytes());
        out.extend_from_slice(&ino.to_le_bytes());
        out.extend_from_slice(&inode.uid.to_le_bytes());
        out.extend_from_slice(&inode.gid.to_le_bytes());
        out.extend_from_slice(&inode.mtime.to_le_bytes());
        out.extend_from_slice(&inode.mtime_nsec.to_le_bytes());
        out.extend_from_slice(&links.to_le_bytes());
        out.extend_from_slice(&[0; 16]);
        if xattr_count > 0 {
            out.extend_from_slice(&[0; XATTR_HEADER_SIZE]);
            for (name, value) in xattrs(inode) {
                // Every name that the tree keeps has one of the three prefixes.
                let (index, rest) = xattr_index(name).unwrap_or((0, name));
                out.extend_from_slice(&[rest.len() as u8, index]);
                out.extend_from_slice(&(value.len() as u16).to_le_bytes());
                out.extend_from_slice(rest);
                out.extend_from_slice(value);
                out.resize(out.len().next_multiple_of(4), 0);
            }
        }
        if let Some(chunks) = chunks {
            for block in &chunks.blocks {
                out.extend_from_slice(&block.to_le_bytes());
            }
        } else if place.inline {
            let tail = (place.size % BLOCK) as usize;
            let content = self.content(place);
            self.buffer
                .extend_from_slice(&content[content.len() - tail..]);
        }
        Ok(())
    }

    /// Fills the buffer with the blocks of a directory or long symlink: all of them, or all but the inline tail.
    fn blocks(&mut self, place: &Place) {
        self.buffer.clear();
        let inode = self.tree.inode(place.node);
        let own = inode.is_directory() || inode.is_symlink();
        if !own || (place.inline && place.size < BLOCK) {
            return;
        }
        let mut content = self.content(place);
        let whole = if place.inline {
            place.size / BLOCK * BLOCK
        } else {
            place.size.next_multiple_of(BLOCK)
        };
        content.resize(whole as usize, 0);
        self.buffer = content;
    }

    /// A symlink's target, or a directory's blocks up to the last name.
    fn content(&self, place: &Place) -> Vec<u8> {
        if self.tree.inode(place.node).is_symlink() {
            return self.tree.inode(place.node).target().to_vec();
        }
        let children = self.tree.children(place.node);
        let mut out = Vec::with_capacity(place.size as usize);
        for block in directory_blocks(self.tree, &children).iter() {
            out.resize(out.len().next_multiple_of(BLOCK as usize), 0);
            let mut name_offset = block.len() * DIRENT_SIZE;
            for item in block {
                let (node, name) = item.resolve(self.tree, place.node);
                out.extend_from_slice(&self.plan.nid(self.tree, node).to_le_bytes());
                out.extend_from_slice(&(name_offset as u16).to_le_bytes());
                out.extend_from_slice(&[file_type(self.tree.inode(node).mode), 0]);
                name_offset += name.len();
            }
            for item in block {
                out.extend_from_slice(item.resolve(self.tree, place.node).1);
            }
        }
        out
    }
}

/// A directory's entry: itself, its parent, or a child.
#[derive(Clone, Copy)]
enum Item {
    Dot,
    DotDot,
    Child(NodeId),
}

impl Item {
    fn name<'a>(&self, tree: &'a Tree) -> &'a [u8] {
        match self {
            Item::Dot => b".",
            Item::DotDot => b"..",
            Item::Child(node) => tree.name(*node),
        }
    }

    fn resolve<'a>(&self, tree: &'a Tree, directory: NodeId) -> (NodeId, &'a [u8]) {
        let node = match self {
            Item::Dot => directory,
            Item::DotDot => tree.parent_of(directory),
            Item::Child(node) => *node,
        };
        (node, self.name(tree))
    }
}

/// The entries of a directory, sorted by name, as they fill blocks.
struct Blocks {
    items: Vec<Item>,
    ends: Vec<usize>,
    /// Bytes used in the last block.
    last: usize,
}

fn directory_blocks(tree: &Tree, children: &[NodeId]) -> Blocks {
    let mut items: Vec<Item> = children.iter().copied().map(Item::Child).collect();
    // Names such as "!a" sort before "."; the kernel searches bytewise over all.
    for (item, name) in [(Item::Dot, &b"."[..]), (Item::DotDot, b"..")] {
        let at = items.partition_point(|other| other.name(tree) < name);
        items.insert(at, item);
    }
    let (mut ends, mut used) = (Vec::new(), 0);
    for (index, item) in items.iter().enumerate() {
        let need = DIRENT_SIZE + item.name(tree).len();
        if used + need > BLOCK as usize {
            ends.push(index);
            used = 0;
        }
        used += need;
    }
    ends.push(items.len());
    Blocks {
        items,
        ends,
        last: used,
    }
}

impl Blocks {
    fn iter(&self) -> impl Iterator<Item = &[Item]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, end)| &self.items[start..*end])
    }

    fn size(&self) -> u64 {
        (self.ends.len() as u64 - 1) * BLOCK + self.last as u64
    }
}

fn directory_size(tree: &Tree, children: &[NodeId]) -> u64 {
    directory_blocks(tree, children).size()
}

fn xattrs(inode: &Inode) -> impl Iterator<Item = (&[u8], &[u8])> {
    let opaque = inode.opaque.then_some((OPAQUE, &b"y"[..]));
    opaque.into_iter().chain(
        inode
            .xattrs()
            .iter()
            .map(|(name, value)| (&name[..], &value[..])),
    )
}

/// Bytes of an inode's attributes, their header included; 0 if there are none.
fn xattr_size(inode: &Inode) -> Result<usize> {
    let entries: usize = xattrs(inode)
        .map(|(name, value)| {
            let rest = xattr_index(name).map_or(name, |(_, rest)| rest);
            (4 + rest.len() + value.len()).next_multiple_of(4)
        })
        .sum();
    if entries == 0 {
        return Ok(0);
    }
    let limit = (usize::from(u16::MAX) - 1) * 4;
    if entries > limit {
        return Err(Error::TooLarge {
            what: "the extended attributes of one file, in bytes,",
            needed: entries as u64,
            limit: limit as u64,
        });
    }
    Ok(XATTR_HEADER_SIZE + entries)
}
