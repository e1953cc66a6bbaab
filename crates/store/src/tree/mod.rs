//! The tree that an archive describes, in memory: what both forms of a layer are made from.
//!
//! Names live in one arena, nodes (a name in a directory) and inodes (what it names) in two vectors; nothing of a file's data is here.
//! All policy about paths is here, once: normalising, parents, whiteouts, "last entry wins", which extended attributes survive
//! (docs/format/layer.md has the table).
//!
//! Invariants:
//! - Node 0 is the root directory, and its own parent. A live node's ancestors are live directories.
//! - No path leads out: `..` in an entry is refused; symlinks in parents are resolved here, in this tree, never on a file system.
//! - Hard links share an inode; an inode that no live node names stays in the vector with `links` 0.

mod apply;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::Limits;
use crate::tar::{Entry, Segment, TarError, Xattrs};

/// How many symlinks one path may go through, as in the kernel.
const MAX_LINKS: usize = 40;
const NONE: u32 = u32::MAX;
const S_IFIFO: u16 = 0o010000;
const S_IFCHR: u16 = 0o020000;
const S_IFDIR: u16 = 0o040000;
const S_IFBLK: u16 = 0o060000;
const S_IFREG: u16 = 0o100000;
const S_IFLNK: u16 = 0o120000;

/// Index of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(crate) u32);

impl NodeId {
    pub(crate) const ROOT: NodeId = NodeId(0);
}

#[derive(Debug)]
struct Node {
    parent: u32,
    name: u32,
    name_length: u8,
    inode: u32,
    first_child: u32,
    next_sibling: u32,
    /// The next node with the same hash.
    chain: u32,
    live: bool,
    /// A whiteout entry named this too: a directory that takes the place hides what is below.
    whited: bool,
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inode {
    /// File type and permission bits, as in `st_mode`.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: i64,
    pub(crate) mtime_nsec: u32,
    pub(crate) size: u64,
    /// How many live nodes name it.
    pub(crate) links: u32,
    /// Regular files: where the data begins in the archive.
    pub(crate) data_offset: u64,
    /// Device number, (major, minor).
    pub(crate) device: (u32, u32),
    /// Directories: hides what lower layers have here.
    pub(crate) opaque: bool,
    /// Directories: no entry named it.
    pub(crate) implicit: bool,
    pub(crate) extra: Option<Box<Extra>>,
}

/// What few inodes have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extra {
    pub(crate) target: Vec<u8>,
    pub(crate) xattrs: Xattrs,
    pub(crate) sparse: Option<Vec<Segment>>,
}

impl Inode {
    pub(crate) fn kind(&self) -> u16 {
        self.mode & 0o170000
    }
    pub(crate) fn is_directory(&self) -> bool {
        self.kind() == S_IFDIR
    }
    pub(crate) fn is_regular(&self) -> bool {
        self.kind() == S_IFREG
    }
    pub(crate) fn is_symlink(&self) -> bool {
        self.kind() == S_IFLNK
    }
    pub(crate) fn is_whiteout(&self) -> bool {
        self.kind() == S_IFCHR && self.device == (0, 0)
    }
    pub(crate) fn xattrs(&self) -> &[(Vec<u8>, Vec<u8>)] {
        self.extra.as_ref().map_or(&[], |extra| &extra.xattrs)
    }
    pub(crate) fn target(&self) -> &[u8] {
        self.extra.as_ref().map_or(&[], |extra| &extra.target)
    }
    pub(crate) fn sparse(&self) -> Option<&[Segment]> {
        self.extra.as_ref()?.sparse.as_deref()
    }

    fn directory(mode: u16) -> Inode {
        Inode {
            mode: S_IFDIR | mode,
            uid: 0,
            gid: 0,
            mtime: 0,
            mtime_nsec: 0,
            size: 0,
            links: 1,
            data_offset: 0,
            device: (0, 0),
            opaque: false,
            implicit: true,
            extra: None,
        }
    }

    fn whiteout(entry: &Entry) -> Inode {
        Inode {
            mode: S_IFCHR,
            implicit: false,
            mtime: entry.mtime,
            ..Inode::directory(0)
        }
    }
}

/// What an entry did to the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    /// Nothing to place: ignored, or only a mark.
    Nothing,
    /// This node is new or has new metadata. A node (with all below it) that had to go is named.
    Placed {
        node: NodeId,
        removed: Option<NodeId>,
    },
}

/// The tree of one archive.
pub(crate) struct Tree {
    nodes: Vec<Node>,
    inodes: Vec<Inode>,
    names: Vec<u8>,
    index: HashMap<u64, u32>,
    hasher: RandomState,
    /// The directory of the entry before: archives come directory by directory.
    recent: (Vec<u8>, NodeId),
    metadata_limit: u64,
    metadata: u64,
}

impl Tree {
    pub(crate) fn new(limits: &Limits) -> Tree {
        let root = Node {
            parent: 0,
            name: 0,
            name_length: 0,
            inode: 0,
            first_child: NONE,
            next_sibling: NONE,
            chain: NONE,
            live: true,
            whited: false,
        };
        Tree {
            nodes: vec![root],
            inodes: vec![Inode::directory(0o755)],
            names: Vec::new(),
            index: HashMap::new(),
            hasher: RandomState::new(),
            recent: (Vec::new(), NodeId::ROOT),
            metadata_limit: limits.metadata_bytes.min(u64::from(u32::MAX)),
            metadata: 0,
        }
    }

    pub(crate) fn inode(&self, node: NodeId) -> &Inode {
        &self.inodes[self.nodes[node.0 as usize].inode as usize]
    }

    fn inode_mut(&mut self, node: NodeId) -> &mut Inode {
        &mut self.inodes[self.nodes[node.0 as usize].inode as usize]
    }

    /// The inode's index: equal for hard links.
    pub(crate) fn inode_number(&self, node: NodeId) -> u32 {
        self.nodes[node.0 as usize].inode
    }

    /// How many indexes [`Tree::inode_number`] can return.
    pub(crate) fn inode_count(&self) -> usize {
        self.inodes.len()
    }

    pub(crate) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn inode_at(&self, number: u32) -> &Inode {
        &self.inodes[number as usize]
    }

    pub(crate) fn parent_of(&self, node: NodeId) -> NodeId {
        NodeId(self.nodes[node.0 as usize].parent)
    }

    pub(crate) fn name(&self, node: NodeId) -> &[u8] {
        let node = &self.nodes[node.0 as usize];
        &self.names[node.name as usize..][..usize::from(node.name_length)]
    }

    /// The path from the root without a leading slash; empty for the root.
    pub(crate) fn path(&self, node: NodeId) -> Vec<u8> {
        let mut chain = Vec::new();
        let mut at = node;
        while at != NodeId::ROOT {
            chain.push(at);
            at = self.parent_of(at);
        }
        let mut path = Vec::new();
        for node in chain.into_iter().rev() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(self.name(node));
        }
        path
    }

    /// Live children, sorted by name.
    pub(crate) fn children(&self, node: NodeId) -> Vec<NodeId> {
        let mut children = Vec::new();
        let mut at = self.nodes[node.0 as usize].first_child;
        while at != NONE {
            let child = &self.nodes[at as usize];
            if child.live {
                children.push(NodeId(at));
            }
            at = child.next_sibling;
        }
        children.sort_unstable_by(|a, b| self.name(*a).cmp(self.name(*b)));
        children
    }

    /// A node and all that ever was below it, dead or alive.
    pub(crate) fn subtree(&self, node: NodeId) -> Vec<NodeId> {
        let mut all = vec![node];
        let mut next = 0;
        while let Some(at) = all.get(next).copied() {
            next += 1;
            let mut child = self.nodes[at.0 as usize].first_child;
            while child != NONE {
                all.push(NodeId(child));
                child = self.nodes[child as usize].next_sibling;
            }
        }
        all
    }

    /// The sum of the sizes of all files that are still there.
    pub(crate) fn content_size(&self) -> u64 {
        self.inodes
            .iter()
            .filter(|inode| inode.links > 0 && inode.is_regular())
            .map(|inode| inode.size)
            .sum()
    }

    /// Directories that no entry named, the root not counted.
    pub(crate) fn implicit_count(&self) -> u64 {
        self.inodes[1..]
            .iter()
            .filter(|inode| inode.implicit && inode.links > 0)
            .count() as u64
    }

    fn same_inode(&self, a: NodeId, b: NodeId) -> bool {
        self.inode_number(a) == self.inode_number(b)
    }

    fn is_below(&self, node: NodeId, ancestor: NodeId) -> bool {
        let mut at = node;
        while at != NodeId::ROOT {
            if at == ancestor {
                return true;
            }
            at = self.parent_of(at);
        }
        false
    }

    fn hash(&self, parent: NodeId, name: &[u8]) -> u64 {
        self.hasher.hash_one((parent.0, name))
    }

    fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        let mut at = *self.index.get(&self.hash(parent, name))?;
        while at != NONE {
            let node = &self.nodes[at as usize];
            if node.live && node.parent == parent.0 && self.name(NodeId(at)) == name {
                return Some(NodeId(at));
            }
            at = node.chain;
        }
        None
    }

    fn charge(&mut self, bytes: usize) -> Result<(), TarError> {
        self.metadata += bytes as u64;
        if self.metadata > self.metadata_limit {
            return Err(TarError::Limit {
                what: "bytes of metadata",
                limit: self.metadata_limit,
            });
        }
        Ok(())
    }

    fn add(&mut self, parent: NodeId, name: &[u8], inode: Inode) -> Result<NodeId, TarError> {
        self.charge(size_of::<Inode>())?;
        let number = self.inodes.len() as u32;
        self.inodes.push(inode);
        self.add_existing(parent, name, number)
    }

    fn add_existing(
        &mut self,
        parent: NodeId,
        name: &[u8],
        inode: u32,
    ) -> Result<NodeId, TarError> {
        self.charge(size_of::<Node>() + 16 + name.len())?;
        let id = self.nodes.len() as u32;
        let hash = self.hash(parent, name);
        let chain = self.index.insert(hash, id).unwrap_or(NONE);
        let start = self.names.len() as u32;
        self.names.extend_from_slice(name);
        let next_sibling = self.nodes[parent.0 as usize].first_child;
        self.nodes.push(Node {
            parent: parent.0,
            name: start,
            // normalise() refuses names beyond NAME_MAX, which is 255.
            name_length: name.len() as u8,
            inode,
            first_child: NONE,
            next_sibling,
            chain,
            live: true,
            whited: false,
        });
        self.nodes[parent.0 as usize].first_child = id;
        Ok(NodeId(id))
    }

    /// Removes a node and all below it.
    fn remove(&mut self, node: NodeId) {
        self.recent = (Vec::new(), NodeId::ROOT);
        let mut stack = vec![node.0];
        while let Some(at) = stack.pop() {
            let inode = self.nodes[at as usize].inode;
            if std::mem::take(&mut self.nodes[at as usize].live) {
                self.inodes[inode as usize].links -= 1;
            }
            let mut child = self.nodes[at as usize].first_child;
            while child != NONE {
                if self.nodes[child as usize].live {
                    stack.push(child);
                }
                child = self.nodes[child as usize].next_sibling;
            }
        }
    }
}
