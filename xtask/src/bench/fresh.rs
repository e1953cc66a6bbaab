//! A file system that nothing was ever deleted from: an ext4 without a journal makes files up to ten times slower for
//! minutes after a large deletion, and the tests delete much just before the quick benchmarks run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use coracle_tests::Engine;
use tempfile::TempDir;

use super::measure::time;

/// A small ext4 on a loop device, mounted; gone when dropped.
pub(super) struct Fresh {
    dir: TempDir,
}

impl Fresh {
    /// Makes one in a folder of `parent`; needs root.
    pub(super) fn make(parent: &Path) -> Fresh {
        let dir = tempfile::Builder::new()
            .prefix("coracle-test-fs-")
            .tempdir_in(parent)
            .expect("a folder can be made");
        let (image, point) = (dir.path().join("image"), dir.path().join("m"));
        let file = fs::File::create(&image).expect("a file can be made");
        file.set_len(4 << 30).expect("a sparse file");
        fs::create_dir(&point).expect("a folder can be made");
        time(Command::new("mkfs.ext4").arg("-q").arg(&image));
        time(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(&point),
        );
        Fresh { dir }
    }

    /// Where it is mounted.
    pub(super) fn point(&self) -> PathBuf {
        self.dir.path().join("m")
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(self.point()).status();
        if !status.as_ref().is_ok_and(|status| status.success()) {
            eprintln!(
                "{} could not be unmounted: {status:?}",
                self.point().display()
            );
        }
    }
}

/// The fresh file system, if there is one, and an engine with busybox whose state is on it. Bound in this order, the
/// engine goes first.
///
/// Beside peers its state is on the same disk as theirs, fresh or not: a ratio needs equal ground. Alone, where only
/// milliseconds are compared with a limit, the ground is to be a clean one, if this user may mount it.
pub(super) fn engine(beside_peers: bool) -> (Option<Fresh>, Engine) {
    if beside_peers || !rustix::process::geteuid().is_root() {
        return (None, Engine::new());
    }
    let fresh = Fresh::make(Path::new("/var/tmp"));
    let engine = Engine::with_state(&fresh.point());
    (Some(fresh), engine)
}
