//! Ground for what is timed: a file system that nothing was ever deleted from, because an ext4 without a journal makes files
//! up to ten times slower for minutes after a large deletion and the tests delete much; and a tmpfs for run-time state, as
//! /run is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use coracle_tests::Engine;
use tempfile::TempDir;

use super::measure::time;

/// Makes a sparse file with a small ext4 in `folder`.
pub(super) fn image(folder: &Path) -> PathBuf {
    let image = folder.join("image");
    let file = fs::File::create(&image).expect("a file can be made");
    file.set_len(4 << 30).expect("a sparse file");
    time(Command::new("mkfs.ext4").arg("-q").arg(&image));
    image
}

/// A small ext4 on a loop device and a tmpfs, mounted; gone when dropped.
pub(super) struct Fresh {
    dir: TempDir,
}

impl Fresh {
    /// Makes them in a folder of `parent`; needs root.
    pub(super) fn make(parent: &Path) -> Fresh {
        let dir = tempfile::Builder::new()
            .prefix("coracle-test-fs-")
            .tempdir_in(parent)
            .expect("a folder can be made");
        let image = image(dir.path());
        let fresh = Fresh { dir };
        for point in [fresh.disk(), fresh.run()] {
            fs::create_dir(point).expect("a folder can be made");
        }
        time(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(fresh.disk()),
        );
        time(
            Command::new("mount")
                .args(["-t", "tmpfs", "tmpfs"])
                .arg(fresh.run()),
        );
        fresh
    }

    /// Where the disk is mounted.
    pub(super) fn disk(&self) -> PathBuf {
        self.dir.path().join("m")
    }

    /// Where the tmpfs is mounted.
    pub(super) fn run(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// An engine with busybox whose state is on them. It goes first.
    pub(super) fn engine(&self) -> Engine {
        Engine::with_state(&self.disk(), &self.run())
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        for point in [self.run(), self.disk()] {
            let status = Command::new("umount").arg(&point).status();
            if !status.as_ref().is_ok_and(|status| status.success()) {
                eprintln!("{} could not be unmounted: {status:?}", point.display());
            }
        }
    }
}

/// The ground, where this user may mount it, and an engine with busybox on it. Bound in this order, the engine goes first.
pub(super) fn engine() -> (Option<Fresh>, Engine) {
    if !rustix::process::geteuid().is_root() {
        return (None, Engine::new());
    }
    let fresh = Fresh::make(Path::new("/var/tmp"));
    let engine = fresh.engine();
    (Some(fresh), engine)
}
