//! Published ways out of a container, each tried and each to fail. What a program inside prints when it got out
//! (`ESCAPED`, `GOT`, `STOLEN`, `WROTE`) must never appear, and what it aimed at on the host must be unchanged.
//!
//! Where an attempt could harm the host if it worked, it is aimed at something harmless: a value is written back to
//! itself, sysrq is asked for its help.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_tests::tar::Tar;
use coracle_tests::{
    BUSYBOX, Engine, Outcome, busybox_layer, compile, docker_archive, host, sha256,
};
use serde_json::json;

/// The flags under which an attempt is made: as it is by default, and with root on the host, which only the other
/// walls then hold.
const STANCES: [&str; 2] = ["", "--userns host"];

fn stances() -> impl Iterator<Item = &'static str> {
    let all = rustix::process::geteuid().is_root();
    STANCES.into_iter().take(if all { 2 } else { 1 })
}

/// Runs a compiled attack in a container.
fn attack(engine: &Engine, program: &Path, options: &str, args: &[&str]) -> Outcome {
    let mount = format!("{}:/attack:ro", program.display());
    let mut line =
        coracle_tests::words(&format!("run --rm -v {mount} {options} {BUSYBOX} /attack"));
    line.extend(args.iter().map(|arg| (*arg).to_owned()));
    engine.command(line).run()
}

/// A file on the host that no container may see, and its path.
fn marker(engine: &Engine) -> (PathBuf, String) {
    let path = engine.make_file("marker", "of the host");
    let text = path.display().to_string();
    (path, text)
}

fn load(engine: &Engine, name: &str, layer: &mut Tar, config: &serde_json::Value) {
    let layers = [busybox_layer(), &layer.finish()];
    let file = docker_archive(
        &engine.dir().join(format!("{name}.tar")),
        &format!("{name}:1"),
        &layers,
        config,
    );
    engine.ok(&format!("load -i {}", file.path.display()));
}

#[test]
fn second_chroot_does_not_climb_out() {
    let engine = Engine::new();
    let Some(program) = compile("chroot", engine.dir()) else {
        return;
    };
    let (_, marker) = marker(&engine);
    for stance in stances() {
        attack(&engine, &program, stance, &[&marker])
            .not_out("ESCAPED")
            .success()
            .out("contained");
    }
}

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
    let engine = Engine::new();
    let mut layer = Tar::new();
    layer.symlink("evil", "/proc/self/exe");
    load(
        &engine,
        "evil",
        &mut layer,
        &json!({"Entrypoint": ["/evil"], "Cmd": ["--version"]}),
    );
    // The engine executing itself inside would print its version.
    engine
        .run("run --rm evil:1")
        .code(126)
        .not_out("coracle")
        .err("CVE-2019-5736");
    engine.detached("--name victim", "sleep 100");
    engine
        .run("exec victim /proc/self/exe --version")
        .code(126)
        .not_out("coracle");
}

#[test]
fn cve_2024_21626_no_descriptor_of_the_host_is_a_way_out() {
    let engine = Engine::new();
    let (_, marker) = marker(&engine);
    let climb =
        format!("cat ../../../../../../../..{marker} && echo ESCAPED; ls /proc/self/fd/; true");
    for stance in stances() {
        for n in 3..=16 {
            let options = format!("{stance} -w /proc/self/fd/{n}");
            engine
                .sh(&options, &climb)
                .not_out("ESCAPED")
                .not_out("of the host");
        }
        let name = format!("c{}", stance.len());
        engine.detached(&format!("--name {name} {stance}"), "sleep 100");
        for n in 3..=16 {
            let mut args = coracle_tests::words(&format!("exec -w /proc/self/fd/{n} {name} sh -c"));
            args.push(climb.clone());
            engine
                .command(args)
                .run()
                .not_out("ESCAPED")
                .not_out("of the host");
        }
        let script = format!(
            "for p in self 1; do for f in /proc/$p/fd/* /proc/$p/cwd /proc/$p/root; do \
             cat $f/../../../../../..{marker} 2>/dev/null && echo ESCAPED; done; done; true"
        );
        engine
            .command(["exec", &name, "sh", "-c", &script])
            .run()
            .success()
            .not_out("ESCAPED");
    }
}

#[test]
fn cve_2024_21626_working_directory_of_an_image() {
    let engine = Engine::new();
    let (_, marker) = marker(&engine);
    for n in 3..=12 {
        let name = format!("wd{n}");
        let config = json!({"WorkingDir": format!("/proc/self/fd/{n}"), "Env": ["PATH=/bin"]});
        load(&engine, &name, Tar::new().file("x", 0o644, b"x"), &config);
        let script = format!("cat ../../../../../../..{marker}");
        let args = ["run", "--rm", &format!("{name}:1"), "sh", "-c", &script];
        engine.command(args).run().not_out("of the host");
    }
}

#[test]
fn symlink_at_each_mount_target_stays_inside() {
    let engine = Engine::new();
    let victim = engine.make_dir("victim");
    let path = victim.display().to_string();
    let source = engine.make_dir("source");
    fs::write(source.join("f"), "bound").expect("it is ours");
    let climbing = format!("../../../../../../../../..{path}");
    let targets = [
        "proc",
        "sys",
        "dev",
        "etc/hosts",
        "etc/hostname",
        "etc/resolv.conf",
        "data",
        "dev/shm",
        "dev/pts",
        "dev/mqueue",
        "sys/fs/cgroup",
        "tmp",
    ];
    for (index, target) in targets.into_iter().enumerate() {
        for (kind, to) in [path.as_str(), climbing.as_str()].into_iter().enumerate() {
            let name = format!("link{index}-{kind}");
            let is_file = target.starts_with("etc/");
            let aim = if is_file {
                format!("{to}/file")
            } else {
                to.to_owned()
            };
            let mut layer = Tar::new();
            // A directory of the lower layer gives way to the link first.
            if let Some((parent, file)) = target.rsplit_once('/') {
                layer.file(&format!("{parent}/.wh.{file}"), 0o644, b"");
            } else {
                layer.file(&format!(".wh.{target}"), 0o644, b"");
            }
            let mut link = Tar::new();
            link.symlink(target, &aim);
            let layers = [busybox_layer(), &layer.finish(), &link.finish()];
            let file = engine.dir().join("l.tar");
            let archive = docker_archive(&file, &format!("{name}:1"), &layers, &json!({}));
            if engine
                .run(&format!("load -i {}", archive.path.display()))
                .code
                != 0
            {
                // An image may be refused; then nothing of it is run.
                continue;
            }
            let mount = format!("{}:/data", source.display());
            for stance in stances() {
                let line =
                    format!("run --rm --tmpfs /tmp {stance} -v {mount} {name}:1 /bin/busybox true");
                engine.run(&line);
                let left: Vec<_> = fs::read_dir(&victim)
                    .expect("it is ours")
                    .flatten()
                    .collect();
                assert!(
                    left.is_empty(),
                    "/{target} → {aim}: {left:?} was made on the host"
                );
                assert_eq!(host::mounts_under(&victim), Vec::<PathBuf>::new());
            }
        }
    }
}

#[test]
fn cve_2021_30465_target_that_is_swapped_while_it_is_mounted() {
    let engine = Engine::new();
    let victim = engine.make_dir("victim");
    let path = victim.display().to_string();
    let script = format!(
        "mkdir -p /v/dir; ln -s ../../../../../../../..{path} /v/link; \
         while :; do mv -T /v/dir /v/x; mv -T /v/link /v/dir; mv -T /v/dir /v/link; mv -T /v/x /v/dir; done 2>/dev/null"
    );
    // busybox's mv lacks -T; rename by two moves through a fresh name is as fast.
    let script = script.replace("mv -T", "mv");
    engine.detached("--name swapper -v race:/v", &script);
    let source = engine.make_dir("source");
    for round in 0..40 {
        let mount = format!("{}:/v/dir/sub{round}", source.display());
        engine.run(&format!("run --rm -v race:/v -v {mount} {BUSYBOX} true"));
        let left: Vec<_> = fs::read_dir(&victim)
            .expect("it is ours")
            .flatten()
            .collect();
        assert!(
            left.is_empty(),
            "round {round}: {left:?} was made on the host"
        );
    }
}

/// Puts `prepare`'s result into a volume that is then mounted at /dev or /proc of a second container.
fn with_planted_volume(engine: &Engine, prepare: &str) {
    engine.sh_ok("-v planted:/v", prepare);
}

#[test]
fn cve_2025_31133_masks_are_not_made_from_the_containers_null_device() {
    let engine = Engine::new();
    with_planted_volume(&engine, "ln -s /proc/sys/kernel/core_pattern /v/null");
    let script = "for p in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug; do \
                  [ -s $p ] || [ -n \"$(head -c1 $p 2>/dev/null)\" ] && echo READ $p; \
                  [ -e $p ] && cat /proc/sys/kernel/core_pattern 2>/dev/null > $p && grep -q . $p && echo WROTE $p; done; true";
    for stance in stances() {
        for target in ["/dev", "/dev/."] {
            let seen = engine.sh(&format!("{stance} -v planted:{target}"), script);
            seen.not_out("WROTE").not_out("READ");
        }
    }
    let mut layer = Tar::new();
    layer.symlink("dev/null", "/proc/sys/kernel/core_pattern");
    load(&engine, "null", &mut layer, &json!({"Env": ["PATH=/bin"]}));
    engine
        .command(["run", "--rm", "null:1", "sh", "-c", script])
        .run()
        .not_out("WROTE")
        .not_out("READ");
}

#[test]
fn cve_2025_52565_console_is_not_mounted_onto_what_a_link_names() {
    let engine = Engine::new();
    with_planted_volume(
        &engine,
        "ln -s /proc/sysrq-trigger /v/console; mkdir /v/pts; ln -s /proc/sysrq-trigger /v/pts/0; ln -s pts/0 /v/ptmx",
    );
    for stance in stances() {
        let line = format!("run -t --rm {stance} -v planted:/dev {BUSYBOX} sh -c");
        let mut args = coracle_tests::words(&line);
        args.push("[ -c /proc/sysrq-trigger ] && echo MOUNTED; echo h > /proc/sysrq-trigger && echo WROTE; true".into());
        let terminal = coracle_tests::Terminal::spawn(engine.command(args));
        coracle_tests::eventually("the run has ended", Duration::from_secs(20), || {
            engine.ok("ps -aq").is_empty()
        });
        let screen = terminal.screen();
        terminal.wait();
        // The command line itself may be shown by an error; what the script prints stands at a line's start.
        for line in screen.lines() {
            assert!(
                !line.starts_with("MOUNTED") && !line.starts_with("WROTE"),
                "{screen}"
            );
        }
    }
}

#[test]
fn cve_2025_52881_what_is_written_to_proc_goes_to_procfs_or_nowhere() {
    let engine = Engine::new();
    let victim = engine.make_file("victim", "untouched");
    let plant = "mkdir -p /v/sys/net/ipv4 /v/self/attr /v/thread-self/attr /v/1/attr; \
                 for f in /v/sys/net/ipv4/ip_forward /v/self/attr/exec /v/thread-self/attr/exec /v/1/attr/exec; do \
                 echo planted > $f; done";
    with_planted_volume(&engine, plant);
    for stance in stances() {
        for target in ["/proc", "/proc/sys", "/proc/self"] {
            let options = format!("{stance} --sysctl net.ipv4.ip_forward=1 -v planted:{target}");
            engine.sh(&options, "true");
            let seen = engine.sh_ok(
                "-v planted:/v",
                "cat /v/sys/net/ipv4/ip_forward /v/self/attr/exec",
            );
            assert_eq!(
                seen, "planted\nplanted",
                "{target}: the engine wrote to what is not procfs"
            );
        }
    }
    let mut layer = Tar::new();
    layer.file(".wh.proc", 0o644, b"");
    let mut link = Tar::new();
    link.symlink("proc", &engine.dir().display().to_string());
    let layers = [busybox_layer(), &layer.finish(), &link.finish()];
    let archive = docker_archive(&engine.dir().join("p.tar"), "proc:1", &layers, &json!({}));
    if engine
        .run(&format!("load -i {}", archive.path.display()))
        .code
        == 0
    {
        engine.run("run --rm --sysctl net.ipv4.ip_forward=1 proc:1 /bin/busybox true");
    }
    assert_eq!(fs::read_to_string(victim).expect("kept"), "untouched");
    assert!(!engine.dir().join("sys").exists());
}

#[test]
fn device_nodes_cannot_be_made_or_opened() {
    let engine = Engine::new();
    let script = "for d in 'b 254 0' 'b 8 0' 'b 7 0' 'c 1 1' 'c 1 2' 'c 1 11' 'c 10 237'; do \
                  rm -f /tmp/d; mknod /tmp/d $d 2>/dev/null; \
                  [ -e /tmp/d ] && dd if=/tmp/d of=/dev/null bs=1 count=1 2>/dev/null && echo GOT $d; done; true";
    for stance in stances() {
        engine.sh(stance, script).success().not_out("GOT");
        engine
            .sh(
                &format!("{stance} --cap-add MKNOD --cap-add SYS_RAWIO"),
                script,
            )
            .success()
            .not_out("GOT");
    }
}

#[test]
fn processes_of_the_host_cannot_be_traced_even_in_its_pid_namespace() {
    if !host::root() {
        return;
    }
    let engine = Engine::new();
    let Some(program) = compile("ptrace", engine.dir()) else {
        return;
    };
    let own = std::process::id().to_string();
    for options in [
        "--pid host",
        "--pid host --cap-add SYS_PTRACE --cap-add KILL --security-opt seccomp=unconfined",
    ] {
        attack(&engine, &program, options, &[&own])
            .success()
            .not_out("GOT")
            .out("refused ptrace");
    }
    // In a namespace of its own the number means nothing.
    attack(&engine, &program, "--userns host", &[&own])
        .success()
        .not_out("GOT");
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
    for stance in stances() {
        for more in [
            "",
            "--security-opt seccomp=unconfined",
            "--security-opt seccomp=unconfined --cap-add ALL",
        ] {
            let options = format!("{stance} {more}");
            attack(&engine, &program, &options, &["steal", &serial, &name])
                .success()
                .not_out("STOLEN");
        }
    }
}

#[test]
fn file_handles_do_not_open_the_hosts_root() {
    let engine = Engine::new();
    let Some(program) = compile("handle", engine.dir()) else {
        return;
    };
    let (_, marker) = marker(&engine);
    for options in [
        "",
        "--userns host",
        "--cap-add DAC_READ_SEARCH",
        "--cap-add ALL --security-opt seccomp=unconfined",
    ] {
        if options.contains("host") && !rustix::process::geteuid().is_root() {
            continue;
        }
        attack(&engine, &program, options, &[&marker])
            .success()
            .not_out("ESCAPED")
            .out("done");
    }
}

#[test]
fn release_agent_cannot_be_set() {
    let engine = Engine::new();
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
                  mount -t cgroup -o $c cgroup /tmp/cg 2>/dev/null && { echo MOUNTED $c; \
                  [ -e /tmp/cg/release_agent ] && cat /tmp/cg/release_agent > /tmp/cg/release_agent && echo WROTE $c; \
                  umount /tmp/cg; }; done; \
                  for f in /sys/fs/cgroup/release_agent /sys/fs/cgroup/*/release_agent; do \
                  [ -e $f ] && ( : >> $f ) 2>/dev/null && echo WROTE $f; done; true";
    for options in [
        "",
        "--cap-add SYS_ADMIN",
        "--cap-add ALL --security-opt seccomp=unconfined",
    ] {
        engine.sh(options, script).success().not_out("WROTE");
        // CVE-2022-0492: by way of namespaces of the container's own making.
        let inner = script.replace('\'', "'\\''");
        engine
            .sh(
                options,
                &format!("unshare -U -r -m -C sh -c '{inner}' 2>/dev/null; true"),
            )
            .not_out("WROTE");
    }
    assert_eq!(agents(), before);
}

#[test]
fn kernel_settings_cannot_be_written() {
    let engine = Engine::new();
    let files = [
        "core_pattern",
        "modprobe",
        "hotplug",
        "poweroff_cmd",
        "panic",
    ];
    let files = files.map(|file| format!("/proc/sys/kernel/{file}"));
    let read = || {
        files
            .clone()
            .map(|file| fs::read_to_string(file).unwrap_or_default())
    };
    let before = read();
    let script = format!(
        "for f in {} /proc/sys/fs/binfmt_misc/register /sys/kernel/uevent_helper; do [ -e $f ] || continue; \
         v=$(cat $f 2>/dev/null); ( echo \"$v\" > $f ) 2>/dev/null && echo WROTE $f; done; true",
        files.join(" ")
    );
    for options in [
        "",
        "--cap-add ALL",
        "--cap-add ALL --security-opt unmask=ALL --security-opt seccomp=unconfined",
    ] {
        engine.sh(options, &script).success().not_out("WROTE");
    }
    if rustix::process::geteuid().is_root() {
        engine
            .sh("--userns host", &script)
            .success()
            .not_out("WROTE");
    }
    assert_eq!(read(), before);
}

#[test]
fn sysrq_cannot_be_triggered() {
    let engine = Engine::new();
    let script = "( echo h > /proc/sysrq-trigger ) 2>/dev/null && echo WROTE; true";
    for options in [
        "",
        "--cap-add ALL",
        "--cap-add ALL --security-opt unmask=ALL --security-opt seccomp=unconfined",
    ] {
        engine.sh(options, script).success().not_out("WROTE");
    }
    if rustix::process::geteuid().is_root() {
        engine
            .sh("--userns host", script)
            .success()
            .not_out("WROTE");
    }
}

#[test]
fn mounts_of_the_host_cannot_be_uncovered() {
    let engine = Engine::new();
    let (_, marker) = marker(&engine);
    // With the right to mount, in its own namespaces: what is under a mask stays under it, and the old root is gone.
    let script = format!(
        "umount /proc/kcore 2>/dev/null && echo UNCOVERED; umount -l /proc 2>/dev/null; \
         mkdir -p /tmp/p && mount -t proc proc /tmp/p 2>/dev/null && ( echo h > /tmp/p/sysrq-trigger ) 2>/dev/null && echo WROTE; \
         for i in 1 2 3 4; do umount -l / 2>/dev/null; done; cat {marker} 2>/dev/null && echo ESCAPED; true"
    );
    let options = "--cap-add SYS_ADMIN --security-opt seccomp=unconfined";
    engine
        .sh(options, &script)
        .not_out("UNCOVERED")
        .not_out("WROTE")
        .not_out("ESCAPED");
}

#[test]
fn modules_and_the_kernels_log_are_out_of_reach() {
    let engine = Engine::new();
    let module = engine.make_file("m.ko", b"\x7fELF no module");
    let options = format!(
        "--cap-add ALL --security-opt seccomp=unconfined -v {}:/m.ko",
        module.display()
    );
    // The kernel refuses the caller (EPERM) before it reads the file (ENOEXEC).
    engine
        .sh(&options, "insmod /m.ko 2>&1; true")
        .not_out("xec format")
        .not_out("invalid module format");
    engine
        .sh(
            "",
            "dmesg 2>/dev/null | head -n1 | grep -q . && echo GOT; true",
        )
        .success()
        .not_out("GOT");
}
