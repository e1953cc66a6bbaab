//! Limits, each pushed against from inside: the kernel must refuse, and the engine must say so.

use std::fs;
use std::time::{Duration, Instant};

use coracle_tests::{Engine, host};

#[test]
fn memory_limit_kills_inside_only_and_is_reported() {
    if !host::has_controller("memory") {
        return;
    }
    let engine = Engine::new();
    engine.detached("--name neighbour", "sleep 100");
    engine
        .run("run --name c1 --memory 32m --memory-swap 32m busybox sh -c 'tail /dev/zero'")
        .code(137);
    assert_eq!(
        engine.field("c1", "{{.State.OOMKilled}} {{.State.ExitCode}}"),
        "true 137"
    );
    assert_eq!(
        engine.field("neighbour", "{{.State.Running}} {{.State.OOMKilled}}"),
        "true false"
    );
    // The same program within its limit is left alone.
    engine
        .run("run --rm --memory 64m busybox sh -c 'head -c 16m /dev/zero | tail | wc -c'")
        .success();
}

#[test]
fn cpu_quota_is_what_is_used() {
    if !host::has_controller("cpu") {
        return;
    }
    let engine = Engine::new();
    // Processor time of each container's own shell; the second shows what this host has to give just now.
    engine.detached("--name c1 --cpus 0.25", "while :; do :; done");
    engine.detached("--name c2", "while :; do :; done");
    let pids = ["c1", "c2"].map(|name| engine.pid(name));
    let used = |pid: i32| -> f64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        let after = stat.rsplit(") ").next().expect("fields");
        let ticks: Vec<u64> = after
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|f| f.parse().ok())
            .collect();
        ticks.iter().sum::<u64>() as f64 / 100.0
    };
    std::thread::sleep(Duration::from_millis(500));
    let (before, start) = (pids.map(used), Instant::now());
    std::thread::sleep(Duration::from_secs(4));
    let seconds = start.elapsed().as_secs_f64();
    let [share, free] = [0, 1].map(|at| (used(pids[at]) - before[at]) / seconds);
    assert!(share < 0.32, "{share} of a CPU for a quota of 0.25");
    if free < 0.4 {
        coracle_tests::skip(&format!(
            "the host is too busy: without a quota a container got {free:.2} of a CPU"
        ));
        return;
    }
    assert!(
        share > 0.15,
        "{share} of a CPU for a quota of 0.25, {free} without"
    );
}

#[test]
fn pids_limit_stops_a_fork_bomb() {
    if !host::has_controller("pids") {
        return;
    }
    let engine = Engine::new();
    let script = "i=0; while [ $i -lt 60 ]; do sleep 3 & i=$((i+1)); done 2>/tmp/e; ls /proc | grep -c '^[0-9]'";
    let seen = engine.sh("--pids-limit 20", script);
    let count: u32 = seen
        .text()
        .lines()
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    assert!(count <= 20, "{seen:?}");
}

#[test]
fn cpuset_binds() {
    if !host::has_controller("cpuset") {
        return;
    }
    let engine = Engine::new();
    let seen = engine.sh_ok(
        "--cpuset-cpus 0",
        "grep Cpus_allowed_list /proc/self/status; nproc",
    );
    assert_eq!(
        seen.split_whitespace().collect::<Vec<_>>(),
        ["Cpus_allowed_list:", "0", "1"]
    );
    engine
        .run("run --rm --cpuset-cpus 4096 busybox true")
        .code(125)
        .error_form(false);
}

#[test]
fn limits_are_where_inspect_says() {
    if !host::has_controller("memory") || !host::has_controller("cpu") {
        return;
    }
    let engine = Engine::new();
    let options = "--name c1 --memory 64m --memory-reservation 32m --cpus 1.5 --cpu-shares 512 --pids-limit 50";
    engine.detached(options, "sleep 100");
    let template = "{{.HostConfig.Memory}} {{.HostConfig.MemoryReservation}} {{.HostConfig.NanoCpus}} \
                    {{.HostConfig.CpuShares}} {{.HostConfig.PidsLimit}}";
    assert_eq!(
        engine.field("c1", template),
        "67108864 33554432 1500000000 512 50"
    );
}

#[test]
fn mistaken_limits_are_refused() {
    let engine = Engine::new();
    for options in [
        "--memory 1k",
        "--memory nonsense",
        "--memory 64m --memory-swap 32m",
        "--memory 32m --memory-reservation 64m",
        "--cpus 0.0001",
        "--cpus 100000",
        "--cpus two",
        "--cpu-period 5",
        "--pids-limit many",
    ] {
        let outcome = engine.run(&format!("run --rm {options} busybox true"));
        outcome.code(125).error_form(false);
    }
    assert_eq!(engine.ok("ps -aq"), "");
}

#[test]
fn update_is_live_and_refuses_to_shrink_below_use() {
    if !host::has_controller("memory") || !host::has_controller("pids") {
        return;
    }
    let engine = Engine::new();
    let script = "head -c 24m /dev/zero > /dev/shm/held; echo held; while :; do sleep 0.1; done";
    engine.detached(
        "--name c1 --memory 128m --memory-swap 128m --pids-limit 100",
        script,
    );
    engine.until_logged("c1", "held");
    engine
        .refuses("update --memory 16m --memory-swap 16m c1")
        .err("use");
    assert_eq!(
        engine.field("c1", "{{.State.Running}} {{.HostConfig.Memory}}"),
        "true 134217728"
    );
    engine.ok("update --memory 64m --memory-swap 64m c1");
    assert_eq!(engine.field("c1", "{{.HostConfig.Memory}}"), "67108864");
    // And it is the kernel's new limit: past it, the program inside is killed.
    engine.run("exec c1 sh -c 'tail /dev/zero'").code(137);
    engine.ok("update --pids-limit 3 c1");
    let seen = engine.run("exec c1 sh -c 'for i in 1 2 3 4 5 6; do sleep 1 & done; echo end'");
    assert!(seen.stderr.contains("fork") || seen.code != 0, "{seen:?}");
}

#[test]
fn device_write_rate_is_held() {
    if !host::has_controller("io") {
        return;
    }
    let engine = Engine::new();
    let Some(device) = disk_of(engine.dir()) else {
        coracle_tests::skip("the disk under /var/tmp is no block device with a name");
        return;
    };
    // Direct writes, which both cgroup versions throttle.
    let options = format!(
        "--device-write-bps {device}:4mb -v {}:/d",
        engine.make_dir("d").display()
    );
    let script = "dd if=/dev/zero of=/d/f bs=1M count=12 oflag=direct 2>&1";
    let outcome = engine.sh(&options, script).success();
    assert!(
        outcome.took >= Duration::from_millis(2200),
        "12 MiB at 4 MiB/s took {:?}",
        outcome.took
    );
    engine
        .run("run --rm --device-write-bps /dev/null:1mb busybox true")
        .code(125)
        .error_form(false);
}

/// The whole disk that holds `path`, as `/dev/…`.
fn disk_of(path: &std::path::Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let device = fs::metadata(path).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let link = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let mut name = link.file_name()?.to_str()?.to_owned();
    if fs::exists(format!("/sys/dev/block/{major}:{minor}/partition")).ok()? {
        name = link.parent()?.file_name()?.to_str()?.to_owned();
    }
    let path = format!("/dev/{name}");
    fs::exists(&path).ok()?.then_some(path)
}

#[test]
fn unlisted_devices_are_refused_even_to_a_made_node() {
    if !host::root() {
        return;
    }
    let engine = Engine::new();
    // Even with the host's user namespace and the capability, the device rules hold.
    let script = "mknod /tmp/kmsg c 1 11 && head -c1 /tmp/kmsg";
    assert_ne!(
        engine
            .sh("--userns host --cap-add MKNOD --cap-add SYS_ADMIN", script)
            .code,
        0
    );
    let script = "mknod /tmp/full c 1 7 && head -c2 /tmp/full | wc -c";
    assert_eq!(engine.sh_ok("--userns host --cap-add MKNOD", script), "2");
}

#[test]
fn cgroups_are_gone_with_the_container() {
    if !host::has_controller("memory") {
        return;
    }
    let engine = Engine::new();
    let id = engine.detached("--memory 64m", "sleep 100");
    let exists = || {
        let output = std::process::Command::new("find")
            .args(["/sys/fs/cgroup", "-type", "d", "-name", &format!("*{id}*")])
            .output()
            .expect("find is there");
        !output.stdout.is_empty()
    };
    assert!(exists());
    engine.ok(&format!("rm -f {id}"));
    assert!(!exists());
}
