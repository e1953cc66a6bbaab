//! Mounts: bind mounts, volumes and tmpfs, by `-v` and by `--mount`.

use std::fs;
use std::os::unix::fs::MetadataExt;

use coracle_tests::{Engine, host};

#[test]
fn bind_mount_shares_a_folder_both_ways() {
    let engine = Engine::new();
    let dir = engine.make_dir("shared");
    fs::write(dir.join("in"), "from host").expect("it is ours");
    let options = format!("-v {}:/data", dir.display());
    assert_eq!(
        engine.sh_ok(&options, "cat /data/in; echo out > /data/out"),
        "from host"
    );
    assert_eq!(
        fs::read_to_string(dir.join("out")).expect("written"),
        "out\n"
    );
}

#[test]
fn files_made_through_a_bind_mount_belong_to_the_caller() {
    let engine = Engine::new();
    let dir = engine.make_dir("shared");
    let options = format!("-v {}:/data", dir.display());
    engine.sh_ok(&options, "touch /data/file; stat -c %u /data/file");
    let owner = fs::metadata(dir.join("file")).expect("made").uid();
    assert_eq!(owner, rustix::process::geteuid().as_raw());
}

#[test]
fn read_only_bind_mount_refuses_writes_and_mounts_below_it_too() {
    let engine = Engine::new();
    let dir = engine.make_dir("shared");
    for options in [
        format!("-v {}:/data:ro", dir.display()),
        format!(
            "--mount type=bind,source={},target=/data,readonly",
            dir.display()
        ),
        format!("--mount type=bind,src={},dst=/data,ro=true", dir.display()),
    ] {
        engine
            .sh(&options, "echo x > /data/file")
            .code(1)
            .err("Read-only file system");
    }
    assert!(!dir.join("file").exists());
}

#[test]
fn single_file_can_be_mounted() {
    let engine = Engine::new();
    let file = engine.make_file("motd", "mounted\n");
    let options = format!("-v {}:/etc/motd", file.display());
    assert_eq!(engine.sh_ok(&options, "cat /etc/motd"), "mounted");
    // The image has no such file: the target is made.
    let options = format!("-v {}:/new/place/file:ro", file.display());
    assert_eq!(engine.sh_ok(&options, "cat /new/place/file"), "mounted");
}

#[test]
fn hosts_root_can_be_mounted_with_what_has_no_id_mapping_below_it() {
    let engine = Engine::new();
    let script = "stat -c %u /host/etc/passwd && test -e /host/proc/self && echo there";
    assert_eq!(engine.sh_ok("-v /:/host:ro", script), "0\nthere");
}

#[test]
fn source_that_is_missing_is_made_by_v_and_refused_by_mount() {
    let engine = Engine::new();
    let dir = engine.dir().join("not/there");
    let line = format!(
        "run --rm --mount type=bind,source={},target=/d busybox true",
        dir.display()
    );
    engine.run(&line).code(125).error_form(false);
    assert!(!dir.exists());
    engine.sh_ok(&format!("-v {}:/d", dir.display()), "touch /d/x");
    assert!(dir.join("x").exists());
}

#[test]
fn mistakes_in_mounts_are_refused() {
    let engine = Engine::new();
    for options in [
        "-v /tmp:relative",
        "-v /tmp:/d:wrong-option",
        "--mount type=wrong,target=/d",
        "--mount type=bind,target=/d",
        "--mount type=tmpfs",
        "-v 'bad name':/d",
    ] {
        let outcome = engine.run(&format!("run --rm {options} busybox true"));
        outcome.code(125).error_form(false);
    }
    assert_eq!(engine.ok("ps -aq"), "");
}

#[test]
fn named_volume_outlives_its_containers() {
    let engine = Engine::new();
    engine.sh_ok("-v data:/d", "echo kept > /d/file");
    assert_eq!(
        engine.sh_ok("--mount type=volume,source=data,target=/e", "cat /e/file"),
        "kept"
    );
    assert_eq!(engine.ok("volume ls -q"), "data");
}

#[test]
fn files_of_a_volume_keep_their_owner_across_id_ranges() {
    let engine = Engine::new();
    engine.sh_ok(
        "-v data:/d",
        "touch /d/root; touch /d/app; chown 1000:1000 /d/app",
    );
    engine.detached("--name other", "sleep 100");
    assert_eq!(
        engine.sh_ok("-v data:/d", "stat -c '%n %u %g' /d/root /d/app"),
        "/d/root 0 0\n/d/app 1000 1000"
    );
}

#[test]
fn empty_volume_takes_what_the_image_has_there() {
    let engine = Engine::new();
    assert_eq!(
        engine.sh_ok("-v etc:/etc", "cat /etc/motd"),
        "a file of the image"
    );
    assert_eq!(
        engine.sh_ok(
            "-v etc:/copied",
            "cat /copied/motd; stat -c %u /copied/motd"
        ),
        "a file of the image\n0"
    );
    assert_eq!(
        engine.sh_ok(
            "-v bare:/etc:nocopy",
            "ls /etc/motd 2>/dev/null || echo none"
        ),
        "none"
    );
}

#[test]
fn volume_verbs_create_list_inspect_and_remove() {
    let engine = Engine::new();
    assert_eq!(engine.ok("volume create --label a=b named"), "named");
    let anonymous = engine.ok("volume create");
    assert_eq!(anonymous.len(), 64);
    let listed = engine.ok("volume ls");
    assert!(
        listed.starts_with("DRIVER") && listed.contains("named"),
        "{listed}"
    );
    let text = engine.ok("volume inspect named");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value[0]["Name"], "named");
    assert_eq!(value[0]["Labels"]["a"], "b");
    let point = value[0]["Mountpoint"].as_str().expect("a path");
    assert!(fs::metadata(point).expect("it is there").is_dir());
    assert_eq!(engine.ok("volume inspect -f '{{.Driver}}' named"), "local");
    assert_eq!(engine.ok("volume rm named"), "named");
    engine.refuses("volume rm named");
    engine.refuses("volume inspect named");
    engine.ok(&format!("volume rm {anonymous}"));
}

#[test]
fn volume_in_use_is_not_removed() {
    let engine = Engine::new();
    engine.ok("create --name user -v data:/d busybox true");
    engine.refuses("volume rm data").err("data");
    engine.ok("rm user");
    engine.ok("volume rm data");
}

#[test]
fn anonymous_volumes_go_with_rm_and_with_rm_v_only() {
    let engine = Engine::new();
    engine.sh_ok("-v /d", "touch /d/x");
    assert_eq!(engine.ok("volume ls -q"), "", "--rm takes them");
    engine.ok("create --name a1 -v /d busybox true");
    engine.ok("rm a1");
    assert_eq!(
        engine.ok("volume ls -q").lines().count(),
        1,
        "rm leaves them"
    );
    engine.ok("create --name b1 -v /d busybox true");
    engine.ok("rm -v b1");
    assert_eq!(
        engine.ok("volume ls -q").lines().count(),
        1,
        "rm -v takes them"
    );
}

#[test]
fn volume_prune_takes_the_anonymous_unused_and_all_with_a() {
    let engine = Engine::new();
    engine.ok("volume create kept");
    engine.ok("volume create");
    engine.ok("create --name user -v /d busybox true");
    engine.ok("volume prune -f");
    assert_eq!(engine.ok("volume ls -q").lines().count(), 2);
    engine.ok("volume prune -f -a");
    assert_eq!(engine.ok("volume ls -q").lines().count(), 1);
}

#[test]
fn volumes_from_gives_another_containers_volumes() {
    let engine = Engine::new();
    engine.ok("create --name holder -v data:/d busybox true");
    engine.sh_ok("-v data:/x", "echo it > /x/f");
    assert_eq!(engine.sh_ok("--volumes-from holder", "cat /d/f"), "it");
    engine.sh("--volumes-from holder:ro", "touch /d/g").code(1);
}

#[test]
fn tmpfs_has_its_size_and_mode() {
    let engine = Engine::new();
    let script = "df -k /t | tail -n1 | awk '{print $2}'; stat -c %a /t; grep ' /t ' /proc/mounts";
    let seen = engine.sh_ok("--tmpfs /t:size=4m,mode=0750,noexec", script);
    assert!(seen.starts_with("4096\n750\n"), "{seen}");
    assert!(seen.contains("noexec"), "{seen}");
    let script =
        "df -k /t | tail -n1 | awk '{print $2}'; dd if=/dev/zero of=/t/f bs=1k count=3000 2>&1";
    engine
        .sh("--mount type=tmpfs,target=/t,tmpfs-size=2m", script)
        .code(1)
        .out("2048")
        .out("No space left");
}

#[test]
fn propagation_from_the_host_is_only_seen_when_asked_for() {
    if !host::root() {
        return;
    }
    let engine = Engine::new();
    let dir = engine.make_dir("p");
    let path = dir.display().to_string();
    let mount = |args: &[&str]| {
        let status = std::process::Command::new("mount").args(args).status();
        assert!(status.expect("mount is there").success(), "mount {args:?}");
    };
    mount(&["--bind", &path, &path]);
    mount(&["--make-shared", &path]);
    fs::create_dir(dir.join("sub")).expect("it is ours");
    engine.detached(&format!("--name private -v {path}:/d"), "sleep 100");
    engine.detached(&format!("--name slave -v {path}:/d:rslave"), "sleep 100");
    mount(&["-t", "tmpfs", "x", &format!("{path}/sub")]);
    fs::write(dir.join("sub/late"), "x").expect("it is ours");
    let seen = [
        engine.run("exec private ls /d/sub"),
        engine.run("exec slave ls /d/sub"),
    ];
    let unmounted = std::process::Command::new("umount")
        .arg("-R")
        .arg(&path)
        .status();
    assert!(unmounted.expect("umount is there").success());
    assert_eq!(seen[0].text(), "", "a private mount does not see it");
    assert_eq!(seen[1].text(), "late", "a slave mount does");
}

#[test]
fn mounts_are_listed_by_inspect() {
    let engine = Engine::new();
    let dir = engine.make_dir("d");
    let line = format!(
        "create --name c1 -v {}:/b:ro -v data:/v busybox true",
        dir.display()
    );
    engine.ok(&line);
    let text = engine.ok("inspect c1");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mounts = value[0]["Mounts"].as_array().expect("a list");
    let of = |target: &str| {
        mounts
            .iter()
            .find(|mount| mount["Destination"] == target)
            .expect("there")
    };
    assert_eq!(
        (of("/b")["Type"].as_str(), of("/b")["RW"].as_bool()),
        (Some("bind"), Some(false))
    );
    assert_eq!(
        (of("/v")["Name"].as_str(), of("/v")["RW"].as_bool()),
        (Some("data"), Some(true))
    );
}
