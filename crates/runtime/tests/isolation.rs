//! What a container by default is: its own ids over an image that nobody chowned, its own everything, and no way out.

mod fixture;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use coracle_runtime::{IdMapping, Lower, Ownership, Root};
use fixture::{BASE, Image, document, own_ids, run, run_with, sh, skip};
use serde_json::json;

#[test]
fn root_inside_is_nobody_outside_and_the_image_is_not_chowned() {
    if skip("root_inside_is_nobody_outside_and_the_image_is_not_chowned") {
        return;
    }
    let image = Image::new();
    let seen = sh(
        &image,
        "id -u; stat -c %u /etc/passwd; cat /proc/self/uid_map; echo new > /root/file",
    );
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..2], ["0", "0"]);
    assert_eq!(
        lines[2].split_whitespace().collect::<Vec<_>>(),
        ["0", &BASE.to_string(), "65536"]
    );
    let made =
        fs::metadata(image.path("upper/root/file")).expect("the file lies in the upper directory");
    assert_eq!(made.uid(), 0, "on the disk an id is what it is inside");
    assert_eq!(
        fs::metadata(image.lower().join("etc/passwd"))
            .expect("the image")
            .uid(),
        0
    );
    assert!(
        !image.lower().join("root/file").exists(),
        "the layer is not written"
    );
}

#[test]
fn the_process_runs_with_an_id_of_its_range() {
    if skip("the_process_runs_with_an_id_of_its_range") {
        return;
    }
    let image = Image::new();
    let sleeper = fixture::Sleeper::new(&image, &document(&["sleep", "60"]));
    let pid = sleeper.target().pid;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let uid = status
        .lines()
        .find(|line| line.starts_with("Uid:"))
        .expect("a line");
    assert_eq!(
        uid.split_whitespace().nth(1),
        Some(BASE.to_string().as_str())
    );
    for name in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"] {
        let own = fs::read_link(format!("/proc/self/ns/{name}")).expect("ours");
        let theirs = fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("theirs");
        assert_ne!(own, theirs, "{name}");
    }
    assert!(coracle_runtime::process::is_alive(pid, sleeper.running.start_time).expect("readable"));
}

#[test]
fn only_the_containers_own_mounts_are_seen_and_the_old_root_is_gone() {
    if skip("only_the_containers_own_mounts_are_seen_and_the_old_root_is_gone") {
        return;
    }
    let image = Image::new();
    let mounts = sh(&image, "cat /proc/self/mountinfo");
    assert!(
        mounts
            .lines()
            .any(|line| line.contains(" / / ") && line.contains("overlay")),
        "{mounts}"
    );
    let host = image.path("").to_string_lossy().into_owned();
    assert!(!mounts.contains(&host), "{mounts}");
    for line in mounts.lines() {
        assert!(
            !line.contains("shared:") && !line.contains("master:"),
            "{line}"
        );
    }
    let outcome = run(
        &image,
        &document(&[
            "sh",
            "-c",
            "mkdir /x; chroot /x /bin/true; ls -d /proc/1/root/../../..",
        ]),
    )
    .expect("a start");
    assert!(!outcome.stdout.contains("home"), "{outcome:?}");
}

#[test]
fn masked_paths_are_empty_and_read_only_paths_cannot_be_written() {
    if skip("masked_paths_are_empty_and_read_only_paths_cannot_be_written") {
        return;
    }
    let image = Image::new();
    let seen = sh(
        &image,
        "cat /proc/kcore | dd bs=1 count=1 2>/dev/null | cat; cat /proc/keys; ls /sys/firmware; \
         echo h > /proc/sysrq-trigger 2>/dev/null && echo SYSRQ; \
         echo x > /proc/sys/kernel/core_pattern 2>/dev/null && echo CORE; \
         echo 1 > /sys/kernel/mm/ksm/run 2>/dev/null && echo SYS; true",
    );
    assert_eq!(seen, "");
}

#[test]
fn a_sloppy_dev_null_is_not_bound_over_masked_paths() {
    if skip("a_sloppy_dev_null_is_not_bound_over_masked_paths") {
        return;
    }
    // CVE-2025-31133: the image has its own /dev/null, a link to something else.
    let image = Image::new();
    fs::write(image.lower().join("etc/target"), "content").expect("a file");
    symlink("/etc/target", image.lower().join("dev/null")).expect("a link");
    let mut document = document(&[
        "sh",
        "-c",
        "cat /proc/kcore /proc/keys; stat -L -c '%t:%T' /dev/null",
    ]);
    let outcome = run(&image, &document).expect("a start");
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (0, "1:3\n"),
        "{outcome:?}"
    );
    // Without a /dev of its own, the image's is where nodes are made; a link in the way is refused.
    document["mounts"]
        .as_array_mut()
        .expect("a list")
        .retain(|mount| {
            !mount["destination"]
                .as_str()
                .is_some_and(|path| path.starts_with("/dev"))
        });
    let error = run(&image, &document).expect_err("refused").to_string();
    assert!(error.contains("/dev/null"), "{error}");
}

#[test]
fn devices_links_and_file_systems_are_those_of_docker() {
    if skip("devices_links_and_file_systems_are_those_of_docker") {
        return;
    }
    let image = Image::new();
    let seen = sh(
        &image,
        "echo x > /dev/null; dd if=/dev/zero bs=4 count=1 2>/dev/null | tr '\\0' z; echo; \
         for l in fd stdin ptmx; do readlink /dev/$l; done; stat -f -c %T /proc /sys /dev /dev/pts /dev/shm; \
         ls /sys/fs/cgroup | grep -c .; hostname; ip link show lo | grep -c UP; echo /dev/mqueue; ls -d /dev/mqueue",
    );
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[0], "zzzz");
    assert_eq!(
        lines[1..4],
        ["/proc/self/fd", "/proc/self/fd/0", "pts/ptmx"]
    );
    assert_eq!(lines[4..9], ["proc", "sysfs", "tmpfs", "devpts", "tmpfs"]);
    assert!(lines[9].parse::<u32>().expect("a count") > 0);
    assert_eq!(lines[10..12], ["boat", "1"]);
}

#[test]
fn no_descriptor_of_the_engine_is_inherited() {
    if skip("no_descriptor_of_the_engine_is_inherited") {
        return;
    }
    // CVE-2024-21626
    let image = Image::new();
    let _leak = fs::File::open("/etc").expect("a directory of the host");
    let seen = sh(
        &image,
        "ls /proc/self/fd | tr '\\n' ' '; ls -l /proc/1/fd | grep -c /etc; true",
    );
    assert_eq!(
        seen, "0 1 2 3 0\n",
        "3 is what ls itself opens, and nothing leads to /etc"
    );
    for cwd in ["/proc/self/fd/7", "/proc/self/fd/8", "/proc/1/cwd"] {
        let mut document = document(&["pwd"]);
        document["process"]["cwd"] = json!(cwd);
        let outcome = run(&image, &document);
        assert!(outcome.is_err(), "{cwd}: {outcome:?}");
    }
}

#[test]
fn capabilities_filters_and_no_new_privs_are_in_force() {
    if skip("capabilities_filters_and_no_new_privs_are_in_force") {
        return;
    }
    let image = Image::new();
    let mut document = document(&[
        "sh",
        "-c",
        "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; mkdir /tmp/x && echo MADE",
    ]);
    document["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }]
    });
    let outcome = run(&image, &document).expect("a start");
    assert!(outcome.stderr.contains("not permitted"), "{outcome:?}");
    assert!(!outcome.stdout.contains("MADE"));
    let value = |name: &str| {
        let line = outcome
            .stdout
            .lines()
            .find(|line| line.starts_with(name))
            .expect("a line");
        line.split_whitespace().nth(1).expect("a value").to_owned()
    };
    assert_eq!(value("CapEff"), "00000000a80425fb");
    assert_eq!(value("CapBnd"), "00000000a80425fb");
    assert_eq!(value("CapInh"), "0000000000000000");
    assert_eq!(value("CapAmb"), "0000000000000000");
    assert_eq!(value("NoNewPrivs"), "1");
    assert_eq!(value("Seccomp"), "2");
    // The same filter where no_new_privs does not help.
    document["process"]["noNewPrivileges"] = json!(false);
    let outcome = run(&image, &document).expect("a start");
    assert!(
        outcome.stderr.contains("not permitted") && outcome.stdout.contains("NoNewPrivs:\t0"),
        "{outcome:?}"
    );
}

#[test]
fn an_ambient_capability_reaches_a_user_who_is_not_root() {
    if skip("an_ambient_capability_reaches_a_user_who_is_not_root") {
        return;
    }
    let image = Image::new();
    let mut document = document(&[
        "sh",
        "-c",
        "id -u; id -g; id -G; grep CapEff /proc/self/status; pwd",
    ]);
    document["process"]["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [1002, 5] });
    document["process"]["cwd"] = json!("/new/directory");
    for set in ["inheritable", "ambient"] {
        document["process"]["capabilities"][set] = json!(["CAP_NET_BIND_SERVICE"]);
    }
    let outcome = run(&image, &document).expect("a start");
    assert_eq!(
        outcome.stdout, "1000\n1001\n1001 5 1002\nCapEff:\t0000000000000400\n/new/directory\n",
        "{outcome:?}"
    );
}

#[test]
fn more_than_a_hundred_layers_are_one_root() {
    if skip("more_than_a_hundred_layers_are_one_root") {
        return;
    }
    let image = Image::new();
    let mut lowers: Vec<Lower> = (0..129)
        .map(|number| {
            let layer = image.path(&format!("layer{number}"));
            fs::create_dir(&layer).expect("a layer");
            fs::write(layer.join(format!("file{number}")), "").expect("a file");
            fs::write(layer.join("same"), number.to_string()).expect("a file");
            Lower::Directory(layer)
        })
        .collect();
    lowers.push(Lower::Directory(image.lower()));
    let outcome = run_with(
        &document(&["sh", "-c", "ls / | grep -c file; cat /same"]),
        image.overlay_of(lowers),
        own_ids(),
    )
    .expect("a start");
    assert_eq!(outcome.stdout, "129\n0", "{outcome:?}");
}

#[test]
fn a_directory_serves_as_root_in_place() {
    if skip("a_directory_serves_as_root_in_place") {
        return;
    }
    let image = Image::new();
    let root = Root::Directory {
        path: image.lower(),
        ownership: Ownership::Inside,
    };
    let mut document = document(&["sh", "-c", "echo in place > /etc/new; stat -c %u /etc/new"]);
    let outcome = run_with(&document, root.clone(), own_ids()).expect("a start");
    assert_eq!(outcome.stdout, "0\n", "{outcome:?}");
    assert_eq!(
        fs::read_to_string(image.lower().join("etc/new")).expect("the file"),
        "in place\n"
    );
    document["root"]["readonly"] = json!(true);
    document["process"]["args"] = json!(["sh", "-c", "echo x > /etc/other"]);
    let outcome = run_with(&document, root, own_ids()).expect("a start");
    assert!(outcome.stderr.contains("Read-only"), "{outcome:?}");
}

#[test]
fn sysctls_limits_and_time_offsets_hold() {
    if skip("sysctls_limits_and_time_offsets_hold") {
        return;
    }
    let image = Image::new();
    let mut document = document(&[
        "sh",
        "-c",
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax; ulimit -n; ulimit -Hn; cat /proc/uptime; readlink /proc/self/ns/time",
    ]);
    document["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel.shmmax": "123456" });
    document["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
    let time = coracle_linux::kernel::enters_time_namespace_at_exec();
    if time {
        document["linux"]["namespaces"]
            .as_array_mut()
            .expect("a list")
            .push(json!({ "type": "time" }));
        document["linux"]["timeOffsets"] =
            json!({ "boottime": { "secs": 10_000_000, "nanosecs": 0 } });
    } else {
        eprintln!(
            "SKIP: sysctls_limits_and_time_offsets_hold: its clocks: no time namespace at exec (Linux 6.11)"
        );
    }
    let outcome = run(&image, &document).expect("a start");
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines[..4], ["1", "123456", "100", "200"], "{outcome:?}");
    if !time {
        return;
    }
    let uptime: f64 = lines[4]
        .split(' ')
        .next()
        .and_then(|text| text.parse().ok())
        .expect("seconds");
    assert!(uptime > 9_999_999.0, "{outcome:?}");
    let own = fs::read_link("/proc/self/ns/time").expect("ours");
    assert_ne!(lines[5], own.to_string_lossy());
}

#[test]
fn a_sysctl_of_the_host_is_refused() {
    if skip("a_sysctl_of_the_host_is_refused") {
        return;
    }
    let image = Image::new();
    for key in ["kernel.core_pattern", "vm.swappiness"] {
        let mut document = document(&["true"]);
        document["linux"]["sysctl"] = json!({ key: "x" });
        assert!(
            run(&image, &document)
                .expect_err("refused")
                .to_string()
                .contains(key)
        );
    }
    let mut document = document(&["true"]);
    document["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    document["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list")
        .retain(|entry| entry["type"] != "network");
    document["mounts"]
        .as_array_mut()
        .expect("a list")
        .retain(|mount| mount["type"] != "sysfs" && mount["type"] != "cgroup");
    assert!(
        run(&image, &document)
            .expect_err("refused")
            .to_string()
            .contains("change the host")
    );
}

#[test]
fn a_second_container_joins_the_namespaces_of_the_first() {
    if skip("a_second_container_joins_the_namespaces_of_the_first") {
        return;
    }
    let first = Image::new();
    let sleeper = fixture::Sleeper::new(&first, &document(&["sleep", "60"]));
    let pid = sleeper.target().pid;
    let link = |name: &str| {
        fs::read_link(format!("/proc/{pid}/ns/{name}"))
            .expect("a link")
            .to_string_lossy()
            .into_owned()
    };
    let script = "for n in net ipc uts pid user cgroup; do readlink /proc/self/ns/$n; done";
    let mut document = document(&["sh", "-c", script]);
    document
        .as_object_mut()
        .expect("an object")
        .remove("hostname");
    document["linux"]["namespaces"] = json!([
        { "type": "mount" },
        { "type": "network", "path": format!("/proc/{pid}/ns/net") },
        { "type": "ipc", "path": format!("/proc/{pid}/ns/ipc") },
        { "type": "uts", "path": format!("/proc/{pid}/ns/uts") },
        { "type": "pid", "path": format!("/proc/{pid}/ns/pid") },
        { "type": "cgroup" }
    ]);
    let second = Image::new();
    let namespace = fs::File::open(format!("/proc/{pid}/ns/user"))
        .expect("its user namespace")
        .into();
    let IdMapping::Own { uids, gids } = own_ids() else {
        unreachable!("own_ids is Own")
    };
    let ids = IdMapping::Join {
        namespace,
        uids,
        gids,
    };
    let outcome = run_with(&document, second.overlay(), ids).expect("a start");
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    for (line, name) in lines.iter().zip(["net", "ipc", "uts", "pid", "user"]) {
        assert_eq!(*line, link(name), "{outcome:?}");
    }
    assert_ne!(lines[5], link("cgroup"));
}

#[test]
fn a_new_pid_namespace_belongs_to_a_joined_user_namespace() {
    if skip("a_new_pid_namespace_belongs_to_a_joined_user_namespace") {
        return;
    }
    let first = Image::new();
    let sleeper = fixture::Sleeper::new(&first, &document(&["sleep", "60"]));
    let pid = sleeper.target().pid;
    let second = Image::new();
    let namespace = fs::File::open(format!("/proc/{pid}/ns/user"))
        .expect("its user namespace")
        .into();
    let IdMapping::Own { uids, gids } = own_ids() else {
        unreachable!("own_ids is Own")
    };
    let ids = IdMapping::Join {
        namespace,
        uids,
        gids,
    };
    let outcome = run_with(
        &document(&["sh", "-c", "echo $$; id -u; readlink /proc/self/ns/user"]),
        second.overlay(),
        ids,
    )
    .expect("a start");
    let user = fs::read_link(format!("/proc/{pid}/ns/user")).expect("a link");
    assert_eq!(
        outcome.stdout,
        format!("1\n0\n{}\n", user.display()),
        "{outcome:?}"
    );
}

#[test]
fn a_volatile_upper_is_used_once() {
    if skip("a_volatile_upper_is_used_once") {
        return;
    }
    let image = Image::new();
    let volatile = || {
        let Root::Overlay {
            lowers,
            upper,
            work,
            ownership,
            ..
        } = image.overlay()
        else {
            unreachable!("an overlay")
        };
        Root::Overlay {
            lowers,
            upper,
            work,
            volatile: true,
            ownership,
            kept: None,
        }
    };
    let document = document(&["true"]);
    assert_eq!(
        run_with(&document, volatile(), own_ids())
            .expect("a start")
            .code,
        0
    );
    let error = run_with(&document, volatile(), own_ids()).expect_err("refused");
    assert!(error.to_string().contains("volatile"), "{error}");
    assert!(error.hint().is_some());
}
