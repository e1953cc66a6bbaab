//! Files in and out: cp, diff, commit, export; and copy on write.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use coracle_tests::{Engine, host};

#[test]
fn cp_takes_a_file_in_and_out() {
    let engine = Engine::new();
    engine.ok("create --name c1 busybox cat /root/in");
    let file = engine.make_file("in", "content\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o750)).expect("it is ours");
    engine.ok(&format!("cp {} c1:/root/in", file.display()));
    assert_eq!(engine.ok("start -a c1"), "content");
    let out = engine.dir().join("out");
    engine.ok(&format!("cp c1:/root/in {}", out.display()));
    assert_eq!(fs::read_to_string(&out).expect("copied"), "content\n");
    assert_eq!(fs::metadata(&out).expect("copied").mode() & 0o777, 0o750);
}

#[test]
fn cp_of_folders_follows_dockers_rules() {
    let engine = Engine::new();
    engine.detached("--name c1", "sleep 100");
    let dir = engine.make_dir("d");
    fs::create_dir(dir.join("sub")).expect("it is ours");
    fs::write(dir.join("sub/f"), "x").expect("it is ours");
    symlink("f", dir.join("sub/link")).expect("it is ours");
    let path = dir.display();
    // The target does not exist: it becomes the folder.
    engine.ok(&format!("cp {path} c1:/new"));
    assert_eq!(engine.ok("exec c1 readlink /new/sub/link"), "f");
    // It exists: the folder goes into it.
    engine.ok(&format!("cp {path} c1:/new"));
    assert_eq!(engine.ok("exec c1 cat /new/d/sub/f"), "x");
    // `/.`: its content does.
    engine.ok("exec c1 mkdir /into");
    engine.ok(&format!("cp {path}/. c1:/into"));
    assert_eq!(engine.ok("exec c1 cat /into/sub/f"), "x");
    // And out again.
    let out = engine.make_dir("out");
    engine.ok(&format!("cp c1:/new/sub {}", out.display()));
    assert_eq!(fs::read_to_string(out.join("sub/f")).expect("copied"), "x");
    assert!(
        fs::symlink_metadata(out.join("sub/link"))
            .expect("copied")
            .is_symlink()
    );
}

#[test]
fn cp_streams_tar() {
    let engine = Engine::new();
    engine.ok("create --name c1 busybox true");
    let output = engine
        .line("cp c1:/etc/motd -")
        .into_command()
        .output()
        .expect("it runs");
    assert!(output.status.success());
    assert_eq!(&output.stdout[257..262], b"ustar");
    engine
        .line("cp - c1:/root")
        .stdin(&output.stdout)
        .run()
        .success();
    let back = engine
        .line("cp c1:/root/motd -")
        .into_command()
        .output()
        .expect("it runs");
    assert!(back.stdout.windows(19).any(|w| w == b"a file of the image"));
}

#[test]
fn cp_mistakes() {
    let engine = Engine::new();
    engine.ok("create --name c1 busybox true");
    let dir = engine.dir().display().to_string();
    engine.refuses(&format!("cp c1:/no/such/file {dir}"));
    engine.refuses(&format!("cp {dir}/missing c1:/root"));
    engine.refuses(&format!("cp {dir} c1:/etc/motd"));
    engine.refuses(&format!("cp missing:/x {dir}"));
    engine.refuses("cp c1:/etc/motd c1:/root");
}

#[test]
fn cp_never_follows_a_link_of_the_container_to_the_host() {
    let engine = Engine::new();
    let victim = engine.make_dir("victim");
    fs::write(victim.join("secret"), "of the host").expect("it is ours");
    let path = victim.display();
    engine.detached(
        "--name c1",
        &format!("ln -s {path} /link; ln -s {path}/secret /file; sleep 100"),
    );
    coracle_tests::eventually(
        "the links are there",
        std::time::Duration::from_secs(10),
        || engine.run("exec c1 readlink /file").code == 0,
    );
    let file = engine.make_file("in", "from the command\n");
    engine.run(&format!("cp {} c1:/link/planted", file.display()));
    engine.run(&format!("cp {} c1:/file", file.display()));
    let out = engine.dir().join("stolen");
    engine.run(&format!("cp -L c1:/file {}", out.display()));
    assert!(!victim.join("planted").exists());
    assert_eq!(
        fs::read_to_string(victim.join("secret")).expect("kept"),
        "of the host"
    );
    assert!(!out.is_file() || fs::read_to_string(&out).expect("text") != "of the host");
}

#[test]
fn cp_sees_volumes_and_mounts() {
    let engine = Engine::new();
    engine.detached("--name c1 -v data:/d", "echo in volume > /d/f; sleep 100");
    let out = engine.dir().join("f");
    coracle_tests::eventually("it is copied", std::time::Duration::from_secs(10), || {
        engine.run(&format!("cp c1:/d/f {}", out.display())).code == 0
    });
    assert_eq!(fs::read_to_string(&out).expect("copied"), "in volume\n");
}

#[test]
fn diff_lists_what_was_added_changed_and_deleted() {
    let engine = Engine::new();
    let script = "echo x > /new; mkdir -p /dir/sub; echo y > /dir/sub/f; echo z >> /etc/motd; rm -r /home; rm /bin/yes";
    engine
        .command(["run", "--name", "c1", "busybox", "sh", "-c", script])
        .run()
        .success();
    let seen = engine.ok("diff c1");
    let mut lines: Vec<&str> = seen.lines().collect();
    lines.sort_unstable();
    let expected = [
        "A /dir",
        "A /dir/sub",
        "A /dir/sub/f",
        "A /new",
        "C /bin",
        "C /etc",
        "C /etc/motd",
        "D /bin/yes",
        "D /home",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn diff_of_a_container_that_changed_nothing_is_empty() {
    let engine = Engine::new();
    engine.run("run --name c1 busybox true").success();
    assert_eq!(engine.ok("diff c1"), "");
}

#[test]
fn commit_makes_a_layer_of_just_the_changes() {
    let engine = Engine::new();
    let script = "echo new > /new; rm /etc/motd; chown 1000:1000 /new; rm -r /home; mkdir /home; touch /home/only";
    engine
        .command(["run", "--name", "c1", "busybox", "sh", "-c", script])
        .run()
        .success();
    let id = engine
        .command([
            "commit",
            "-m",
            "why",
            "-a",
            "who",
            "-c",
            "CMD [\"cat\", \"/new\"]",
            "c1",
            "made:1",
        ])
        .run()
        .success();
    assert!(id.text().starts_with("sha256:"), "{id:?}");
    assert_eq!(engine.ok("run --rm made:1"), "new");
    let script = "stat -c '%u %g' /new; ls /etc/motd 2>/dev/null; ls /home";
    let seen = engine
        .command(["run", "--rm", "made:1", "sh", "-c", script])
        .run()
        .success();
    assert_eq!(seen.stdout, "1000 1000\nonly\n");
    assert_eq!(
        engine.ok("image inspect --format '{{len .RootFS.Layers}}' made:1"),
        "2"
    );
    assert_eq!(
        engine.ok("image inspect --format '{{.Author}} {{.Comment}}' made:1"),
        "who why"
    );
    let file = engine.dir().join("made.tar");
    engine.ok(&format!("save -o {} made:1", file.display()));
    let whole = fs::metadata(&file).expect("saved").len();
    let base = coracle_tests::busybox_layer().len() as u64;
    assert!(
        whole < base + 100_000,
        "the layer is small: {whole} against {base}"
    );
}

#[test]
fn export_gives_the_whole_root_as_the_container_sees_it() {
    let engine = Engine::new();
    engine
        .run("run --name c1 busybox sh -c 'echo x > /added; rm /etc/motd'")
        .success();
    let file = engine.dir().join("root.tar");
    engine.ok(&format!("export -o {} c1", file.display()));
    let output = Command::new("tar")
        .arg("-tf")
        .arg(&file)
        .output()
        .expect("tar is there");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let names: Vec<&str> = listed
        .lines()
        .map(|name| name.trim_start_matches("./"))
        .collect();
    assert!(
        names.contains(&"added") && names.contains(&"bin/busybox"),
        "{listed}"
    );
    assert!(
        !names.contains(&"etc/motd") && !listed.contains(".wh."),
        "{listed}"
    );
    engine.ok(&format!("import {} again", file.display()));
    assert_eq!(engine.ok("run --rm again /bin/cat /added"), "x");
}

#[test]
fn hundred_containers_of_an_image_add_little_and_never_change_it() {
    if !host::root() {
        return;
    }
    let engine = Engine::new();
    let used = || {
        let output = Command::new("du")
            .arg("-sk")
            .arg(engine.root())
            .output()
            .expect("du is there");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace()
            .next()
            .and_then(|kb| kb.parse::<u64>().ok())
            .expect("a number")
    };
    engine.ok("create busybox true");
    let before = used();
    for n in 0..100 {
        engine.ok(&format!(
            "create --name n{n} busybox sh -c 'echo {n} > /mine; cat /mine'"
        ));
    }
    engine.ok("start -a n7");
    let after = used();
    assert!(
        after - before < 100 * 100,
        "{} kB for 100 containers",
        after - before
    );
    assert_eq!(engine.ok("start -a n8"), "8");
    assert_eq!(
        engine.sh_ok("", "cat /etc/motd; ls /mine 2>/dev/null; true"),
        "a file of the image"
    );
}
