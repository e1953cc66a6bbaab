//! Further commands in a running container.

use std::time::Duration;

use coracle_tests::Engine;

#[test]
fn exec_runs_inside_and_gives_the_exit_code() {
    let engine = Engine::new();
    engine.detached("--name c1", "echo mark > /tmp/mark; sleep 100");
    coracle_tests::eventually("the mark is there", Duration::from_secs(10), || {
        engine.run("exec c1 cat /tmp/mark").stdout == "mark\n"
    });
    engine.run("exec c1 sh -c 'exit 12'").code(12);
    engine.run("exec c1 sh -c 'kill -9 $$'").code(137);
    engine
        .run("exec c1 no-such-program")
        .code(127)
        .error_form(false);
    engine
        .run("exec c1 /etc/passwd")
        .code(126)
        .error_form(false);
}

#[test]
fn exec_is_in_every_namespace_and_limit_of_the_container() {
    let engine = Engine::new();
    engine.detached("--name c1", "sleep 100");
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"] {
        // Both looked at from inside, as the same user.
        let script =
            format!("[ $(readlink /proc/1/ns/{kind}) = $(readlink /proc/self/ns/{kind}) ]");
        engine
            .command(["exec", "c1", "sh", "-c", &script])
            .run()
            .success();
    }
    let fields = "grep -E '^(Cap...:|NoNewPrivs|Seccomp:)' /proc/";
    let of_init = engine
        .command(["exec", "c1", "sh", "-c", &format!("{fields}1/status")])
        .run();
    let of_exec = engine
        .command(["exec", "c1", "sh", "-c", &format!("{fields}self/status")])
        .run();
    assert_eq!(of_init.stdout, of_exec.stdout);
    let cgroup = "[ \"$(cat /proc/1/cgroup)\" = \"$(cat /proc/self/cgroup)\" ]";
    engine
        .command(["exec", "c1", "sh", "-c", cgroup])
        .run()
        .success();
}

#[test]
fn options_of_exec() {
    let engine = Engine::new();
    engine.detached("--name c1 -e BASE=1", "sleep 100");
    assert_eq!(engine.ok("exec -u app c1 id -un"), "app");
    assert_eq!(engine.ok("exec -u 5:6 c1 sh -c 'id -u; id -g'"), "5\n6");
    assert_eq!(engine.ok("exec -w /tmp c1 pwd"), "/tmp");
    assert_eq!(engine.ok("exec -e X=y c1 sh -c 'echo $X $BASE'"), "y 1");
    let seen = engine
        .line("exec -i c1 wc -c")
        .stdin(b"12345")
        .run()
        .success();
    assert_eq!(seen.text(), "5");
    let seen = engine.run("exec c1 sh -c 'echo o; echo e >&2'").success();
    assert_eq!((seen.stdout.as_str(), seen.stderr.as_str()), ("o\n", "e\n"));
    engine.ok("exec -d c1 sh -c 'echo done > /tmp/detached'");
    coracle_tests::eventually("the detached one ran", Duration::from_secs(10), || {
        engine.run("exec c1 cat /tmp/detached").stdout == "done\n"
    });
    let seen = engine.ok("exec --privileged c1 grep CapEff /proc/self/status");
    let mask = seen.split_whitespace().nth(1).expect("a mask");
    assert!(
        u64::from_str_radix(mask, 16).expect("hex").count_ones() >= 38,
        "{seen}"
    );
}

#[test]
fn exec_needs_a_running_container() {
    let engine = Engine::new();
    engine.ok("create --name c1 busybox true");
    engine.refuses("exec c1 true").err("c1");
    engine.refuses("exec missing true");
}

#[test]
fn exec_ends_with_its_container() {
    let engine = Engine::new();
    engine.detached("--name c1", "sleep 100");
    let mut session = engine.spawn("exec c1 sh -c 'echo in; sleep 100'");
    session.expect("in", Duration::from_secs(10));
    engine.ok("kill c1");
    session.wait().code(137);
}

#[test]
fn a_hundred_at_once() {
    let engine = Engine::new();
    engine.detached("--name c1", "sleep 100");
    let sessions: Vec<_> = (0..100)
        .map(|n| engine.spawn(&format!("exec c1 echo {n}")))
        .collect();
    for (n, session) in sessions.into_iter().enumerate() {
        assert_eq!(session.wait().success().text(), n.to_string());
    }
}

#[test]
fn killed_exec_command_leaves_the_container_alone() {
    let engine = Engine::new();
    engine.detached("--name c1", "sleep 100");
    let mut session = engine.spawn("exec c1 sh -c 'echo in; sleep 2'");
    session.expect("in", Duration::from_secs(10));
    session.signal(rustix::process::Signal::KILL);
    session.wait().code(137);
    engine.ok("exec c1 true");
}
