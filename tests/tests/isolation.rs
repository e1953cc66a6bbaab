//! What a container sees with no flags at all, and what each flag that opens it changes.

use std::fs;
use std::path::Path;

use coracle_tests::{Engine, host};

#[test]
fn every_namespace_is_the_containers_own() {
    let engine = Engine::new();
    let mut kinds = vec!["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"];
    if host::kernel_at_least(6, 11) {
        kinds.push("time");
    } else {
        coracle_tests::skip("the time namespace: before Linux 6.11 the engine does not make one");
    }
    let script = kinds
        .iter()
        .map(|kind| format!("readlink /proc/self/ns/{kind}"))
        .collect::<Vec<_>>()
        .join("; ");
    let seen = engine.sh_ok("", &script);
    assert_eq!(seen.lines().count(), kinds.len(), "{seen}");
    for (kind, inside) in kinds.iter().zip(seen.lines()) {
        assert!(inside.starts_with(kind), "{inside}");
        assert_ne!(
            inside,
            host::namespace(kind),
            "{kind} is shared with the host"
        );
    }
    // One more process is in the same ones.
    engine.detached("--name joined", "sleep 100");
    let pid = engine.pid("joined");
    let args = ["exec", "joined", "sh", "-c", &script];
    let seen = engine.command(args).run().success().stdout;
    for (kind, inside) in kinds.iter().zip(seen.lines()) {
        let first = fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("it runs");
        assert_eq!(inside, first.to_string_lossy(), "exec: {kind}");
    }
}

#[test]
fn root_inside_is_an_unprivileged_id_outside_and_differs_by_container() {
    if !host::root() {
        return;
    }
    let engine = Engine::new();
    let owners: Vec<String> = ["a1", "b1"]
        .iter()
        .map(|name| {
            engine.detached(&format!("--name {name}"), "sleep 100");
            let status = fs::read_to_string(format!("/proc/{}/status", engine.pid(name)));
            let status = status.expect("it runs");
            let line = status
                .lines()
                .find(|line| line.starts_with("Uid:"))
                .expect("a Uid line");
            line.split_whitespace().nth(1).expect("a number").to_owned()
        })
        .collect();
    assert!(
        owners
            .iter()
            .all(|uid| uid.parse::<u32>().expect("a number") >= 65536),
        "{owners:?}"
    );
    assert_ne!(owners[0], owners[1]);
    // Files of the image belong to root inside although none was chowned.
    assert_eq!(
        engine.ok("exec a1 stat -c '%u %g' /etc/motd /root"),
        "0 0\n0 0"
    );
    assert_eq!(
        engine
            .ok("exec a1 cat /proc/self/uid_map")
            .split_whitespace()
            .next(),
        Some("0")
    );
}

#[test]
fn only_the_default_capabilities_are_there_and_none_can_be_gained() {
    let engine = Engine::new();
    let status = engine.sh_ok("", "grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status");
    let field = |name: &str| {
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .expect("a line");
        line.split_whitespace().nth(1).expect("a value").to_owned()
    };
    // Docker's without MKNOD, NET_RAW and AUDIT_WRITE.
    assert_eq!(field("CapBnd:"), "00000000800405fb");
    assert_eq!(field("CapEff:"), "00000000800405fb");
    assert_eq!(field("CapPrm:"), "00000000800405fb");
    assert_eq!(field("CapAmb:"), "0000000000000000");
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
}

#[test]
fn capabilities_are_added_and_dropped() {
    let engine = Engine::new();
    let effective = |options: &str| {
        let seen = engine.sh_ok(options, "grep CapEff /proc/self/status");
        u64::from_str_radix(seen.split_whitespace().nth(1).expect("a value"), 16).expect("hex")
    };
    assert_eq!(effective("--cap-drop ALL"), 0);
    assert_eq!(effective("--cap-drop all --cap-add net_admin"), 1 << 12);
    assert_eq!(effective("--cap-drop CAP_CHOWN") & 1, 0);
    let all = effective("--cap-add ALL");
    assert!(all & (1 << 21) != 0 && all.count_ones() >= 38, "{all:x}");
    assert_eq!(effective("--user 1000"), 0);
    engine
        .run("run --rm --cap-add NOT_A_CAP busybox true")
        .code(125)
        .error_form(false);
}

#[test]
fn seccomp_refuses_what_dockers_profile_refuses() {
    let engine = Engine::new();
    // Without CAP_SYS_ADMIN the default profile refuses a new namespace and mount; both are EPERM.
    engine
        .sh("", "unshare -U true 2>&1")
        .code(1)
        .out("not permitted");
    engine
        .sh("", "mount -t tmpfs x /tmp 2>&1")
        .code(1)
        .out("ermi");
}

#[test]
fn seccomp_profile_of_ones_own_and_none() {
    let engine = Engine::new();
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}"#;
    let file = engine.make_file("profile.json", profile);
    let options = format!("--security-opt seccomp={}", file.display());
    engine
        .sh(&options, "mkdir /x")
        .code(1)
        .err("not implemented");
    let seen = engine.sh_ok(
        "--security-opt seccomp=unconfined",
        "grep Seccomp: /proc/self/status",
    );
    assert_eq!(seen.split_whitespace().nth(1), Some("0"));
    let broken = engine.make_file("broken.json", "{");
    let line = format!(
        "run --rm --security-opt seccomp={} busybox true",
        broken.display()
    );
    engine.run(&line).code(125).error_form(false);
}

#[test]
fn sensitive_paths_are_masked_or_read_only() {
    let engine = Engine::new();
    let script = "for p in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/latency_stats; do \
         [ -e $p ] && [ -n \"$(head -c1 $p 2>/dev/null)\" ] && echo readable $p; done; \
         for d in /proc/acpi /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do \
         [ -d $d ] && [ -n \"$(ls -A $d 2>/dev/null)\" ] && echo listed $d; done; \
         for p in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq /proc/bus /proc/fs /sys/kernel; do \
         [ -e $p ] && ( touch $p/x || echo x > $p ) 2>/dev/null && echo writable $p; done; true";
    assert_eq!(engine.sh_ok("", script), "");
}

#[test]
fn masks_can_be_lifted_and_added() {
    let engine = Engine::new();
    assert_eq!(
        engine.sh_ok("--security-opt mask=/etc/motd", "cat /etc/motd"),
        ""
    );
    // Which of them a kernel has differs.
    let candidates =
        ["kcore", "keys", "timer_list", "interrupts"].map(|name| format!("/proc/{name}"));
    let masked = candidates.into_iter().find(|path| Path::new(path).exists());
    let masked = masked.expect("every kernel has /proc/interrupts");
    let count = format!("grep -c ' {masked} ' /proc/mounts; true");
    assert_eq!(engine.sh_ok("", &count), "1", "{masked}");
    assert_eq!(engine.sh_ok("--security-opt unmask=ALL", &count), "0");
    assert_eq!(
        engine.sh_ok(&format!("--security-opt unmask={masked}"), &count),
        "0"
    );
}

#[test]
fn mount_table_shows_no_path_of_the_host() {
    let engine = Engine::new();
    let table = engine.sh_ok("", "cat /proc/mounts");
    let own = engine.dir().display().to_string();
    // The source of an overlay may not show where the host keeps its layers either.
    assert!(!table.contains(&own), "{table}");
    let points: Vec<&str> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    for point in [
        "/",
        "/proc",
        "/dev",
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
        "/sys",
    ] {
        assert!(points.contains(&point), "{point} is not mounted: {table}");
    }
}

#[test]
fn nothing_of_the_hosts_tree_stays_mounted_inside() {
    let engine = Engine::new();
    let table = engine.sh_ok("", "cut -d' ' -f5 /proc/self/mountinfo");
    let own = |point: &str| {
        let below = |top: &&str| point == *top || point.starts_with(&format!("{top}/"));
        point == "/" || ["/dev", "/proc", "/sys", "/etc"].iter().any(below)
    };
    for point in table.lines() {
        assert!(own(point), "{point} in {table}");
    }
    // The host has each of these once more.
    for point in ["/proc", "/dev", "/dev/shm", "/dev/pts"] {
        let mounts = table.lines().filter(|line| *line == point).count();
        assert_eq!(mounts, 1, "{point} in {table}");
    }
    let roots = table.lines().filter(|point| *point == "/").count();
    assert_eq!(roots, 1, "nothing lies over or under the root: {table}");
}

#[test]
fn devices_are_dockers_few() {
    let engine = Engine::new();
    let listed = engine.sh_ok("", "ls /dev");
    let mut names: Vec<&str> = listed
        .split_whitespace()
        .filter(|name| !["console", "core"].contains(name))
        .collect();
    names.sort_unstable();
    let expected = [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
        "stdout", "tty", "urandom", "zero",
    ];
    assert_eq!(names, expected);
    let script =
        "echo x > /dev/null && head -c4 /dev/zero | od -An -tx1 && head -c8 /dev/urandom | wc -c";
    assert_eq!(engine.sh_ok("", script), "00 00 00 00\n8");
}

#[test]
fn device_of_the_host_appears_when_asked_for() {
    if !host::root() {
        return;
    }
    let engine = Engine::new();
    engine
        .run("run --rm --device /dev/not-there busybox true")
        .code(125)
        .error_form(false);
    // One that no container has by default. Root of the host may open it whatever its mode.
    let candidates = ["/dev/fuse", "/dev/net/tun", "/dev/kvm"];
    let Some(device) = candidates.into_iter().find(|path| Path::new(path).exists()) else {
        coracle_tests::skip("this host has none of /dev/fuse, /dev/net/tun, /dev/kvm");
        return;
    };
    let script = "( : < /dev/other ) && echo read; ( : > /dev/other ) && echo written; true";
    let options = format!("--userns host --device {device}:/dev/other");
    assert_eq!(engine.sh_ok(&options, script), "read\nwritten");
    assert_eq!(engine.sh_ok(&format!("{options}:r"), script), "read");
    let script = format!("stat -c %F {device}");
    let file = engine.sh_ok(&format!("--device {device}"), &script);
    assert_eq!(file, "character special file");
}

#[test]
fn pid_one_is_the_command_and_others_are_invisible() {
    let engine = Engine::new();
    assert_eq!(
        engine.sh_ok("", "echo $$; set -- /proc/[0-9]*; echo $*"),
        "1\n/proc/1"
    );
}

#[test]
fn network_is_a_loopback_that_is_up() {
    let engine = Engine::new();
    let script = "ls /sys/class/net; ifconfig lo | grep -o 'inet addr:127.0.0.1\\|UP'";
    for options in ["--network none", "--net none"] {
        assert_eq!(engine.sh_ok(options, script), "lo\ninet addr:127.0.0.1\nUP");
    }
}

#[test]
fn namespaces_are_shared_with_the_host_when_asked_for() {
    if !host::root() {
        return;
    }
    let engine = Engine::new();
    for (option, kind) in [
        ("--pid host", "pid"),
        ("--ipc host", "ipc"),
        ("--uts host", "uts"),
        ("--net host", "net"),
    ] {
        let inside = engine.sh_ok(option, &format!("readlink /proc/self/ns/{kind}"));
        assert_eq!(inside, host::namespace(kind), "{option}");
    }
    let inside = engine.sh_ok("--userns host", "readlink /proc/self/ns/user");
    assert_eq!(inside, host::namespace("user"));
}

#[test]
fn namespaces_are_shared_with_a_container_when_asked_for() {
    let engine = Engine::new();
    engine.detached("--name first --ipc shareable", "sleep 100");
    for kind in ["net", "pid", "ipc", "uts"] {
        let of_first = engine.ok(&format!("exec first readlink /proc/self/ns/{kind}"));
        let options = format!("--{kind} container:first");
        let inside = engine.sh_ok(&options, &format!("readlink /proc/self/ns/{kind}"));
        assert_eq!(inside, of_first, "{options}");
    }
    engine
        .run("run --rm --net container:nobody busybox true")
        .code(125)
        .error_form(false);
    engine.ok("stop -t 0 first");
    engine
        .run("run --rm --net container:first busybox true")
        .code(125)
        .error_form(false);
}

#[test]
fn user_namespace_can_be_given_exactly() {
    if !host::root() {
        return;
    }
    let engine = Engine::new();
    let seen = engine.sh_ok(
        "--userns map:uids=0:300000:1000,gids=0:300000:1000",
        "cat /proc/self/uid_map",
    );
    assert_eq!(
        seen.split_whitespace().collect::<Vec<_>>(),
        ["0", "300000", "1000"]
    );
}

#[test]
fn privileged_opens_everything() {
    if !host::root() {
        return;
    }
    let engine = Engine::new();
    let script = "grep -E '^(CapEff|Seccomp:|NoNewPrivs)' /proc/self/status; mount -t tmpfs x /mnt 2>&1 || \
                  { mkdir -p /mnt; mount -t tmpfs x /mnt; }; grep -c ' /mnt ' /proc/mounts; \
                  grep -c ' /proc/[^ ]* ' /proc/mounts";
    let seen = engine.sh("--privileged", script);
    let lines: Vec<&str> = seen.stdout.lines().collect();
    let mask = lines[0].split_whitespace().nth(1).expect("a mask");
    assert!(
        u64::from_str_radix(mask, 16).expect("hex").count_ones() >= 38,
        "{seen:?}"
    );
    assert!(
        seen.stdout.contains("Seccomp:\t0") && seen.stdout.contains("NoNewPrivs:\t0"),
        "{seen:?}"
    );
    assert!(lines.ends_with(&["1", "0"]), "{seen:?}");
}

#[test]
fn read_only_root_refuses_writes_but_not_to_its_tmpfs() {
    let engine = Engine::new();
    engine
        .sh("--read-only", "echo x > /file")
        .code(1)
        .err("Read-only file system");
    let script = "echo x > /scratch/file && cat /scratch/file; echo x > /dev/shm/a && echo shm";
    assert_eq!(
        engine.sh_ok("--read-only --tmpfs /scratch", script),
        "x\nshm"
    );
}

#[test]
fn no_new_privileges_holds_against_a_setuid_program() {
    let engine = Engine::new();
    let script = "cp /bin/busybox /tmp/id && chown 0 /tmp/id && chmod 4755 /tmp/id && su app -c '/tmp/id -u'";
    assert_eq!(engine.sh_ok("", script), "1000");
    let options = "--security-opt no-new-privileges=false";
    let field = engine.sh_ok(options, "grep NoNewPrivs /proc/self/status");
    assert_eq!(field.split_whitespace().nth(1), Some("0"));
}

#[test]
fn time_namespace_and_cgroup_view_start_at_the_container() {
    let engine = Engine::new();
    let seen = engine.sh_ok("", "cat /proc/self/cgroup");
    for line in seen.lines() {
        let path = line.splitn(3, ':').nth(2).expect("a path");
        assert!(
            path == "/" || path == "/..",
            "the cgroup namespace shows {line}"
        );
    }
}

#[test]
fn descriptors_of_the_host_do_not_reach_the_container() {
    use std::os::fd::AsRawFd;
    let engine = Engine::new();
    let file = fs::File::open("/etc/passwd").expect("readable");
    let copy = rustix::io::fcntl_dupfd_cloexec(&file, 40).expect("a descriptor");
    rustix::io::fcntl_setfd(&copy, rustix::io::FdFlags::empty()).expect("it is ours");
    assert!(copy.as_raw_fd() >= 40);
    let seen = engine.sh_ok(
        "",
        "ls /proc/self/fd | sort -n | tail -n 1; ls -l /proc/1/fd",
    );
    assert_eq!(
        seen.lines().next(),
        Some("3"),
        "0 to 2, and ls's own: {seen}"
    );
}
