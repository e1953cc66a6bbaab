//! Entry points for fuzzing: an archive taken in by both drivers, and a layer file that was damaged.
//!
//! Both panic where something that must hold does not.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::erofs::reader::{Image, Stat};
use crate::{Durability, Layer, Limits, Options, Ownership, directory, erofs};

/// Kind and size by path.
type Tree = BTreeMap<Vec<u8>, (u16, u64)>;

/// Directories deeper than this are not followed: a damaged index may have cycles.
const DEPTH: usize = 64;
/// More inodes are not looked at.
const MOST: usize = 4096;

/// Takes `archive` in with both drivers, below `place`, which is empty before and may be removed after.
///
/// # Panics
/// Where one refuses what is sound to the other, what came is not what goes out, or a layer does not pass its own
/// verification.
pub fn ingest(archive: &[u8], place: &Path, limits: &Limits) {
    let durability = Durability::Relaxed;
    let layer_file = place.join("layer.erofs");
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&layer_file)
        .expect("a file can be made");
    let in_file = erofs::ingest(archive, &file, &layer_file, limits, durability);
    let layer_directory = place.join("layer.dir");
    fs::create_dir(&layer_directory).expect("a directory can be made");
    let ownership = if rustix::process::geteuid().is_root() {
        Ownership::Exact
    } else {
        Ownership::Squash
    };
    let in_directory = directory::ingest(archive, &layer_directory, limits, ownership, durability);
    if let Ok(header) = &in_file {
        erofs::verify(&file, &layer_file, &header.diff_id).expect("what was written is sound");
        let layer = Layer::from_file(&layer_file).expect("what was written can be read");
        came_back(&layer, archive);
        let image = Image::open(&layer_file).expect("what was written is an index");
        let mut tree = Tree::new();
        let root = image.root().expect("it has a root");
        walk(&image, &root, false, &mut Vec::new(), &mut tree).expect("an index of ours is sound");
    }
    match (&in_file, &in_directory) {
        (Ok(file), Ok(directory)) => {
            assert_eq!(file.diff_id, directory.diff_id);
            assert_eq!(file.tar_size, directory.size);
            assert_eq!(file.content_size, directory.content_size);
            assert_eq!(file.implicit, directory.implicit);
            directory::verify(&layer_directory, &directory.diff_id, limits)
                .expect("what was unpacked is sound");
            let layer = Layer::from_directory(&layer_directory).expect("it describes itself");
            came_back(&layer, archive);
        }
        // What cannot be made here (a device as an ordinary user, a name that this file system does not take) is the
        // host's refusal, not the archive's.
        (Ok(_), Err(error)) => assert!(
            !matches!(error, crate::Error::Tar(_)),
            "only the directory driver calls the archive unsound: {error}"
        ),
        (Err(error), Ok(_)) => panic!("only the file driver refuses: {error}"),
        (Err(_), Err(_)) => {}
    }
}

fn came_back(layer: &Layer, archive: &[u8]) {
    let mut back = Vec::new();
    layer
        .tar()
        .and_then(|mut tar| {
            tar.read_to_end(&mut back)
                .map_err(crate::Error::io("read", Path::new("layer")))
        })
        .expect("a layer gives its archive back");
    assert!(back == archive, "the archive comes back as it was");
}

/// Walks the layer file in `bytes`, whose checksums are made to fit first: what is behind them must bear damage too.
/// The file is made at `path`.
///
/// # Panics
/// Where a damaged file is more than an error.
pub fn index(bytes: &[u8], path: &Path) {
    let mut bytes = bytes.to_vec();
    erofs::seal(&mut bytes);
    fs::write(path, &bytes).expect("a file can be written");
    let Ok(layer) = Layer::from_file(path) else {
        return;
    };
    let file = File::open(path).expect("it was just written");
    // Damage is what it must find; that it finds it without a panic is the point.
    let _ = erofs::verify(&file, path, &layer.diff_id);
    let Ok(image) = Image::open(path) else { return };
    let Ok(root) = image.root() else { return };
    let mut tree = Tree::new();
    // As above.
    let _ = walk(&image, &root, true, &mut Vec::new(), &mut tree);
}

fn walk(
    image: &Image,
    stat: &Stat,
    damaged: bool,
    path: &mut Vec<u8>,
    tree: &mut Tree,
) -> crate::Result<()> {
    if tree.len() > MOST {
        return Ok(());
    }
    tree.insert(path.clone(), (stat.mode, stat.size));
    image.xattrs(stat)?;
    if stat.mode & 0o170000 == 0o120000 {
        let target = image.content(stat)?;
        assert_eq!(target.len() as u64, stat.size);
    }
    if !stat.is_directory() || path.iter().filter(|byte| **byte == b'/').count() > DEPTH {
        return Ok(());
    }
    for (name, nid) in image.list(stat)? {
        let child = image.stat(nid)?;
        let found = image.lookup(stat, &name)?.map(|found| found.nid);
        // A damaged directory may not be sorted, or have a name twice.
        assert!(damaged || found == Some(nid));
        let length = path.len();
        path.push(b'/');
        path.extend_from_slice(&name);
        walk(image, &child, damaged, path, tree)?;
        path.truncate(length);
    }
    Ok(())
}

/// The options under which a fuzzed store is opened: directories, nothing synced, small limits.
#[must_use]
pub fn options(limits: Limits) -> Options {
    Options {
        driver: crate::Driver::Directory,
        durability: Durability::Relaxed,
        limits,
        ..Options::default()
    }
}
