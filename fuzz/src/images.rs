//! Images: their documents, archives and layouts, instructions that change them.

use std::fs;
use std::path::Path;

use coracle_image::{Change, Config, ImageConfiguration, Images, Input, LoadOptions};
use coracle_store::Store;
use coracle_store::tar::{EntryKind, TarReader};

use crate::archives::LIMITS;
use crate::scratch::Scratch;
use crate::{text, two};

/// Index, manifest, record, configuration.
pub(crate) fn documents(data: &[u8]) {
    coracle_image::fuzzing::documents(data);
    if let Ok(configuration) = serde_json::from_slice::<ImageConfiguration>(data) {
        let written = serde_json::to_vec(&configuration).expect("it becomes JSON");
        let again: ImageConfiguration = serde_json::from_slice(&written).expect("its own writing");
        assert_eq!(again, configuration);
        let _ = configuration.platform();
    }
}

/// One instruction of `commit --change` a line.
pub(crate) fn change(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let mut config = Config::default();
    for line in text.lines() {
        if let Ok(change) = Change::parse(line) {
            change.apply(&mut config);
        }
    }
    assert!(config.working_dir.is_empty() || config.working_dir.starts_with('/'));
}

/// A pattern and a text.
pub(crate) fn pattern(data: &[u8]) {
    if let Some((pattern, text)) = two(data) {
        coracle_image::fuzzing::pattern(pattern, text);
    }
}

/// An archive of either kind, and the same files as a layout's directory.
pub(crate) fn load(data: &[u8]) {
    let scratch = Scratch::new();
    let options = coracle_store::fuzzing::options(LIMITS);
    let store = Store::open(&scratch.inside().join("store"), &options).expect("it can be made");
    let images = Images::open(store.clone()).expect("it can be made");
    let stream = Input::Stream {
        reader: Box::new(data),
        name: "fuzzing",
    };
    let loaded = images.load(stream, &LoadOptions::default());
    if loaded.is_err() {
        assert!(
            images
                .list(&coracle_image::ListFilter::default())
                .is_ok_and(|list| list.is_empty())
        );
    }
    let layout = scratch.inside().join("layout");
    fs::create_dir(&layout).expect("it is ours");
    if lay_out(data, &layout).is_some() {
        // Most are refused; that nothing else happens is the point.
        let _ = images.load(Input::Path(&layout), &LoadOptions::default());
    }
    assert_eq!(store.fsck(false).expect("the store is ours").problems, []);
    scratch.check();
}

/// The archive's files at the names that a layout has; the links in it as they are.
fn lay_out(data: &[u8], layout: &Path) -> Option<()> {
    let mut reader = TarReader::new(data, LIMITS);
    while let Some(entry) = reader.next_entry().ok()? {
        let path = text(&entry.path)?;
        let plain = path
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && part.len() < 100);
        if !plain || entry.size > LIMITS.content_bytes {
            continue;
        }
        let path = layout.join(path);
        // Where a name is in the way of another the first stays, and the layout is one that lacks files.
        let _ = fs::create_dir_all(path.parent()?);
        match entry.kind {
            EntryKind::Regular => {
                let mut content = Vec::new();
                loop {
                    let piece = reader.data().ok()?;
                    if piece.is_empty() {
                        break;
                    }
                    content.extend_from_slice(piece);
                    let length = piece.len();
                    reader.consume(length);
                }
                if fs::symlink_metadata(&path).is_err() {
                    // As above.
                    let _ = fs::write(&path, content);
                }
            }
            EntryKind::Symlink => {
                // As above.
                let _ = std::os::unix::fs::symlink(text(&entry.link)?, &path);
            }
            _ => {}
        }
    }
    Some(())
}
