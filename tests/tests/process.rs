//! The process that is started: command, environment, user, directory, names, limits, init.

use coracle_tests::{Engine, docker_archive, host};
use serde_json::json;

#[test]
fn exit_code_is_the_programs() {
    let engine = Engine::new();
    for code in [0, 1, 42, 255] {
        engine.sh("", &format!("exit {code}")).code(code);
    }
    engine.sh("", "sh -c 'kill -9 $$'; exit $?").code(137);
    // A signal that it has no handler for does not end PID 1.
    engine
        .sh("", "sleep 0.1; kill -TERM $$; sleep 5; exit 3")
        .code(3);
}

#[test]
fn command_that_is_missing_is_127_and_not_executable_126() {
    let engine = Engine::new();
    engine
        .run("run --rm busybox no-such-program")
        .code(127)
        .error_form(false)
        .err("no-such-program");
    engine
        .run("run --rm busybox /no/such/path")
        .code(127)
        .error_form(false);
    engine
        .run("run --rm busybox /etc/passwd")
        .code(126)
        .error_form(false)
        .err("/etc/passwd");
    engine
        .run("run --rm busybox /etc")
        .code(126)
        .error_form(false);
    assert_eq!(engine.ok("ps -aq"), "");
}

#[test]
fn streams_are_apart_and_input_reaches_the_end() {
    let engine = Engine::new();
    let seen = engine.sh("", "echo out; echo err >&2").success();
    assert_eq!(
        (seen.stdout.as_str(), seen.stderr.as_str()),
        ("out\n", "err\n")
    );
    let big = "line of input\n".repeat(20_000);
    let seen = engine
        .line("run --rm -i busybox wc -c")
        .stdin(big.as_bytes())
        .run()
        .success();
    assert_eq!(seen.text(), big.len().to_string());
    // Without -i there is no input.
    let seen = engine
        .line("run --rm busybox wc -c")
        .stdin(b"unseen")
        .run()
        .success();
    assert_eq!(seen.text(), "0");
}

#[test]
fn large_output_is_whole() {
    let engine = Engine::new();
    let seen = engine
        .sh("", "yes 0123456789abcde | head -n 200000")
        .success();
    assert_eq!(seen.stdout.len(), 16 * 200_000);
}

#[test]
fn environment_comes_from_image_options_and_files() {
    let engine = Engine::new();
    let file = engine.make_file("env", "# comment\nFROM_FILE=a b\n\nTAKEN\nOVER=file\n");
    let line = format!(
        "run --rm --env-file {} -e OVER=option -e EMPTY= -e HOSTSET busybox env",
        file.display()
    );
    let seen = engine
        .line(&line)
        .env("TAKEN", "from host")
        .env("HOSTSET", "x y")
        .run()
        .success();
    let lines: Vec<&str> = seen.stdout.lines().collect();
    for expected in [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "FROM_FILE=a b",
        "TAKEN=from host",
        "OVER=option",
        "EMPTY=",
        "HOSTSET=x y",
        "HOME=/root",
    ] {
        assert!(lines.contains(&expected), "no {expected} in {seen:?}");
    }
    assert!(
        lines.iter().any(|line| line.starts_with("HOSTNAME=")),
        "{seen:?}"
    );
    // Nothing else of the caller's environment.
    assert!(!seen.stdout.contains("CARGO"), "{seen:?}");
}

#[test]
fn working_directory_is_made_and_entered() {
    let engine = Engine::new();
    assert_eq!(
        engine.ok("run --rm -w /made/here busybox pwd"),
        "/made/here"
    );
    assert_eq!(engine.ok("run --rm busybox pwd"), "/");
    engine
        .run("run --rm -w relative busybox pwd")
        .code(125)
        .error_form(false);
}

#[test]
fn user_is_looked_up_in_the_image() {
    let engine = Engine::new();
    let cases = [
        (
            "app",
            "uid=1000(app) gid=1000(app) groups=1000(app),10(wheel),2000(extra)",
        ),
        (
            "1000",
            "uid=1000(app) gid=1000(app) groups=1000(app),10(wheel),2000(extra)",
        ),
        ("app:daemon", "uid=1000(app) gid=1(daemon) groups=1(daemon)"),
        ("1234:4321", "uid=1234 gid=4321 groups=4321"),
        ("4000", "uid=4000 gid=0(root) groups=0(root)"),
    ];
    for (user, expected) in cases {
        let seen = engine.ok(&format!("run --rm -u {user} busybox id"));
        // The order of the groups means nothing.
        let parts = |text: &str| {
            let mut parts: Vec<String> = text.split([' ', ',', '=']).map(str::to_owned).collect();
            parts.sort();
            parts.dedup();
            parts
        };
        assert_eq!(parts(&seen), parts(expected), "{user}");
    }
    assert_eq!(
        engine.ok("run --rm -u app busybox sh -c 'echo $HOME'"),
        "/home/app"
    );
    let seen = engine.ok("run --rm -u app:app --group-add daemon --group-add 777 busybox id -G");
    let mut groups: Vec<&str> = seen.split_whitespace().collect();
    groups.sort_unstable();
    assert_eq!(groups, ["1", "1000", "777"]);
    engine
        .run("run --rm -u no-such-user busybox true")
        .code(125)
        .error_form(false)
        .err("no-such-user");
}

#[test]
fn entrypoint_and_command_combine_as_in_docker() {
    let engine = Engine::empty();
    let config = json!({
        "Entrypoint": ["/bin/echo", "entry"],
        "Cmd": ["cmd"],
        "WorkingDir": "/tmp",
        "User": "app",
        "Env": ["PATH=/bin", "FROM=image"],
        "Labels": {"of": "image"},
        "StopSignal": "SIGUSR1",
    });
    let layers = [coracle_tests::busybox_layer()];
    let file = docker_archive(&engine.dir().join("e.tar"), "entry:1", &layers, &config);
    engine.ok(&format!("load -i {}", file.path.display()));
    assert_eq!(engine.ok("run --rm entry:1"), "entry cmd");
    assert_eq!(
        engine.ok("run --rm entry:1 other words"),
        "entry other words"
    );
    assert_eq!(engine.ok("run --rm --entrypoint /bin/pwd entry:1"), "/tmp");
    assert_eq!(engine.ok("run --rm --entrypoint /bin/echo entry:1 a"), "a");
    assert_eq!(
        engine.ok("run --rm --entrypoint /bin/sh entry:1 -c 'id -un; echo $FROM'"),
        "app\nimage"
    );
    assert_eq!(engine.ok("run --rm --entrypoint '' entry:1 id -un"), "app");
    engine.ok("create --name c1 entry:1");
    assert_eq!(
        engine.field("c1", "{{.Config.StopSignal}} {{.Config.Labels.of}}"),
        "SIGUSR1 image"
    );
}

#[test]
fn names_of_the_host_are_the_containers() {
    let engine = Engine::new();
    let script = "hostname; cat /etc/hostname; grep -c '127.0.0.1.*localhost' /etc/hosts";
    assert_eq!(engine.sh_ok("-h my-name", script), "my-name\nmy-name\n1");
    let id = engine.detached("", "sleep 100");
    assert_eq!(engine.ok(&format!("exec {id} hostname")), id[..12]);
    let seen = engine.sh_ok(
        "--add-host db:10.1.2.3 --add-host six:::1",
        "cat /etc/hosts",
    );
    assert!(
        seen.lines()
            .any(|line| line.split_whitespace().eq(["10.1.2.3", "db"])),
        "{seen}"
    );
    assert!(
        seen.lines()
            .any(|line| line.split_whitespace().eq(["::1", "six"])),
        "{seen}"
    );
}

#[test]
fn resolver_configuration_is_the_one_asked_for() {
    let engine = Engine::new();
    let options = "--dns 192.0.2.1 --dns-search a.test --dns-option ndots:3";
    let seen = engine.sh_ok(options, "cat /etc/resolv.conf");
    for line in ["nameserver 192.0.2.1", "search a.test", "options ndots:3"] {
        assert!(
            seen.lines().any(|seen| seen == line),
            "no {line:?} in {seen}"
        );
    }
    // The image's own files are not what was written.
    assert_eq!(
        engine.sh_ok("", "echo x >> /etc/hosts && tail -n1 /etc/hosts"),
        "x"
    );
}

#[test]
fn init_reaps_and_forwards_signals() {
    let engine = Engine::new();
    let id = engine.detached(
        "--init",
        "trap 'echo got TERM; exit 5' TERM; echo up; while :; do sleep 0.1; done",
    );
    engine.until_logged(&id, "up");
    let name = engine.ok(&format!("exec {id} cat /proc/1/comm"));
    assert_ne!(name, "sh");
    // An orphan ends and is not left as a zombie.
    engine.ok(&format!("exec {id} sh -c '(sleep 0.2 &) ; exit 0'"));
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(
        engine.ok(&format!(
            "exec {id} sh -c \"ps -o stat | grep -c Z || true\""
        )),
        "0"
    );
    engine.ok(&format!("stop {id}"));
    assert_eq!(engine.field(&id, "{{.State.ExitCode}}"), "5");
    engine.run(&format!("logs {id}")).success().out("got TERM");
}

#[test]
fn resource_limits_and_sysctls_are_set() {
    let engine = Engine::new();
    let seen = engine.sh_ok(
        "--ulimit nofile=512:1024 --ulimit core=0",
        "ulimit -Sn; ulimit -Hn; ulimit -c",
    );
    assert_eq!(seen, "512\n1024\n0");
    assert_eq!(
        engine.sh_ok(
            "--sysctl net.ipv4.ip_forward=1",
            "cat /proc/sys/net/ipv4/ip_forward"
        ),
        "1"
    );
    assert_eq!(
        engine.sh_ok("--sysctl kernel.msgmax=9000", "cat /proc/sys/kernel/msgmax"),
        "9000"
    );
    // Not of a namespace: it would be the host's.
    engine
        .run("run --rm --sysctl kernel.panic=5 busybox true")
        .code(125)
        .error_form(false);
    let seen = engine.sh_ok("--oom-score-adj 500", "cat /proc/self/oom_score_adj");
    assert_eq!(seen, "500");
    engine
        .run("run --rm --ulimit nonsense=1 busybox true")
        .code(125)
        .error_form(false);
}

#[test]
fn shared_memory_has_the_size_asked_for() {
    let engine = Engine::new();
    assert_eq!(
        engine.sh_ok("", "df -k /dev/shm | tail -n1 | awk '{print $2}'"),
        "65536"
    );
    assert_eq!(
        engine.sh_ok(
            "--shm-size 8m",
            "df -k /dev/shm | tail -n1 | awk '{print $2}'"
        ),
        "8192"
    );
}

#[test]
fn cidfile_is_written_once() {
    let engine = Engine::new();
    let file = engine.dir().join("cid");
    let line = format!("run --cidfile {} busybox true", file.display());
    engine.run(&line).success();
    let id = std::fs::read_to_string(&file).expect("written");
    assert_eq!(id, engine.ok("ps -aq --no-trunc"));
    engine.run(&line).code(125).error_form(false).err("cid");
    assert_eq!(engine.ok("ps -aq").lines().count(), 1);
}

#[test]
fn signals_of_the_foreground_command_reach_the_program() {
    use rustix::process::Signal;
    let engine = Engine::new();
    let script = "trap 'echo usr1' USR1; trap 'echo term; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let mut args = coracle_tests::words("run --rm busybox sh -c");
    args.push(script.into());
    let mut session = engine.command(args).spawn();
    session.expect("ready", std::time::Duration::from_secs(20));
    session.signal(Signal::USR1);
    session.expect("usr1", std::time::Duration::from_secs(10));
    session.signal(Signal::TERM);
    let outcome = session.wait().code(7);
    assert!(outcome.stdout.contains("term"));
}

#[test]
fn labels_and_annotations_are_kept() {
    let engine = Engine::new();
    let file = engine.make_file("labels", "from=file\n");
    let line = format!(
        "create --name l1 -l a=1 --label b --label-file {} --annotation x=y busybox true",
        file.display()
    );
    engine.ok(&line);
    let seen = engine.field(
        "l1",
        "{{.Config.Labels.a}}/{{.Config.Labels.b}}/{{.Config.Labels.from}}",
    );
    assert_eq!(seen, "1//file");
    assert_eq!(engine.field("l1", "{{.HostConfig.Annotations.x}}"), "y");
}

#[test]
fn pull_policy_says_that_there_is_no_registry_or_uses_what_is_there() {
    let engine = Engine::new();
    assert_eq!(engine.ok("run --rm --pull never busybox echo it"), "it");
    assert_eq!(engine.ok("run --rm --pull missing busybox echo it"), "it");
    engine
        .run("run --rm --pull never nothing-here true")
        .code(125)
        .error_form(true);
}

#[test]
fn time_zone_and_terminal_are_not_taken_from_the_caller() {
    if !host::root() {
        return;
    }
    let engine = Engine::new();
    let seen = engine
        .line("run --rm busybox env")
        .env("TERM", "weird")
        .run()
        .success();
    assert!(!seen.stdout.contains("TERM="), "{seen:?}");
}
