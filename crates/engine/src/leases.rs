//! Id ranges: each running container in a user namespace of its own gets 65,536 ids that no other running one has.
//!
//! A range is leased for one run only: files on disk carry the ids as seen inside (idmapped mounts), so that the next
//! run may get another. A lease is one file, made exclusively, whose name is the range's number and whose content is
//! the container's id; the search starts at a number drawn from the id, so that it costs the same with one container
//! as with a thousand. A lease of a container that has no run directory is a leftover and taken over.
//!
//! The ranges fill 1,879,048,192 … 2,147,352,575 (0x7000_0000 and up), which no distribution gives to users, services
//! or systemd's own containers (systemd, UIDS-GIDS.md).

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

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
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file);
        match made {
            Ok(mut lease) => {
                lease
                    .write_all(id.as_str().as_bytes())
                    .map_err(|source| Error::file("writing", &file, source))?;
                return Ok(range);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let holder = state::read(&file)?.unwrap_or_default();
                let holder = String::from_utf8_lossy(&holder)
                    .trim()
                    .parse::<ContainerId>()
                    .ok();
                // An empty lease is one being written: it is nobody's to take until it names its holder.
                let leftover =
                    holder.is_some_and(|holder| holder == *id || !paths.run_of(&holder).exists());
                if leftover && take_over(paths, range, id)? {
                    return Ok(range);
                }
            }
            Err(source) => return Err(Error::file("making", &file, source)),
        }
    }
    Err(Error::refused_with(
        format!("no range of user ids is free: {RANGES} containers run in ranges of their own"),
        "stop some, or start this one with --userns host",
    ))
}

/// Renames a lease of our own over the leftover, and looks whether it is still ours: of two that do so, one wins.
fn take_over(paths: &Paths, range: u32, id: &ContainerId) -> Result<bool> {
    let file = paths.ids().join(range.to_string());
    state::replace(&file, id.as_str().as_bytes())?;
    Ok(state::read(&file)?.is_some_and(|text| text == id.as_str().as_bytes()))
}

/// Gives the range back if it is this container's.
pub(crate) fn give_back(paths: &Paths, range: u32, id: &ContainerId) -> Result<()> {
    let file = paths.ids().join(range.to_string());
    match state::read(&file)? {
        Some(text) if text == id.as_str().as_bytes() => state::delete_file(&file),
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
        assert!(paths.ids().join(range.to_string()).exists());
        give_back(&paths, range, &two).unwrap();
        assert!(!paths.ids().join(range.to_string()).exists());
    }

    #[test]
    fn the_last_range_ends_below_the_highest_signed_id() {
        assert!(first_id(RANGES - 1) + (RANGE - 1) < 0x7fff_0000);
    }
}
