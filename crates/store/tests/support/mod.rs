//! What the store's tests share: archives made by hand, and a walk over a tree that says all there is to compare.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use coracle_store::tar::{Entry, EntryKind, TarWriter};
use coracle_store::{Driver, Layer, LayerForm, Options, Result, Store};
use rustix::fs::OFlags;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

/// A raw header block, each field set by hand, then the checksum.
pub(crate) fn header(name: &[u8], kind: u8, size: u64, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut block = vec![0u8; 512];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000644");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"00000000000");
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    change(&mut block);
    checksum(&mut block);
    block
}

pub(crate) fn checksum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block[..512].iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Data padded to blocks.
pub(crate) fn padded(data: &[u8]) -> Vec<u8> {
    let mut out = data.to_vec();
    out.resize(data.len().next_multiple_of(512), 0);
    out
}

/// Parts, and the end of the archive.
pub(crate) fn archive(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut out = parts.concat();
    out.extend_from_slice(&[0; 1024]);
    out
}

/// A PAX header with these records.
pub(crate) fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (1..)
            .find(|length| rest + length.to_string().len() == *length)
            .unwrap();
        body.extend_from_slice(format!("{length} {key}=").as_bytes());
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    [
        header(b"pax", b'x', body.len() as u64, |_| {}),
        padded(&body),
    ]
    .concat()
}

/// A file.
pub(crate) fn file(path: &str, data: &[u8]) -> (Entry, Vec<u8>) {
    let mut entry = Entry::new(EntryKind::Regular, path.as_bytes());
    entry.mode = 0o644;
    entry.size = data.len() as u64;
    (entry, data.to_vec())
}

/// A directory.
pub(crate) fn directory(path: &str, mode: u32) -> (Entry, Vec<u8>) {
    let mut entry = Entry::new(EntryKind::Directory, path.as_bytes());
    entry.mode = mode;
    (entry, Vec::new())
}

/// A link of either kind.
pub(crate) fn link(kind: EntryKind, path: &str, target: &str) -> (Entry, Vec<u8>) {
    let mut entry = Entry::new(kind, path.as_bytes());
    entry.mode = 0o777;
    entry.link = target.as_bytes().to_vec();
    (entry, Vec::new())
}

/// Entries as an archive.
pub(crate) fn tar(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for (entry, data) in entries {
        writer.append(entry, &mut &data[..]).unwrap();
    }
    writer.finish().unwrap()
}

/// One file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, i64),
    /// A file's data, a symlink's target.
    pub(crate) content: Vec<u8>,
    pub(crate) device: u64,
    pub(crate) links: u64,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
}

/// Everything below a directory, itself as "".
pub(crate) fn walk(root: &Path) -> BTreeMap<String, Seen> {
    let mut out = BTreeMap::new();
    let mut stack = vec![root.to_owned()];
    while let Some(path) = stack.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let content = if kind.is_file() {
            fs::read(&path).unwrap()
        } else if kind.is_symlink() {
            fs::read_link(&path)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec()
        } else {
            Vec::new()
        };
        if kind.is_dir() {
            stack.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        let device = if kind.is_char_device() || kind.is_block_device() {
            metadata.rdev()
        } else {
            0
        };
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes();
        let seen = Seen {
            mode: metadata.mode(),
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            content,
            device,
            // A directory's number of links is the file system's business.
            links: if kind.is_dir() { 0 } else { metadata.nlink() },
            xattrs: if kind.is_symlink() {
                BTreeMap::new()
            } else {
                xattrs(&path)
            },
        };
        out.insert(String::from_utf8_lossy(name).into_owned(), seen);
    }
    out
}

pub(crate) fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = Vec::with_capacity(64 << 10);
    match rustix::fs::llistxattr(path, rustix::buffer::spare_capacity(&mut names)) {
        Ok(_) | Err(rustix::io::Errno::OPNOTSUPP) => {}
        Err(errno) => panic!("{}: {errno}", path.display()),
    }
    names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = Vec::with_capacity(64 << 10);
            rustix::fs::lgetxattr(path, name, rustix::buffer::spare_capacity(&mut value)).unwrap();
            (String::from_utf8_lossy(name).into_owned(), value)
        })
        .collect()
}

/// A layer that can be walked. The mount is detached: it goes with this, whatever happens.
pub(crate) struct Opened {
    _mount: Option<OwnedFd>,
    pub(crate) path: PathBuf,
}

pub(crate) fn open(layer: &Layer) -> Opened {
    match &layer.form {
        LayerForm::Directory(path) => Opened {
            _mount: None,
            path: path.clone(),
        },
        LayerForm::Erofs(path) => {
            let context = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
            rustix::mount::fsconfig_set_string(&context, "source", path).unwrap();
            rustix::mount::fsconfig_set_flag(&context, "ro").unwrap();
            rustix::mount::fsconfig_create(&context).unwrap();
            let mount = rustix::mount::fsmount(
                &context,
                FsMountFlags::FSMOUNT_CLOEXEC,
                MountAttrFlags::MOUNT_ATTR_RDONLY,
            )
            .unwrap();
            let root = rustix::fs::openat(
                &mount,
                ".",
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )
            .unwrap();
            let number = std::os::fd::AsRawFd::as_raw_fd(&root.as_fd());
            Opened {
                path: PathBuf::from(format!("/proc/self/fd/{number}/.")),
                _mount: Some(root),
            }
        }
    }
}

/// The drivers that this host has; the others are named with the reason.
pub(crate) fn stores(test: &str, options: Options) -> Vec<(tempfile::TempDir, Store)> {
    let mut out = Vec::new();
    for driver in [Driver::Erofs, Driver::Directory] {
        let place = tempfile::tempdir().unwrap();
        match Store::open(&place.path().join("store"), &Options { driver, ..options }) {
            Ok(store) => out.push((place, store)),
            Err(error) => eprintln!("SKIP: {test}: {driver:?}: {error}"),
        }
    }
    out
}

/// Ingests and says what the tree is then; the exact archive must come back, and the store must be sound.
pub(crate) fn ingest(store: &Store, archive: &[u8]) -> Result<BTreeMap<String, Seen>> {
    let layer = store.ingest_layer(archive, None)?;
    let mut back = Vec::new();
    std::io::Read::read_to_end(&mut layer.tar()?, &mut back).unwrap();
    assert!(
        back == archive,
        "the archive does not come back as it was ({:?})",
        store.driver()
    );
    assert_eq!(store.fsck(false)?.problems, vec![]);
    let opened = open(&layer);
    Ok(walk(&opened.path))
}

/// Am I root? Otherwise says why the test is skipped.
pub(crate) fn root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIP: {test}: owners and devices need root");
    }
    root
}

/// The text of an error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut at = error.source();
    while let Some(error) = at {
        text = format!("{text}: {error}");
        at = error.source();
    }
    text
}
