//! Names, saving, committing, listing and removing.

mod support;

use coracle_image::{
    Commit, Config, Error, ImageId, Images, Import, Input, ListFilter, LoadOptions, SaveFormat, Use,
};
use coracle_oci::Reference;
use coracle_store::Driver;
use support::*;

fn load(images: &Images, builder: &Builder) -> ImageId {
    let reader = Box::new(std::io::Cursor::new(tar(&builder.docker())));
    let loaded = images.load(
        Input::Stream {
            reader,
            name: "test",
        },
        &LoadOptions::default(),
    );
    loaded.unwrap_or_else(|error| panic!("{}", chain(&error)))[0]
        .image
        .id
}

fn reference(text: &str) -> Reference {
    text.parse().expect("a reference")
}

fn user(image: ImageId, running: bool) -> Use {
    Use {
        container: "web".into(),
        image,
        layers: Vec::new(),
        running,
    }
}

#[test]
fn saved_images_load_with_the_same_ids_and_bytes() {
    for (driver, format) in [
        (Driver::Auto, SaveFormat::Docker),
        (Driver::Auto, SaveFormat::Oci),
        (Driver::Directory, SaveFormat::Docker),
    ] {
        let (here, there) = (
            tempfile::tempdir().expect("a directory"),
            tempfile::tempdir().expect("a directory"),
        );
        let (images, others) = (
            open_with(here.path(), driver),
            open_with(there.path(), driver),
        );
        let one = load(
            &images,
            &Builder::two_layers()
                .compressed(Compression::Zstd)
                .tagged(&["a:1", "a:2"]),
        );
        let two = load(
            &images,
            &Builder::new(vec![layer(&[("x", "y")])]).tagged(&["b:1"]),
        );
        let save = |from: &Images| {
            let mut out = Vec::new();
            let saved = from.save(&["a".into(), "b:1".into()], format, &mut out);
            saved.unwrap_or_else(|error| panic!("{}", chain(&error)));
            out
        };
        let archive = save(&images);
        let reader = Box::new(std::io::Cursor::new(archive.clone()));
        let loaded = others.load(
            Input::Stream {
                reader,
                name: "saved",
            },
            &LoadOptions::default(),
        );
        loaded.unwrap_or_else(|error| panic!("{}", chain(&error)));
        for (name, id) in [("a:1", one), ("a:2", one), ("b:1", two)] {
            assert_eq!(
                others.resolve(name).expect("a name").id,
                id,
                "{driver:?} {format:?} {name}"
            );
        }
        assert_eq!(
            save(&others),
            archive,
            "{driver:?} {format:?}: not deterministic"
        );
    }
}

#[test]
fn image_without_a_name_is_saved_by_id() {
    let (_dir, images) = images();
    let id = load(&images, &Builder::two_layers().tagged(&[]));
    let mut out = Vec::new();
    images
        .save(&[id.short()], SaveFormat::Docker, &mut out)
        .expect("an archive");
    let (_dir, others) = support::images();
    let reader = Box::new(std::io::Cursor::new(out));
    let loaded = others
        .load(
            Input::Stream {
                reader,
                name: "saved",
            },
            &LoadOptions::default(),
        )
        .expect("an image");
    assert_eq!((loaded[0].image.id, loaded[0].names.len()), (id, 0));
}

#[test]
fn images_are_found_by_name_id_prefix_and_digest() {
    let (_dir, images) = images();
    let id = load(
        &images,
        &Builder::two_layers().tagged(&["quay.io/a/b:1", "plain"]),
    );
    let image = images.resolve("plain").expect("a name");
    let hex = id.hex();
    for text in [
        "plain:latest".to_owned(),
        "docker.io/library/plain".into(),
        "quay.io/a/b:1".into(),
        hex.clone(),
        id.to_string(),
        hex[..12].into(),
        format!("sha256:{}", &hex[..6]),
        format!("plain@{}", image.manifest),
        format!("plain:latest@{}", image.manifest),
    ] {
        assert_eq!(
            images
                .resolve(&text)
                .unwrap_or_else(|error| panic!("{text}: {error}"))
                .id,
            id
        );
    }
    for text in [
        "absent",
        "plain:2",
        "quay.io/a/b",
        "ffffffffffffff",
        "UPPER",
        &format!("plain@sha256:{}", "0".repeat(64)),
    ] {
        let error = images.resolve(text).expect_err("not there");
        assert!(
            matches!(error, Error::NoSuchImage(_) | Error::Reference(_)),
            "{text}: {error}"
        );
    }
}

#[test]
fn names_move_and_the_old_image_dangles() {
    let (_dir, images) = images();
    let one = load(&images, &Builder::two_layers().tagged(&["x"]));
    let two = load(
        &images,
        &Builder::new(vec![layer(&[("x", "y")])]).tagged(&["x"]),
    );
    assert_eq!(images.resolve("x").expect("a name").id, two);
    let dangling = ListFilter {
        dangling: Some(true),
        ..ListFilter::default()
    };
    assert_eq!(
        images
            .list(&dangling)
            .expect("a list")
            .iter()
            .map(|image| image.id)
            .collect::<Vec<_>>(),
        [one]
    );
    let pruned = images
        .prune(false, &ListFilter::default(), &[])
        .expect("a pruning");
    assert_eq!(pruned.removed.len(), 1);
    assert!(!pruned.postponed && images.list(&dangling).expect("a list").is_empty());
    assert_eq!(images.store().layers().expect("layers").len(), 1);
    images.resolve("x").expect("the other is untouched");
}

#[test]
fn last_name_takes_the_image_and_only_its_own_layers() {
    let (_dir, images) = images();
    let shared = layer(&[("shared", "1")]);
    load(
        &images,
        &Builder::new(vec![shared.clone(), layer(&[("own", "1")])]).tagged(&["one", "one:more"]),
    );
    load(&images, &Builder::new(vec![shared]).tagged(&["two"]));
    let removed = images.remove("one", false, &[]).expect("a name");
    assert_eq!((removed.untagged.len(), removed.deleted), (1, None));
    let removed = images.remove("one:more", false, &[]).expect("an image");
    assert!(removed.deleted.is_some());
    assert_eq!(removed.layers.len(), 1);
    assert!(removed.bytes > 0);
    images.resolve("two").expect("the other has its layer");
    assert!(matches!(
        images.remove("one", false, &[]),
        Err(Error::NoSuchImage(_))
    ));
}

#[test]
fn images_in_use_are_kept() {
    let (_dir, images) = images();
    let id = load(&images, &Builder::two_layers().tagged(&["x"]));
    let layers: Vec<_> = images
        .resolve("x")
        .expect("x")
        .layers
        .iter()
        .map(|layer| layer.diff_id)
        .collect();
    let conflict = |result: Result<_, Error>| match result {
        Err(Error::Conflict {
            reason,
            can_be_forced,
            ..
        }) => {
            assert!(reason.contains("web"), "{reason}");
            can_be_forced
        }
        Err(error) => panic!("{error}"),
        Ok::<coracle_image::Removed, _>(_) => panic!("it was removed"),
    };
    assert!(conflict(images.remove("x", false, &[user(id, false)])));
    assert!(!conflict(images.remove(
        &id.short(),
        true,
        &[user(id, true)]
    )));
    assert!(
        images
            .prune(true, &ListFilter::default(), &[user(id, false)])
            .expect("a pruning")
            .removed
            .is_empty()
    );
    // Force: the image goes, the container's layers stay.
    let stopped = Use {
        layers: layers.clone(),
        ..user(id, false)
    };
    let removed = images
        .remove("x", true, std::slice::from_ref(&stopped))
        .expect("force");
    assert_eq!((removed.deleted, removed.layers.len()), (Some(id), 0));
    assert_eq!(images.store().layers().expect("layers").len(), 2);
    images
        .prune(true, &ListFilter::default(), &[stopped])
        .expect("a pruning");
    assert_eq!(images.store().layers().expect("layers").len(), 2);
    images
        .prune(true, &ListFilter::default(), &[])
        .expect("a pruning");
    assert!(images.store().layers().expect("layers").is_empty());
    assert!(images.store().blobs().expect("blobs").is_empty());
}

#[test]
fn id_with_names_in_two_repositories_needs_force() {
    let (_dir, images) = images();
    let id = load(&images, &Builder::two_layers().tagged(&["a", "b"]));
    assert!(matches!(
        images.remove(&id.hex(), false, &[]),
        Err(Error::Conflict {
            can_be_forced: true,
            ..
        })
    ));
    assert_eq!(
        images
            .remove(&id.hex(), true, &[])
            .expect("force")
            .untagged
            .len(),
        2
    );
}

#[test]
fn import_makes_an_image_of_a_tree() {
    let (_dir, images) = images();
    let root = compress(&layer(&[("bin/sh", "#!")]), Compression::Gzip);
    let import = Import {
        reference: Some(reference("tree")),
        changes: vec![
            "CMD [\"/bin/sh\"]".into(),
            "ENV A=b".into(),
            "WORKDIR /srv".into(),
        ],
        message: Some("made here".into()),
        platform: None,
    };
    let image = images
        .import(&root[..], "root.tar.gz", &import)
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(image.config.cmd, ["/bin/sh"]);
    assert_eq!(images.resolve("tree:latest").expect("a name").id, image.id);
    assert_eq!(
        images.history("tree").expect("a history")[0].comment,
        "made here"
    );
    let bad = Import {
        changes: vec!["RUN rm".into()],
        ..Import::default()
    };
    assert!(matches!(
        images.import(&root[..], "x", &bad),
        Err(Error::Change { .. })
    ));
    assert!(
        images
            .import(&b"not a tar"[..], "junk", &Import::default())
            .is_err()
    );
    assert_eq!(
        images.list(&ListFilter::default()).expect("a list").len(),
        1
    );
}

#[test]
fn commit_adds_a_layer_and_keeps_what_it_does_not_know() {
    let (_dir, images) = images();
    let parent = load(&images, &Builder::two_layers().tagged(&["base"]));
    let commit = Commit {
        parent: Some(parent),
        changes: vec!["ENTRYPOINT [\"/x\"]".into(), "LABEL c=d".into()],
        reference: Some(reference("next:1")),
        author: Some("me".into()),
        message: Some("why".into()),
        created_by: Some("/bin/sh".into()),
        ..Commit::default()
    };
    let image = images
        .commit(&layer(&[("new", "file")])[..], &commit)
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(image.layers.len(), 3);
    assert_eq!(image.config.entrypoint, ["/x"]);
    assert_eq!(image.config.cmd, ["/bin/sh"]);
    assert_eq!(image.config.labels.len(), 2);
    let history = images.history("next:1").expect("a history");
    assert_eq!((history.len(), history[0].comment.as_str()), (3, "why"));
    let inspected = images.inspect("next:1").expect("a document");
    assert_eq!(inspected["Author"], "me");
    assert_eq!(
        inspected["RootFS"]["Layers"].as_array().map(Vec::len),
        Some(3)
    );
    let mut out = Vec::new();
    images
        .save(&["next:1".into()], SaveFormat::Docker, &mut out)
        .expect("an archive");
    assert!(
        String::from_utf8_lossy(&out).contains("x-unknown"),
        "an unknown field of the parent is lost"
    );
    // Emptied by the container's configuration: not the parent's any more.
    let emptied = Commit {
        parent: Some(parent),
        config: Some(Config::default()),
        ..Commit::default()
    };
    let image = images
        .commit(&layer(&[("n", "")])[..], &emptied)
        .expect("an image");
    assert!(
        image.config.cmd.is_empty()
            && images
                .resolve(&image.id.hex())
                .expect("it")
                .config
                .env
                .is_empty()
    );
    let alone = images
        .commit(&layer(&[("n", "")])[..], &Commit::default())
        .expect("an image without a parent");
    assert_eq!(alone.layers.len(), 1);
}

#[test]
fn listing_filters() {
    let (_dir, images) = images();
    let mut old = Builder::two_layers().tagged(&["lib/old:1"]);
    old.config = serde_json::json!({ "Labels": { "tier": "db" } });
    let old = load(&images, &old);
    let import = Import {
        reference: Some(reference("young")),
        ..Import::default()
    };
    let young = images
        .import(&layer(&[("x", "")])[..], "x", &import)
        .expect("an image")
        .id;
    for (filters, expected) in [
        (&[][..], &[young, old][..]),
        (&["reference=young"], &[young]),
        (&["reference=lib/*"], &[old]),
        (&["reference=*:1", "reference=*/*:1"], &[old]),
        (&["label=tier"], &[old]),
        (&["label=tier=web"], &[]),
        (&["label!=tier"], &[young]),
        (&["before=young"], &[old]),
        (&["since=lib/old:1"], &[young]),
        (&["until=24h"], &[old]),
        (&["dangling=true"], &[]),
    ] {
        let filter = filters
            .iter()
            .try_fold(ListFilter::default(), |filter, text| filter.and(text))
            .expect("a filter");
        let found: Vec<ImageId> = images
            .list(&filter)
            .expect("a list")
            .iter()
            .map(|image| image.id)
            .collect();
        assert_eq!(found, expected, "{filters:?}");
    }
    for bad in [
        "dangling",
        "dangling=perhaps",
        "color=red",
        "until=yesterday",
    ] {
        assert!(ListFilter::default().and(bad).is_err(), "{bad}");
    }
    assert!(
        images
            .list(&ListFilter {
                before: Some("absent".into()),
                ..ListFilter::default()
            })
            .is_err()
    );
}

#[test]
fn inspect_has_dockers_shape() {
    let (_dir, images) = images();
    let id = load(&images, &Builder::two_layers());
    let document = images.inspect("test/image:one").expect("a document");
    assert_eq!(document["Id"], id.to_string());
    assert_eq!(document["RepoTags"][0], "test/image:one");
    assert!(
        document["RepoDigests"][0]
            .as_str()
            .is_some_and(|digest| digest.starts_with("test/image@sha256:"))
    );
    assert_eq!(document["Config"]["Cmd"][0], "/bin/sh");
    assert_eq!(document["RootFS"]["Type"], "layers");
    assert_eq!(document["Os"], "linux");
    assert_eq!(document["Created"], "2024-05-06T07:08:09.123456789Z");
    assert_eq!(document["Size"], 7);
}

#[test]
fn what_a_killed_writer_left_is_written_over() {
    let (dir, images) = images();
    std::fs::write(dir.path().join("images/tmp"), "half a rec").expect("a file");
    let id = load(&images, &Builder::two_layers());
    images.resolve(&id.hex()).expect("the image");
    // A name whose record never came, as if killed between: it is no image, and the next load mends it.
    images.remove(&id.hex(), true, &[]).expect("a removal");
    std::fs::create_dir_all(dir.path().join("images/refs/docker.io!test!image"))
        .expect("a directory");
    std::os::unix::fs::symlink(
        format!("../../records/{}", id.hex()),
        dir.path().join("images/refs/docker.io!test!image/one"),
    )
    .expect("a link");
    assert!(matches!(
        images.resolve("test/image:one"),
        Err(Error::NoSuchImage(_))
    ));
    assert!(
        images
            .list(&ListFilter::default())
            .expect("a list")
            .is_empty()
    );
    load(&images, &Builder::two_layers());
    images.resolve("test/image:one").expect("mended");
}

#[test]
fn damaged_record_says_so() {
    let (dir, images) = images();
    let id = load(&images, &Builder::two_layers());
    std::fs::write(dir.path().join("images/records").join(id.hex()), "{").expect("a file");
    let error = images.resolve("test/image:one").expect_err("damage");
    assert!(
        matches!(error, Error::Damaged { .. }) && error.hint().is_some(),
        "{error}"
    );
    load(&images, &Builder::two_layers());
    images
        .resolve("test/image:one")
        .expect("mended by loading again");
}
