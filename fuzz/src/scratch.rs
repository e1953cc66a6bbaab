//! A directory to write into, and the proof that nothing was written beside it.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

const KEPT: &[u8] = b"nobody writes here\n";

/// ```text
/// T/inside/           may be written
/// T/outside/kept      must stay as it is, alone
/// T/outside/file      reached from inside by ../outside/file and by ../../outside/file from one directory below
/// ```
pub(crate) struct Scratch {
    dir: TempDir,
}

impl Scratch {
    /// An empty one.
    pub(crate) fn new() -> Scratch {
        let dir = tempfile::Builder::new()
            .prefix("coracle-fuzz-")
            .tempdir()
            .expect("a directory can be made");
        fs::create_dir(dir.path().join("inside")).expect("it is ours");
        fs::create_dir(dir.path().join("outside")).expect("it is ours");
        fs::write(dir.path().join("outside/kept"), KEPT).expect("it is ours");
        Scratch { dir }
    }

    /// What may be written.
    pub(crate) fn inside(&self) -> PathBuf {
        self.dir.path().join("inside")
    }

    /// Panics if anything beside it was touched.
    pub(crate) fn check(&self) {
        assert_eq!(names(self.dir.path()), ["inside", "outside"]);
        let outside = self.dir.path().join("outside");
        assert_eq!(names(&outside), ["kept"]);
        let kept = outside.join("kept");
        let metadata = fs::symlink_metadata(&kept).expect("it is still there");
        assert!(metadata.is_file());
        assert_eq!(std::os::unix::fs::MetadataExt::nlink(&metadata), 1);
        assert_eq!(fs::read(&kept).expect("it is still a file"), KEPT);
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("it is still a directory");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("it can be listed").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
