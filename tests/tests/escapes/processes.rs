//! Processes: the engine's own executable, processes and keys of the host, what the engine is led to execute, and what
//! it lets through of its own environment.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use coracle_tests::tar::Tar;
use coracle_tests::{BUSYBOX, Engine, compile, host, sha256, words};
use serde_json::json;

use crate::stage::{HOST_USERS, attack, everywhere, load, stances, with_own_users};

/// A container that watches for the engine's file among the executables of its processes.
fn watch_for_engine(engine: &Engine, name: &str, program: &Path, options: &str) {
    let file = fs::metadata(coracle_tests::binary()).expect("it is there");
    let (mount, device, inode) = (program.display(), file.dev(), file.ino());
    engine.ok(&format!(
        "run -d --name {name} -v {mount}:/attack:ro {options} {BUSYBOX} /attack {device} {inode}"
    ));
    engine.until_logged(name, "watching");
}

#[test]
fn cve_2019_5736_the_engines_binary_cannot_be_taken_hold_of() {
    let engine = Engine::new();
    let Some(program) = compile("exe", engine.dir()) else {
        return;
    };
    let digest = || sha256(&fs::read(coracle_tests::binary()).expect("readable"));
    let before = digest();
    let held = |name: &str| -> Vec<String> {
        let seen = engine.run(&format!("logs {name}")).success();
        let lines = seen.stdout.lines().filter(|line| line.starts_with("GOT"));
        lines.map(str::to_owned).collect()
    };
    // What the attack does see: an engine that somebody put into the container, and runs there.
    let put_in = format!("-v {}:/engine:ro", coracle_tests::binary().display());
    watch_for_engine(&engine, "control", &program, &put_in);
    coracle_tests::eventually("the attack sees an engine", Duration::from_secs(20), || {
        engine.run("exec control /engine --version");
        !held("control").is_empty()
    });
    engine.ok("rm -f control");
    let privileged = ["--cap-add SYS_PTRACE", "--userns host --cap-add SYS_PTRACE"];
    let root = rustix::process::geteuid().is_root();
    let more = privileged.iter().take(if root { 2 } else { 1 });
    for stance in stances().chain(more.copied()) {
        let name = format!("w{}", stance.len());
        watch_for_engine(&engine, &name, &program, stance);
        for command in ["true", "/proc/self/exe", "sleep 0.05"] {
            for _ in 0..15 {
                // `/proc/self/exe` as the command would be the engine itself: whatever comes of it, not a handle.
                engine.run(&format!("exec {name} {command}"));
            }
        }
        // A handle is harmless only if it can never be written through: on a read-only mount, or to one who is nobody on
        // the host. That the file is busy just now is no protection, it ends with the last process.
        for line in held(&name) {
            let refused = ["Permission denied", "Operation not permitted"];
            assert!(
                line.starts_with("GOT READONLY") && !line.ends_with("opened")
                    || refused.iter().any(|reason| line.ends_with(reason)),
                "{stance}: {line}: the engine's binary is in reach"
            );
        }
        engine.ok(&format!("rm -f {name}"));
    }
    assert_eq!(digest(), before);
}

#[test]
fn cve_2019_5736_an_image_whose_command_is_the_runtimes_own_file() {
    everywhere(|engine, stance| {
        let mut layer = Tar::new();
        layer.symlink("evil", "/proc/self/exe");
        // A script whose interpreter is whoever executes it.
        layer.file("script", 0o755, b"#!/proc/self/exe --version\n");
        let config = json!({"Entrypoint": ["/evil"], "Cmd": ["--version"]});
        load(
            engine,
            &format!("evil{}", stance.len()),
            &mut [&mut layer],
            &config,
        );
        let image = format!("evil{}:1", stance.len());
        // The engine executing itself inside would print its version.
        engine
            .run(&format!("run --rm {stance} {image}"))
            .code(126)
            .not_out("coracle")
            .err("CVE-2019-5736");
        engine.detached(&format!("--name victim {stance}"), "sleep 100");
        engine
            .run("exec victim /proc/self/exe --version")
            .code(126)
            .not_out("coracle");
        engine.ok("rm -f victim");
        let before = sha256(&fs::read(coracle_tests::binary()).expect("readable"));
        engine.run(&format!("run --rm {stance} --entrypoint /script {image}"));
        assert_eq!(
            sha256(&fs::read(coracle_tests::binary()).expect("readable")),
            before
        );
    });
}

/// Also LXC's CVE-2015-1334 and Docker's docker.sock class: nothing of the host is reached by its number.
#[test]
fn processes_of_the_host_cannot_be_traced_even_in_its_pid_namespace() {
    let own = std::process::id().to_string();
    with_own_users(|engine, _| {
        let Some(program) = compile("ptrace", engine.dir()) else {
            return;
        };
        for options in [
            "--pid host",
            "--pid host --cap-add SYS_PTRACE --cap-add KILL --security-opt seccomp=unconfined",
        ] {
            attack(engine, &program, options, &[&own])
                .success()
                .not_out("GOT")
                .out("refused ptrace");
        }
        // The program would tell: it does take hold of a process of its own container.
        let script = "sleep 5 & /attack $!";
        let more = "--cap-add SYS_PTRACE --security-opt seccomp=unconfined";
        let options = format!("{more} -v {}:/attack:ro", program.display());
        engine
            .sh(&options, script)
            .success()
            .out("GOT ptrace")
            .out("GOT environ");
    });
    if host::root() {
        let engine = Engine::new();
        if let Some(program) = compile("ptrace", engine.dir()) {
            // In a namespace of its own the number means nothing.
            attack(&engine, &program, HOST_USERS, &[&own])
                .success()
                .not_out("GOT");
        }
    }
}

#[test]
fn keys_of_the_host_are_out_of_reach() {
    let engine = Engine::new();
    let Some(program) = compile("keyring", engine.dir()) else {
        return;
    };
    let name = format!("coracle-test-{}", std::process::id());
    let added = std::process::Command::new(&program)
        .args(["add", &name, "the-secret"])
        .output()
        .expect("it runs here");
    if !added.status.success() {
        coracle_tests::skip("this host has no keyrings");
        return;
    }
    let serial = String::from_utf8_lossy(&added.stdout).trim().to_owned();
    everywhere(|engine, stance| {
        let program = compile("keyring", engine.dir()).expect("it was there before");
        let wide = [
            "",
            "--security-opt seccomp=unconfined",
            "--security-opt seccomp=unconfined --cap-add ALL",
        ];
        // Without a filter the host's own user has his own keys, wherever he is.
        let count = if stance == HOST_USERS { 1 } else { 3 };
        for more in wide.into_iter().take(count) {
            let options = format!("{stance} {more}");
            attack(engine, &program, &options, &["steal", &serial, &name])
                .success()
                .not_out("STOLEN");
        }
    });
    // The program does read it where the key is its own.
    let stolen = std::process::Command::new(&program)
        .args(["steal", &serial, &name])
        .output()
        .expect("it runs here");
    assert!(String::from_utf8_lossy(&stolen.stdout).contains("STOLEN the-secret"));
}

#[test]
fn shared_memory_and_queues_of_the_host_are_out_of_reach() {
    let engine = Engine::new();
    let Some(program) = compile("shared", engine.dir()) else {
        return;
    };
    let number = (std::process::id() + 1000).to_string();
    let here = |verb: &str| {
        let output = std::process::Command::new(&program)
            .args([verb, &number])
            .output();
        String::from_utf8_lossy(&output.expect("it runs here").stdout).into_owned()
    };
    if here("make") != "made\n" {
        coracle_tests::skip("this host has no System V memory or no message queues");
        return;
    }
    let own = here("steal");
    let seen = std::panic::catch_unwind(|| {
        everywhere(|engine, stance| {
            let program = compile("shared", engine.dir()).expect("it was there before");
            let wide = "--cap-add ALL --security-opt seccomp=unconfined --network host";
            for more in ["", wide] {
                attack(
                    engine,
                    &program,
                    &format!("{stance} {more}"),
                    &["steal", &number],
                )
                .success()
                .not_out("STOLEN")
                .out("done");
            }
        });
    });
    here("free");
    assert!(
        own.contains("STOLEN by number") && own.contains("STOLEN by name"),
        "{own}"
    );
    if let Err(panic) = seen {
        std::panic::resume_unwind(panic);
    }
}

/// Programs that other engines executed or loaded for their own purposes once they were in the container's root: `docker
/// cp` loaded libnss (CVE-2019-14271) and executed xz and unpigz (CVE-2026-41567), `podman top` executed nsenter
/// (CVE-2022-1227), Docker before 1.3.3 executed xz in the image's root (CVE-2014-9357).
#[test]
fn cve_2019_14271_nothing_of_an_image_is_executed_for_the_engine() {
    let tools = [
        "xz",
        "unxz",
        "unpigz",
        "pigz",
        "gzip",
        "zstd",
        "bzip2",
        "lzma",
        "tar",
        "ps",
        "nsenter",
        "newuidmap",
        "ldconfig",
        "iptables",
        "nft",
        "ip",
        "mount",
        "umount",
        "getent",
        "modprobe",
        "fuse-overlayfs",
        "criu",
        "docker-init",
        "catatonit",
    ];
    let mut layer = Tar::new();
    for tool in tools {
        for dir in ["bin", "usr/bin", "sbin", "usr/sbin", "usr/local/bin"] {
            let text = b"#!/bin/busybox sh\necho TRIPPED $0 >> /tripped\n";
            if dir == "bin" {
                // An applet's link gives way first.
                layer.file(&format!("bin/.wh.{tool}"), 0o644, b"");
            } else {
                layer.file(&format!("{dir}/{tool}"), 0o755, text);
            }
        }
    }
    for library in [
        "lib",
        "lib64",
        "usr/lib",
        "lib/x86_64-linux-gnu",
        "usr/lib/x86_64-linux-gnu",
    ] {
        for name in [
            "libnss_files.so.2",
            "libnss_dns.so.2",
            "libc.so.6",
            "libgcc_s.so.1",
        ] {
            layer.file(&format!("{library}/{name}"), 0o755, b"no library at all");
        }
    }
    layer.file(
        "etc/nsswitch.conf",
        0o644,
        b"passwd: files\nhosts: files dns\n",
    );
    layer.file("etc/ld.so.preload", 0o644, b"/lib/libnss_files.so.2\n");
    let config = json!({"Env": ["PATH=/usr/local/bin:/usr/bin:/usr/sbin:/sbin:/bin"], "Cmd": ["sleep", "100"]});
    let tar = Tar::new().file("f", 0o644, b"x").finish();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).expect("memory takes it");
    let gzip = gzip.finish().expect("memory takes it");
    let zstd = zstd::encode_all(&tar[..], 1).expect("memory takes it");
    let layer = layer.finish();
    everywhere(|engine, stance| {
        let name = format!("trip{}", stance.len());
        let layers = [coracle_tests::busybox_layer(), &layer];
        let file = engine.dir().join("trip.tar");
        coracle_tests::docker_archive(&file, &format!("{name}:1"), &layers, &config);
        engine.ok(&format!("load -i {}", file.display()));
        engine.ok(&format!(
            "run -d --name c1 {stance} -v data:/data {name}:1 busybox sleep 100"
        ));
        for stream in [
            &tar,
            &gzip,
            &zstd,
            &b"\xfd7zXZ\0\0\x04".to_vec(),
            &b"BZh91AY&SY".to_vec(),
        ] {
            engine.line("cp - c1:/tmp").stdin(stream).run();
        }
        let out = engine.dir().join("out");
        engine.ok(&format!("cp c1:/etc/passwd {}", out.display()));
        for line in [
            "top c1",
            "top c1 -o pid,user,group",
            "stats --no-stream c1",
            "diff c1",
            "logs c1",
            "port c1",
            "inspect c1",
            "ps -s",
        ] {
            engine.run(line);
        }
        // An ordinary user without cgroups cannot freeze it for that.
        engine.run("commit c1 tripped:1");
        engine.run("pause c1");
        engine.run("unpause c1");
        engine.ok("exec c1 busybox true");
        let seen = engine.command([
            "exec",
            "c1",
            "busybox",
            "sh",
            "-c",
            "cat /tripped /data/tripped 2>/dev/null; true",
        ]);
        seen.run().success().not_out("TRIPPED");
        // The wires are live.
        engine.ok("exec c1 xz");
        assert!(
            engine
                .ok("exec c1 busybox cat /tripped")
                .contains("TRIPPED")
        );
        engine.ok("stop -t 0 c1");
        let export = engine.dir().join("export.tar");
        engine.ok(&format!("export -o {} c1", export.display()));
        engine.ok(&format!("cp c1:/etc/passwd {}", out.display()));
        engine.ok("rm -f c1");
    });
}

/// Buildah's chroot isolation (CVE-2021-3602) and Podman's API (CVE-2020-14370) gave variables on that were another's.
#[test]
fn cve_2021_3602_variables_of_the_caller_stay_outside() {
    everywhere(|engine, stance| {
        let look = "env; cat /proc/*/environ | tr '\\0' '\\n'";
        let secret = |line: Vec<String>| engine.command(line).env("CORACLE_TEST_SECRET", "STOLEN");
        let mut line = words(&format!("run --rm {stance} {BUSYBOX} sh -c"));
        line.push(look.into());
        secret(line).run().success().not_out("STOLEN");
        secret(words(&format!("run -d --name c1 {stance} --health-cmd 'env > /health' --health-interval 1s {BUSYBOX} sleep 100")))
            .run()
            .success();
        let mut line = words("exec c1 sh -c");
        line.push(look.into());
        secret(line.clone()).run().success().not_out("STOLEN");
        coracle_tests::eventually("a probe has run", Duration::from_secs(20), || {
            engine.run("exec c1 test -s /health").code == 0
        });
        assert!(!engine.ok("exec c1 cat /health").contains("STOLEN"));
        engine.ok("rm -f c1");
    });
    // Only what is asked for by name goes in.
    let line = words(&format!("run --rm -e CORACLE_TEST_SECRET {BUSYBOX} env"));
    Engine::new()
        .command(line)
        .env("CORACLE_TEST_SECRET", "STOLEN")
        .run()
        .success()
        .out("STOLEN");
}

/// NVIDIA's hook ran on the host with variables of the image, LD_PRELOAD among them.
#[test]
fn cve_2025_23266_variables_of_an_image_stay_inside() {
    everywhere(|engine, stance| {
        let name = format!("env{}", stance.len());
        let variables = [
            "PATH=/bin",
            "LD_PRELOAD=/evil.so",
            "LD_LIBRARY_PATH=/",
            "CORACLE_ROOT=/evil",
            "EVIL=image",
        ];
        let mut layer = Tar::new();
        layer.file("evil.so", 0o755, b"no library at all");
        load(engine, &name, &mut [&mut layer], &json!({"Env": variables}));
        engine.ok(&format!(
            "run -d --name c1 {stance} --health-cmd true --health-interval 1s --restart always {name}:1 sleep 100"
        ));
        engine.ok("exec c1 true");
        let serving = engine.processes();
        assert!(!serving.is_empty(), "a monitor serves the container");
        for pid in serving {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let text = String::from_utf8_lossy(&environment);
            assert!(!text.contains("evil"), "{pid}: {text}");
        }
        assert!(Path::new("/proc/self/environ").exists());
        assert!(engine.ok("exec c1 env").contains("EVIL=image"));
        engine.ok("rm -f c1");
    });
}
