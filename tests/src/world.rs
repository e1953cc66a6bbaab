//! What one engine has on the host, and what of it is left over although nothing of the engine's should be there.
//!
//! The check is one for all: files in the engine's two folders, mounts, loop devices, cgroups, locks, processes. A file or
//! a mount is a leftover if it was not there when the engine was last at rest; everything else if it is there at all.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Engine, host};

/// Monitors and containers end a moment after the command that ends them.
const PATIENCE: Duration = Duration::from_secs(6);

/// An engine without containers and volumes: what may be there.
#[derive(Clone, Debug)]
pub struct World {
    files: BTreeSet<PathBuf>,
    mounts: Vec<PathBuf>,
}

impl World {
    /// Takes the engine as it is now for one at rest.
    pub fn at_rest(engine: &Engine) -> World {
        World {
            files: files(engine),
            mounts: host::mounts_under(engine.dir()),
        }
    }

    /// What is left over after at most a few seconds, in words. `ids` are those of containers that were; `mark` is
    /// in the command line of all their programs.
    pub fn leftovers(&self, engine: &Engine, ids: &BTreeSet<String>, mark: &str) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = self.now(engine, ids, mark);
            if left.is_empty() || Instant::now() > end {
                return left;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn now(&self, engine: &Engine, ids: &BTreeSet<String>, mark: &str) -> Vec<String> {
        let mut left = Vec::new();
        let files = files(engine);
        for file in files.difference(&self.files) {
            left.push(format!("file {}", file.display()));
        }
        let mut known = self.mounts.clone();
        for mount in host::mounts_under(engine.dir()) {
            // Two on one point are two.
            match known.iter().position(|one| *one == mount) {
                Some(place) => drop(known.swap_remove(place)),
                None => left.push(format!("mount {}", mount.display())),
            }
        }
        left.extend(loop_devices(engine.dir()));
        for cgroup in ids.iter().flat_map(|id| cgroups(id)) {
            left.push(format!("cgroup {}", cgroup.display()));
        }
        left.extend(locks(&files));
        for pid in engine.processes() {
            left.push(format!("process {pid}: {}", host::command_line(pid)));
        }
        for pid in host::processes_naming(Path::new(mark)) {
            left.push(format!("container's process {pid}"));
        }
        left
    }
}

/// Every path in the engine's two folders.
fn files(engine: &Engine) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for folder in [engine.root(), engine.run_root()] {
        walk(folder, &mut found);
    }
    found
}

fn walk(folder: &Path, into: &mut BTreeSet<PathBuf>) {
    // What vanishes meanwhile is not left over.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), into);
        }
        into.insert(entry.path());
    }
}

fn loop_devices(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            // Only a loop device that is in use has this file.
            let file = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
            let ours = Path::new(file.trim()).starts_with(folder);
            ours.then(|| format!("loop device {} on {}", entry.path().display(), file.trim()))
        })
        .collect()
}

/// The cgroups of a container in every hierarchy.
pub fn cgroups(id: &str) -> Vec<PathBuf> {
    let below = |top: &Path| top.join("coracle").join(id);
    let top = Path::new("/sys/fs/cgroup");
    let mut places = vec![below(top)];
    let hierarchies = fs::read_dir(top).into_iter().flatten().flatten();
    places.extend(hierarchies.map(|entry| below(&entry.path())));
    places.retain(|place| place.exists());
    places
}

/// Locks on the engine's files that somebody holds.
fn locks(files: &BTreeSet<PathBuf>) -> Vec<String> {
    let text = fs::read_to_string("/proc/locks").unwrap_or_default();
    let held: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| {
            line.split_whitespace()
                .find(|word| word.matches(':').count() == 2)
        })
        .collect();
    if held.is_empty() {
        return Vec::new();
    }
    let mut left = Vec::new();
    for file in files {
        let Ok(metadata) = fs::symlink_metadata(file) else {
            continue;
        };
        let (major, minor) = (
            rustix::fs::major(metadata.dev()),
            rustix::fs::minor(metadata.dev()),
        );
        if held.contains(format!("{major:02x}:{minor:02x}:{}", metadata.ino()).as_str()) {
            left.push(format!("lock on {}", file.display()));
        }
    }
    left
}
