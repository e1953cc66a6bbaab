//! What bad input gets: the three-line form, the right exit code, and nothing left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use coracle_tests::tar::Tar;
use coracle_tests::{BUSYBOX, Engine, busybox_archive, docker_archive, host};
use serde_json::json;

#[test]
fn error_says_what_failed_why_and_what_to_do() {
    let engine = Engine::new();
    let outcome = engine
        .run("run --rm no-such-image true")
        .code(125)
        .error_form(true);
    assert!(outcome.stdout.is_empty(), "{outcome:?}");
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
    for line in outcome.stderr.lines() {
        let known = ["error: ", "caused by: ", "hint: "]
            .iter()
            .any(|start| line.starts_with(start));
        assert!(known, "a line in no known form: {outcome:?}");
    }
}

#[test]
fn mistyped_lines_are_refused_with_the_way_to_help() {
    let engine = Engine::empty();
    for line in [
        "nonsense",
        "run --no-such-flag busybox",
        "run",
        "rm",
        "exec c1",
        "rename a",
        "volume nonsense",
        "ps extra words",
    ] {
        let outcome = engine.run(line);
        assert!(
            outcome.code == 1 || outcome.code == 2 || outcome.code == 125,
            "{outcome:?}"
        );
        assert!(outcome.stdout.is_empty(), "{outcome:?}");
        outcome.error_form(true);
    }
    engine.run("rnu").err("run");
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    let engine = Engine::new();
    for options in [
        "--rm --restart always",
        "--pid container:none",
        "--net container:none",
        "--net no-such-network",
        "--privileged --security-opt nonsense=1",
        "--security-opt seccomp=/no/such/file",
        "--userns map:uids=0:0",
        "--userns nonsense",
        "--env-file /no/such/file",
        "--health-interval soon",
        "--shm-size big",
        "--stop-signal SIGNONSENSE",
        "--label-file /no/such/file",
        "--hostname 'bad name'",
        "--memory -5",
    ] {
        let outcome = engine.run(&format!("run --name c1 {options} {BUSYBOX} true"));
        assert!(
            outcome.code == 125 || outcome.code == 2,
            "{options}: {outcome:?}"
        );
        outcome.error_form(false);
        assert_eq!(engine.ok("ps -aq"), "", "{options} left a container");
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error_and_not_a_crash() {
    let engine = Engine::new();
    let full = fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("it is there");
    let output = engine
        .line("images")
        .into_command()
        .stdout(full)
        .output()
        .expect("it runs");
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        errors.contains("error: ") && !errors.contains("panicked"),
        "{errors}"
    );
}

#[test]
fn closed_pipe_ends_the_command_quietly() {
    let engine = Engine::new();
    engine.detached("--name c1", "yes | head -n 200000");
    engine.ok("wait c1");
    let mut child = engine
        .line("logs c1")
        .into_command()
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!errors.contains("panicked"), "{errors}");
}

#[test]
fn state_that_cannot_be_written_is_named() {
    let engine = Engine::empty();
    let file = engine.make_file("file", "x");
    let args = [
        "--root",
        &file.join("below").display().to_string(),
        "images",
    ];
    let mut command = Command::new(coracle_tests::binary());
    let output = command.args(args).output().expect("it runs");
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        errors.starts_with("error: ") && errors.contains("file"),
        "{errors}"
    );
}

/// A small ext4 in a file, mounted; its loop device goes with the mount.
struct SmallDisk {
    point: PathBuf,
}

impl SmallDisk {
    fn make(dir: &Path, megabytes: u64) -> SmallDisk {
        let (image, point) = (dir.join("disk"), dir.join("m"));
        fs::File::create(&image)
            .and_then(|file| file.set_len(megabytes << 20))
            .expect("it is ours");
        fs::create_dir(&point).expect("it is ours");
        let run = |command: &mut Command| {
            let output = command.output().expect("it is there");
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        run(Command::new("mkfs.ext4").arg("-q").arg(&image));
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(&point));
        SmallDisk { point }
    }

    fn used(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.point).expect("it is mounted");
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(&self.point).status();
        if !status.as_ref().is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted: {status:?}", self.point.display());
        }
    }
}

#[test]
fn full_disk_while_unpacking_leaves_nothing_and_the_next_one_works() {
    if !host::root() || !host::has_program("mkfs.ext4") {
        return;
    }
    let dir = tempfile::Builder::new()
        .prefix("coracle-test-")
        .tempdir_in("/var/tmp")
        .expect("a folder can be made");
    let disk = SmallDisk::make(dir.path(), 40);
    {
        let engine = Engine::with_root(&disk.point.join("s"));
        engine.ok("images");
        let before = disk.used();
        // Does not compress away, whatever the store does.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take((60 << 20) / 8)
        .flatten()
        .collect();
        let layer = Tar::new().file("big", 0o644, &noise).finish();
        let file = docker_archive(&dir.path().join("big.tar"), "big:1", &[&layer], &json!({}));
        let outcome = engine.run(&format!("load -i {}", file.path.display()));
        assert_ne!(outcome.code, 0, "{outcome:?}");
        outcome.error_form(false).err("No space left");
        assert_eq!(engine.ok("images -aq"), "");
        let grown = disk.used().saturating_sub(before);
        assert!(grown < 1 << 20, "{grown} bytes are left behind");
        let file = busybox_archive(dir.path());
        engine.ok(&format!("load -i {}", file.path.display()));
        engine.ok("run --rm busybox true");
        engine
            .run("run --rm busybox sh -c 'dd if=/dev/zero of=/f bs=1M count=100'")
            .code(1)
            .err("No space left");
        engine.ok("run --rm busybox true");
    }
    drop(disk);
}

#[test]
fn help_and_version_need_nothing_of_the_host() {
    for args in [
        &["--version"][..],
        &["--help"],
        &["run", "--help"],
        &["help"],
        &["volume", "--help"],
    ] {
        let output = Command::new(coracle_tests::binary())
            .args(args)
            .env_clear()
            .env("HOME", "/nonexistent")
            .current_dir("/proc")
            .output()
            .expect("it runs");
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(!output.stdout.is_empty(), "{args:?}");
    }
}
