//! Control groups: programs that the kernel starts for them, and limits that a container must not move.

use std::fs;

use crate::stage::{HOST_USERS, everywhere, with_own_users};

/// CVE-2022-0492: the right to set the program was not checked against the first user namespace.
#[test]
fn cve_2022_0492_release_agent_cannot_be_set() {
    let agents = || -> Vec<String> {
        let entries = fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|e| fs::read_to_string(e.path().join("release_agent")).ok())
            .collect()
    };
    let before = agents();
    let script = "mkdir -p /tmp/cg; for c in memory rdma cpu pids devices freezer none,name=x; do \
                  mount -t cgroup -o $c cgroup /tmp/cg 2>/dev/null && { echo mounted $c; \
                  [ -e /tmp/cg/release_agent ] && cat /tmp/cg/release_agent > /tmp/cg/release_agent && echo WROTE $c; \
                  umount /tmp/cg; }; done; \
                  for f in /sys/fs/cgroup/release_agent /sys/fs/cgroup/*/release_agent; do \
                  [ -e $f ] && ( : >> $f ) 2>/dev/null && echo WROTE $f; done; true";
    // By way of namespaces of the container's own making.
    let nested = format!("unshare -U -r -m -C sh -c '{script}' 2>/dev/null; true");
    everywhere(|engine, stance| {
        engine.sh(stance, script).success().not_out("WROTE");
        engine.sh(stance, &nested).not_out("WROTE");
    });
    with_own_users(|engine, _| {
        for options in [
            "--cap-add SYS_ADMIN",
            "--cap-add ALL --security-opt seccomp=unconfined",
        ] {
            engine.sh(options, script).success().not_out("WROTE");
            engine.sh(options, &nested).not_out("WROTE");
        }
    });
    assert_eq!(agents(), before);
}

/// Rootless runc with the host's cgroup namespace left the user's whole hierarchy writable.
#[test]
fn cve_2023_25809_control_groups_are_read_only_inside() {
    let script = "cd /sys/fs/cgroup || exit 0; for d in . $(find . -type d -maxdepth 4 2>/dev/null | head -n 60); do \
                  mkdir $d/coracle-escape 2>/dev/null && { echo WROTE $d; rmdir $d/coracle-escape; }; \
                  for f in cgroup.procs tasks memory.max memory.limit_in_bytes pids.max cgroup.freeze; do \
                  [ -e $d/$f ] && ( : >> $d/$f ) 2>/dev/null && echo WROTE $d/$f; done; done; true";
    everywhere(|engine, stance| {
        engine.sh(stance, script).success().not_out("WROTE");
        // Where the host's namespace cannot be shown to other users, such a container does not start.
        let host = engine
            .sh(&format!("{stance} --cgroupns host"), script)
            .not_out("WROTE");
        assert!(stance != HOST_USERS || host.code == 0, "{host:?}");
    });
}

/// Whoever may mount in his own namespaces may make the view of the hierarchy writable: what he then writes must not
/// be his limit.
#[test]
fn limits_cannot_be_raised_from_inside() {
    let engine = coracle_tests::Engine::new();
    if !coracle_tests::host::has_controller("pids") {
        return;
    }
    let script = "mount -o remount,rw /sys/fs/cgroup 2>/dev/null; for d in /sys/fs/cgroup /sys/fs/cgroup/pids; do \
                  mount -o remount,bind,rw $d 2>/dev/null; [ -e $d/pids.max ] && ( echo max > $d/pids.max ) 2>/dev/null && echo WROTE $d; \
                  done; mkdir -p /tmp/cg; mount -t cgroup -o pids cgroup /tmp/cg 2>/dev/null || \
                  mount -t cgroup2 cgroup /tmp/cg 2>/dev/null; [ -e /tmp/cg/pids.max ] && ( echo max > /tmp/cg/pids.max ) 2>/dev/null && echo WROTE; true";
    for options in [
        "",
        "--cap-add SYS_ADMIN",
        "--cap-add ALL --security-opt seccomp=unconfined",
    ] {
        let options = format!("--pids-limit 50 {options}");
        engine.sh(&options, script).success().not_out("WROTE");
    }
}

/// Before cgroup namespaces the path named the host's layout, and /proc/1/cgroup the engine's names.
#[test]
fn places_of_control_groups_on_the_host_are_not_shown() {
    everywhere(|engine, stance| {
        let seen = engine.sh_ok(stance, "cat /proc/self/cgroup");
        for line in seen.lines() {
            let path = line.rsplit(':').next().expect("three fields");
            assert!(path == "/" || !path.contains("coracle"), "{stance}: {seen}");
        }
    });
}

/// CPU lists were expanded before they were looked at: `0-4294967295` took all memory of the daemon.
#[test]
fn cve_2018_20699_a_list_of_a_billion_cpus_is_refused_at_once() {
    everywhere(|engine, stance| {
        if stance == HOST_USERS {
            return;
        }
        for list in [
            "0-4294967295",
            "0-18446744073709551615",
            "1-1000000000",
            "0,0-999999999",
        ] {
            for option in ["--cpuset-cpus", "--cpuset-mems"] {
                let outcome = engine.refuses(&format!("run --rm {option} {list} busybox true"));
                assert!(outcome.took.as_secs() < 5, "{outcome:?}");
            }
        }
    });
}
