//! What a container changed: reading an overlay's upper directory.
//!
//! [`diff`] says it as Docker does (A, C, D), [`tar_of_upper`] as a layer, [`tar_of_tree`] writes a whole merged tree.
//! None of them needs the overlay to be mounted; lower layers are read where they lie.
//!
//! The overlay must have been mounted with `redirect_dir=off` (or `nofollow`), `metacopy=off`: what those features write into an
//! upper directory cannot be understood without it, and is refused by name.

mod archive;
mod diff;
mod lower;
mod read;

pub use archive::{tar_of_tree, tar_of_upper};
pub use diff::{Change, ChangeKind, diff};

/// From ids on disk to ids in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    /// User ids.
    pub uids: Vec<IdRange>,
    /// Group ids.
    pub gids: Vec<IdRange>,
}

/// `count` ids from `outside` on disk are `inside` and on in the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id in the container.
    pub inside: u32,
    /// First id on disk.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

impl IdMap {
    /// The ids on disk are the container's: an idmapped mount, or no user namespace.
    pub fn identity() -> IdMap {
        let all = vec![IdRange {
            inside: 0,
            outside: 0,
            count: u32::MAX,
        }];
        IdMap {
            uids: all.clone(),
            gids: all,
        }
    }

    fn uid(&self, id: u32) -> Option<u32> {
        inside(&self.uids, id)
    }

    fn gid(&self, id: u32) -> Option<u32> {
        inside(&self.gids, id)
    }
}

fn inside(ranges: &[IdRange], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.outside)?;
        (offset < range.count).then(|| range.inside.checked_add(offset))?
    })
}
