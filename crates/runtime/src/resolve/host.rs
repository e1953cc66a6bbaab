//! What the caller is allowed, which decides who makes what.

use coracle_linux::capability::{self, Set};
use coracle_linux::kernel;
use rustix::fs::stat;
use rustix::process::{getegid, geteuid};
use rustix::thread::{Gid, Uid};

use crate::Error;
use crate::request::{IdMapping, Map};

/// The inode number of the first user namespace, fixed in the kernel's ABI (`PROC_USER_INIT_INO`).
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// The caller's powers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    /// Effective capabilities in its user namespace.
    pub(crate) capabilities: Set,
    /// It lives in the first user namespace.
    pub(crate) initial: bool,
    /// It may make detached mounts: root and bind sources are its work, not the child's.
    pub(crate) may_mount: bool,
    /// Supplementary groups can be set inside.
    pub(crate) may_set_groups: bool,
}

impl Host {
    pub(crate) fn look(ids: &IdMapping) -> Result<Self, Error> {
        let capabilities = capability::effective()
            .map_err(|source| Error::host("reading", "our own capabilities", source))?;
        let initial = stat(c"/proc/self/ns/user")
            .map_err(|source| Error::host("looking at", "/proc/self/ns/user", source))?
            .st_ino
            == FIRST_USER_NAMESPACE;
        let host = Self {
            capabilities,
            initial,
            may_mount: false,
            may_set_groups: false,
        };
        let may_mount = host.has("CAP_SYS_ADMIN") && kernel::may_mount();
        let rights = match ids {
            IdMapping::Host => host.has("CAP_SETGID"),
            IdMapping::Own { .. } | IdMapping::Join { .. } => host.may_map_any(),
        };
        // Denied once, it is denied in all namespaces below.
        let may_set_groups = rights
            && (initial
                || std::fs::read_to_string("/proc/self/setgroups")
                    .is_ok_and(|setting| setting.trim() == "allow"));
        Ok(Self {
            may_mount,
            may_set_groups,
            ..host
        })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        capability::number(name).is_some_and(|number| self.capabilities.contains(number))
    }

    /// It may write maps of any ids, and so needs not deny setgroups.
    pub(crate) fn may_map_any(&self) -> bool {
        self.has("CAP_SETUID") && self.has("CAP_SETGID")
    }

    /// It can raise hard limits.
    pub(crate) fn may_raise_limits(&self) -> bool {
        self.initial && self.has("CAP_SYS_RESOURCE")
    }

    /// The ids of the root of the container's user namespace as the container sees them, if it has one of its own.
    pub(crate) fn root_ids(&self, ids: &IdMapping) -> Option<(Uid, Gid, bool)> {
        let (uids, gids) = match ids {
            IdMapping::Host => return None,
            IdMapping::Own { uids, gids } | IdMapping::Join { uids, gids, .. } => (uids, gids),
        };
        Some((
            Uid::from_raw(first(uids)),
            Gid::from_raw(first(gids)),
            self.may_set_groups,
        ))
    }
}

/// 0 if it is mapped, else the lowest that is.
fn first(maps: &[Map]) -> u32 {
    maps.iter().map(|map| map.inside).min().unwrap_or(0)
}

/// The outside id of inside `id`.
pub(crate) fn outside(maps: &[Map], id: u32) -> Option<u32> {
    maps.iter()
        .find(|map| id >= map.inside && id - map.inside < map.count)
        .map(|map| map.outside + (id - map.inside))
}

/// Checks maps as the kernel will, for errors that say what is wrong.
pub(crate) fn check_maps(what: &str, maps: &[Map]) -> Result<(), Error> {
    if maps.is_empty() || maps.len() > 340 {
        return Err(Error::invalid(
            what,
            "a user namespace needs between 1 and 340 ranges of ids",
        ));
    }
    let mut inside: Vec<(u64, u64)> = Vec::new();
    let mut outer: Vec<(u64, u64)> = Vec::new();
    for map in maps {
        let text = format!("{what} {}:{}:{}", map.inside, map.outside, map.count);
        let count = u64::from(map.count);
        let (from, to) = (u64::from(map.inside), u64::from(map.outside));
        if count == 0 || from + count > u64::from(u32::MAX) || to + count > u64::from(u32::MAX) {
            return Err(Error::invalid(
                text,
                "the range is empty or goes past the last id",
            ));
        }
        let overlap = |taken: &[(u64, u64)], start: u64| {
            taken
                .iter()
                .any(|&(s, c)| start < s + c && s < start + count)
        };
        if overlap(&inside, from) || overlap(&outer, to) {
            return Err(Error::invalid(text, "the range overlaps with another one"));
        }
        inside.push((from, count));
        outer.push((to, count));
    }
    Ok(())
}

/// Whether `maps` is the one id that the caller is itself, which it may map without any right.
pub(crate) fn is_single(uids: &[Map], gids: &[Map]) -> bool {
    let one = |maps: &[Map], id: u32| matches!(maps, [map] if map.count == 1 && map.outside == id);
    one(uids, geteuid().as_raw()) && one(gids, getegid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(inside: u32, outside: u32, count: u32) -> Map {
        Map {
            inside,
            outside,
            count,
        }
    }

    #[test]
    fn maps_that_the_kernel_would_refuse_are_refused_with_a_reason() {
        for (maps, why) in [
            (vec![], "between 1 and 340"),
            (vec![map(0, 1, 0)], "empty"),
            (vec![map(0, u32::MAX - 1, 2)], "past the last"),
            (vec![map(0, 1000, 10), map(9, 3000, 1)], "overlaps"),
            (vec![map(0, 1000, 10), map(10, 1009, 1)], "overlaps"),
        ] {
            let error = check_maps("uids", &maps).expect_err("refused").to_string();
            assert!(error.contains(why), "{error}");
        }
        check_maps("uids", &[map(0, 1000, 10), map(10, 5000, 5)]).expect("sound maps");
    }

    #[test]
    fn an_id_is_found_in_its_range() {
        let maps = [map(0, 100_000, 10), map(1000, 1000, 1)];
        assert_eq!(outside(&maps, 0), Some(100_000));
        assert_eq!(outside(&maps, 9), Some(100_009));
        assert_eq!(outside(&maps, 10), None);
        assert_eq!(outside(&maps, 1000), Some(1000));
    }
}
