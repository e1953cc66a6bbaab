//! The command: how it is found, what happens when it cannot be executed, and what is left behind then.

mod fixture;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};

use coracle_runtime::{Creating, Error, IdMapping, Ownership, Root, RunAs};
use fixture::{Image, document, own_ids, pipes, run, skip, spec, start};
use rustix::io::Errno;
use serde_json::json;

fn failing(image: &Image, arguments: &[&str]) -> Error {
    run(image, &document(arguments)).expect_err("an error")
}

#[test]
fn commands_that_cannot_be_executed_have_their_exit_codes() {
    if skip("commands_that_cannot_be_executed_have_their_exit_codes") {
        return;
    }
    let image = Image::new();
    let file = |name: &str, content: &str, mode: u32| {
        let path = image.lower().join("bin").join(name);
        fs::write(&path, content).expect("a file");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
    };
    file("text", "no program\n", 0o755);
    file("plain", "#!/bin/sh\n", 0o644);
    file("script", "#!/bin/nonexistent\n", 0o755);
    for (command, code, source) in [
        ("nonexistent", 127, Errno::NOENT),
        ("/nonexistent", 127, Errno::NOENT),
        ("text", 126, Errno::NOEXEC),
        ("plain", 126, Errno::ACCESS),
        ("/etc", 126, Errno::ACCESS),
        ("/etc/passwd/x", 127, Errno::NOENT),
    ] {
        let error = failing(&image, &[command]);
        assert_eq!(error.exit_code(), code, "{command}: {error:?}");
        assert!(error.hint().is_some(), "{command}");
        let Error::Command {
            command: named,
            source: because,
        } = error
        else {
            panic!("{command}: {error:?}")
        };
        assert_eq!((named.as_str(), because), (command, source));
    }
    let error = failing(&image, &["script"]);
    assert!(matches!(error, Error::Interpreter { .. }), "{error:?}");
    assert_eq!(error.exit_code(), 127);
}

#[test]
fn a_failed_start_leaves_no_process_and_no_descriptor() {
    if skip("a_failed_start_leaves_no_process_and_no_descriptor") {
        return;
    }
    let image = Image::new();
    // Once, for what is opened for the life of the program.
    failing(&image, &["nonexistent"]);
    let descriptors = || fs::read_dir("/proc/thread-self/fd").expect("ours").count();
    let children = || fs::read_to_string("/proc/thread-self/children").expect("ours");
    let before = descriptors();
    for number in 0..20 {
        let mut document = document(&["nonexistent"]);
        if number % 2 == 0 {
            document["mounts"].as_array_mut().expect("a list").push(
                json!({ "destination": "/x", "type": "nonexistentfs", "source": "x", "options": [] }),
            );
        }
        run(&image, &document).expect_err("an error");
    }
    assert_eq!(children(), "");
    // Other tests of this program open and close theirs meanwhile.
    assert!(
        descriptors() < before + 20,
        "{before} before, {} after",
        descriptors()
    );
}

#[test]
fn an_error_names_the_step_and_its_object() {
    if skip("an_error_names_the_step_and_its_object") {
        return;
    }
    let mut document = document(&["true"]);
    document["mounts"].as_array_mut().expect("a list").push(
        json!({ "destination": "/here", "type": "tmpfs", "source": "x", "options": ["size=nonsense"] }),
    );
    let error = run(&Image::new(), &document)
        .expect_err("an error")
        .to_string();
    assert_eq!(error, "creating the file system for /here failed");
}

#[test]
fn a_created_container_waits_and_a_dropped_one_is_gone() {
    if skip("a_created_container_waits_and_a_dropped_one_is_gone") {
        return;
    }
    let image = Image::new();
    let spec = spec(&document(&["echo", "ran"]));
    let (stdio, ends) = pipes();
    let created = Creating::begin(start(&spec, image.overlay(), own_ids(), stdio))
        .expect("begin")
        .finish()
        .expect("finish");
    let pid = created.pid().as_raw_nonzero().get();
    let started = created.start_time();
    assert!(coracle_runtime::process::is_alive(pid, started).expect("readable"));
    let running = created.start().expect("start");
    assert_eq!(running.start_time, started);
    assert_eq!(fixture::code(&running), 0);
    assert_eq!(ends.read().0, "ran\n");

    let (stdio, _ends) = pipes();
    let created = Creating::begin(start(&spec, image.overlay(), own_ids(), stdio))
        .expect("begin")
        .finish()
        .expect("finish");
    let (pid, started) = (created.pid().as_raw_nonzero().get(), created.start_time());
    drop(created);
    assert!(!coracle_runtime::process::is_alive(pid, started).expect("readable"));
}

/// A gate, the end that opens it, and the end that tells of the start.
fn gate() -> (coracle_runtime::Gate, OwnedFd, OwnedFd) {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    let ((start, opener), (told, outcome)) = (pipe(), pipe());
    (coracle_runtime::Gate { start, outcome }, opener, told)
}

#[test]
fn a_gate_starts_a_released_container() {
    if skip("a_gate_starts_a_released_container") {
        return;
    }
    let image = Image::new();
    let spec = spec(&document(&["echo", "through the gate"]));
    let (stdio, ends) = pipes();
    let (gate, opener, told) = gate();
    let mut request = start(&spec, image.overlay(), own_ids(), stdio);
    request.gate = Some(gate);
    let running = Creating::begin(request)
        .expect("begin")
        .finish()
        .expect("finish")
        .release()
        .expect("release");
    let pid = running.pid.as_raw_nonzero().get();
    assert!(coracle_runtime::process::is_alive(pid, running.start_time).expect("readable"));
    coracle_runtime::open_gate(opener.as_fd(), told.as_fd(), "echo").expect("the command is there");
    assert_eq!(fixture::code(&running), 0);
    assert_eq!(ends.read().0, "through the gate\n");
}

#[test]
fn a_command_behind_a_gate_that_is_not_there_fails_the_creation() {
    if skip("a_command_behind_a_gate_that_is_not_there_fails_the_creation") {
        return;
    }
    let image = Image::new();
    let spec = spec(&document(&["no-such-command"]));
    let (stdio, _ends) = pipes();
    let (gate, _opener, _told) = gate();
    let mut request = start(&spec, image.overlay(), own_ids(), stdio);
    request.gate = Some(gate);
    let error = Creating::begin(request)
        .expect("begin")
        .finish()
        .expect_err("there is no such command");
    assert_eq!(error.exit_code(), 127, "{error}");
}

#[test]
fn a_file_behind_a_gate_that_cannot_be_executed_fails_the_start() {
    if skip("a_file_behind_a_gate_that_cannot_be_executed_fails_the_start") {
        return;
    }
    let image = Image::new();
    let spec = spec(&document(&["/etc"]));
    let (stdio, _ends) = pipes();
    let (gate, opener, told) = gate();
    let mut request = start(&spec, image.overlay(), own_ids(), stdio);
    request.gate = Some(gate);
    let running = Creating::begin(request)
        .expect("begin")
        .finish()
        .expect("a directory is there")
        .release()
        .expect("release");
    let error = coracle_runtime::open_gate(opener.as_fd(), told.as_fd(), "/etc")
        .expect_err("a directory cannot be executed");
    assert_eq!(error.exit_code(), 126, "{error}");
    assert_eq!(fixture::code(&running), 125);
}

#[test]
fn hooks_run_while_the_process_has_the_hosts_root() {
    if skip("hooks_run_while_the_process_has_the_hosts_root") {
        return;
    }
    let image = Image::new();
    let mut with_hooks = document(&["true"]);
    with_hooks["hooks"] = serde_json::json!({"createRuntime": [{"path": "/unused"}]});
    let spec = spec(&with_hooks);
    let (stdio, _ends) = pipes();
    let mut creating =
        Creating::begin(start(&spec, image.overlay(), own_ids(), stdio)).expect("begin");
    assert!(creating.has_hooks());
    let mut seen = None;
    creating
        .before_pivot(|pid| {
            let ours = env!("CARGO_MANIFEST_DIR");
            seen = Some(fs::exists(format!(
                "/proc/{}/root{ours}",
                pid.as_raw_nonzero()
            ))?);
            Ok(())
        })
        .expect("the hooks have run");
    assert_eq!(seen, Some(true));
    let running = creating.finish().expect("finish").start().expect("start");
    assert_eq!(fixture::code(&running), 0);
}

#[test]
fn a_start_that_passes_over_hooks_is_refused() {
    if skip("a_start_that_passes_over_hooks_is_refused") {
        return;
    }
    let image = Image::new();
    let mut with_hooks = document(&["true"]);
    with_hooks["hooks"] = serde_json::json!({"createContainer": [{"path": "/unused"}]});
    let spec = spec(&with_hooks);
    let (stdio, _ends) = pipes();
    let creating = Creating::begin(start(&spec, image.overlay(), own_ids(), stdio)).expect("begin");
    assert!(creating.run().is_err());
}

#[test]
fn the_caller_sees_the_root_and_says_who_runs() {
    if skip("the_caller_sees_the_root_and_says_who_runs") {
        return;
    }
    let image = Image::new();
    let spec = spec(&document(&["sh", "-c", "id -u; id -g; echo $HOME"]));
    let (stdio, ends) = pipes();
    let mut prepare = |root: std::os::fd::BorrowedFd<'_>| {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        let passwd =
            coracle_linux::root_dir::open_in(root, "etc/passwd", flags, rustix::fs::Mode::empty())?;
        let text = std::io::read_to_string(fs::File::from(passwd))?;
        assert!(text.starts_with("root:"));
        Ok(RunAs {
            uid: 33,
            gid: 34,
            groups: vec![35],
            env: vec!["HOME=/var/www".to_owned()],
        })
    };
    let mut request = start(&spec, image.overlay(), own_ids(), stdio);
    request.prepare = Some(&mut prepare);
    let running = Creating::begin(request).expect("begin").run().expect("run");
    assert_eq!(fixture::code(&running), 0);
    assert_eq!(ends.read().0, "33\n34\n/var/www\n");
}

#[test]
fn descriptors_are_preserved_in_order() {
    if skip("descriptors_are_preserved_in_order") {
        return;
    }
    let image = Image::new();
    let spec = spec(&document(&[
        "sh",
        "-c",
        "cat <&4; cat <&3; ls /proc/self/fd | tr '\\n' ' '",
    ]));
    let (stdio, ends) = pipes();
    let mut request = start(&spec, image.overlay(), own_ids(), stdio);
    for text in ["three", "four"] {
        let (read, write) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
        rustix::io::write(&write, text.as_bytes()).expect("a write");
        request.preserved.push(read);
    }
    let running = Creating::begin(request).expect("begin").run().expect("run");
    assert_eq!(fixture::code(&running), 0);
    assert_eq!(ends.read().0, "fourthree0 1 2 3 4 5 ");
}

#[test]
fn limits_above_the_hosts_are_clamped_only_when_asked() {
    if skip("limits_above_the_hosts_are_clamped_only_when_asked") {
        return;
    }
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let (Some(own), false) = (
        own,
        coracle_linux::capability::effective().is_ok_and(|set| set.contains(24)),
    ) else {
        eprintln!(
            "SKIP: limits_above_the_hosts_are_clamped_only_when_asked: nothing is above our limits"
        );
        return;
    };
    let image = Image::new();
    let mut document = document(&["sh", "-c", "ulimit -Hn"]);
    document["process"]["rlimits"] =
        json!([{ "type": "RLIMIT_NOFILE", "soft": own + 1, "hard": own + 1 }]);
    let error = run(&image, &document).expect_err("refused").to_string();
    assert!(error.contains("RLIMIT_NOFILE"), "{error}");
    let spec = spec(&document);
    let (stdio, ends) = pipes();
    let mut request = start(&spec, image.overlay(), own_ids(), stdio);
    request.clamp = true;
    let creating = Creating::begin(request).expect("begin");
    assert_eq!(creating.clamped().len(), 1);
    let running = creating.run().expect("run");
    assert_eq!(fixture::code(&running), 0);
    assert_eq!(ends.read().0, format!("{own}\n"));
}

#[test]
fn the_oom_score_is_the_containers_and_not_ours() {
    if skip("the_oom_score_is_the_containers_and_not_ours") {
        return;
    }
    let image = Image::new();
    let own = || {
        fs::read_to_string("/proc/self/oom_score_adj")
            .expect("ours")
            .trim()
            .to_owned()
    };
    let before = own();
    let mut document = document(&["cat", "/proc/self/oom_score_adj"]);
    document["process"]["oomScoreAdj"] = json!(777);
    let outcome = run(&image, &document).expect("a start");
    assert_eq!(outcome.stdout, "777\n");
    assert_eq!(own(), before);
}

#[test]
fn the_hosts_ids_need_a_sealed_engine() {
    if skip("the_hosts_ids_need_a_sealed_engine") {
        return;
    }
    let image = Image::new();
    let spec = spec(&document(&["true"]));
    let (stdio, _ends) = pipes();
    let root = Root::Directory {
        path: image.lower(),
        ownership: Ownership::Outside,
    };
    let error = Creating::begin(start(&spec, root, IdMapping::Host, stdio)).expect_err("refused");
    assert!(matches!(error, Error::Unsealed), "{error:?}");
}

#[test]
fn ids_outside_of_the_range_are_refused_with_the_id() {
    if skip("ids_outside_of_the_range_are_refused_with_the_id") {
        return;
    }
    let mut document = document(&["true"]);
    document["process"]["user"] = json!({ "uid": 70_000, "gid": 0 });
    let error = run(&Image::new(), &document)
        .expect_err("refused")
        .to_string();
    assert!(error.contains("70000"), "{error}");
}

#[test]
fn the_engines_executable_is_out_of_reach() {
    if skip("the_engines_executable_is_out_of_reach") {
        return;
    }
    // CVE-2019-5736: the image executes the engine again, or opens what the engine executes.
    let image = Image::new();
    symlink("/proc/self/exe", image.lower().join("bin/evil")).expect("a link");
    for command in [&["/bin/evil", "--help"][..], &["evil"], &["/proc/self/exe"]] {
        let error = failing(&image, command);
        assert!(
            matches!(error, Error::OwnExecutable { .. }) && error.exit_code() == 126,
            "{error:?}"
        );
    }
    let before = fs::read(std::env::current_exe().expect("ours"))
        .expect("ours")
        .len();
    let script = "for p in /proc/[0-9]*; do echo x > $p/exe; done 2>/dev/null; true";
    run(&image, &document(&["sh", "-c", script])).expect("a start");
    assert_eq!(
        fs::read(std::env::current_exe().expect("ours"))
            .expect("ours")
            .len(),
        before
    );
}
