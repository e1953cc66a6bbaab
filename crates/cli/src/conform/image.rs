//! Images for the tests, made here: this binary, and a few files to change.

use std::fs::File;
use std::io;

use coracle_store::tar::{Entry, EntryKind, TarWriter};

/// What [`plain`] has in `/data`: name and content.
pub(super) const FILES: [(&str, &str); 2] = [("file", "original\n"), ("gone", "to be deleted\n")];

/// Size of a file that would show in the disk's use if an engine copied the image.
const BALLAST: usize = 8 << 20;

/// An image with this binary, mount points, and `/data`.
pub(super) fn plain() -> Result<Vec<u8>, String> {
    let mut tar = Tar::new();
    for directory in ["data", "dev", "etc", "proc", "run", "sys", "tmp"] {
        tar.directory(directory);
    }
    for name in ["hostname", "hosts", "resolv.conf"] {
        tar.file(&format!("etc/{name}"), b"");
    }
    tar.file("etc/passwd", b"root:x:0:0:root:/:/bin/false\n");
    tar.file("etc/group", b"root:x:0:\n");
    for (name, content) in FILES {
        tar.file(&format!("data/{name}"), content.as_bytes());
    }
    tar.file("data/ballast", &ballast());
    tar.program()?;
    tar.finish()
}

/// An image where each place that engines mount something is a link to `target`.
pub(super) fn links(target: &str) -> Result<Vec<u8>, String> {
    let mut tar = Tar::new();
    tar.directory("etc");
    for name in [
        "dev",
        "proc",
        "sys",
        "run",
        "tmp",
        "data",
        "etc/hostname",
        "etc/hosts",
        "etc/resolv.conf",
    ] {
        tar.link(name, target);
    }
    tar.program()?;
    tar.finish()
}

/// Bytes that no compression or deduplication makes smaller.
fn ballast() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(BALLAST);
    while bytes.len() < BALLAST {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// An archive in memory.
struct Tar(TarWriter<Vec<u8>>, io::Result<()>);

impl Tar {
    fn new() -> Self {
        Self(TarWriter::new(Vec::new()), Ok(()))
    }

    fn append(&mut self, mut entry: Entry, mode: u32, mut data: impl io::Read) {
        entry.mode = mode;
        if self.1.is_ok() {
            self.1 = self.0.append(&entry, &mut data);
        }
    }

    fn directory(&mut self, path: &str) {
        self.append(
            Entry::new(EntryKind::Directory, path.as_bytes()),
            0o755,
            io::empty(),
        );
    }

    fn file(&mut self, path: &str, content: &[u8]) {
        let mut entry = Entry::new(EntryKind::Regular, path.as_bytes());
        entry.size = content.len() as u64;
        self.append(entry, 0o644, content);
    }

    fn link(&mut self, path: &str, target: &str) {
        let mut entry = Entry::new(EntryKind::Symlink, path.as_bytes());
        entry.link = target.as_bytes().to_vec();
        self.append(entry, 0o777, io::empty());
    }

    fn program(&mut self) -> Result<(), String> {
        let failed = |error: io::Error| format!("this program cannot read itself: {error}");
        let file = File::open("/proc/self/exe").map_err(failed)?;
        let mut entry = Entry::new(
            EntryKind::Regular,
            super::subject::PROGRAM.trim_start_matches('/').as_bytes(),
        );
        entry.size = file.metadata().map_err(failed)?.len();
        self.append(entry, 0o755, file);
        Ok(())
    }

    fn finish(self) -> Result<Vec<u8>, String> {
        self.1
            .and_then(|()| self.0.finish())
            .map_err(|error| format!("the image cannot be made: {error}"))
    }
}
