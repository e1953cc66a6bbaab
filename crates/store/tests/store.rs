//! The store itself: blobs, locks, leftovers, collection, and one test for each kind of damage.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use coracle_oci::Digest;
use coracle_store::{Driver, Durability, Error, InUse, LayerForm, Options, Ownership, Store};
use support::{file, stores, tar};

fn open() -> (tempfile::TempDir, Store) {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("store"), &Options::default()).unwrap();
    (place, store)
}

#[test]
fn a_blob_is_what_its_digest_says_or_is_not_there() {
    let (_place, store) = open();
    let wrong = Digest::of(b"other");
    let error = store.put_blob(&b"content"[..], Some(&wrong)).unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    for size in [6, 8] {
        let error = store
            .put_blob_sized(&b"content"[..], &Digest::of(b"content"), size)
            .unwrap_err();
        assert!(
            matches!(error, Error::SizeMismatch { expected, actual: 7, .. } if expected == size),
            "{error}"
        );
    }
    // A stream without end is given up at the size that was promised.
    let error = store
        .put_blob_sized(std::io::repeat(0), &wrong, 1 << 20)
        .unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { .. }), "{error}");
    assert_eq!(store.blobs().unwrap(), vec![]);
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
    let error = store.blob(&wrong).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");

    let stored = store.put_blob(&b"content"[..], None).unwrap();
    assert_eq!((stored.digest, stored.size), (Digest::of(b"content"), 7));
    assert_eq!(
        store
            .put_blob_sized(&b"content"[..], &stored.digest, 7)
            .unwrap(),
        stored
    );
    let mut content = String::new();
    store
        .blob(&stored.digest)
        .unwrap()
        .read_to_string(&mut content)
        .unwrap();
    assert_eq!(
        (&content[..], store.blob_size(&stored.digest).unwrap()),
        ("content", Some(7))
    );
    assert!(store.has_blob(&stored.digest));
    assert!(store.remove_blob(&stored.digest).unwrap());
    assert!(!store.remove_blob(&stored.digest).unwrap());
}

#[test]
fn leftovers_are_swept_by_the_next_opening_but_not_under_a_writer() {
    let (_place, store) = open();
    let leftover = store.root().join("tmp/99999999-1-0");
    fs::create_dir_all(leftover.join("root/locked")).unwrap();
    fs::set_permissions(
        leftover.join("root"),
        std::os::unix::fs::PermissionsExt::from_mode(0o0),
    )
    .unwrap();
    struct Slow<'a>(&'a Store, PathBuf, bool);
    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.2 {
                return Ok(0);
            }
            self.2 = true;
            Store::open(self.0.root(), &Options::default()).unwrap();
            assert!(self.1.exists(), "swept while somebody was storing");
            buffer[0] = b'x';
            Ok(1)
        }
    }
    store
        .put_blob(Slow(&store, leftover.clone(), false), None)
        .unwrap();
    Store::open(store.root(), &Options::default()).unwrap();
    assert!(!leftover.exists());
}

#[test]
fn a_store_of_another_format_is_refused() {
    let (_place, store) = open();
    let path = store.root().join("store.json");
    for (text, word) in [
        (
            r#"{"version":2,"compatible":0,"read_only_compatible":0,"incompatible":0}"#,
            "version",
        ),
        (
            r#"{"version":1,"compatible":0,"read_only_compatible":0,"incompatible":4}"#,
            "features",
        ),
        ("{", "understood"),
    ] {
        fs::write(&path, text).unwrap();
        let error = Store::open(store.root(), &Options::default()).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        assert!(error.hint().is_some());
    }
    fs::write(
        &path,
        r#"{"version":1,"compatible":9,"read_only_compatible":0,"incompatible":0}"#,
    )
    .unwrap();
    Store::open(store.root(), &Options::default()).unwrap();
}

#[test]
fn collecting_keeps_what_is_used_and_what_is_young() {
    for (_place, store) in stores(
        "collecting_keeps_what_is_used_and_what_is_young",
        Options::default(),
    ) {
        let layer = |name: &str| {
            store
                .ingest_layer(&tar(&[file(name, b"x")])[..], None)
                .unwrap()
        };
        let (used, unused) = (layer("a"), layer("b"));
        let blob = store.put_blob(&b"used"[..], None).unwrap().digest;
        let old = store.put_blob(&b"old"[..], None).unwrap().digest;
        let in_use = InUse {
            blobs: [blob].into(),
            layers: [used.diff_id].into(),
        };
        let hour = Duration::from_secs(3600);
        let collected = store.collect(&in_use, hour).unwrap();
        assert_eq!(
            (collected.blobs, collected.layers),
            (0, 0),
            "{:?}",
            store.driver()
        );
        let path = store.root().join("blobs/sha256").join(old.hex());
        let past = SystemTime::now() - 2 * hour;
        fs::File::open(&path).unwrap().set_modified(past).unwrap();
        assert_eq!(store.collect(&in_use, hour).unwrap().blobs, 1);
        assert!(!store.has_blob(&old) && store.has_blob(&blob));
        // Stored again: young again.
        let path = store.root().join("blobs/sha256").join(blob.hex());
        fs::File::open(&path).unwrap().set_modified(past).unwrap();
        store.put_blob(&b"used"[..], None).unwrap();
        assert_eq!(store.collect(&InUse::default(), hour).unwrap().blobs, 0);
        let collected = store.collect(&in_use, Duration::ZERO).unwrap();
        assert_eq!((collected.blobs, collected.layers), (0, 1));
        assert!(collected.bytes > 0);
        assert!(store.layer(&unused.diff_id).unwrap().is_none());
        assert_eq!(store.layers().unwrap(), vec![used.diff_id]);
        assert!(store.remove_layer(&used.diff_id).unwrap());
        assert!(!store.remove_layer(&used.diff_id).unwrap());
    }
}

#[test]
fn one_layer_from_many_at_once_is_made_once() {
    for (_place, store) in stores(
        "one_layer_from_many_at_once_is_made_once",
        Options::default(),
    ) {
        let archive = tar(&[file("a", &[1; 300_000])]);
        let diff_id = Digest::of(&archive);
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (store, archive) = (&store, &archive);
                scope.spawn(move || {
                    // Half of them do not know what it will be.
                    let expected = (number % 2 == 0).then_some(&diff_id);
                    let other = Store::open(
                        store.root(),
                        &Options {
                            driver: store.driver(),
                            ..Options::default()
                        },
                    )
                    .unwrap();
                    assert_eq!(
                        other.ingest_layer(&archive[..], expected).unwrap().diff_id,
                        diff_id
                    );
                });
            }
        });
        assert_eq!(store.layers().unwrap(), vec![diff_id]);
        assert_eq!(store.fsck(false).unwrap().problems, vec![]);
        // With its digest known nothing is read.
        struct Untouched;
        impl Read for Untouched {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                panic!("read although the layer is here");
            }
        }
        store.ingest_layer(Untouched, Some(&diff_id)).unwrap();
    }
}

#[test]
fn each_kind_of_damage_is_found_and_repaired() {
    type Damage = fn(&Store, &std::path::Path);
    fn flip(path: &std::path::Path, offset: u64) {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    }
    fn cut(path: &std::path::Path, by: u64) {
        let file = fs::File::options().write(true).open(path).unwrap();
        let size = file.metadata().unwrap().len();
        file.set_len(size - by).unwrap();
    }
    let both: Vec<(&str, Damage, &str)> = vec![
        (
            "a stray name among layers",
            |store, _| fs::write(store.root().join("layers/notes.txt"), "").unwrap(),
            "no layer's",
        ),
        (
            "a stray name among blobs",
            |store, _| fs::write(store.root().join("blobs/sha256/x"), "").unwrap(),
            "no digest",
        ),
        (
            "a stray temporary file",
            |store, _| fs::write(store.root().join("tmp/1-1-1"), "").unwrap(),
            "leftover",
        ),
        (
            "a blob with a flipped byte",
            |store, _| {
                let path = store
                    .root()
                    .join("blobs/sha256")
                    .join(Digest::of(b"blob").hex());
                fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
                    .unwrap();
                flip(&path, 2);
            },
            "its content is",
        ),
        (
            "a layer under another's name",
            |store, layer| {
                let suffix = layer.extension().unwrap().to_str().unwrap().to_owned();
                fs::rename(
                    layer,
                    store
                        .root()
                        .join("layers")
                        .join(format!("{}.{suffix}", Digest::of(b"").hex())),
                )
                .unwrap();
            },
            "another layer",
        ),
    ];
    let erofs: Vec<(&str, Damage, &str)> = vec![
        ("cut off", |_, layer| cut(layer, 1), "its header says"),
        (
            "cut to nothing",
            |_, layer| cut(layer, fs::metadata(layer).unwrap().len()),
            "shorter than its header",
        ),
        (
            "header magic",
            |_, layer| flip(layer, 0),
            "not a layer file",
        ),
        (
            "header number",
            |_, layer| flip(layer, 33),
            "header's checksum",
        ),
        (
            "superblock",
            |_, layer| flip(layer, 1100),
            "index does not match",
        ),
        (
            "archive data",
            |_, layer| flip(layer, 4096 + 600),
            "archive in it",
        ),
        (
            "index",
            |_, layer| flip(layer, fs::metadata(layer).unwrap().len() - 500),
            "index does not match",
        ),
    ];
    let directory: Vec<(&str, Damage, &str)> = vec![
        (
            "a symlink gone",
            |_, layer| fs::remove_file(layer.join("root/link")).unwrap(),
            "link is missing",
        ),
        (
            "a symlink elsewhere",
            |_, layer| {
                fs::remove_file(layer.join("root/link")).unwrap();
                std::os::unix::fs::symlink("c", layer.join("root/link")).unwrap();
            },
            "link has another",
        ),
        (
            "a whiteout gone",
            |_, layer| fs::remove_file(layer.join("root/gone")).unwrap(),
            "gone is missing",
        ),
        (
            "an opaque mark gone",
            |_, layer| {
                rustix::fs::removexattr(layer.join("root/d"), "trusted.overlay.opaque").unwrap();
            },
            "d is opaque, or is not",
        ),
        (
            "another mode",
            |_, layer| {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
                fs::set_permissions(layer.join("root/b"), mode).unwrap();
            },
            "b has another mode",
        ),
        (
            "something added",
            |_, layer| fs::write(layer.join("root/backdoor"), "").unwrap(),
            "",
        ),
        (
            "a file's byte",
            |_, layer| flip(&layer.join("root/a"), 5),
            "do not match",
        ),
        (
            "a file too short",
            |_, layer| cut(&layer.join("root/a"), 1),
            "too short",
        ),
        (
            "a file gone",
            |_, layer| fs::remove_file(layer.join("root/a")).unwrap(),
            "cannot be made again",
        ),
        (
            "no description",
            |_, layer| fs::remove_file(layer.join("layer.json")).unwrap(),
            "missing",
        ),
        (
            "a cut description",
            |_, layer| cut(&layer.join("layer.json"), 5),
            "understood",
        ),
        (
            "no split",
            |_, layer| fs::remove_file(layer.join("split.zst")).unwrap(),
            "missing",
        ),
        (
            "a cut split",
            |_, layer| cut(&layer.join("split.zst"), 8),
            "cannot be made again",
        ),
        (
            "a flipped split",
            |_, layer| flip(&layer.join("split.zst"), 12),
            "",
        ),
    ];
    for (_place, store) in stores(
        "each_kind_of_damage_is_found_and_repaired",
        Options::default(),
    ) {
        let own = if store.driver() == Driver::Erofs {
            &erofs
        } else {
            &directory
        };
        for (name, damage, word) in both.iter().chain(own) {
            let archive = tar(&[
                file("a", &[3; 1000]),
                file("b", b"b"),
                support::link(coracle_store::tar::EntryKind::Symlink, "link", "b"),
                file(".wh.gone", b""),
                file("d/.wh..wh..opq", b""),
            ]);
            let layer = store.ingest_layer(&archive[..], None).unwrap();
            store.put_blob(&b"blob"[..], None).unwrap();
            assert_eq!(store.fsck(false).unwrap().problems, vec![], "before {name}");
            let path = match &layer.form {
                LayerForm::Erofs(path) => path.clone(),
                LayerForm::Directory(root) => root.parent().unwrap().to_owned(),
            };
            damage(&store, &path);
            let found = store.fsck(false).unwrap().problems;
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            assert!(
                found[0].what.contains(word) && !found[0].repaired,
                "{name}: {found:?}"
            );
            let repaired = store.fsck(true).unwrap().problems;
            assert!(
                repaired.len() == 1 && repaired[0].repaired,
                "{name}: {repaired:?}"
            );
            assert_eq!(store.fsck(false).unwrap().problems, vec![], "after {name}");
        }
    }
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    let test = "a_full_disk_is_said_and_leaves_nothing";
    if !support::root(test) {
        return;
    }
    // A detached tmpfs of 1 MiB: it goes with its descriptor.
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    rustix::mount::fsconfig_set_string(&context, "size", "1m").unwrap();
    rustix::mount::fsconfig_create(&context).unwrap();
    let mount = rustix::mount::fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
    .unwrap();
    let path = PathBuf::from(format!(
        "/proc/self/fd/{}/store",
        std::os::fd::AsRawFd::as_raw_fd(&mount)
    ));
    for driver in [Driver::Erofs, Driver::Directory] {
        let store = match Store::open(
            &path,
            &Options {
                driver,
                ..Options::default()
            },
        ) {
            Ok(store) => store,
            Err(error) => {
                eprintln!("SKIP: {test}: {driver:?}: {}", support::chain(&error));
                continue;
            }
        };
        let error = store
            .ingest_layer(&tar(&[file("a", &[1; 2 << 20])])[..], None)
            .unwrap_err();
        assert!(
            error.hint().is_some_and(|hint| hint.contains("full")),
            "{}",
            support::chain(&error)
        );
        let error = store
            .put_blob(std::io::repeat(1).take(2 << 20), None)
            .unwrap_err();
        assert!(
            error.hint().is_some_and(|hint| hint.contains("full")),
            "{}",
            support::chain(&error)
        );
        assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
        store.put_blob(&b"room again"[..], None).unwrap();
    }
}

#[test]
fn an_ordinary_user_unpacks_what_it_may_and_is_told_what_it_may_not() {
    let test = "an_ordinary_user_unpacks_what_it_may_and_is_told_what_it_may_not";
    if !support::root(test) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(place.path(), Some(65534), Some(65534)).unwrap();
    let mut owned = file("f", b"x");
    owned.0.uid = 33;
    let mut mine = file("m", b"x");
    (mine.0.uid, mine.0.gid) = (65534, 65534);
    let mut root = support::directory("./", 0o755);
    (root.0.uid, root.0.gid) = (65534, 65534);
    let mut device = (
        coracle_store::tar::Entry::new(coracle_store::tar::EntryKind::Character, b"null"),
        Vec::new(),
    );
    device.0.device = (1, 3);
    let locked = support::directory("locked/", 0o500);
    let exact = tar(&[root.clone(), mine.clone()]);
    let foreign = tar(&[owned.clone()]);
    let squashed = tar(&[
        owned,
        locked,
        file("locked/in", b"y"),
        file("gone/.wh..wh..opq", b""),
        file(".wh.w", b""),
    ]);
    let devices = tar(&[root, device]);
    let path = place.path().join("store");
    // Credentials belong to a thread, as the kernel sees it: this one gives up root and ends.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let nobody = (
                rustix::fs::Uid::from_raw(65534),
                rustix::fs::Gid::from_raw(65534),
            );
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(nobody.1, nobody.1, nobody.1).unwrap();
            rustix::thread::set_thread_res_uid(nobody.0, nobody.0, nobody.0).unwrap();
            let options = Options {
                driver: Driver::Directory,
                ..Options::default()
            };
            let store = Store::open(&path, &options).unwrap();
            store.ingest_layer(&exact[..], None).unwrap();
            let error = store.ingest_layer(&foreign[..], None).unwrap_err();
            assert!(error.to_string().contains("setting the owner"), "{error}");
            assert!(error.hint().unwrap().contains("subuid"));
            let error = store.ingest_layer(&devices[..], None).unwrap_err();
            assert!(
                error.to_string().contains("making the device node"),
                "{error}"
            );
            assert!(error.hint().is_some());
            let squash = Options {
                ownership: Ownership::Squash,
                durability: Durability::Relaxed,
                ..options
            };
            let store = Store::open(&path, &squash).unwrap();
            let layer = store.ingest_layer(&squashed[..], None).unwrap();
            let LayerForm::Directory(tree) = &layer.form else {
                panic!("not a directory")
            };
            let attributes = support::xattrs(&tree.join("gone"));
            assert_eq!(attributes["user.overlay.opaque"], b"y");
            assert_eq!(store.fsck(false).unwrap().problems, vec![]);
            assert!(
                store.remove_layer(&layer.diff_id).unwrap(),
                "a directory that its owner may not write"
            );
            let error = Store::open(
                &path,
                &Options {
                    driver: Driver::Erofs,
                    ..options
                },
            )
            .unwrap_err();
            assert!(matches!(error, Error::ErofsUnavailable { .. }), "{error}");
            let auto = Store::open(&path, &Options::default()).unwrap();
            assert_eq!(auto.driver(), Driver::Directory);
            assert!(auto.driver_reason().is_some());
        });
    });
}

#[test]
fn what_is_written_slowly_arrives_whole() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (_place, store) = open();
    let archive = tar(&[file("a", &[9; 3000])]);
    let copy = archive.clone();
    let thread = std::thread::spawn(move || {
        for piece in copy.chunks(700) {
            writer.write_all(piece).unwrap();
            std::thread::yield_now();
        }
    });
    let layer = store.ingest_layer(reader, None).unwrap();
    thread.join().unwrap();
    assert_eq!(layer.diff_id, Digest::of(&archive));
}
