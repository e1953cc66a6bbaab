//! Images that lie, and images that are broken. Each is refused by name, and nothing of it stays.

mod support;

use coracle_image::{Error, Input, LoadOptions, MAX_DOCUMENT};
use coracle_oci::Digest;
use serde_json::{Value, json};
use support::*;

/// Loads by every way; each must refuse with an error whose text has all of these, and leave nothing.
fn refused(nodes: &Nodes, is_layout: bool, expected: &[&str]) {
    load_every_way(nodes, is_layout, |way, images, loaded| {
        let error = match loaded {
            Ok(_) => panic!("{way}: it was loaded"),
            Err(error) => chain(&error),
        };
        for part in expected {
            assert!(
                error.contains(part),
                "{way}: {error:?} does not mention {part:?}"
            );
        }
        assert_empty(images, way);
    });
}

/// An OCI image whose manifest was altered, and everything that refers to it adjusted.
fn with_manifest(builder: &Builder, alter: impl FnOnce(&mut Value)) -> Nodes {
    let mut manifest = builder.manifest();
    alter(&mut manifest);
    let mut nodes = builder.oci_blobs(&manifest);
    nodes.extend(marker_and_index(vec![descriptor(
        MANIFEST,
        &bytes(&manifest),
    )]));
    nodes
}

#[test]
fn layer_that_is_not_its_digest_is_refused() {
    for compression in [Compression::Plain, Compression::Gzip, Compression::Zstd] {
        let builder = Builder::two_layers().compressed(compression);
        let honest = builder.blobs()[1].clone();
        let lie = compress(&layer(&[("b", "3")]), compression);
        let mut nodes = builder.oci();
        let path = format!("blobs/sha256/{}", Digest::of(&honest).hex());
        alter(&mut nodes, &path, |data| *data = lie.clone());
        if honest.len() == lie.len() {
            refused(
                &nodes,
                true,
                &[
                    &Digest::of(&honest).to_string(),
                    &Digest::of(&lie).to_string(),
                ],
            );
        } else {
            refused(&nodes, true, &[&Digest::of(&honest).to_string()]);
        }
    }
}

#[test]
fn layer_that_is_not_its_diff_id_is_refused() {
    let builder = Builder::two_layers();
    let other = layer(&[("b", "other")]);
    let mut nodes = builder.docker();
    alter(&mut nodes, &format!("{:064x}/layer.tar", 1), |data| {
        *data = other.clone()
    });
    refused(
        &nodes,
        false,
        &[
            &Digest::of(&builder.layers[1]).to_string(),
            &Digest::of(&other).to_string(),
        ],
    );
}

#[test]
fn compressed_layer_whose_diff_id_lies_is_refused() {
    let builder = Builder::two_layers().compressed(Compression::Gzip);
    let mut liar = builder.clone();
    liar.layers[1] = layer(&[("b", "what it claims")]);
    let mut manifest = builder.manifest();
    manifest["config"] = descriptor(CONFIG, &liar.configuration());
    let mut nodes = builder.oci_blobs(&manifest);
    nodes.push(blob(&liar.configuration()));
    nodes.extend(marker_and_index(vec![descriptor(
        MANIFEST,
        &bytes(&manifest),
    )]));
    refused(&nodes, true, &[&Digest::of(&liar.layers[1]).to_string()]);
}

#[test]
fn document_that_is_not_its_digest_is_refused() {
    let builder = Builder::two_layers();
    let configuration = Digest::of(&builder.configuration());
    let mut nodes = builder.oci();
    alter(
        &mut nodes,
        &format!("blobs/sha256/{}", configuration.hex()),
        |data| data[5] ^= 1,
    );
    refused(&nodes, true, &[&configuration.to_string(), "mismatch"]);
    let manifest = Digest::of(&bytes(&builder.manifest()));
    let mut nodes = builder.oci();
    alter(
        &mut nodes,
        &format!("blobs/sha256/{}", manifest.hex()),
        |data| data.push(b' '),
    );
    refused(&nodes, true, &[&manifest.to_string(), "size"]);
    let mut nodes = builder.docker();
    alter(
        &mut nodes,
        &format!("{}.json", configuration.hex()),
        |data| data.push(b' '),
    );
    refused(&nodes, false, &[&configuration.to_string(), "mismatch"]);
}

#[test]
fn size_that_lies_is_refused() {
    let nodes = with_manifest(&Builder::two_layers(), |manifest| {
        manifest["layers"][0]["size"] = json!(7)
    });
    let files = tempfile::tempdir().expect("a directory");
    directory(&nodes, files.path());
    let (_dir, images) = images();
    let error = images
        .load(Input::Path(files.path()), &LoadOptions::default())
        .expect_err("a lie");
    assert!(
        matches!(error, Error::SizeMismatch { expected: 7, .. }),
        "{error}"
    );
    assert_empty(&images, "directory");
}

#[test]
fn missing_blobs_are_named() {
    let builder = Builder::two_layers();
    for missing in [
        Digest::of(&builder.layers[0]),
        Digest::of(&builder.configuration()),
        Digest::of(&bytes(&builder.manifest())),
    ] {
        let mut nodes = builder.oci();
        nodes.retain(|(path, _)| !path.ends_with(&missing.hex()));
        refused(&nodes, true, &[&missing.hex(), "missing"]);
    }
    let mut nodes = builder.docker();
    nodes.retain(|(path, _)| !path.ends_with("1/layer.tar"));
    refused(&nodes, false, &["1/layer.tar", "missing"]);
}

#[test]
fn unknown_media_types_are_refused_by_name() {
    let builder = Builder::two_layers();
    let layer = |media_type: &str| {
        with_manifest(&builder, |manifest| {
            manifest["layers"][0]["mediaType"] = json!(media_type)
        })
    };
    refused(
        &layer("application/x-squashfs"),
        true,
        &["application/x-squashfs"],
    );
    refused(
        &layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        true,
        &["foreign"],
    );
    refused(
        &layer("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        true,
        &["foreign"],
    );
    let chart = with_manifest(&builder, |manifest| {
        manifest["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json")
    });
    refused(&chart, true, &["vnd.cncf.helm"]);
    let mut nodes = builder.oci_blobs(&builder.manifest());
    let old = descriptor(
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        &bytes(&builder.manifest()),
    );
    nodes.extend(marker_and_index(vec![old]));
    refused(&nodes, true, &["manifest.v1+prettyjws"]);
}

#[test]
fn paths_that_lead_out_name_nothing() {
    let builder = Builder::two_layers();
    let secret = tempfile::tempdir().expect("a directory");
    std::fs::write(secret.path().join("secret.tar"), &builder.layers[1]).expect("a file");
    let outside = secret.path().join("secret.tar").display().to_string();
    let second = format!("{:064x}/layer.tar", 1);
    for target in [
        outside.clone(),
        format!("../../../../../../../..{outside}"),
        second.clone(),
    ] {
        let mut nodes = builder.docker();
        let at = nodes
            .iter()
            .position(|(path, _)| *path == second)
            .expect("the second layer");
        nodes[at].1 = Node::Symlink(target);
        refused(&nodes, false, &["missing"]);
    }
    for path in [
        outside.as_str(),
        "../../../../../../../../etc/passwd",
        "/etc/passwd",
    ] {
        let mut nodes = builder.docker();
        alter(&mut nodes, "manifest.json", |data| {
            *data = bytes(&json!([{ "Config": path, "RepoTags": null, "Layers": [] }]));
        });
        refused(&nodes, false, &["missing"]);
    }
}

#[test]
fn layout_link_that_leaves_the_directory_is_refused() {
    let builder = Builder::two_layers();
    let files = tempfile::tempdir().expect("a directory");
    let layout = files.path().join("layout");
    let mut nodes = builder.oci();
    let path = format!("blobs/sha256/{}", Digest::of(&builder.layers[1]).hex());
    nodes.retain(|(name, _)| *name != path);
    directory(&nodes, &layout);
    std::fs::write(files.path().join("outside"), &builder.layers[1]).expect("a file");
    std::os::unix::fs::symlink("../../../outside", layout.join(&path)).expect("a link");
    let (_dir, images) = images();
    let load = || images.load(Input::Path(&layout), &LoadOptions::default());
    assert!(load().is_err());
    assert_empty(&images, "link out");
    // One that stays inside is how some tools share blobs.
    std::fs::write(layout.join("blobs/shared"), &builder.layers[1]).expect("a file");
    std::fs::remove_file(layout.join(&path)).expect("the link");
    std::os::unix::fs::symlink("../shared", layout.join(&path)).expect("a link");
    load().unwrap_or_else(|error| panic!("{}", chain(&error)));
}

#[test]
fn layout_blob_that_is_a_pipe_does_not_block() {
    let builder = Builder::two_layers();
    let files = tempfile::tempdir().expect("a directory");
    let nodes: Nodes = builder
        .oci()
        .into_iter()
        .filter(|(path, _)| path != "index.json")
        .collect();
    directory(&nodes, files.path());
    rustix::fs::mknodat(
        rustix::fs::CWD,
        files.path().join("index.json"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("a pipe");
    let (_dir, images) = images();
    let error = images
        .load(Input::Path(files.path()), &LoadOptions::default())
        .expect_err("a pipe");
    assert!(error.to_string().contains("not a regular file"), "{error}");
}

#[test]
fn documents_beyond_the_limit_are_refused() {
    let builder = Builder::two_layers();
    let huge = |name: &str, nodes: &Nodes| {
        let mut nodes = nodes.clone();
        alter(&mut nodes, name, |data| {
            data.resize(MAX_DOCUMENT as usize + 1, b' ')
        });
        nodes
    };
    // Not by every way: compressing and hashing it again and again is most of a debug build's time.
    for (name, nodes) in [
        ("index.json", builder.oci()),
        ("manifest.json", builder.docker()),
    ] {
        let (dir, images) = images();
        let data = tar(&huge(name, &nodes));
        let path = dir.path().join("i.tar");
        std::fs::write(&path, &data).expect("a file");
        let options = LoadOptions::default();
        let reader = Box::new(std::io::Cursor::new(data));
        let from_file = images.load(Input::Path(&path), &options);
        let from_stream = images.load(Input::Stream { reader, name: "s" }, &options);
        for result in [from_file, from_stream] {
            let error = result.map(|_| ()).expect_err("a huge document");
            assert!(
                matches!(&error, Error::TooLarge { document, .. } if document == name),
                "{error}"
            );
        }
        assert_empty(&images, name);
    }
    let deep = "[".repeat(100_000);
    let mut nodes = builder.docker();
    alter(&mut nodes, "manifest.json", |data| {
        *data = deep.into_bytes()
    });
    refused(&nodes, false, &["manifest.json", "malformed"]);
}

#[test]
fn indexes_in_a_circle_or_too_deep_are_refused() {
    // No digest can contain itself honestly; a chain that is too long stands for it.
    let mut nodes: Nodes = Vec::new();
    let mut inner = bytes(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }));
    for _ in 0..8 {
        nodes.push(blob(&inner));
        inner = bytes(
            &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(INDEX, &inner)] }),
        );
    }
    nodes.push(blob(&inner));
    nodes.extend(marker_and_index(vec![descriptor(INDEX, &inner)]));
    refused(&nodes, true, &["deep"]);
    // A circle has to lie about a digest, and is caught by it.
    let name = Digest::of(b"circle");
    let entry = json!({ "mediaType": INDEX, "digest": name.to_string(), "size": 1 });
    let mut circle = bytes(&json!({ "schemaVersion": 2, "manifests": [entry] }));
    for _ in 0..3 {
        let size = circle.len();
        let entry = json!({ "mediaType": INDEX, "digest": name.to_string(), "size": size });
        circle = bytes(&json!({ "schemaVersion": 2, "manifests": [entry] }));
    }
    let entry = json!({ "mediaType": INDEX, "digest": name.to_string(), "size": circle.len() });
    let mut nodes = marker_and_index(vec![entry]);
    nodes.push((format!("blobs/sha256/{}", name.hex()), Node::File(circle)));
    refused(&nodes, true, &["mismatch"]);
}

#[test]
fn layer_counts_that_disagree_are_refused() {
    let nodes = with_manifest(&Builder::two_layers(), |manifest| {
        manifest["layers"].as_array_mut().expect("layers").pop();
    });
    refused(&nodes, true, &["2 layers", "1"]);
    let mut builder = Builder::new(Vec::new());
    builder.layers = vec![layer(&[("x", "y")]); 501];
    let (dir, images) = images();
    let path = dir.path().join("i.tar");
    std::fs::write(&path, tar(&builder.hybrid())).expect("a file");
    let error = images
        .load(Input::Path(&path), &LoadOptions::default())
        .expect_err("501 layers");
    assert!(error.to_string().contains("at most 500"), "{error}");
}

#[test]
fn archives_that_are_none_are_refused() {
    let (dir, images) = images();
    let path = dir.path().join("file");
    let load = |data: &[u8]| {
        std::fs::write(&path, data).expect("a file");
        let file = images.load(Input::Path(&path), &LoadOptions::default());
        let reader = Box::new(std::io::Cursor::new(data.to_vec()));
        let stream = images.load(
            Input::Stream {
                reader,
                name: "stream",
            },
            &LoadOptions::default(),
        );
        (
            file.map(|_| ()).expect_err("no archive"),
            stream.map(|_| ()).expect_err("no archive"),
        )
    };
    let whole = tar(&Builder::two_layers().docker());
    let mut cut = compress(&whole, Compression::Gzip);
    cut.truncate(cut.len() / 2);
    for data in [
        &b""[..],
        b"hello",
        &[0xff; 5000],
        &whole[..whole.len() / 2],
        &cut,
        &tar(&Vec::new()),
        &layer(&[("etc/passwd", "x")]),
    ] {
        let (file, stream) = load(data);
        for error in [file, stream] {
            assert!(
                error.to_string().contains("file") || error.to_string().contains("stream"),
                "{error}"
            );
            assert!(error.hint().is_some(), "{error} has no hint");
        }
        assert_empty(&images, "no archive");
    }
}

#[test]
fn hostile_layer_leaves_nothing() {
    let evil = tar(&vec![(
        "../../../../tmp/coracle-image-escape".into(),
        Node::File(b"x".to_vec()),
    )]);
    let builder = Builder::new(vec![layer(&[("good", "1")]), evil]);
    refused(&builder.docker(), false, &["layer"]);
    assert!(!std::path::Path::new("/tmp/coracle-image-escape").exists());
}

#[test]
fn stream_that_breaks_off_leaves_nothing() {
    struct Broken(std::io::Cursor<Vec<u8>>);
    impl std::io::Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(std::io::Error::other("the wire was cut")),
                got => Ok(got),
            }
        }
    }
    let mut data = tar(&Builder::two_layers().docker());
    data.truncate(data.len() / 2 + 100);
    let (_dir, images) = images();
    let reader = Box::new(Broken(std::io::Cursor::new(data)));
    let error = images
        .load(
            Input::Stream {
                reader,
                name: "wire",
            },
            &LoadOptions::default(),
        )
        .expect_err("a cut");
    assert!(
        chain(&error).contains("the wire was cut"),
        "{}",
        chain(&error)
    );
    assert_empty(&images, "stream");
}

#[test]
fn load_that_dies_in_the_middle_leaves_no_image() {
    struct Dying(std::io::Cursor<Vec<u8>>);
    impl std::io::Read for Dying {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match self.0.read(buffer)? {
                0 => panic!("killed here"),
                got => Ok(got),
            }
        }
    }
    let whole = tar(&Builder::two_layers().docker());
    // Through every step: before, between and behind the layers, and before the manifest at the end.
    for at in (0..whole.len()).step_by(512) {
        let (_dir, images) = images();
        let reader = Box::new(Dying(std::io::Cursor::new(whole[..at].to_vec())));
        let load = || {
            images
                .load(
                    Input::Stream {
                        reader,
                        name: "dying",
                    },
                    &LoadOptions::default(),
                )
                .map(|_| ())
        };
        let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(load)).is_err();
        assert!(died, "at {at}");
        assert!(
            images.list(&Default::default()).expect("a list").is_empty(),
            "at {at}"
        );
        // What it had stored is whole and unnamed, and its locks died with it.
        assert!(
            !images
                .prune(false, &Default::default(), &[])
                .expect("a pruning")
                .postponed,
            "at {at}"
        );
        assert_empty(&images, "killed");
    }
}
