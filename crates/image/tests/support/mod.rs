//! Builds images of every kind, good and hostile: a set of named nodes that a test may alter before it becomes a tar or a directory.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

use std::io::{Cursor, Write};
use std::path::Path;

use coracle_image::{Images, Input, LoadOptions, Loaded};
use coracle_oci::Digest;
use coracle_store::tar::{Entry, EntryKind, TarWriter};
use coracle_store::{Driver, Durability, Options, Ownership, Store};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

pub fn images() -> (TempDir, Images) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let images = open(dir.path());
    (dir, images)
}

pub fn open(root: &Path) -> Images {
    open_with(root, Driver::Auto)
}

pub fn open_with(root: &Path, driver: Driver) -> Images {
    // An ordinary user cannot give files to root; that is the store's business and not what is tested here.
    let ownership = if rustix::process::geteuid().is_root() {
        Ownership::Exact
    } else {
        Ownership::Squash
    };
    let options = Options {
        driver,
        durability: Durability::Relaxed,
        ownership,
        ..Options::default()
    };
    let store = Store::open(root, &options).unwrap_or_else(|error| panic!("{}", chain(&error)));
    Images::open(store).unwrap_or_else(|error| panic!("{}", chain(&error)))
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[derive(Clone)]
pub enum Node {
    File(Vec<u8>),
    Symlink(String),
    HardLink(String),
}

pub type Nodes = Vec<(String, Node)>;

pub fn tar(nodes: &Nodes) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for (path, node) in nodes {
        let (kind, link, data): (_, &str, &[u8]) = match node {
            Node::File(data) => (EntryKind::Regular, "", data),
            Node::Symlink(target) => (EntryKind::Symlink, target, &[]),
            Node::HardLink(target) => (EntryKind::HardLink, target, &[]),
        };
        let size = data.len() as u64;
        let entry = Entry {
            mode: 0o644,
            size,
            data_size: size,
            link: link.into(),
            ..Entry::new(kind, path.as_bytes())
        };
        writer.append(&entry, &mut &data[..]).expect("memory");
    }
    writer.finish().expect("memory")
}

pub fn directory(nodes: &Nodes, root: &Path) {
    for (path, node) in nodes {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        match node {
            Node::File(data) => std::fs::write(path, data).expect("a file"),
            Node::Symlink(target) => std::os::unix::fs::symlink(target, path).expect("a link"),
            Node::HardLink(target) => std::fs::hard_link(root.join(target), path).expect("a link"),
        }
    }
}

/// A layer's archive with these files.
pub fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    tar(&files
        .iter()
        .map(|(path, content)| ((*path).into(), Node::File(content.as_bytes().to_vec())))
        .collect())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Plain,
    Gzip,
    Zstd,
}

pub fn compress(data: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::Plain => data.to_vec(),
        Compression::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(data).expect("memory");
            encoder.finish().expect("memory")
        }
        Compression::Zstd => zstd::encode_all(Cursor::new(data), 1).expect("memory"),
    }
}

/// An image in the making.
#[derive(Clone)]
pub struct Builder {
    pub layers: Vec<Vec<u8>>,
    pub compression: Compression,
    pub config: Value,
    pub architecture: String,
    pub tags: Vec<String>,
}

impl Builder {
    pub fn new(layers: Vec<Vec<u8>>) -> Builder {
        Builder {
            layers,
            compression: Compression::Plain,
            config: json!({"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"], "Labels": {"a": "b"}, "Entrypoint": null}),
            architecture: coracle_oci::Platform::host().architecture,
            tags: vec!["test/image:one".into()],
        }
    }

    pub fn two_layers() -> Builder {
        Builder::new(vec![
            layer(&[("etc/motd", "hello"), ("a", "1")]),
            layer(&[("b", "2")]),
        ])
    }

    pub fn compressed(mut self, compression: Compression) -> Builder {
        self.compression = compression;
        self
    }

    pub fn tagged(mut self, tags: &[&str]) -> Builder {
        self.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        self
    }

    pub fn configuration(&self) -> Vec<u8> {
        let diff_ids: Vec<String> = self
            .layers
            .iter()
            .map(|layer| Digest::of(layer).to_string())
            .collect();
        let history: Vec<Value> = (0..self.layers.len())
            .map(|step| json!({"created_by": format!("step {step}")}))
            .collect();
        serde_json::to_vec(&json!({
            "created": "2024-05-06T07:08:09.123456789Z",
            "architecture": self.architecture,
            "os": "linux",
            "x-unknown": {"kept": true},
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        }))
        .expect("JSON")
    }

    pub fn id(&self) -> String {
        Digest::of(&self.configuration()).to_string()
    }

    pub fn blobs(&self) -> Vec<Vec<u8>> {
        self.layers
            .iter()
            .map(|layer| compress(layer, self.compression))
            .collect()
    }

    pub fn manifest(&self) -> Value {
        let configuration = self.configuration();
        let suffix = match self.compression {
            Compression::Plain => "",
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
        };
        let layers: Vec<Value> = self
            .blobs()
            .iter()
            .map(|blob| descriptor(&format!("{LAYER}{suffix}"), blob))
            .collect();
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &configuration),
            "layers": layers,
        })
    }

    /// The blobs of an OCI layout, without an index.
    pub fn oci_blobs(&self, manifest: &Value) -> Nodes {
        let mut nodes = vec![blob(&self.configuration()), blob(&bytes(manifest))];
        nodes.extend(self.blobs().iter().map(|data| blob(data)));
        nodes
    }

    pub fn oci(&self) -> Nodes {
        let manifest = self.manifest();
        let entries: Vec<Value> = self
            .tags
            .iter()
            .map(|tag| {
                let mut entry = descriptor(MANIFEST, &bytes(&manifest));
                entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
                entry
            })
            .collect();
        let mut nodes = self.oci_blobs(&manifest);
        nodes.extend(marker_and_index(entries));
        nodes
    }

    /// `docker save` before Docker 25.
    pub fn docker(&self) -> Nodes {
        let configuration = self.configuration();
        let name = format!("{}.json", Digest::of(&configuration).hex());
        let mut nodes: Nodes = Vec::new();
        let mut paths: Vec<String> = Vec::new();
        for (at, data) in self.blobs().into_iter().enumerate() {
            let path = format!("{at:064x}/layer.tar");
            nodes.push((format!("{at:064x}/VERSION"), Node::File(b"1.0".to_vec())));
            nodes.push((format!("{at:064x}/json"), Node::File(b"{}".to_vec())));
            nodes.push((path.clone(), Node::File(data)));
            paths.push(path);
        }
        nodes.push((name.clone(), Node::File(configuration)));
        let manifest = json!([{ "Config": name, "RepoTags": self.tags, "Layers": paths }]);
        nodes.push(("manifest.json".into(), Node::File(bytes(&manifest))));
        nodes.push(("repositories".into(), Node::File(b"{}".to_vec())));
        nodes
    }

    /// `docker save` since Docker 25.
    pub fn hybrid(&self) -> Nodes {
        let mut nodes = self.oci();
        let hex = |data: &[u8]| format!("blobs/sha256/{}", Digest::of(data).hex());
        let layers: Vec<String> = self.blobs().iter().map(|data| hex(data)).collect();
        let manifest = json!([{ "Config": hex(&self.configuration()), "RepoTags": self.tags, "Layers": layers }]);
        nodes.push(("manifest.json".into(), Node::File(bytes(&manifest))));
        nodes
    }
}

pub fn marker_and_index(entries: Vec<Value>) -> Nodes {
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    vec![
        (
            "oci-layout".into(),
            Node::File(br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ),
        ("index.json".into(), Node::File(bytes(&index))),
    ]
}

pub fn descriptor(media_type: &str, data: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(data).to_string(), "size": data.len() })
}

pub fn blob(data: &[u8]) -> (String, Node) {
    (
        format!("blobs/sha256/{}", Digest::of(data).hex()),
        Node::File(data.to_vec()),
    )
}

pub fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON")
}

/// Replaces the content of a node.
pub fn alter(nodes: &mut Nodes, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let node = nodes
        .iter_mut()
        .find(|(name, _)| name == path)
        .unwrap_or_else(|| panic!("no node {path}"));
    match &mut node.1 {
        Node::File(data) => change(data),
        _ => panic!("{path} is a link"),
    }
}

/// Every way in: a directory (for an OCI layout), a file, a pipe, a compressed file.
pub fn load_every_way(
    nodes: &Nodes,
    as_directory: bool,
    mut check: impl FnMut(&str, &Images, Result<Vec<Loaded>, coracle_image::Error>),
) {
    let options = LoadOptions::default();
    let data = tar(nodes);
    let files = tempfile::tempdir().expect("a temporary directory");
    if as_directory {
        let (_dir, images) = images();
        let layout = files.path().join("layout");
        directory(nodes, &layout);
        check(
            "directory",
            &images,
            images.load(Input::Path(&layout), &options),
        );
    }
    for (way, compression) in [
        ("file", Compression::Plain),
        ("gzip file", Compression::Gzip),
        ("zstd file", Compression::Zstd),
    ] {
        let (_dir, images) = images();
        let path = files.path().join(way);
        std::fs::write(&path, compress(&data, compression)).expect("a file");
        check(way, &images, images.load(Input::Path(&path), &options));
    }
    let (_dir, images) = images();
    let reader = Box::new(Cursor::new(data));
    check(
        "stream",
        &images,
        images.load(
            Input::Stream {
                reader,
                name: "the test's stream",
            },
            &options,
        ),
    );
}

/// Nothing of a refused image may be left.
pub fn assert_empty(images: &Images, way: &str) {
    assert!(
        images.list(&Default::default()).expect("a list").is_empty(),
        "{way}: an image is left"
    );
    assert_eq!(
        images.store().layers().expect("layers"),
        [],
        "{way}: a layer is left"
    );
    assert_eq!(
        images.store().blobs().expect("blobs"),
        [],
        "{way}: a blob is left"
    );
}
