//! Device nodes: made inside, brought by an image, opened in spite of the rules, or the host's own ones changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use coracle_tests::Engine;
use coracle_tests::tar::Tar;
use serde_json::json;

use crate::stage::{HOST_USERS, everywhere, try_load};

const NODES: &str =
    "'b 254 0' 'b 8 0' 'b 7 0' 'b 259 0' 'c 1 1' 'c 1 2' 'c 1 4' 'c 1 11' 'c 10 237'";

/// With a node of the host's disk, debugfs(8) reads and writes any file past all permissions.
#[test]
fn device_nodes_cannot_be_made_or_opened() {
    let script = format!(
        "for d in {NODES}; do rm -f /tmp/d; mknod /tmp/d $d 2>/dev/null; \
         [ -e /tmp/d ] && dd if=/tmp/d of=/dev/null bs=1 count=1 2>/dev/null && echo GOT $d; done; \
         rm -f /tmp/d; mknod /tmp/d c 1 5 2>/dev/null && dd if=/tmp/d bs=4 count=1 2>/dev/null | od -c | head -n1; true"
    );
    everywhere(|engine, stance| {
        engine.sh(stance, &script).success().not_out("GOT");
        let more = format!("{stance} --cap-add MKNOD --cap-add SYS_RAWIO");
        let seen = engine.sh(&more, &script).success().not_out("GOT");
        if stance == HOST_USERS {
            // The attempt would work: the zero device, which the rules allow, can be made and read.
            seen.out("\\0");
        }
    });
}

/// The same nodes, already made, in a layer.
#[test]
fn device_nodes_of_an_image_cannot_be_opened() {
    everywhere(|engine, stance| {
        let mut layer = Tar::new();
        layer.dir("d", 0o755);
        for (kind, major, minor) in [
            (b'4', 254, 0),
            (b'4', 8, 0),
            (b'4', 7, 0),
            (b'3', 1, 1),
            (b'3', 1, 11),
        ] {
            layer.device(
                kind,
                &format!("d/{}-{major}-{minor}", kind as char),
                (major, minor),
            );
        }
        let loaded = try_load(
            engine,
            "nodes",
            &mut [&mut layer],
            &json!({"Env": ["PATH=/bin"]}),
        );
        if loaded.code != 0 {
            // An image may be refused; then nothing of it is run.
            return;
        }
        let script = "for d in /d/*; do dd if=$d of=/dev/null bs=1 count=1 2>/dev/null && echo GOT $d; done; true";
        for more in ["", "--cap-add ALL --security-opt seccomp=unconfined"] {
            let options = format!("{stance} {more}");
            crate::stage::sh_in(engine, &options, "nodes:1", script)
                .success()
                .not_out("GOT");
        }
    });
}

/// The rules of the container's own cgroup are not the container's to write.
#[test]
fn device_rules_cannot_be_widened() {
    let script = "for f in $(find /sys/fs/cgroup -name devices.allow 2>/dev/null); do \
                  ( echo 'a *:* rwm' > $f ) 2>/dev/null && echo WROTE $f; done; \
                  mkdir -p /tmp/cg && mount -t cgroup -o devices cgroup /tmp/cg 2>/dev/null && \
                  for f in $(find /tmp/cg -name devices.allow); do \
                  ( echo 'a *:* rwm' > $f ) 2>/dev/null && echo WROTE $f; done; true";
    everywhere(|engine, stance| {
        engine.sh(stance, script).success().not_out("WROTE");
        if stance == HOST_USERS {
            return;
        }
        let wide = "--cap-add ALL --security-opt seccomp=unconfined";
        engine.sh(wide, script).success().not_out("WROTE");
        // Where the host's namespace cannot be shown to other users, such a container does not start.
        engine
            .sh(&format!("{wide} --cgroupns host"), script)
            .not_out("WROTE");
    });
}

/// Nodes that a container shares with the host (masks made of the null device, a null device as standard input) have an
/// owner and a mode: whoever owns them inside could close /dev/null for everybody.
#[test]
fn cve_2026_88265_nodes_of_the_host_keep_their_owner_and_mode() {
    const SIGN: i64 = 978_307_200;
    let changed = || -> Vec<String> {
        let nodes = [
            "null", "zero", "full", "random", "urandom", "tty", "console", "ptmx",
        ];
        let touched = nodes
            .map(|node| Path::new("/dev").join(node))
            .into_iter()
            .filter(|node| fs::metadata(node).is_ok_and(|meta| meta.mtime() == SIGN));
        let touched: Vec<PathBuf> = touched.collect();
        for node in &touched {
            let options = fs::File::options().write(true).open(node);
            let now = std::time::SystemTime::now();
            options
                .and_then(|file| file.set_modified(now))
                .expect("the node is put right again");
        }
        touched
            .iter()
            .map(|node| node.display().to_string())
            .collect()
    };
    let targets = "/dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/ptmx \
                   /proc/self/fd/0 /proc/1/fd/0 /proc/self/fd/1 /proc/interrupts /proc/keys /proc/kcore /proc/timer_list \
                   /proc/sched_debug /proc/latency_stats";
    // Times are the harmless sign: whoever may set them to any value may set the mode.
    let script = format!(
        "for f in {targets}; do [ -c $f ] || continue; touch -d '2001-01-01 00:00:00' $f 2>/dev/null; done; \
         touch -d '2001-01-01 00:00:00' /tmp/own && stat -c %Y /tmp/own"
    );
    everywhere(|engine, stance| {
        for more in ["", "-t", "--read-only --tmpfs /tmp"] {
            let options = format!("{stance} {more}");
            engine.sh(&options, &script).success().out("978307200");
            assert_eq!(changed(), [""; 0], "{options}");
        }
        // Without anybody attached, the engine itself opens the null device for the program.
        engine.detached(
            &format!("--name c1 {stance}"),
            &format!("{script}; echo ready; sleep 100"),
        );
        engine.until_logged("c1", "ready");
        let mut line = coracle_tests::words("exec c1 sh -c");
        line.push(script.clone());
        engine.command(line).run().success();
        engine.run("exec -d c1 touch -d '2001-01-01 00:00:00' /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2");
        engine.ok("rm -f c1");
        assert_eq!(changed(), [""; 0], "{stance}, detached");
    });
}

#[test]
fn devices_of_the_host_are_given_by_name_only() {
    let engine = Engine::new();
    // A link that the user did not write names no device for him.
    let link = engine.dir().join("innocent");
    std::os::unix::fs::symlink("/etc/passwd", &link).expect("it is ours");
    engine.refuses(&format!(
        "run --rm --device {} busybox true",
        link.display()
    ));
    engine.refuses("run --rm --device /dev/../etc/passwd busybox true");
    engine.refuses("run --rm --device-cgroup-rule 'a *:* rwm, x' busybox true");
}
