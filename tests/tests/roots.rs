//! Where a container's root comes from: the host itself, a directory, an OCI layout, an archive, the local store.

use std::fs;
use std::io::Write;

use coracle_tests::{
    BUSYBOX, Engine, busybox_archive, busybox_rootfs, docker_archive, host, oci_layout, tar::Tar,
};
use serde_json::json;

#[test]
fn host_root_runs_the_hosts_programs() {
    let engine = Engine::empty();
    let host_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let seen = engine
        .command([
            "run",
            "--rm",
            "@host",
            "sh",
            "-c",
            "id -u; cat /etc/os-release",
        ])
        .run()
        .success();
    assert_eq!(seen.stdout.lines().next(), Some("0"));
    assert!(seen.stdout.contains(host_release.trim()), "{seen:?}");
}

#[test]
fn first_command_of_the_readme_works() {
    let engine = Engine::empty();
    let args = ["run", "@host", "--", "sh", "-c", "id; hostname; ls /"];
    let seen = engine.command(args).run().success();
    assert!(
        seen.stdout.starts_with("uid=0(root) gid=0(root)"),
        "{seen:?}"
    );
    let hostname = seen.stdout.lines().nth(1).expect("a second line");
    let id = engine.ok("ps -alq --no-trunc");
    assert_eq!(hostname, &id[..12]);
    assert!(seen.stdout.lines().any(|line| line == "etc"));
}

#[test]
fn host_root_is_never_written() {
    if !host::root() {
        return;
    }
    let engine = Engine::empty();
    let probe = format!("/etc/coracle-test-probe-{}", std::process::id());
    let there = || ["/etc/passwd", "/etc/group"].map(|file| fs::read(file).expect("readable"));
    let before = there();
    let script = format!(
        "echo x > {probe} && cat {probe}; rm /etc/passwd; echo > /etc/group; ls /etc/passwd"
    );
    let args = ["run", "--rm", "@host", "sh", "-c", &script];
    let seen = engine.command(args).run();
    assert_eq!(seen.stdout, "x\n", "{seen:?}");
    assert!(
        !fs::exists(&probe).expect("readable"),
        "the container wrote to the host"
    );
    assert_eq!(there(), before);
}

#[test]
fn directory_is_a_root_and_keeps_its_files() {
    let engine = Engine::empty();
    let dir = engine.make_dir("rootfs");
    busybox_rootfs(&dir);
    let path = dir.display();
    let script = "id -u; echo changed > /new; cat /new";
    let args = [
        "run",
        "--rm",
        "--rootfs",
        &path.to_string(),
        "sh",
        "-c",
        script,
    ];
    assert_eq!(engine.command(args).run().success().text(), "0\nchanged");
    assert!(!dir.join("new").exists(), "the directory was written to");
}

#[test]
fn directory_that_is_missing_is_refused() {
    let engine = Engine::empty();
    engine
        .run("run --rm --rootfs /nonexistent-root true")
        .code(125)
        .error_form(false);
}

#[test]
fn oci_layout_runs_in_every_compression() {
    let engine = Engine::empty();
    for (name, media) in [("plain", "tar"), ("gzip", "tar+gzip"), ("zstd", "tar+zstd")] {
        let layout = oci_layout(&engine.make_dir(name), "v1", media);
        let path = layout.path.display();
        assert_eq!(
            engine.ok(&format!("run --rm oci:{path}:v1 cat /etc/motd")),
            "a file of the image"
        );
        // The only image of a layout needs no tag.
        assert_eq!(engine.ok(&format!("run --rm oci:{path} echo {name}")), name);
    }
}

#[test]
fn oci_layout_tag_that_is_missing_names_what_there_is() {
    let engine = Engine::empty();
    let layout = oci_layout(&engine.make_dir("l"), "v1", "tar");
    let line = format!("run --rm oci:{}:v2 true", layout.path.display());
    engine.run(&line).code(125).error_form(false).err("v2");
}

#[test]
fn archive_runs_plain_gzipped_and_as_zstd() {
    let engine = Engine::empty();
    let archive = busybox_archive(engine.dir());
    let bytes = fs::read(&archive.path).expect("just written");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bytes).expect("memory");
    let gzip = engine.make_file("b.tar.gz", gzip.finish().expect("memory"));
    let zstd = engine.make_file(
        "b.tar.zst",
        zstd::encode_all(&bytes[..], 1).expect("memory"),
    );
    for path in [&archive.path, &gzip, &zstd] {
        let line = format!("run --rm docker-archive:{} cat /etc/motd", path.display());
        assert_eq!(engine.ok(&line), "a file of the image");
    }
}

#[test]
fn image_of_the_store_runs_by_name_and_by_id() {
    let engine = Engine::new();
    let id = engine.ok(&format!("images -q --no-trunc {BUSYBOX}"));
    assert!(id.starts_with("sha256:"), "{id}");
    let short = &id["sha256:".len()..][..12];
    for name in ["busybox", BUSYBOX, &id, short] {
        assert_eq!(engine.ok(&format!("run --rm {name} echo it")), "it");
    }
}

#[test]
fn layers_of_one_image_are_not_changed_by_a_container() {
    let engine = Engine::new();
    engine
        .sh("", "rm /etc/motd; echo x > /etc/passwd; rm -r /home")
        .success();
    assert_eq!(
        engine.sh_ok("", "cat /etc/motd; ls -d /home"),
        "a file of the image\n/home"
    );
}

#[test]
fn more_than_a_hundred_layers_make_one_root() {
    let engine = Engine::empty();
    let layers: Vec<Vec<u8>> = (0..120)
        .map(|n| {
            let mut tar = Tar::new();
            tar.file(&format!("layer-{n}"), 0o644, format!("{n}\n").as_bytes());
            tar.file("top", 0o644, format!("{n}\n").as_bytes());
            tar.finish()
        })
        .collect();
    let mut all = vec![coracle_tests::busybox_layer()];
    all.extend(layers.iter().map(Vec::as_slice));
    let archive = docker_archive(&engine.dir().join("many.tar"), "many:1", &all, &json!({}));
    engine.ok(&format!("load -i {}", archive.path.display()));
    let seen = engine.ok("run --rm many:1 /bin/sh -c 'ls -d /layer-* | wc -l; cat /top'");
    assert_eq!(seen, "120\n119");
}

#[test]
fn upper_layers_hide_and_replace_lower_ones() {
    let engine = Engine::empty();
    let mut lower = Tar::new();
    lower
        .dir("d", 0o755)
        .file("d/old", 0o644, b"old")
        .file("gone", 0o644, b"x");
    lower
        .dir("opaque", 0o755)
        .file("opaque/below", 0o644, b"x")
        .file("both", 0o644, b"lower");
    let lower = lower.finish();
    let mut upper = Tar::new();
    upper.file(".wh.gone", 0o644, b"").dir("opaque", 0o755);
    upper
        .file("opaque/.wh..wh..opq", 0o644, b"")
        .file("opaque/above", 0o644, b"y");
    upper
        .file("both", 0o644, b"upper")
        .file("d/.wh.old", 0o644, b"")
        .file("d/new", 0o644, b"new");
    let upper = upper.finish();
    let layers = [coracle_tests::busybox_layer(), &lower, &upper];
    let archive = docker_archive(&engine.dir().join("wh.tar"), "wh:1", &layers, &json!({}));
    engine.ok(&format!("load -i {}", archive.path.display()));
    let script = "ls -A /d /opaque; cat /both; ls /gone";
    let seen = engine
        .command(["run", "--rm", "wh:1", "/bin/sh", "-c", script])
        .run();
    assert_eq!(
        seen.stdout, "/d:\nnew\n\n/opaque:\nabove\nupper",
        "{seen:?}"
    );
    assert_eq!(seen.code, 1, "/gone is gone: {seen:?}");
}
