//! Id ranges: each running container in a user namespace of its own gets 65,536 ids that no other running one has.
//!
//! A range is leased for one run only: files on disk carry the ids as seen inside (idmapped mounts), so that the next
//! run may get another. A lease is one symbolic link, whose name is the range's number and whose text is
//! the container's id; the search starts at a number drawn from the id, so that it costs the same with one container
//! as with a thousand. A lease of a container that has no run directory is a leftover and taken over.
//!
//! The ranges fill 1,879,048,192 … 2,147,352,575 (0x7000_0000 and up), which no distribution gives to users, services
//! or systemd's own containers (systemd, UIDS-GIDS.md).

use coracle_oci::ContainerId;

use crate::error::{Error, Result};
use crate::state::{self, Paths};

/// Ids in one range.
pub(crate) const RANGE: u32 = 65_536;
const FIRST: u32 = 0x7000_0000;
const RANGES: u32 = 4_094;

/// The first id outside of a range.
pub(crate) fn first_id(range: u32) -> u32 {
    FIRST + range * RANGE
}

/// The range at which the search for this container begins.
pub(crate) fn preferred(id: &ContainerId) -> u32 {
    let digits = &id.as_str()[..8];
    u32::from_str_radix(digits, 16).unwrap_or(0) % RANGES
}

/// Leases a range for this container.
pub(crate) fn take(paths: &Paths, id: &ContainerId) -> Result<u32> {
    let start = preferred(id);
    for step in 0..RANGES {
        let range = (start + step) % RANGES;
        let file = paths.ids().join(range.to_string());
        if state::claim(&file, id)? {
            return Ok(range);
        }
        let leftover = match state::read_claim(&file)? {
            Some(holder) => holder == *id || !paths.run_of(&holder).exists(),
            None => true,
        };
        // Of two that clear the same leftover away, the claim decides.
        if leftover {
            state::delete_file(&file)?;
            if state::claim(&file, id)? {
                return Ok(range);
            }
        }
    }
    Err(Error::refused_with(
        format!("no range of user ids is free: {RANGES} containers run in ranges of their own"),
        "stop some, or start this one with --userns host",
    ))
}

/// The range that this container holds, if any: where the search for one would have ended.
pub(crate) fn find(paths: &Paths, id: &ContainerId) -> Result<Option<u32>> {
    let start = preferred(id);
    for step in 0..RANGES {
        let range = (start + step) % RANGES;
        match state::read_claim(&paths.ids().join(range.to_string()))? {
            Some(holder) if holder == *id => return Ok(Some(range)),
            Some(_) => {}
            None => return Ok(None),
        }
    }
    Ok(None)
}

/// Gives the range back if it is this container's.
pub(crate) fn give_back(paths: &Paths, range: u32, id: &ContainerId) -> Result<()> {
    let file = paths.ids().join(range.to_string());
    match state::read_claim(&file)? {
        Some(holder) if holder == *id => state::delete_file(&file),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> (tempfile::TempDir, Paths) {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths {
            root: directory.path().join("root"),
            run: directory.path().join("run"),
        };
        for made in [paths.runs(), paths.ids()] {
            state::make_directory(&made).unwrap();
        }
        (directory, paths)
    }

    fn running(paths: &Paths, bits: [u8; 32]) -> ContainerId {
        let id = ContainerId::from_bytes(bits);
        state::make_directory(&paths.run_of(&id)).unwrap();
        id
    }

    #[test]
    fn two_running_containers_never_share_a_range() {
        let (_directory, paths) = paths();
        let mut other = [0xaa; 32];
        other[31] = 1;
        let (one, two) = (running(&paths, [0xaa; 32]), running(&paths, other));
        assert_eq!(preferred(&one), preferred(&two));
        assert_ne!(take(&paths, &one).unwrap(), take(&paths, &two).unwrap());
    }

    #[test]
    fn a_range_of_a_vanished_run_is_taken_over() {
        let (_directory, paths) = paths();
        let one = running(&paths, [0xab; 32]);
        let range = take(&paths, &one).unwrap();
        std::fs::remove_dir(paths.run_of(&one)).unwrap();
        let mut bits = [0xab; 32];
        bits[31] = 9;
        let two = running(&paths, bits);
        assert_eq!(take(&paths, &two).unwrap(), range);
        give_back(&paths, range, &one).unwrap();
        assert!(
            state::read_claim(&paths.ids().join(range.to_string()))
                .unwrap()
                .is_some()
        );
        give_back(&paths, range, &two).unwrap();
        assert!(
            state::read_claim(&paths.ids().join(range.to_string()))
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn the_last_range_ends_below_the_highest_signed_id() {
        assert!(first_id(RANGES - 1) + (RANGE - 1) < 0x7fff_0000);
    }
}
