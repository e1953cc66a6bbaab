//! The images that tests run: one layer with busybox and the few files of /etc that the engine reads, as a
//! `docker save` archive or an OCI layout.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::tar::Tar;

/// The name under which [`busybox_archive`] is known once loaded.
pub const BUSYBOX: &str = "busybox:latest";

/// An archive or layout on disk, and what it holds.
pub struct ImageFile {
    /// Where it is.
    pub path: PathBuf,
    /// Digest of its configuration, which is the image's id: `sha256:…`.
    pub id: String,
}

/// `sha256:<hex>` of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// The bytes of the host's static busybox. Panics where it is missing, naming the package; `cargo xtask test` installs
/// it.
fn busybox() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        ["/bin/busybox", "/usr/bin/busybox"]
            .iter()
            .find_map(|path| fs::read(path).ok())
            .expect("no static busybox in /bin or /usr/bin: install busybox-static")
    })
}

const APPLETS: &str = "sh ash cat echo ls id hostname sleep true false test [ mkdir rmdir rm mv cp ln touch chmod chown \
    chroot mount umount mknod stat head tail grep sed awk sort uniq wc tr cut env pwd ps kill top free df du dd \
    ip ifconfig ping nslookup find xargs tee date uname whoami groups su nproc seq yes readlink realpath basename dirname \
    tty stty time timeout unshare nsenter setsid vi more less expr od hexdump cmp diff md5sum sha256sum tar gzip gunzip \
    sync trap usleep nc wget mkfifo mktemp dmesg sysctl swapon losetup insmod hwclock renice nice nohup printf";

/// The busybox layer as a tar, made once a process.
pub fn busybox_layer() -> &'static [u8] {
    static LAYER: OnceLock<Vec<u8>> = OnceLock::new();
    LAYER.get_or_init(|| {
        let mut tar = Tar::new();
        for dir in ["bin", "dev", "etc", "proc", "run", "sys", "usr", "usr/bin", "var", "home"] {
            tar.dir(dir, 0o755);
        }
        tar.dir("root", 0o700).dir("tmp", 0o1777);
        tar.file("bin/busybox", 0o755, busybox());
        for applet in APPLETS.split_whitespace() {
            tar.symlink(&format!("bin/{applet}"), "/bin/busybox");
        }
        tar.file(
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
              app:x:1000:1000:app:/home/app:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        );
        tar.file(
            "etc/group",
            0o644,
            b"root:x:0:\ndaemon:x:1:\nwheel:x:10:app\napp:x:1000:\nextra:x:2000:app\nnogroup:x:65534:\n",
        );
        tar.file("etc/motd", 0o644, b"a file of the image\n");
        tar.finish()
    })
}

fn configuration(diff_ids: &[String], config: &Value) -> Vec<u8> {
    let history: Vec<Value> = diff_ids
        .iter()
        .map(|_| json!({"created": "2024-01-01T00:00:00Z", "created_by": "test"}))
        .collect();
    serde_json::to_vec(&json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    }))
    .expect("a JSON value serialises")
}

fn default_config() -> Value {
    json!({
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Cmd": ["sh"],
    })
}

/// Writes a `docker save` archive of `layers` (uncompressed tars, bottom first) to `path`.
///
/// `config` is the `config` object of the image configuration.
pub fn docker_archive(path: &Path, name: &str, layers: &[&[u8]], config: &Value) -> ImageFile {
    let diff_ids: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
    let configuration = configuration(&diff_ids, config);
    let id = sha256(&configuration);
    let config_name = format!("{}.json", &id[7..]);
    let mut tar = Tar::new();
    tar.file(&config_name, 0o644, &configuration);
    let mut names = Vec::new();
    for (index, (layer, diff_id)) in layers.iter().zip(&diff_ids).enumerate() {
        // The index keeps two equal layers apart.
        let file = format!("{index}-{}/layer.tar", &diff_id[7..39]);
        tar.file(&file, 0o644, layer);
        names.push(file);
    }
    let manifest = json!([{"Config": config_name, "RepoTags": [name], "Layers": names}]);
    tar.file("manifest.json", 0o644, manifest.to_string().as_bytes());
    fs::write(path, tar.finish()).expect("the archive can be written");
    ImageFile {
        path: path.to_owned(),
        id,
    }
}

/// Writes the busybox image as a `docker save` archive into `dir`.
pub fn busybox_archive(dir: &Path) -> ImageFile {
    docker_archive(
        &dir.join("busybox.tar"),
        BUSYBOX,
        &[busybox_layer()],
        &default_config(),
    )
}

/// Writes the busybox image as an OCI layout with one tag into `dir`; `media` is the layer's compression: `tar`,
/// `tar+gzip` or `tar+zstd`.
pub fn oci_layout(dir: &Path, tag: &str, media: &str) -> ImageFile {
    let layer = busybox_layer();
    let blob = match media {
        "tar" => layer.to_vec(),
        "tar+gzip" => {
            use std::io::Write;
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(layer).expect("memory takes it");
            encoder.finish().expect("memory takes it")
        }
        "tar+zstd" => zstd::encode_all(layer, 1).expect("memory takes it"),
        other => panic!("no compression {other}"),
    };
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("the layout's folder can be made");
    let put = |bytes: &[u8]| {
        let digest = sha256(bytes);
        fs::write(blobs.join(&digest[7..]), bytes).expect("a blob can be written");
        json!({"digest": digest, "size": bytes.len()})
    };
    let describe = |mut descriptor: Value, media: &str| {
        descriptor["mediaType"] = json!(media);
        descriptor
    };
    let configuration = configuration(&[sha256(layer)], &default_config());
    let config = describe(
        put(&configuration),
        "application/vnd.oci.image.config.v1+json",
    );
    let layer = describe(
        put(&blob),
        &format!("application/vnd.oci.image.layer.v1.{media}"),
    );
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
    });
    let mut descriptor = describe(
        put(manifest.to_string().as_bytes()),
        "application/vnd.oci.image.manifest.v1+json",
    );
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
    fs::write(dir.join("index.json"), index.to_string()).expect("index.json can be written");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
        .expect("oci-layout can be written");
    ImageFile {
        path: dir.to_owned(),
        id: sha256(&configuration),
    }
}

/// Makes a plain directory tree with busybox in it, for `--rootfs`.
pub fn busybox_rootfs(dir: &Path) {
    use std::os::unix::fs::{PermissionsExt, symlink};
    for sub in ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "root"] {
        fs::create_dir_all(dir.join(sub)).expect("the root's folders can be made");
    }
    let program = dir.join("bin/busybox");
    fs::write(&program, busybox()).expect("busybox can be written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
    for applet in APPLETS.split_whitespace() {
        symlink("/bin/busybox", dir.join("bin").join(applet)).expect("a link can be made");
    }
    fs::write(dir.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("it is ours");
    fs::write(dir.join("etc/group"), "root:x:0:\n").expect("it is ours");
}
