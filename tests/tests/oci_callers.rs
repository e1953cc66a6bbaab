//! What callers of an OCI runtime send, as it was observed: containerd's shim, conmon, Slurm; and the verbs beside the
//! specification's.

use std::fs;
use std::io::{IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use coracle_tests::oci::Oci;
use coracle_tests::{eventually, host, skip};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

const SLEEPS: &str = "trap 'exit 3' TERM; echo up; sleep 100 & wait";

/// Ours alone: these are not sentences of a specification.
fn oci() -> Option<Oci> {
    let oci = Oci::new()?;
    if oci.ours {
        return Some(oci);
    }
    skip("another runtime is under test");
    None
}

fn started(oci: &Oci, name: &str, script: &str) {
    oci.create(name, &oci.document(script)).success();
    oci.verb("start", name).success();
}

#[test]
fn the_sequence_of_containerds_shim_works_to_its_end() {
    let Some(oci) = oci() else { return };
    let log = oci.dir().join("log.json");
    let with_log = |words: &[&str]| {
        let log = log.display().to_string();
        let globals = ["--log", &log, "--log-format", "json"];
        oci.command(globals.iter().chain(words)).run()
    };
    let id = oci.id("a");
    oci.create("a", &oci.document(SLEEPS)).success();
    let pid = fs::read_to_string(oci.dir().join("a.pid")).expect("a pid file");
    assert_eq!(oci.state("a")["pid"].to_string(), pid);
    with_log(&["start", &id]).success();
    let process = oci.dir().join("process.json");
    let mut document = oci.document("exit 5")["process"].clone();
    document["env"] = json!(["PATH=/bin", "NAME=value"]);
    fs::write(&process, document.to_string()).expect("a file");
    let process = process.display().to_string();
    with_log(&["exec", "--process", &process, &id]).code(5);
    let exec_pid = oci.dir().join("exec.pid");
    let file = exec_pid.display().to_string();
    with_log(&[
        "exec",
        "--process",
        &process,
        "--detach",
        "--pid-file",
        &file,
        &id,
    ])
    .success();
    assert!(
        fs::read_to_string(&exec_pid)
            .expect("a pid file")
            .parse::<i32>()
            .is_ok()
    );
    with_log(&["pause", &id]).success();
    assert_eq!(oci.state("a")["status"], "paused");
    with_log(&["resume", &id]).success();
    assert_eq!(oci.state("a")["status"], "running");
    oci.command(["update", "--resources=-", &id])
        .stdin(br#"{"memory":{"limit":67108864},"pids":{"limit":50},"cpu":{"shares":0}}"#)
        .run()
        .success();
    let refused = with_log(&[
        "checkpoint",
        "--image-path",
        "/x",
        "--work-path",
        "/y",
        "--leave-running",
        &id,
    ]);
    assert_eq!(refused.code, 1, "{refused:?}");
    with_log(&["kill", &id, "15"]).success();
    oci.until("a", "stopped");
    with_log(&["kill", "--all", &id, "9"]).success();
    with_log(&["delete", &id]).success();
    with_log(&["delete", "--force", &id]).success();
    with_log(&["delete", "--force", &id]).success();
    let refused = with_log(&["state", &id]);
    assert_eq!(refused.code, 1);
    let text = fs::read_to_string(&log).expect("a log");
    let last: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["level"], "error");
    assert!(
        last["msg"]
            .as_str()
            .is_some_and(|text| text.contains("does not exist")),
        "{last}"
    );
    assert!(
        last["time"]
            .as_str()
            .is_some_and(|text| text.ends_with('Z'))
    );
}

#[test]
fn the_ids_and_the_json_of_slurm_are_taken() {
    let Some(oci) = oci() else { return };
    let text = oci
        .document("echo from $PWD")
        .to_string()
        .replace('/', "\\/");
    oci.write_text(&text);
    let bundle = oci.inside().display().to_string();
    oci.command(["run", "--bundle", &bundle, "n1.root.9.0.-1"])
        .run()
        .success()
        .out("from /");
    oci.line("state n1.root.9.0.-1").code(1);
    oci.line("kill --all n1.root.9.0.-1 SIGTERM").code(1);
    oci.line("delete --force n1.root.9.0.-1").success();
}

#[test]
fn run_gives_the_exit_code_of_the_process_and_deletes_it() {
    let Some(oci) = oci() else { return };
    for (script, code) in [("exit 0", 0), ("exit 17", 17), ("kill -9 $$; sleep 1", 0)] {
        // The first process of a pid namespace does not die of its own signals.
        assert_eq!(oci.run_with(script, |_| ()).code, code, "{script}");
    }
    assert_eq!(oci.line("list -q").stdout, "");
    oci.run_with("", |document| {
        document["process"]["args"] = json!(["no-such-program"])
    })
    .code(127);
    oci.run_with("", |document| document["process"]["args"] = json!(["/etc"]))
        .code(126);
    assert_eq!(oci.line("list -q").stdout, "");
}

#[test]
fn signals_reach_the_foreground_process() {
    let Some(oci) = oci() else { return };
    oci.write(&oci.document(SLEEPS));
    let bundle = oci.inside().display().to_string();
    let mut session = oci
        .command(["run", "--bundle", &bundle, &oci.id("run")])
        .spawn();
    session.expect("up", Duration::from_secs(10));
    session.signal(rustix::process::Signal::TERM);
    session.wait().code(3);
    assert_eq!(oci.line("list -q").stdout, "");
}

#[test]
fn a_command_that_is_not_there_fails_the_creation_with_the_words_that_docker_reads() {
    let Some(oci) = oci() else { return };
    let mut document = oci.document("");
    document["process"]["args"] = json!(["no-such-program"]);
    let created = oci.create("a", &document).refused();
    assert_eq!(created.code, 127);
    assert!(
        created.said.contains("executable file not found in $PATH"),
        "{created:?}"
    );
    oci.verb("state", "a").code(1);
}

#[test]
fn a_created_container_is_deleted_without_force_as_containerd_needs_it() {
    let Some(oci) = oci() else { return };
    oci.create("a", &oci.document(SLEEPS)).success();
    oci.verb("delete", "a").success();
    oci.verb("state", "a").code(1);
}

#[test]
fn forced_deletion_ends_what_runs_and_what_is_frozen() {
    let Some(oci) = oci() else { return };
    started(&oci, "a", SLEEPS);
    oci.verb("delete --force", "a").success();
    started(&oci, "b", SLEEPS);
    oci.verb("pause", "b").success();
    oci.verb("delete --force", "b").success();
    assert_eq!(oci.line("list -q").stdout, "");
}

#[test]
fn kill_ends_a_frozen_container() {
    let Some(oci) = oci() else { return };
    started(&oci, "a", SLEEPS);
    oci.verb("pause", "a").success();
    oci.command(["kill", &oci.id("a"), "KILL"]).run().success();
    oci.until("a", "stopped");
}

#[test]
fn kill_all_reaches_what_the_first_process_left_behind() {
    let Some(oci) = oci() else { return };
    let mut document = oci.document("setsid sleep 300 > /dev/null 2>&1 & echo gone");
    let namespaces = document["linux"]["namespaces"]
        .as_array_mut()
        .expect("a list");
    namespaces.retain(|namespace| namespace["type"] != "pid");
    oci.create("a", &document).success();
    oci.verb("start", "a").success();
    oci.until("a", "stopped");
    let pids = |oci: &Oci| -> Vec<i32> {
        serde_json::from_str(&oci.verb("ps --format json", "a").success().stdout).expect("JSON")
    };
    assert_eq!(pids(&oci).len(), 1);
    oci.command(["kill", "--all", &oci.id("a"), "9"])
        .run()
        .success();
    eventually("it is gone", Duration::from_secs(5), || {
        pids(&oci).is_empty()
    });
    oci.verb("delete", "a").success();
}

#[test]
fn create_leaves_nothing_that_holds_its_output_of_a_container_with_a_terminal() {
    let Some(oci) = oci() else { return };
    let (listener, path) = listening(&oci, "console");
    let mut document = oci.document("tty; stty size; sleep 100");
    document["process"]["terminal"] = json!(true);
    document["process"]["consoleSize"] = json!({ "height": 33, "width": 77 });
    oci.write(&document);
    let bundle = oci.inside().display().to_string();
    let id = oci.id("a");
    let begun = Instant::now();
    // Both outputs are read to their ends, which a process that holds them would keep away.
    let words = [
        "create",
        "--bundle",
        &bundle,
        "--console-socket",
        &path,
        &id,
    ];
    oci.command(words)
        .limit(Duration::from_secs(10))
        .run()
        .success();
    assert!(begun.elapsed() < Duration::from_secs(10));
    let (_, terminal) = received(&listener);
    oci.verb("start", "a").success();
    let mut master = fs::File::from(terminal);
    let mut screen = String::new();
    while !screen.contains("33 77") {
        let mut buffer = [0u8; 256];
        let count = master.read(&mut buffer).expect("the terminal");
        assert!(count > 0, "the terminal ended: {screen}");
        screen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert!(screen.contains("/dev/pts/0"), "{screen}");
}

#[test]
fn exec_with_a_terminal_sends_it_to_the_console_socket() {
    let Some(oci) = oci() else { return };
    started(&oci, "a", SLEEPS);
    let (listener, path) = listening(&oci, "exec");
    let id = oci.id("a");
    let words = [
        "exec",
        "--tty",
        "--detach",
        "--console-socket",
        &path,
        &id,
        "sh",
        "-c",
        "tty; sleep 5",
    ];
    oci.command(words).run().success();
    let (_, terminal) = received(&listener);
    let mut buffer = [0u8; 256];
    let count = fs::File::from(terminal)
        .read(&mut buffer)
        .expect("the terminal");
    assert!(String::from_utf8_lossy(&buffer[..count]).contains("/dev/pts/"));
}

#[test]
fn a_terminal_without_anybody_for_its_other_end_is_refused() {
    let Some(oci) = oci() else { return };
    let mut document = oci.document("true");
    document["process"]["terminal"] = json!(true);
    let created = oci.create("a", &document).refused();
    assert!(created.said.contains("--console-socket"), "{created:?}");
}

#[test]
fn exec_changes_the_containers_own_process() {
    let Some(oci) = oci() else { return };
    started(&oci, "a", SLEEPS);
    let id = oci.id("a");
    let exec = |words: &[&str]| oci.command(["exec"].iter().chain(words)).run();
    exec(&[
        "--cwd",
        "/tmp",
        "--env",
        "A=b",
        "--user",
        "5:6",
        &id,
        "sh",
        "-c",
        "pwd; echo $A; id -u; id -g",
    ])
    .success()
    .out("/tmp\nb\n5\n6");
    exec(&[&id, "hostname"]).success().out("boat");
    exec(&[&id, "sh", "-c", "exit 9"]).code(9);
    exec(&[&id, "sh", "-c", "kill -9 $$"]).code(137);
    exec(&[&id, "no-such-program"]).code(127);
    exec(&["nothing", "true"]).code(255);
    let sets = exec(&[
        "--cap",
        "CAP_SYS_TIME",
        &id,
        "grep",
        "CapEff",
        "/proc/self/status",
    ])
    .success();
    let effective = sets
        .stdout
        .split_whitespace()
        .nth(1)
        .expect("a number")
        .to_owned();
    assert_ne!(
        u64::from_str_radix(&effective, 16).expect("hexadecimal") >> 25 & 1,
        0
    );
    oci.verb("pause", "a").success();
    exec(&[&id, "true"]).code(255).err("paused");
    oci.verb("resume", "a").success();
}

#[test]
fn an_exec_has_the_processors_that_it_is_given() {
    let Some(oci) = oci() else { return };
    let mut document = oci.document(SLEEPS);
    // Not for the first process.
    document["process"]["execCPUAffinity"] = json!({ "initial": "0", "final": "0" });
    oci.create("a", &document).success();
    oci.verb("start", "a").success();
    let mut process = oci.document("grep Cpus_allowed_list /proc/self/status")["process"].clone();
    let exec = |process: &Value| {
        let path = oci.dir().join("process.json");
        fs::write(&path, process.to_string()).expect("a file");
        oci.command([
            "exec",
            "--process",
            &path.display().to_string(),
            &oci.id("a"),
        ])
        .run()
    };
    process["execCPUAffinity"] = json!({ "initial": "0", "final": "0" });
    exec(&process).success().out("Cpus_allowed_list:\t0\n");
    process["execCPUAffinity"] = json!({ "initial": "zero" });
    exec(&process).code(255);
}

#[test]
fn descriptors_are_preserved_for_socket_activation() {
    let Some(oci) = oci() else { return };
    oci.write(&oci.document("cat <&3; echo $LISTEN_FDS $LISTEN_PID"));
    let bundle = oci.inside().display().to_string();
    let file = oci.dir().join("passed");
    fs::write(&file, "passed on\n").expect("a file");
    let command = oci
        .command(["run", "--bundle", &bundle, &oci.id("run")])
        .into_command();
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy()))
        .collect();
    let line = format!(
        "exec 3< {}; LISTEN_FDS=1 exec {}",
        file.display(),
        words.join(" ")
    );
    let output = std::process::Command::new("sh")
        .args(["-c", &line])
        .output()
        .expect("a shell");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "passed on\n1 1\n",
        "{output:?}"
    );
}

#[test]
fn a_seccomp_agent_gets_the_listener_with_its_metadata() {
    let Some(oci) = oci() else { return };
    let (listener, path) = listening(&oci, "agent");
    let mut document = oci.document("mkdir /tmp/x; echo after");
    document["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "listenerPath": path, "listenerMetadata": "some data",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }],
    });
    oci.create("a", &document).success();
    let (text, filter) = received(&listener);
    let message: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(message["fds"], json!(["seccompFd"]));
    assert_eq!(message["metadata"], "some data");
    assert_eq!(message["pid"], oci.state("a")["pid"]);
    assert_eq!(message["state"]["id"], oci.id("a"));
    oci.verb("start", "a").success();
    let process = oci.dir().join("process.json");
    let other = oci.document("mkdir /tmp/y; true")["process"].clone();
    fs::write(&process, other.to_string()).expect("a file");
    let words = [
        "exec",
        "--detach",
        "--process",
        &process.display().to_string(),
        &oci.id("a"),
    ];
    // Its streams are the process's, which stays.
    let mut exec = oci.command(words).into_command();
    let null = std::process::Stdio::null;
    let status = exec.stdin(null()).stdout(null()).stderr(null()).status();
    assert!(status.expect("it runs").success());
    let (text, second) = received(&listener);
    let message: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(message["state"]["status"], "running");
    assert_ne!(message["pid"], message["state"]["pid"]);
    drop(second);
    // Nobody answers: with the listener closed the call fails, and the script goes on.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(oci.said("a"), "");
    drop(filter);
    oci.until("a", "stopped");
    assert!(oci.said("a").ends_with("after\n"), "{}", oci.said("a"));
}

#[test]
fn events_tell_what_is_used_and_when_memory_runs_out() {
    let Some(oci) = oci() else { return };
    let mut document =
        oci.document("sleep 1; head -c 200m /dev/zero | tail > /dev/null; sleep 100");
    document["linux"]["resources"] =
        json!({ "memory": { "limit": 20_000_000, "swap": 20_000_000 }, "pids": { "limit": 20 } });
    oci.create("a", &document).success();
    oci.verb("start", "a").success();
    let stats: Value =
        serde_json::from_str(&oci.verb("events --stats", "a").success().stdout).expect("JSON");
    assert_eq!(stats["type"], "stats");
    assert_eq!(stats["data"]["pids"]["limit"], 20);
    assert!(
        stats["data"]["memory"]["usage"]["usage"]
            .as_u64()
            .is_some_and(|bytes| bytes > 0)
    );
    assert!(stats["data"]["cpu"]["usage"]["total"].as_u64().is_some());
    let mut session = oci.command(["events", &oci.id("a")]).spawn();
    session.expect("\"oom\"", Duration::from_secs(15));
    oci.verb("delete --force", "a").success();
    session.signal(rustix::process::Signal::KILL);
    session.wait();
}

#[test]
fn update_changes_limits_by_options() {
    let Some(oci) = oci() else { return };
    if !host::has_controller("memory") {
        return;
    }
    started(&oci, "a", SLEEPS);
    let id = oci.id("a");
    oci.command(["update", "--memory", "64m", "--pids-limit", "33", &id])
        .run()
        .success();
    let stats: Value =
        serde_json::from_str(&oci.verb("events --stats", "a").success().stdout).expect("JSON");
    assert_eq!(stats["data"]["pids"]["limit"], 33);
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], 64 << 20);
    oci.command(["update", "--l3-cache-schema", "x", &id])
        .run()
        .code(1);
    oci.command(["update", &id]).run().code(1);
}

#[test]
fn list_and_ps_have_both_forms() {
    let Some(oci) = oci() else { return };
    started(&oci, "a", SLEEPS);
    let all: Value =
        serde_json::from_str(&oci.line("list --format json").success().stdout).expect("JSON");
    assert_eq!(all.as_array().map(Vec::len), Some(1));
    assert_eq!(all[0]["id"], oci.id("a"));
    oci.line("list").success().out("STATUS").out(&oci.id("a"));
    oci.verb("ps", "a").success().out("sleep 100");
    let pids: Vec<i32> =
        serde_json::from_str(&oci.verb("ps --format json", "a").success().stdout).expect("JSON");
    assert_eq!(pids.len(), 2);
}

#[test]
fn a_create_that_is_killed_leaves_what_delete_clears() {
    let Some(oci) = oci() else { return };
    let mut document = oci.document(SLEEPS);
    document["hooks"] =
        json!({ "createRuntime": [{ "path": "/bin/sleep", "args": ["sleep", "30"] }] });
    oci.write(&document);
    let bundle = oci.inside().display().to_string();
    let id = oci.id("a");
    let session = oci.command(["create", "--bundle", &bundle, &id]).spawn();
    eventually("it is being created", Duration::from_secs(10), || {
        oci.verb("state", "a").stdout.contains("creating")
    });
    session.signal(rustix::process::Signal::KILL);
    eventually("its creator is gone", Duration::from_secs(10), || {
        oci.verb("state", "a").stdout.contains("stopped")
    });
    oci.verb("delete --force", "a").success();
    oci.verb("state", "a").code(1);
}

#[test]
fn a_hundred_lives_leave_nothing_and_get_no_slower() {
    let Some(oci) = oci() else { return };
    let life = || {
        let begun = Instant::now();
        oci.create("a", &oci.document("exit 0")).success();
        oci.verb("start", "a").success();
        oci.verb("kill --all", "a").success();
        oci.verb("delete --force", "a").success();
        begun.elapsed()
    };
    let first: Duration = (0..20).map(|_| life()).sum();
    for _ in 0..60 {
        life();
    }
    let last: Duration = (0..20).map(|_| life()).sum();
    assert!(last < first * 3, "{first:?} became {last:?}");
    let left = fs::read_dir(oci.dir().join("state"))
        .expect("the state")
        .flatten();
    let left: Vec<_> = left
        .map(|entry| entry.file_name())
        .filter(|name| name != ",cgroups")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_binary_is_a_runtime_under_a_name_that_says_so() {
    let Some(oci) = oci() else { return };
    let link = oci.dir().join("coracle-oci");
    std::os::unix::fs::symlink(coracle_tests::binary(), &link).expect("a link");
    let run = |words: &[&str]| {
        std::process::Command::new(&link)
            .args(words)
            .output()
            .expect("it runs")
    };
    let version = run(&["--version"]);
    assert!(
        String::from_utf8_lossy(&version.stdout).starts_with("coracle version "),
        "{version:?}"
    );
    let features: Value = serde_json::from_slice(&run(&["features"]).stdout).expect("JSON");
    assert_eq!(features["ociVersionMin"], "1.0.0");
    let capabilities = features["linux"]["capabilities"]
        .as_array()
        .expect("a list");
    assert!(capabilities.contains(&json!("CAP_CHOWN")));
    let unknown = run(&["no-such-verb"]);
    assert_eq!(unknown.status.code(), Some(1));
}

#[test]
fn spec_writes_a_document_that_runs() {
    let Some(oci) = oci() else { return };
    let bundle = oci.inside().display().to_string();
    for words in [
        &["spec", "--bundle", &bundle][..],
        &["spec", "--rootless", "--bundle", &bundle],
    ] {
        oci.command(words).run().success();
        let path = oci.dir().join("config.json");
        let mut document: Value =
            serde_json::from_str(&fs::read_to_string(&path).expect("written")).expect("JSON");
        oci.command(words).run().code(1);
        document["process"]["terminal"] = json!(false);
        document["process"]["args"] = json!(["echo", "fine"]);
        oci.run(&document).success().out("fine");
        fs::remove_file(path).expect("there");
    }
}

fn listening(oci: &Oci, name: &str) -> (UnixListener, String) {
    let path = oci.dir().join(format!("{name}.socket"));
    let listener = UnixListener::bind(&path).expect("a socket");
    (listener, path.display().to_string())
}

/// What was sent with a descriptor.
fn received(listener: &UnixListener) -> (String, std::os::fd::OwnedFd) {
    let mut waited = [PollFd::new(listener, PollFlags::IN)];
    let limit = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    let ready = poll(&mut waited, Some(&limit)).expect("a socket can be waited for");
    assert_eq!(ready, 1, "nobody connects");
    let (stream, _) = listener.accept().expect("somebody connects");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = vec![0u8; 16 * 1024];
    let message = recvmsg(
        &stream,
        &mut [IoSliceMut::new(&mut buffer)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .expect("a message");
    let mut fds = Vec::new();
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = item {
            fds.extend(rights);
        }
    }
    let text = String::from_utf8_lossy(&buffer[..message.bytes]).into_owned();
    (text, fds.pop().expect("a descriptor"))
}
