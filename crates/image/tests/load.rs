//! Good images of every kind, by every way in.

mod support;

use std::io::Read;

use coracle_image::{Images, Input, LoadOptions, Source};
use coracle_oci::Digest;
use serde_json::json;
use support::*;

fn content(images: &Images, id: &str) -> Vec<Vec<u8>> {
    let image = images
        .resolve(id)
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    image
        .layers
        .iter()
        .map(|layer| {
            let mut data = Vec::new();
            layer
                .tar()
                .expect("a layer")
                .read_to_end(&mut data)
                .expect("a layer's bytes");
            data
        })
        .collect()
}

#[test]
fn every_kind_loads_by_every_way() {
    for compression in [Compression::Plain, Compression::Gzip, Compression::Zstd] {
        let builder = Builder::two_layers().compressed(compression);
        for (kind, nodes, is_layout) in [
            ("oci", builder.oci(), true),
            ("docker", builder.docker(), false),
            ("hybrid", builder.hybrid(), true),
        ] {
            load_every_way(&nodes, is_layout, |way, images, loaded| {
                let at = format!("{kind} {compression:?} {way}");
                let loaded = loaded.unwrap_or_else(|error| panic!("{at}: {}", chain(&error)));
                assert_eq!(loaded.len(), 1, "{at}");
                assert_eq!(loaded[0].image.id.to_string(), builder.id(), "{at}");
                assert_eq!(loaded[0].names[0].familiar(), "test/image:one", "{at}");
                let image = images.resolve("test/image:one").expect("its name");
                assert_eq!(image.config.cmd, ["/bin/sh"]);
                assert_eq!(image.config.labels["a"], "b");
                assert_eq!(content(images, &builder.id()), builder.layers, "{at}");
            });
        }
    }
}

#[test]
fn layers_shared_by_symbolic_links_load() {
    let builder = Builder::new(vec![layer(&[("x", "y")]), layer(&[("x", "y")])]);
    let mut nodes = builder.docker();
    let second = format!("{:064x}/layer.tar", 1);
    let at = nodes
        .iter()
        .position(|(path, _)| *path == second)
        .expect("the second layer");
    nodes[at].1 = Node::Symlink(format!("../{:064x}/layer.tar", 0));
    load_every_way(&nodes, false, |way, images, loaded| {
        loaded.unwrap_or_else(|error| panic!("{way}: {}", chain(&error)));
        assert_eq!(
            images
                .resolve(&builder.id())
                .expect("the image")
                .layers
                .len(),
            2
        );
        assert_eq!(images.store().layers().expect("layers").len(), 1, "{way}");
    });
}

#[test]
fn several_images_in_one_archive_load_and_one_can_be_chosen() {
    let one = Builder::two_layers().tagged(&["first:1", "first:also"]);
    let two = Builder::new(vec![layer(&[("c", "3")])]).tagged(&["second:2"]);
    let mut nodes = one.oci_blobs(&one.manifest());
    nodes.extend(two.oci_blobs(&two.manifest()));
    let hex = |data: &[u8]| format!("blobs/sha256/{}", Digest::of(data).hex());
    let item = |builder: &Builder| {
        let layers: Vec<String> = builder.blobs().iter().map(|data| hex(data)).collect();
        json!({ "Config": hex(&builder.configuration()), "RepoTags": builder.tags, "Layers": layers })
    };
    nodes.insert(
        0,
        (
            "manifest.json".into(),
            Node::File(bytes(&json!([item(&one), item(&two)]))),
        ),
    );
    load_every_way(&nodes, false, |way, images, loaded| {
        assert_eq!(
            loaded
                .unwrap_or_else(|error| panic!("{way}: {}", chain(&error)))
                .len(),
            2
        );
        assert_eq!(
            images.resolve("first:also").expect("a name").id.to_string(),
            one.id()
        );
        assert_eq!(
            images.resolve("second:2").expect("a name").id.to_string(),
            two.id()
        );
    });
    let (dir, images) = images();
    let path = dir.path().join("x.tar");
    std::fs::write(&path, tar(&nodes)).expect("a file");
    let obtain = |suffix: &str| {
        let source =
            Source::parse(&format!("docker-archive:{}{suffix}", path.display())).expect("a source");
        images.obtain(&source, &LoadOptions::default())
    };
    assert_eq!(
        obtain(":second:2").expect("the second").id.to_string(),
        two.id()
    );
    assert!(
        images.list(&Default::default()).expect("a list")[0]
            .names
            .is_empty(),
        "obtaining names nothing"
    );
    let error = obtain("").expect_err("two images");
    assert!(error.to_string().contains("first:1"), "{error}");
    assert!(obtain(":third").is_err());
}

#[test]
fn a_layout_is_chosen_from_by_tag_and_remembered() {
    let builder = Builder::two_layers()
        .compressed(Compression::Gzip)
        .tagged(&["base", "full"]);
    let (dir, images) = images();
    let layout = dir.path().join("layout");
    directory(&builder.oci(), &layout);
    let source = Source::parse(&format!("oci:{}:full", layout.display())).expect("a source");
    let options = LoadOptions::default();
    let first = images
        .obtain(&source, &options)
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(first.id.to_string(), builder.id());
    // With the blobs gone only the memo can answer.
    std::fs::remove_dir_all(layout.join("blobs")).expect("blobs");
    assert_eq!(
        images.obtain(&source, &options).expect("the memo").id,
        first.id
    );
    // Another index is another image, even under the same name.
    std::fs::write(
        layout.join("index.json"),
        r#"{"schemaVersion":2,"manifests":[]}"#,
    )
    .expect("a file");
    assert!(images.obtain(&source, &options).is_err());
}

#[test]
fn a_memo_of_a_removed_image_loads_again() {
    let builder = Builder::two_layers();
    let (dir, images) = images();
    let path = dir.path().join("i.tar");
    std::fs::write(&path, tar(&builder.docker())).expect("a file");
    let source = Source::parse(&path.display().to_string()).expect("a source");
    let options = LoadOptions::default();
    images.obtain(&source, &options).expect("an image");
    images.remove(&builder.id(), false, &[]).expect("a removal");
    assert!(images.store().layers().expect("layers").is_empty());
    assert_eq!(
        images
            .obtain(&source, &options)
            .expect("an image")
            .id
            .to_string(),
        builder.id()
    );
}

#[test]
fn nested_index_gives_the_hosts_platform() {
    let ours = Builder::two_layers();
    let mut theirs = Builder::new(vec![layer(&[("other", "x")])]);
    theirs.architecture = "s390x".into();
    let entry = |builder: &Builder| {
        let mut entry = descriptor(MANIFEST, &bytes(&builder.manifest()));
        entry["platform"] = json!({ "os": "linux", "architecture": builder.architecture });
        entry
    };
    let mut attestation = entry(&theirs);
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    let inner = bytes(
        &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry(&theirs), entry(&ours), attestation] }),
    );
    let mut nodes = ours.oci_blobs(&ours.manifest());
    nodes.extend(theirs.oci_blobs(&theirs.manifest()));
    nodes.push(blob(&inner));
    nodes.extend(marker_and_index(vec![descriptor(INDEX, &inner)]));
    load_every_way(&nodes, true, |way, images, loaded| {
        let loaded = loaded.unwrap_or_else(|error| panic!("{way}: {}", chain(&error)));
        assert_eq!(loaded[0].image.id.to_string(), ours.id(), "{way}");
        assert_eq!(
            images.store().layers().expect("layers").len(),
            2,
            "{way}: what no image needs is freed"
        );
    });
    let (dir, images) = images();
    directory(&nodes, dir.path().join("l").as_path());
    let options = LoadOptions {
        platform: Some("linux/s390x".parse().expect("a platform")),
    };
    let loaded = images
        .load(Input::Path(&dir.path().join("l")), &options)
        .expect("the other platform");
    assert_eq!(loaded[0].image.id.to_string(), theirs.id());
    let options = LoadOptions {
        platform: Some("linux/riscv64".parse().expect("a platform")),
    };
    let error = images
        .load(Input::Path(&dir.path().join("l")), &options)
        .expect_err("no such platform");
    assert!(error.to_string().contains("linux/s390x"), "{error}");
}

#[test]
fn concurrent_loads_of_one_image_agree() {
    let builder = Builder::two_layers().compressed(Compression::Gzip);
    let (dir, images) = images();
    let path = dir.path().join("i.tar");
    std::fs::write(&path, tar(&builder.docker())).expect("a file");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let loaded = images.load(Input::Path(&path), &LoadOptions::default());
                let loaded = loaded.unwrap_or_else(|error| panic!("{}", chain(&error)));
                assert_eq!(loaded[0].image.id.to_string(), builder.id());
            });
        }
    });
    assert_eq!(content(&images, "test/image:one"), builder.layers);
    assert_eq!(images.store().layers().expect("layers").len(), 2);
}

#[test]
fn loads_and_removals_at_once_never_leave_half_an_image() {
    let builder = Builder::two_layers();
    let (dir, images) = images();
    let path = dir.path().join("i.tar");
    std::fs::write(&path, tar(&builder.docker())).expect("a file");
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (images, path) = (&images, &path);
            scope.spawn(move || {
                for _ in 0..25 {
                    if worker % 2 == 0 {
                        let loaded = images.load(Input::Path(path), &LoadOptions::default());
                        if let Err(error) = loaded {
                            panic!("{}", chain(&error));
                        }
                    } else {
                        match images.remove("test/image:one", true, &[]) {
                            Ok(_) | Err(coracle_image::Error::NoSuchImage(_)) => {}
                            Err(error) => panic!("{}", chain(&error)),
                        }
                    }
                }
            });
        }
    });
    images
        .load(Input::Path(&path), &LoadOptions::default())
        .expect("a last load");
    assert_eq!(content(&images, "test/image:one"), builder.layers);
}

#[test]
fn stream_of_known_layers_is_still_verified() {
    let builder = Builder::two_layers();
    let (_dir, images) = images();
    let load = |nodes: &Nodes| {
        let reader = Box::new(std::io::Cursor::new(tar(nodes)));
        images.load(
            Input::Stream {
                reader,
                name: "again",
            },
            &LoadOptions::default(),
        )
    };
    let nodes = builder.hybrid();
    for _ in 0..2 {
        assert_eq!(
            load(&nodes).unwrap_or_else(|error| panic!("{}", chain(&error)))[0]
                .image
                .id
                .to_string(),
            builder.id()
        );
    }
    let mut lie = nodes.clone();
    let path = format!("blobs/sha256/{}", Digest::of(&builder.layers[0]).hex());
    alter(&mut lie, &path, |data| data[600] ^= 1);
    assert!(
        load(&lie)
            .expect_err("a lie")
            .to_string()
            .contains("mismatch")
    );
    images
        .resolve(&builder.id())
        .expect("what was there before is untouched");
}
