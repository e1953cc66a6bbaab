//! The life of a container: create, start, stop, restart, kill, pause, wait, rename, rm.

use std::time::Duration;

use coracle_tests::{Engine, host};

#[test]
fn create_start_wait_and_remove() {
    let engine = Engine::new();
    let id = engine.ok("create --name c busybox sh -c 'echo hello; exit 3'");
    assert_eq!(id.len(), 64);
    assert_eq!(engine.field("c", "{{.State.Status}}"), "created");
    assert_eq!(engine.ok("start c"), "c");
    assert_eq!(engine.ok("wait c"), "3");
    assert_eq!(
        engine.field("c", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 3"
    );
    assert_eq!(engine.ok("logs c"), "hello");
    assert_eq!(engine.ok("rm c"), "c");
    engine.refuses("inspect c");
}

#[test]
fn start_attached_gives_output_and_exit_code() {
    let engine = Engine::new();
    engine.ok("create -i --name c busybox sh -c 'cat; exit 4'");
    let seen = engine.line("start -a -i c").stdin(b"fed\n").run().code(4);
    assert_eq!(seen.stdout, "fed\n");
}

#[test]
fn container_starts_again_with_its_files() {
    let engine = Engine::new();
    engine.ok("create --name c busybox sh -c 'echo x >> /count; wc -l < /count'");
    for round in 1..=3 {
        assert_eq!(engine.ok("start -a c"), round.to_string());
    }
}

#[test]
fn start_twice_changes_nothing() {
    let engine = Engine::new();
    engine.detached("--name c", "sleep 100");
    let pid = engine.pid("c");
    engine.ok("start c");
    assert_eq!(engine.pid("c"), pid);
}

#[test]
fn stop_terminates_then_kills() {
    let engine = Engine::new();
    engine.detached(
        "--name soft",
        "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done",
    );
    engine.until_logged("soft", "up");
    let outcome = engine.run("stop soft").success();
    assert!(outcome.took < Duration::from_secs(5), "{outcome:?}");
    assert_eq!(engine.field("soft", "{{.State.ExitCode}}"), "0");
    engine.detached(
        "--name hard",
        "trap '' TERM; echo up; while :; do sleep 0.05; done",
    );
    engine.until_logged("hard", "up");
    let outcome = engine.run("stop -t 1 hard").success();
    assert!(outcome.took >= Duration::from_millis(900), "{outcome:?}");
    assert_eq!(engine.field("hard", "{{.State.ExitCode}}"), "137");
    // Stopping what is stopped is no mistake.
    engine.ok("stop hard");
}

#[test]
fn stop_signal_and_timeout_are_the_containers() {
    let engine = Engine::new();
    let script =
        "trap 'echo usr2; exit 11' USR2; trap '' TERM; echo up; while :; do sleep 0.05; done";
    engine.detached("--name c --stop-signal SIGUSR2 --stop-timeout 20", script);
    engine.until_logged("c", "up");
    let outcome = engine.run("stop c").success();
    assert!(outcome.took < Duration::from_secs(10), "{outcome:?}");
    assert_eq!(engine.field("c", "{{.State.ExitCode}}"), "11");
}

#[test]
fn kill_sends_the_signal_asked_for() {
    let engine = Engine::new();
    engine.detached(
        "--name c",
        "trap 'echo hup' HUP; echo up; while :; do sleep 0.05; done",
    );
    engine.until_logged("c", "up");
    engine.ok("kill -s HUP c");
    engine.until_logged("c", "hup");
    engine.ok("kill c");
    engine.until_status("c", "exited");
    assert_eq!(engine.field("c", "{{.State.ExitCode}}"), "137");
    engine.refuses("kill c");
    engine.refuses("kill -s NONSENSE c");
}

#[test]
fn restart_gives_a_new_process() {
    let engine = Engine::new();
    engine.detached("--name c", "echo start; sleep 100");
    let pid = engine.pid("c");
    engine.ok("restart -t 0 c");
    engine.until_status("c", "running");
    assert_ne!(engine.pid("c"), pid);
    assert_eq!(engine.ok("logs c"), "start\nstart");
    engine.ok("stop -t 0 c");
    engine.ok("restart c");
    engine.until_status("c", "running");
}

#[test]
fn pause_freezes_and_unpause_goes_on() {
    if !host::has_controller("freezer") && !host::has_controller("pids") {
        return;
    }
    let engine = Engine::new();
    engine.detached("--name c", "while :; do echo tick; sleep 0.05; done");
    engine.until_logged("c", "tick");
    engine.ok("pause c");
    assert_eq!(
        engine.field("c", "{{.State.Status}} {{.State.Paused}}"),
        "paused true"
    );
    std::thread::sleep(Duration::from_millis(100));
    let frozen = engine.ok("logs c").lines().count();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(engine.ok("logs c").lines().count(), frozen);
    engine.refuses("pause c");
    engine.refuses("exec c true").err("paused");
    engine.ok("unpause c");
    coracle_tests::eventually("it ticks again", Duration::from_secs(10), || {
        engine.ok("logs c").lines().count() > frozen
    });
    engine.refuses("unpause c");
    engine.ok("pause c");
    engine.ok("rm -f c");
}

#[test]
fn stop_of_a_paused_container_ends_it() {
    if !host::has_controller("freezer") && !host::has_controller("pids") {
        return;
    }
    let engine = Engine::new();
    engine.detached("--name c", "sleep 100");
    engine.ok("pause c");
    engine.ok("stop -t 1 c");
    assert_eq!(engine.field("c", "{{.State.Status}}"), "exited");
}

#[test]
fn wait_waits_for_all_and_gives_each_code() {
    let engine = Engine::new();
    engine.detached("--name a", "sleep 0.5; exit 1");
    engine.detached("--name b", "exit 2");
    assert_eq!(engine.ok("wait a b"), "1\n2");
    // Again, when it has ended long since.
    assert_eq!(engine.ok("wait b"), "2");
}

#[test]
fn running_container_is_only_removed_by_force() {
    let engine = Engine::new();
    engine.detached("--name c", "sleep 100");
    engine.refuses("rm c").err("c");
    assert_eq!(engine.field("c", "{{.State.Running}}"), "true");
    engine.ok("rm -f c");
    engine.refuses("rm c");
    // As in Docker, force asks for it to be gone, and it is.
    engine.run("rm -f c").success();
}

#[test]
fn rm_flag_leaves_nothing_also_when_detached() {
    let engine = Engine::new();
    engine.sh("", "exit 3").code(3);
    assert_eq!(engine.ok("ps -aq"), "");
    let id = engine.detached("--rm", "exit 0");
    coracle_tests::eventually("it is removed", Duration::from_secs(10), || {
        engine.run(&format!("inspect {id}")).code != 0
    });
    assert_eq!(engine.ok("ps -aq"), "");
}

#[test]
fn rename_keeps_the_container_and_frees_the_name() {
    let engine = Engine::new();
    engine.detached("--name old", "sleep 100");
    engine.ok("rename old new");
    assert_eq!(engine.field("new", "{{.Name}}"), "/new");
    engine.ok("create --name old busybox true");
    engine.refuses("rename old new").err("new");
    engine.ok("exec new true");
}

#[test]
fn name_in_use_is_refused_and_says_by_whom() {
    let engine = Engine::new();
    let id = engine.ok("create --name taken busybox true");
    let outcome = engine
        .run("run --name taken busybox true")
        .code(125)
        .error_form(true);
    assert!(
        outcome.stderr.contains("taken") && outcome.stderr.contains(&id[..12]),
        "{outcome:?}"
    );
    assert_eq!(engine.ok("ps -aq").lines().count(), 1);
    engine
        .run("run --name '-bad/name' busybox true")
        .code(125)
        .error_form(false);
}

#[test]
fn short_id_works_everywhere_and_an_ambiguous_one_is_refused() {
    let engine = Engine::new();
    let id = engine.detached("", "sleep 100");
    for length in [12, 6] {
        let short = &id[..length];
        engine.ok(&format!("exec {short} true"));
        engine.ok(&format!("logs {short}"));
        assert_eq!(engine.field(short, "{{.Id}}"), id);
    }
    engine.ok(&format!("stop -t 0 {}", &id[..8]));
    // Seventeen ids share a first digit somewhere.
    let ids: Vec<String> = (0..17).map(|_| engine.ok("create busybox true")).collect();
    let shared = ids
        .iter()
        .chain([&id])
        .map(|id| &id[..1])
        .find(|first| {
            ids.iter()
                .chain([&id])
                .filter(|id| id.starts_with(*first))
                .count()
                > 1
        })
        .expect("sixteen digits, eighteen ids");
    engine.refuses(&format!("inspect {shared}"));
}

#[test]
fn verbs_on_several_containers_do_all_they_can() {
    let engine = Engine::new();
    engine.detached("--name a", "sleep 100");
    engine.detached("--name b", "sleep 100");
    let outcome = engine.refuses("stop -t 0 a missing b").err("missing");
    assert_eq!(outcome.stdout.lines().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(engine.ok("ps -q"), "");
    engine.refuses("rm a missing b").err("missing");
    assert_eq!(engine.ok("ps -aq"), "");
}

#[test]
fn two_commands_on_one_container_at_once_are_one_after_the_other() {
    let engine = Engine::new();
    engine.ok("create --name c busybox sleep 100");
    for _ in 0..5 {
        let sessions: Vec<_> = (0..6)
            .map(|n| engine.spawn(if n % 2 == 0 { "start c" } else { "stop -t 0 c" }))
            .collect();
        for session in sessions {
            session.wait().success();
        }
        let status = engine.field("c", "{{.State.Status}}");
        assert!(
            ["running", "exited", "created"].contains(&status.as_str()),
            "{status}"
        );
    }
    let sessions: Vec<_> = (0..4).map(|_| engine.spawn("rm -f c")).collect();
    for session in sessions {
        session.wait().success();
    }
    assert_eq!(engine.ok("ps -aq"), "");
}

#[test]
fn two_hundred_runs_at_once_all_succeed() {
    let engine = Engine::new();
    let sessions: Vec<_> = (0..200)
        .map(|n| {
            let n = n.to_string();
            let args = ["run", "--rm", "busybox", "echo", &n];
            engine.command(args).limit(Duration::from_secs(180)).spawn()
        })
        .collect();
    for (n, session) in sessions.into_iter().enumerate() {
        let outcome = session.wait().success();
        assert_eq!(outcome.text(), n.to_string());
    }
    assert_eq!(engine.ok("ps -aq"), "");
}
