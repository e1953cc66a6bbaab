//! The leak check: what of ours is on the host after the tests that was not before.
//!
//! Only what carries our name is looked at, because other programs come and go on the same host meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::needs;

const NAME: &str = "coracle";

/// Where the default state, run-time state and the tests' own folders are.
const FOLDERS: [&str; 6] = [
    "/var/tmp",
    "/tmp",
    "/dev/shm",
    "/run/netns",
    "/run/coracle",
    "/var/lib/coracle",
];

/// Everything on the host that carries our name.
pub(crate) struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Looks at the host now.
    pub(crate) fn take() -> Snapshot {
        let mut seen = BTreeSet::new();
        seen.extend(mounts(
            &fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
        ));
        cgroups(Path::new("/sys/fs/cgroup"), 0, false, &mut seen);
        seen.extend(loop_devices());
        seen.extend(processes());
        seen.extend(files());
        seen.extend(tables());
        Snapshot(seen)
    }

    /// What came since and has not gone within ten seconds: monitors may take a moment to end.
    pub(crate) fn leaks_until_quiet(&self) -> Vec<String> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let now = Snapshot::take();
            let new: Vec<String> = now.0.difference(&self.0).cloned().collect();
            if new.is_empty() || Instant::now() > end {
                return new;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn is_ours(text: &str) -> bool {
    // The peers of the benchmarks keep a root and a mount namespace of their own, on purpose.
    text.contains(NAME) && !text.contains("coracle-peers") && !text.contains("coracle-images")
}

/// Mounts whose point, source or options name us, from the text of a mountinfo file.
fn mounts(mountinfo: &str) -> Vec<String> {
    mountinfo
        .lines()
        .filter(|line| is_ours(line))
        .map(|line| {
            let point = line.split(' ').nth(4).unwrap_or(line);
            format!("mount {point}")
        })
        .collect()
}

/// Our cgroups in every hierarchy. The empty parent `coracle` itself may stay: removing it would race with the next
/// container's creation.
fn cgroups(folder: &Path, depth: u8, ours: bool, seen: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || depth > 12 {
            continue;
        }
        let name = entry.file_name();
        if ours {
            // Once, although every hierarchy has it.
            seen.insert(format!("cgroup {NAME}/…/{}", name.display()));
        }
        let ours = ours || name.as_bytes() == NAME.as_bytes();
        cgroups(&entry.path(), depth + 1, ours, seen);
    }
}

fn loop_devices() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let file = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
            let name = entry.file_name();
            is_ours(&file).then(|| format!("loop device {} on {}", name.display(), file.trim()))
        })
        .collect()
}

/// Processes that run our binary, by their executable.
fn processes() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let program: PathBuf = fs::read_link(entry.path().join("exe")).ok()?;
            let name = program.file_name()?.to_str()?;
            let ours = name.trim_end_matches(" (deleted)") == NAME;
            ours.then(|| {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                format!("process {pid} {}", line.trim())
            })
        })
        .collect()
}

fn files() -> Vec<String> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        let ours = is_ours(folder);
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if ours || is_ours(&name.to_string_lossy()) {
                found.push(format!("file {}", entry.path().display()));
            }
        }
    }
    found
}

fn tables() -> Vec<String> {
    if !needs::is_installed("nft") || !rustix::process::geteuid().is_root() {
        return Vec::new();
    }
    let output = Command::new("nft").args(["list", "tables"]).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .lines()
        .filter(|line| is_ours(line))
        .map(|line| format!("nftables {line}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_ours_are_seen_and_the_peers_are_not() {
        let text = "21 1 0:5 / /proc rw - proc proc rw\n\
                    90 1 0:50 / /var/tmp/coracle-test-x/s/m rw - overlay overlay rw\n\
                    91 1 0:51 / /run/coracle-peers rw - tmpfs tmpfs rw\n";
        assert_eq!(mounts(text), ["mount /var/tmp/coracle-test-x/s/m"]);
    }

    #[test]
    fn cgroups_below_ours_are_seen_and_the_parent_is_not() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir_all(dir.path().join("memory/coracle/abc/inner")).expect("it is ours");
        fs::create_dir_all(dir.path().join("memory/other/abc")).expect("it is ours");
        let mut seen = BTreeSet::new();
        cgroups(dir.path(), 0, false, &mut seen);
        let names: Vec<&str> = seen
            .iter()
            .map(|line| line.rsplit('/').next().unwrap_or(line))
            .collect();
        assert_eq!(names, ["abc", "inner"]);
    }

    #[test]
    fn planted_file_is_a_leak() {
        let before = Snapshot::take();
        let planted = tempfile::Builder::new()
            .prefix("coracle-leak-")
            .tempdir_in("/var/tmp")
            .expect("a temporary folder");
        let now = Snapshot::take();
        let wanted = format!("file {}", planted.path().display());
        assert!(now.0.contains(&wanted) && !before.0.contains(&wanted));
    }
}
