//! Mounts: links at their targets and sources, targets that are exchanged while they are mounted, and procfs, masks and
//! consoles that are not what they seem.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_tests::tar::Tar;
use coracle_tests::{BUSYBOX, Engine, busybox_layer, compile, docker_archive, host, words};
use serde_json::json;

use crate::stage::{everywhere, load, marker, names_in, sh_in, stances, try_load};

/// The oldest way out: LXC (CVE-2015-1335), Docker (CVE-2015-3629), runc (CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: /proc;
/// CVE-2026-41579: /dev), Youki (CVE-2025-54867: /proc and /sys).
#[test]
fn cve_2015_3629_symlink_at_each_mount_target_stays_inside() {
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

/// A container that shares a volume exchanges a directory of it for a link just when another's mount goes below it (also
/// CVE-2024-45310: what runc made there while it did so; CVE-2021-25741 and CVE-2017-1002101: the same in Kubernetes).
#[test]
fn cve_2021_30465_target_that_is_swapped_while_it_is_mounted() {
    everywhere(|engine, stance| {
        let Some(program) = compile("swap", engine.dir()) else {
            return;
        };
        let victim = engine.make_dir("victim");
        // Whoever made something there as root inside would be refused only by chance.
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o777)).expect("it is ours");
        let path = victim.display().to_string();
        let prepare = format!("mkdir -p /v/dir; ln -sfn ../../../../../../../../..{path} /v/link");
        engine.sh_ok(&format!("{stance} -v race:/v"), &prepare);
        let attack = program.display();
        engine.ok(&format!(
            "run -d --name swapper {stance} -v race:/v -v {attack}:/attack:ro {BUSYBOX} /attack /v/dir /v/link"
        ));
        engine.until_logged("swapper", "swapping");
        let source = engine.make_dir("source");
        let file = engine.make_file("source-file", "bound");
        for round in 0..25 {
            let (source, file) = (source.display(), file.display());
            engine.run(&format!(
                "run --rm {stance} -v race:/v -v {source}:/v/dir/sub{round} -v {file}:/v/dir/file{round} \
                 --tmpfs /v/link/tmp{round} -w /v/dir/work{round} {BUSYBOX} true"
            ));
            assert_eq!(names_in(&victim), [""; 0], "{stance}: round {round}");
            assert_eq!(host::mounts_under(&victim), Vec::<PathBuf>::new());
        }
        engine.ok("rm -f swapper");
    });
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
    load(
        &engine,
        "null",
        &mut [&mut layer],
        &json!({"Env": ["PATH=/bin"]}),
    );
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
        let mut args = words(&line);
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

/// Directories that an image declares as volumes are copied into them: through a link, those of the host were.
#[test]
fn cve_2022_23648_volumes_of_an_image_are_filled_from_the_image() {
    everywhere(|engine, stance| {
        let secret = engine.make_dir("secret");
        fs::write(secret.join("key"), "of the host").expect("it is ours");
        let path = secret.display().to_string();
        let climbing = format!("../../../../../../../..{path}");
        let mut layer = Tar::new();
        layer
            .symlink("absolute", &path)
            .symlink("relative", &climbing);
        layer
            .symlink("up", "../../../../../../../../")
            .dir("good", 0o755)
            .file("good/f", 0o644, b"of the image");
        for (index, volume) in [
            "/absolute",
            "/relative",
            &format!("/up{path}"),
            &climbing,
            "/..",
            "/good/../../../..",
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("volume{index}{}", stance.len());
            let mut layer = Tar::new();
            layer
                .symlink("absolute", &path)
                .symlink("relative", &climbing);
            layer.symlink("up", "../../../../../../../../");
            let config = json!({"Env": ["PATH=/bin"], "Volumes": {volume: {}}});
            if try_load(engine, &name, &mut [&mut layer], &config).code != 0 {
                continue;
            }
            let look = format!(
                "cat /absolute/key /relative/key {volume}/key /..{path}/key 2>/dev/null; true"
            );
            sh_in(engine, stance, &format!("{name}:1"), &look).not_out("of the host");
            // A named volume at the same place is filled by the same code.
            sh_in(
                engine,
                &format!("{stance} -v named{index}:{volume}"),
                &format!("{name}:1"),
                &look,
            )
            .not_out("of the host");
            engine
                .sh(&format!("-v named{index}:/v"), "ls -a /v; cat /v/key; true")
                .not_out("of the host");
        }
        let name = format!("filled{}", stance.len());
        load(
            engine,
            &name,
            &mut [&mut layer],
            &json!({"Env": ["PATH=/bin"], "Volumes": {"/good": {}}}),
        );
        sh_in(engine, stance, &format!("{name}:1"), "cat /good/f")
            .success()
            .out("of the image");
    });
}

/// Podman wrote an image's files over what a volume already held, read-only mounts included.
#[test]
fn cve_2020_1726_a_volume_that_holds_something_is_not_filled() {
    everywhere(|engine, stance| {
        let name = format!("over{}", stance.len());
        let mut layer = Tar::new();
        layer
            .dir("data", 0o755)
            .file("data/f", 0o644, b"of the image");
        load(
            engine,
            &name,
            &mut [&mut layer],
            &json!({"Env": ["PATH=/bin"]}),
        );
        engine.sh_ok(&format!("{stance} -v mine:/v"), "echo mine > /v/f");
        for mode in ["", ":ro"] {
            sh_in(
                engine,
                &format!("{stance} -v mine:/data{mode}"),
                &format!("{name}:1"),
                "cat /data/f",
            )
            .success()
            .out("mine");
        }
        assert_eq!(
            engine.sh_ok(&format!("{stance} -v mine:/v"), "cat /v/f"),
            "mine"
        );
    });
}

/// A volume over /proc took the masks and the profile's way in away (also CVE-2015-3631, CVE-2023-28642).
#[test]
fn cve_2019_16884_a_volume_over_proc_does_not_loosen_anything() {
    everywhere(|engine, stance| {
        let Some(program) = compile("rights", engine.dir()) else {
            return;
        };
        let tell = format!("-v {}:/rights:ro", program.display());
        let usual = engine
            .run(&format!("run --rm {stance} {tell} {BUSYBOX} /rights"))
            .success();
        engine.sh_ok(
            &format!("{stance} -v fake:/v"),
            "mkdir -p /v/self/attr /v/1/attr /v/sys/kernel; echo > /v/self/attr/exec",
        );
        for target in [
            "/proc",
            "/proc/self",
            "/proc/1",
            "/proc/sys",
            "/proc/sys/kernel",
            "/sys",
            "/sys/fs/cgroup",
        ] {
            for mount in [format!("-v fake:{target}"), format!("--tmpfs {target}")] {
                let seen = engine.run(&format!(
                    "run --rm {stance} {tell} {mount} {BUSYBOX} /rights"
                ));
                assert!(
                    seen.code == 125 || seen.stdout == usual.stdout,
                    "{mount}: {seen:?}"
                );
            }
        }
        // Nor a second procfs of the container's making, where it may not mount.
        let script = "mkdir -p /tmp/p; mount -t proc proc /tmp/p 2>/dev/null && echo MOUNTED; true";
        engine.sh(stance, script).success().not_out("MOUNTED");
    });
}

/// Podman made the working directory through a link on the host.
#[test]
fn cve_2026_55686_a_working_directory_is_made_inside() {
    everywhere(|engine, stance| {
        let victim = engine.make_dir("victim");
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o777)).expect("it is ours");
        let path = victim.display().to_string();
        for (index, aim) in [path.clone(), format!("../../../../../../../..{path}")]
            .into_iter()
            .enumerate()
        {
            let name = format!("work{index}{}", stance.len());
            let mut layer = Tar::new();
            layer.symlink("link", &aim);
            let config = json!({"Env": ["PATH=/bin"], "WorkingDir": "/link/made/by/engine"});
            load(engine, &name, &mut [&mut layer], &config);
            engine.run(&format!("run --rm {stance} {name}:1 true"));
            engine.run(&format!("run --rm {stance} -w /link/other {name}:1 true"));
            engine.run(&format!("create --name work {stance} {name}:1 true"));
            engine.run("start work");
            engine.run("rm -f work");
            assert_eq!(names_in(&victim), [""; 0], "{stance}: {aim}");
        }
    });
}

/// A part of a volume that is a link (Kubernetes' subPath) leads nowhere: a mount's source is what the user named.
#[test]
fn cve_2017_1002101_a_link_in_a_volume_is_no_source() {
    everywhere(|engine, stance| {
        let (_, marker) = marker(engine);
        let folder = Path::new(&marker)
            .parent()
            .expect("it has one")
            .display()
            .to_string();
        engine.sh_ok(
            &format!("{stance} -v sub:/v"),
            &format!("ln -sfn {folder} /v/part"),
        );
        for option in [
            "type=volume,source=sub,target=/x,volume-subpath=part",
            "type=volume,source=sub,target=/x,subpath=part",
            "type=volume,source=sub/part,target=/x",
            "type=volume,source=sub/../../..,target=/x",
        ] {
            let mut line = words(&format!("run --rm {stance} --mount"));
            line.extend([
                option.into(),
                BUSYBOX.into(),
                "cat".into(),
                "/x/marker".into(),
            ]);
            engine.command(line).run().not_out("of the host");
        }
        for source in ["sub/part", "../sub", "..", "sub/../../../../etc"] {
            engine
                .run(&format!(
                    "run --rm {stance} -v {source}:/x {BUSYBOX} cat /x/marker"
                ))
                .not_out("of the host");
        }
    });
}

/// rkt and early Docker left what was below a mount reachable by way of its own entry in a bind mount of its parent.
#[test]
fn bind_mounts_show_no_more_than_their_source() {
    everywhere(|engine, stance| {
        let (_, marker) = marker(engine);
        let shared = engine.make_dir(&format!("shared{}", stance.len()));
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).expect("it is ours");
        symlink(&marker, shared.join("absolute")).expect("it is ours");
        symlink("../marker", shared.join("relative")).expect("it is ours");
        let script = "cat /data/absolute /data/relative /data/../marker 2>/dev/null; cd /data && cat ../marker 2>/dev/null; true";
        engine
            .sh(&format!("{stance} -v {}:/data", shared.display()), script)
            .success()
            .not_out("of the host");
        // Moved out of its place while a process stands in it: the way up ends at the mount.
        engine.sh_ok(
            &format!("{stance} -v {}:/data", shared.display()),
            "mkdir -p /data/in",
        );
        let mount = format!("--name mover {stance} -v {}:/data", shared.display());
        engine.detached(&mount, "cd /data/in; echo ready; while [ ! -e /data/go ]; do sleep 0.05; done; cat ../marker ../../marker; echo over; sleep 100");
        engine.until_logged("mover", "ready");
        fs::rename(
            shared.join("in"),
            engine.dir().join(format!("in{}", stance.len())),
        )
        .expect("it is ours");
        fs::write(shared.join("go"), "").expect("it is ours");
        engine.until_logged("mover", "over");
        engine.run("logs mover").success().not_out("of the host");
        engine.ok("rm -f mover");
    });
}
