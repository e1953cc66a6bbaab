//! Mounts of the document, and images that try to lead them astray.

mod fixture;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use fixture::{Image, document, own_ids, run, run_with, skip};
use serde_json::{Value, json};

fn with_mount(script: &str, mount: Value) -> Value {
    let mut document = document(&["sh", "-c", script]);
    document["mounts"]
        .as_array_mut()
        .expect("a list")
        .push(mount);
    document
}

#[test]
fn a_bind_mount_shows_the_hosts_directory_with_its_ids_mapped() {
    if skip("a_bind_mount_shows_the_hosts_directory_with_its_ids_mapped") {
        return;
    }
    let image = Image::new();
    let source = image.path("data");
    fs::create_dir(&source).expect("a directory");
    fs::write(source.join("from-host"), "hello").expect("a file");
    let mount = |options: &[&str]| json!({ "destination": "/data/sub", "source": source, "options": options });
    let script =
        "cat /data/sub/from-host; stat -c %u /data/sub/from-host; echo x > /data/sub/from-inside";
    let outcome = run(&image, &with_mount(script, mount(&["rbind", "idmap"]))).expect("a start");
    assert_eq!(
        (outcome.stdout.as_str(), outcome.code),
        ("hello0\n", 0),
        "{outcome:?}"
    );
    assert_eq!(
        fs::metadata(source.join("from-inside"))
            .expect("the file")
            .uid(),
        0
    );
    assert!(
        !image.lower().join("data").exists(),
        "the target was made in the upper"
    );
    let outcome = run(
        &image,
        &with_mount("stat -c %u /data/sub/from-host", mount(&["rbind"])),
    )
    .expect("a start");
    assert_eq!(
        outcome.stdout, "65534\n",
        "without a map the host's root is nobody"
    );
    let outcome = run(
        &image,
        &with_mount("echo y > /data/sub/z", mount(&["rbind", "idmap", "ro"])),
    )
    .expect("a start");
    assert!(outcome.stderr.contains("Read-only"), "{outcome:?}");
}

#[test]
fn a_bind_has_a_map_of_its_own() {
    if skip("a_bind_has_a_map_of_its_own") {
        return;
    }
    let image = Image::new();
    let source = image.path("data");
    fs::create_dir(&source).expect("a directory");
    std::os::unix::fs::chown(&source, Some(1234), Some(1234)).expect("a chown");
    let maps = json!([{ "containerID": 1234, "hostID": fixture::BASE + 7, "size": 1 }]);
    let mount = json!({
        "destination": "/data", "source": source, "options": ["bind", "idmap"], "uidMappings": maps, "gidMappings": maps
    });
    let outcome = run(&image, &with_mount("stat -c %u:%g /data", mount)).expect("a start");
    assert_eq!(outcome.stdout, "7:7\n", "{outcome:?}");
}

#[test]
fn files_and_directories_are_made_for_binds() {
    if skip("files_and_directories_are_made_for_binds") {
        return;
    }
    let image = Image::new();
    let source = image.path("hosts");
    fs::write(&source, "127.0.0.1 localhost\n").expect("a file");
    // A dangling link, as images have it for resolv.conf.
    symlink("../run/resolve/stub", image.lower().join("etc/resolv.conf")).expect("a link");
    let mut document = with_mount(
        "cat /etc/hosts /etc/resolv.conf /run/resolve/stub; ls -d /deep/er/",
        json!({ "destination": "/etc/hosts", "source": source, "options": ["bind", "idmap"] }),
    );
    let mounts = document["mounts"].as_array_mut().expect("a list");
    mounts.push(json!({ "destination": "/etc/resolv.conf", "source": source, "options": ["bind", "idmap"] }));
    mounts.push(json!({ "destination": "/deep/er", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"] }));
    let outcome = run(&image, &document).expect("a start");
    assert_eq!(
        outcome.stdout,
        "127.0.0.1 localhost\n".repeat(3) + "/deep/er/\n",
        "{outcome:?}"
    );
}

#[test]
fn links_at_mount_targets_do_not_leave_the_root() {
    if skip("links_at_mount_targets_do_not_leave_the_root") {
        return;
    }
    for (link, target) in [
        ("/", "evil"),
        ("../../../../../../../../", "evil"),
        ("/proc/self/root", "evil"),
        ("../../../etc", "evil/x"),
        ("/nonexistent/../../..", "evil/y"),
    ] {
        let image = Image::new();
        let marker = image.path("marker");
        fs::create_dir(&marker).expect("a directory");
        symlink(link, image.lower().join("evil")).expect("a link");
        let before = host_mounts();
        let mount = json!({ "destination": format!("/{target}/planted"), "source": marker, "options": ["bind"] });
        // It mounts inside of the root, or it is refused; never outside.
        let _ = run(&image, &with_mount("true", mount));
        assert_eq!(host_mounts(), before, "{link}");
        assert!(
            !Path::new("/planted").exists() && !Path::new("/etc/planted").exists(),
            "{link}"
        );
        assert!(
            !Path::new("/etc/x").exists() && !Path::new("/y").exists(),
            "{link}"
        );
    }
}

fn host_mounts() -> usize {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("our mounts");
    mounts
        .lines()
        .filter(|line| line.contains("planted") || line.contains("marker"))
        .count()
}

#[test]
fn proc_and_sys_behind_a_link_are_refused() {
    if skip("proc_and_sys_behind_a_link_are_refused") {
        return;
    }
    let image = Image::new();
    fs::remove_dir(image.lower().join("proc")).expect("the directory");
    symlink("/tmp", image.lower().join("proc")).expect("a link");
    let error = run(&image, &document(&["true"]))
        .expect_err("refused")
        .to_string();
    assert!(error.contains("/proc"), "{error}");
}

#[test]
fn nothing_but_a_few_files_is_mounted_over_proc() {
    if skip("nothing_but_a_few_files_is_mounted_over_proc") {
        return;
    }
    let image = Image::new();
    let source = image.path("fake");
    fs::write(&source, "fake\n").expect("a file");
    let bind = |target: &str| json!({ "destination": target, "source": source, "options": ["bind", "idmap"] });
    let outcome = run(
        &image,
        &with_mount("cat /proc/uptime", bind("/proc/uptime")),
    )
    .expect("a start");
    assert_eq!(outcome.stdout, "fake\n", "{outcome:?}");
    for target in [
        "/proc/version",
        "/proc/sys/kernel/hostname",
        "/proc/../proc/version",
    ] {
        let error = run(&Image::new(), &with_mount("true", bind(target)))
            .expect_err("refused")
            .to_string();
        assert!(error.contains("procfs"), "{target}: {error}");
    }
    // By a link to it, too.
    let image = Image::new();
    symlink("/proc", image.lower().join("shortcut")).expect("a link");
    let error = run(&image, &with_mount("true", bind("/shortcut/version")))
        .expect_err("refused")
        .to_string();
    assert!(error.contains("procfs"), "{error}");
}

#[test]
fn a_missing_source_is_named() {
    if skip("a_missing_source_is_named") {
        return;
    }
    let mount =
        json!({ "destination": "/x", "source": "/nonexistent/source", "options": ["bind"] });
    let error = run(&Image::new(), &with_mount("true", mount)).expect_err("an error");
    assert!(error.to_string().contains("/nonexistent/source"), "{error}");
    assert_eq!(error.exit_code(), 125);
}

#[test]
fn shared_propagation_out_of_a_user_namespace_is_refused() {
    if skip("shared_propagation_out_of_a_user_namespace_is_refused") {
        return;
    }
    let mount = json!({ "destination": "/x", "source": "/tmp", "options": ["rbind", "rshared"] });
    let error = run(&Image::new(), &with_mount("true", mount))
        .expect_err("refused")
        .to_string();
    assert!(error.contains("shared"), "{error}");
}

#[test]
fn a_read_only_tmpfs_still_takes_what_is_mounted_inside() {
    if skip("a_read_only_tmpfs_still_takes_what_is_mounted_inside") {
        return;
    }
    let image = Image::new();
    let mut document = with_mount(
        "ls /outer; touch /outer/inner/x && echo INNER; touch /outer/y",
        json!({ "destination": "/outer", "type": "tmpfs", "source": "tmpfs", "options": ["ro"] }),
    );
    let mounts = document["mounts"].as_array_mut().expect("a list");
    mounts.push(
        json!({ "destination": "/outer/inner", "type": "tmpfs", "source": "tmpfs", "options": [] }),
    );
    let outcome = run(&image, &document).expect("a start");
    assert_eq!(outcome.stdout, "inner\nINNER\n", "{outcome:?}");
    assert!(outcome.stderr.contains("Read-only"), "{outcome:?}");
}

#[test]
fn a_device_of_the_document_is_bound_from_the_host() {
    if skip("a_device_of_the_document_is_bound_from_the_host") {
        return;
    }
    let image = Image::new();
    let mut document = document(&["sh", "-c", "stat -c '%t:%T' /dev/zero2 /dev/deep/full"]);
    document["linux"]["devices"] = json!([
        { "path": "/dev/zero2", "type": "c", "major": 1, "minor": 5 },
        { "path": "/dev/deep/full", "type": "c", "major": 1, "minor": 7 }
    ]);
    let outcome = run(&image, &document).expect("a start");
    assert_eq!(outcome.stdout, "1:5\n1:7\n", "{outcome:?}");
    document["linux"]["devices"] =
        json!([{ "path": "/dev/none", "type": "c", "major": 4000, "minor": 5 }]);
    assert!(run_with(&document, Image::new().overlay(), own_ids()).is_err());
}
