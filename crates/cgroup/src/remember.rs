//! What [`Manager::open`] found out, kept by whoever starts many containers: finding out costs 0.3 ms after idle (the
//! kernel writes the whole of `/proc/self/mountinfo` for it), believing it again about a tenth.
//!
//! Believed only where nothing can have changed: the same mount namespace and user, only roots of hierarchies as bases
//! (which do not depend on the cgroup that we are in), and each base still the same file system.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::layout::{Decision, Layout};
use crate::manager::Manager;

/// What was found out, to be kept in a file under `/run` (it must not outlive the boot).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    prefix: String,
    user: u32,
    /// Inode numbers of the mount namespace and the cgroup namespace, which names of cgroups are relative to.
    namespaces: [u64; 2],
    /// Device numbers of the bases, in the order of [`bases`].
    devices: Vec<u64>,
    decision: Decision,
}

impl Manager {
    /// What this manager found out, if another command may rely on it.
    pub fn remember(&self) -> Option<Remembered> {
        let decision = self.decision();
        let roots = decision
            .unified
            .iter()
            .all(|unified| unified.base == unified.mount_point && !unified.may_vacate)
            && decision
                .legacy
                .iter()
                .all(|legacy| legacy.base == legacy.mount_point)
            && decision.closed.is_empty();
        if !roots || matches!(decision.layout, Layout::Unavailable { .. }) {
            return None;
        }
        Some(Remembered {
            prefix: self.prefix().to_owned(),
            user: rustix::process::geteuid().as_raw(),
            namespaces: namespaces()?,
            devices: bases(decision)
                .map(|base| device(base))
                .collect::<Option<_>>()?,
            decision: decision.clone(),
        })
    }

    /// The manager that was remembered; `None` if anything is different now: then [`Manager::open`] finds out anew.
    pub fn recall(prefix: &str, remembered: Remembered) -> Option<Manager> {
        let holds = remembered.prefix == prefix
            && remembered.user == rustix::process::geteuid().as_raw()
            && Some(remembered.namespaces) == namespaces()
            && bases(&remembered.decision).count() == remembered.devices.len()
            && bases(&remembered.decision)
                .zip(&remembered.devices)
                .all(|(base, known)| device(base) == Some(*known));
        holds.then(|| Manager::from_decision(prefix, remembered.decision))
    }
}

fn bases(decision: &Decision) -> impl Iterator<Item = &PathBuf> {
    let unified = decision.unified.iter().map(|unified| &unified.base);
    unified.chain(decision.legacy.iter().map(|legacy| &legacy.base))
}

fn device(path: &Path) -> Option<u64> {
    rustix::fs::stat(path).ok().map(|stat| stat.st_dev)
}

fn namespaces() -> Option<[u64; 2]> {
    let inode = |name: &str| {
        rustix::fs::stat(Path::new(name))
            .ok()
            .map(|stat| stat.st_ino)
    };
    Some([inode("/proc/self/ns/mnt")?, inode("/proc/self/ns/cgroup")?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_out_is_believed_only_where_it_holds() {
        let manager = Manager::open("coracle-test").unwrap();
        let Some(remembered) = manager.remember() else {
            eprintln!(
                "SKIP: what_was_found_out_is_believed_only_where_it_holds: {:?}",
                manager.layout()
            );
            return;
        };
        let json = serde_json::to_string(&remembered).unwrap();
        let read: Remembered = serde_json::from_str(&json).unwrap();
        let recalled = Manager::recall("coracle-test", read.clone()).unwrap();
        assert_eq!(recalled.decision(), manager.decision());
        assert!(Manager::recall("other", read.clone()).is_none());
        let mut moved = read.clone();
        moved.namespaces[0] += 1;
        assert!(Manager::recall("coracle-test", moved).is_none());
        let mut covered = read.clone();
        covered.devices[0] += 1;
        assert!(Manager::recall("coracle-test", covered).is_none());
        let mut other_user = read;
        other_user.user += 1;
        assert!(Manager::recall("coracle-test", other_user).is_none());
    }
}
