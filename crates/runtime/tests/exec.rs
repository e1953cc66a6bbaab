//! One more process in a running container.

mod fixture;

use std::fs;
use std::io::{Read, Write};

use coracle_runtime::{Creating, Error, Exec, Stdio, Target};
use fixture::{Image, Sleeper, document, own_ids, skip, spec, start};
use oci_spec::runtime::Process;
use serde_json::{Value, json};

fn process(arguments: &[&str]) -> Value {
    document(arguments)["process"].clone()
}

#[test]
fn a_process_joins_everything_of_the_container() {
    if skip("a_process_joins_everything_of_the_container") {
        return;
    }
    for time in [false, true] {
        if time && !coracle_linux::kernel::enters_time_namespace_at_exec() {
            eprintln!(
                "SKIP: a_process_joins_everything_of_the_container: no time namespace at exec (Linux 6.11)"
            );
            continue;
        }
        let image = Image::new();
        let mut document = document(&["sleep", "60"]);
        if time {
            document["linux"]["namespaces"]
                .as_array_mut()
                .expect("a list")
                .push(json!({ "type": "time" }));
        }
        let sleeper = Sleeper::new(&image, &document);
        let pid = sleeper.target().pid;
        let script = "id -u; hostname; for n in cgroup ipc mnt net pid time user uts; do readlink /proc/self/ns/$n; done; \
                      grep Seccomp: /proc/self/status; ls /proc/self/fd | tr '\\n' ' '";
        let outcome = sleeper
            .exec(&process(&["sh", "-c", script]))
            .expect("an exec");
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert_eq!(lines[..2], ["0", "boat"], "{outcome:?}");
        for (line, name) in lines[2..]
            .iter()
            .zip(["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"])
        {
            let theirs = fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("a link");
            assert_eq!(*line, theirs.to_string_lossy(), "{name}, time {time}");
        }
        assert_eq!(lines[11], "0 1 2 3 ");
    }
}

#[test]
fn a_command_that_is_not_there_is_127() {
    if skip("a_command_that_is_not_there_is_127") {
        return;
    }
    let image = Image::new();
    let sleeper = Sleeper::new(&image, &document(&["sleep", "60"]));
    let error = sleeper
        .exec(&process(&["nonexistent"]))
        .expect_err("an error");
    assert_eq!(error.exit_code(), 127, "{error:?}");
    let outcome = sleeper
        .exec(&process(&["sh", "-c", "exit 7"]))
        .expect("an exec");
    assert_eq!(outcome.code, 7);
}

#[test]
fn users_and_directories_are_those_of_the_process() {
    if skip("users_and_directories_are_those_of_the_process") {
        return;
    }
    let image = Image::new();
    let sleeper = Sleeper::new(&image, &document(&["sleep", "60"]));
    let mut process = process(&[
        "sh",
        "-c",
        "id -u; id -G; pwd; grep -E 'Cap(Eff|Bnd)|NoNew' /proc/self/status",
    ]);
    process["user"] = json!({ "uid": 12, "gid": 13, "additionalGids": [14] });
    process["cwd"] = json!("/etc");
    let outcome = sleeper.exec(&process).expect("an exec");
    assert_eq!(
        outcome.stdout,
        "12\n13 14\n/etc\nCapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\nNoNewPrivs:\t1\n"
    );
}

#[test]
fn a_reused_pid_is_not_taken_for_the_container() {
    if skip("a_reused_pid_is_not_taken_for_the_container") {
        return;
    }
    let image = Image::new();
    let sleeper = Sleeper::new(&image, &document(&["sleep", "60"]));
    let process: Process = serde_json::from_value(process(&["true"])).expect("a process");
    let target = Target {
        start_time: sleeper.target().start_time + 1,
        ..sleeper.target()
    };
    let (stdio, _ends) = fixture::pipes();
    let error = coracle_runtime::exec(Exec {
        target,
        process: &process,
        seccomp: None,
        cgroup: None,
        stdio,
        preserved: Vec::new(),
        clamp: false,
    })
    .expect_err("refused");
    assert!(matches!(error, Error::Gone { .. }), "{error:?}");
}

#[test]
fn the_terminal_is_the_containers_own() {
    if skip("the_terminal_is_the_containers_own") {
        return;
    }
    let image = Image::new();
    let mut document = document(&[
        "sh",
        "-c",
        "tty; stty size; stat -c %u /dev/console; echo typed: $(head -n1)",
    ]);
    document["process"]["terminal"] = json!(true);
    document["process"]["consoleSize"] = json!({ "height": 33, "width": 77 });
    std::os::unix::fs::symlink("busybox", image.lower().join("bin/head")).expect("a link");
    let spec = spec(&document);
    let running = Creating::begin(start(&spec, image.overlay(), own_ids(), Stdio::Terminal))
        .expect("begin")
        .run()
        .expect("run");
    let mut terminal = fs::File::from(
        running
            .terminal
            .as_ref()
            .expect("a terminal")
            .try_clone()
            .expect("a copy"),
    );
    terminal.write_all(b"hello\n").expect("a write");
    let said = read_terminal(&mut terminal);
    assert_eq!(fixture::code(&running), 0, "{said}");
    // The terminal echoes what is typed whenever it comes, between whatever is said.
    let unechoed = said.replacen("hello\r\n", "", 1);
    assert!(
        unechoed.contains("/dev/pts/0\r\n33 77\r\n0\r\n") && unechoed.contains("typed: hello\r\n"),
        "{said:?}"
    );
}

#[test]
fn a_terminal_can_be_had_in_an_exec() {
    if skip("a_terminal_can_be_had_in_an_exec") {
        return;
    }
    for time in [false, true] {
        let mut document = document(&["sleep", "60"]);
        if time {
            document["linux"]["namespaces"]
                .as_array_mut()
                .expect("a list")
                .push(json!({ "type": "time" }));
        }
        let image = Image::new();
        let sleeper = Sleeper::new(&image, &document);
        let process: Process =
            serde_json::from_value(process(&["sh", "-c", "tty; stat -L -c %u /proc/self/fd/0"]))
                .expect("a process");
        let running = coracle_runtime::exec(Exec {
            target: sleeper.target(),
            process: &process,
            seccomp: None,
            cgroup: None,
            stdio: Stdio::Terminal,
            preserved: Vec::new(),
            clamp: false,
        })
        .expect("an exec");
        let mut terminal = fs::File::from(
            running
                .terminal
                .as_ref()
                .expect("a terminal")
                .try_clone()
                .expect("a copy"),
        );
        let said = read_terminal(&mut terminal);
        assert_eq!(fixture::code(&running), 0, "{said}");
        assert_eq!(said, "/dev/pts/0\r\n0\r\n");
    }
}

/// EIO is how a terminal says that nobody has its other end.
fn read_terminal(terminal: &mut fs::File) -> String {
    let mut said = Vec::new();
    let mut buffer = [0u8; 512];
    while let Ok(length @ 1..) = terminal.read(&mut buffer) {
        said.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn we_can_be_inspected_again_after_a_start() {
    if skip("we_can_be_inspected_again_after_a_start") {
        return;
    }
    let image = Image::new();
    let outcome = fixture::run(&image, &document(&["true"])).expect("a start");
    assert_eq!(outcome.code, 0);
    // Other tests may be in the middle of theirs.
    for _ in 0..500 {
        if rustix::process::dumpable_behavior().expect("prctl")
            == rustix::process::DumpableBehavior::Dumpable
        {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("still not dumpable");
}
