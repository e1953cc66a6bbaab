//! An ordinary user: what root has, as far as the kernel allows, and a reason and a remedy where it does not.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use coracle_tests::{BUSYBOX, Engine, Terminal};

#[test]
fn user_runs_an_image_as_root_inside_and_as_nobody_special_outside() {
    let Some(engine) = Engine::rootless() else {
        return;
    };
    assert_eq!(
        engine.sh_ok("", "id -u; id -g; cat /etc/motd"),
        "0\n0\na file of the image"
    );
    engine.detached("--name c1", "sleep 100");
    let status = fs::read_to_string(format!("/proc/{}/status", engine.pid("c1"))).expect("it runs");
    let uid = status
        .lines()
        .find(|line| line.starts_with("Uid:"))
        .expect("a line");
    assert_ne!(uid.split_whitespace().nth(1), Some("0"));
}

#[test]
fn user_with_ranges_has_many_ids() {
    let Some(engine) = Engine::rootless() else {
        return;
    };
    let map = engine.sh_ok("", "cat /proc/self/uid_map");
    let count: u64 = map
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok())
        .sum();
    assert!(count > 1000, "{map}");
    assert_eq!(engine.ok("run --rm -u app busybox id -u"), "1000");
    assert_eq!(
        engine.sh_ok("", "touch /f && chown 1000:1000 /f && stat -c %u /f"),
        "1000"
    );
}

#[test]
fn user_without_ranges_has_one_id_and_is_told_how_to_get_more() {
    let Some(engine) = Engine::rootless_single_id() else {
        return;
    };
    assert_eq!(engine.sh_ok("", "id -u; echo x > /f && cat /f"), "0\nx");
    let map = engine.sh_ok("", "cat /proc/self/uid_map");
    assert_eq!(map.split_whitespace().nth(2), Some("1"));
    let outcome = engine.run(&format!("run --rm -u app {BUSYBOX} true"));
    assert_ne!(outcome.code, 0);
    outcome.error_form(true).err("subuid");
}

#[test]
fn user_runs_the_hosts_own_files() {
    let Some(engine) = Engine::rootless() else {
        return;
    };
    let seen = engine
        .command(["run", "--rm", "@host", "sh", "-c", "id -u; ls /etc/passwd"])
        .run();
    assert_eq!(seen.success().text(), "0\n/etc/passwd");
    // What the user may not read, root inside may not either.
    let seen = engine
        .command(["run", "--rm", "@host", "cat", "/etc/shadow"])
        .run();
    assert_ne!(seen.code, 0, "{seen:?}");
}

#[test]
fn changes_to_the_hosts_own_files_stay_in_the_container() {
    let Some(engine) = Engine::rootless() else {
        return;
    };
    let script = "echo x > /usr/coracle-made; echo y > /etc/coracle-made; cat /usr/coracle-made /etc/coracle-made";
    let seen = engine
        .command(["run", "--name", "c1", "@host", "sh", "-c", script])
        .run();
    assert_eq!(seen.success().text(), "x\ny");
    for file in ["/usr/coracle-made", "/etc/coracle-made"] {
        assert!(!std::path::Path::new(file).exists(), "{file}");
    }
    let mut lines: Vec<String> = engine.ok("diff c1").lines().map(str::to_owned).collect();
    lines.sort();
    let expected = [
        "A /etc/coracle-made",
        "A /usr/coracle-made",
        "C /etc",
        "C /usr",
    ];
    assert_eq!(lines, expected);
    engine.ok("start c1");
    engine.until_status("c1", "exited");
    assert_eq!(engine.field("c1", "{{.State.ExitCode}}"), "0");
}

#[test]
fn namespaces_of_another_container_are_joined() {
    let Some(engine) = Engine::rootless() else {
        return;
    };
    engine.detached("--name c1", "exec sleep 100");
    let joined = "--network container:c1 --pid container:c1";
    assert_eq!(engine.sh_ok(joined, "cat /proc/1/comm"), "sleep");
    engine.detached(&format!("--name c2 {joined}"), "exec sleep 100");
    for kind in ["net", "pid", "user"] {
        let of = |name| fs::read_link(format!("/proc/{}/ns/{kind}", engine.pid(name)));
        assert_eq!(of("c1").expect("it runs"), of("c2").expect("it runs"));
    }
}

#[test]
fn isolation_is_the_same() {
    let Some(engine) = Engine::rootless() else {
        return;
    };
    let seen = engine.sh_ok(
        "",
        "grep -E '^(CapEff|NoNewPrivs|Seccomp:)' /proc/self/status",
    );
    let values: Vec<&str> = seen
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    assert_eq!(values, ["00000000800405fb", "1", "2"]);
    assert_eq!(
        engine.sh_ok("", "echo $$; ls /sys/class/net; hostname | wc -c"),
        "1\nlo\n13"
    );
    engine.sh("", "echo h > /proc/sysrq-trigger").code(1);
}

#[test]
fn whole_life_works() {
    let Some(engine) = Engine::rootless() else {
        return;
    };
    let id = engine.detached(
        "--name c1",
        "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done",
    );
    engine.until_logged("c1", "up");
    assert_eq!(engine.ok("exec c1 echo in"), "in");
    assert!(engine.ok("ps").contains(&id[..12]));
    assert!(engine.ok("top c1").lines().count() >= 2);
    engine.ok("stop c1");
    assert_eq!(engine.field("c1", "{{.State.ExitCode}}"), "5");
    engine.ok("start c1");
    engine.until_status("c1", "running");
    engine.ok("restart -t 0 c1");
    engine.ok("kill c1");
    engine.ok("wait c1");
    engine.ok("rename c1 d1");
    engine.ok("rm d1");
}

#[test]
fn terminal_works() {
    let Some(engine) = Engine::rootless() else {
        return;
    };
    let terminal = Terminal::spawn(engine.line(&format!("run --rm -it {BUSYBOX} sh")));
    terminal.send("tty; stty size; exit 3\n");
    terminal.expect("/dev/pts/0");
    terminal.expect("24 80");
    assert_eq!(terminal.wait(), 3);
}

#[test]
fn files_in_and_out_and_images_work() {
    let Some(engine) = Engine::rootless() else {
        return;
    };
    engine
        .run(&format!(
            "run --name c1 {BUSYBOX} sh -c 'echo x > /new; rm /etc/motd'"
        ))
        .success();
    let mut lines: Vec<String> = engine.ok("diff c1").lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["A /new", "C /etc", "D /etc/motd"]);
    engine.ok("commit c1 made:1");
    assert_eq!(engine.ok("run --rm made:1 cat /new"), "x");
    let file = engine.dir().join("home/out");
    engine.ok(&format!("cp c1:/new {}", file.display()));
    assert_eq!(fs::read_to_string(file).expect("copied"), "x\n");
    let saved = engine.dir().join("home/saved.tar");
    engine.ok(&format!("save -o {} made:1", saved.display()));
    engine.ok("rm c1");
    engine.ok("rmi made:1");
    engine.ok(&format!("load -i {}", saved.display()));
    assert_eq!(engine.ok("run --rm made:1 cat /new"), "x");
}

#[test]
fn bind_mount_gives_what_the_user_has_and_no_more() {
    let Some(engine) = Engine::rootless() else {
        return;
    };
    let home = engine.dir().join("home");
    let owner = fs::metadata(&home).expect("made").uid();
    let options = format!("-v {}:/h", home.display());
    engine.sh_ok(&options, "echo x > /h/file");
    assert_eq!(fs::metadata(home.join("file")).expect("made").uid(), owner);
    // Read-only for everybody but its owner, who is root of the host or whoever runs the tests.
    let theirs = engine.make_dir("theirs");
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o755)).expect("it is ours");
    if fs::metadata(&theirs).expect("made").uid() != owner {
        engine
            .sh(&format!("-v {}:/t", theirs.display()), "echo x > /t/file")
            .code(1);
        assert!(!theirs.join("file").exists());
    }
    engine.sh_ok("-v data:/d", "echo kept > /d/f");
    assert_eq!(engine.sh_ok("-v data:/d", "cat /d/f"), "kept");
}

#[test]
fn what_the_kernel_does_not_allow_is_refused_with_reason_and_remedy() {
    let Some(engine) = Engine::rootless() else {
        return;
    };
    let outcome = engine.run(&format!("run --rm --memory 64m {BUSYBOX} true"));
    if outcome.code != 0 {
        // No controller is delegated to this user here.
        outcome.code(125).error_form(true);
    }
    let outcome = engine.run(&format!(
        "run --rm --device /dev/kmsg {BUSYBOX} head -c1 /dev/kmsg"
    ));
    assert_ne!(outcome.code, 0, "{outcome:?}");
    let outcome = engine.run(&format!("run --rm --oom-score-adj -900 {BUSYBOX} true"));
    if outcome.code != 0 {
        outcome.error_form(true);
    }
    let outcome = engine
        .run(&format!(
            "run --rm --userns map:uids=0:0:10,gids=0:0:10 {BUSYBOX} true"
        ))
        .code(125);
    outcome.error_form(true);
}

#[test]
fn second_user_sees_nothing_of_the_first() {
    let (Some(one), Some(other)) = (Engine::rootless(), Engine::rootless()) else {
        return;
    };
    one.detached("--name c1", "sleep 100");
    assert_eq!(other.ok("ps -aq"), "");
    other.detached("--name c1", "sleep 100");
    assert_ne!(one.field("c1", "{{.Id}}"), other.field("c1", "{{.Id}}"));
}
