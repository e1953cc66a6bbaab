//! The life of a container: create, start, stop, restart, kill, pause, wait, rename, rm.

use std::time::Duration;

use coracle_tests::{Engine, host, patience};

#[test]
fn create_start_wait_and_remove() {
    let engine = Engine::new();
    let id = engine.ok("create --name c1 busybox sh -c 'echo hello; exit 3'");
    assert_eq!(id.len(), 64);
    assert_eq!(engine.field("c1", "{{.State.Status}}"), "created");
    assert_eq!(engine.ok("start c1"), "c1");
    assert_eq!(engine.ok("wait c1"), "3");
    assert_eq!(
        engine.field("c1", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 3"
    );
    assert_eq!(engine.ok("logs c1"), "hello");
    assert_eq!(engine.ok("rm c1"), "c1");
    engine.refuses("inspect c1");
}

#[test]
fn start_attached_gives_output_and_exit_code() {
    let engine = Engine::new();
    engine.ok("create -i --name c1 busybox sh -c 'cat; exit 4'");
    let seen = engine.line("start -a -i c1").stdin(b"fed\n").run().code(4);
    assert_eq!(seen.stdout, "fed\n");
}

#[test]
fn container_starts_again_with_its_files() {
    let engine = Engine::new();
    engine.ok("create --name c1 busybox sh -c 'echo x >> /count; wc -l < /count'");
    for round in 1..=3 {
        assert_eq!(engine.ok("start -a c1"), round.to_string());
    }
}

#[test]
fn start_twice_changes_nothing() {
    let engine = Engine::new();
    engine.detached("--name c1", "sleep 100");
    let pid = engine.pid("c1");
    engine.ok("start c1");
    assert_eq!(engine.pid("c1"), pid);
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
    assert!(
        outcome.took < patience(Duration::from_secs(5)),
        "{outcome:?}"
    );
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
    engine.detached("--name c1 --stop-signal SIGUSR2 --stop-timeout 20", script);
    engine.until_logged("c1", "up");
    let outcome = engine.run("stop c1").success();
    assert!(
        outcome.took < patience(Duration::from_secs(10)),
        "{outcome:?}"
    );
    assert_eq!(engine.field("c1", "{{.State.ExitCode}}"), "11");
}

#[test]
fn kill_sends_the_signal_asked_for() {
    let engine = Engine::new();
    engine.detached(
        "--name c1",
        "trap 'echo hup' HUP; echo up; while :; do sleep 0.05; done",
    );
    engine.until_logged("c1", "up");
    engine.ok("kill -s HUP c1");
    engine.until_logged("c1", "hup");
    engine.ok("kill c1");
    engine.until_status("c1", "exited");
    assert_eq!(engine.field("c1", "{{.State.ExitCode}}"), "137");
    engine.refuses("kill c1");
    engine.refuses("kill -s NONSENSE c1");
}

#[test]
fn restart_gives_a_new_process() {
    let engine = Engine::new();
    engine.detached("--name c1", "echo start; sleep 100");
    let pid = engine.pid("c1");
    engine.ok("restart -t 0 c1");
    engine.until_status("c1", "running");
    assert_ne!(engine.pid("c1"), pid);
    assert_eq!(engine.ok("logs c1"), "start\nstart");
    engine.ok("stop -t 0 c1");
    engine.ok("restart c1");
    engine.until_status("c1", "running");
}

#[test]
fn pause_freezes_and_unpause_goes_on() {
    if !host::has_freezer() {
        return;
    }
    let engine = Engine::new();
    engine.detached("--name c1", "while :; do echo tick; sleep 0.05; done");
    engine.until_logged("c1", "tick");
    engine.ok("pause c1");
    assert_eq!(
        engine.field("c1", "{{.State.Status}} {{.State.Paused}}"),
        "paused true"
    );
    std::thread::sleep(Duration::from_millis(100));
    let frozen = engine.ok("logs c1").lines().count();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(engine.ok("logs c1").lines().count(), frozen);
    engine.refuses("pause c1");
    engine.refuses("exec c1 true").err("paused");
    engine.ok("unpause c1");
    coracle_tests::eventually("it ticks again", Duration::from_secs(10), || {
        engine.ok("logs c1").lines().count() > frozen
    });
    engine.refuses("unpause c1");
    engine.ok("pause c1");
    engine.ok("rm -f c1");
}

#[test]
fn stop_of_a_paused_container_ends_it() {
    if !host::has_freezer() {
        return;
    }
    let engine = Engine::new();
    engine.detached("--name c1", "sleep 100");
    engine.ok("pause c1");
    engine.ok("stop -t 1 c1");
    assert_eq!(engine.field("c1", "{{.State.Status}}"), "exited");
}

#[test]
fn wait_waits_for_all_and_gives_each_code() {
    let engine = Engine::new();
    engine.detached("--name aa", "sleep 0.5; exit 1");
    engine.detached("--name bb", "exit 2");
    assert_eq!(engine.ok("wait aa bb"), "1\n2");
    // Again, when it has ended long since.
    assert_eq!(engine.ok("wait bb"), "2");
}

#[test]
fn running_container_is_only_removed_by_force() {
    let engine = Engine::new();
    engine.detached("--name c1", "sleep 100");
    engine.refuses("rm c1").err("c1");
    assert_eq!(engine.field("c1", "{{.State.Running}}"), "true");
    engine.ok("rm -f c1");
    engine.refuses("rm c1");
    // As in Docker, force asks for it to be gone, and it is.
    engine.run("rm -f c1").success();
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
    engine.detached("--name aa", "sleep 100");
    engine.detached("--name bb", "sleep 100");
    let outcome = engine.refuses("stop -t 0 aa missing bb").err("missing");
    assert_eq!(outcome.stdout.lines().collect::<Vec<_>>(), ["aa", "bb"]);
    assert_eq!(engine.ok("ps -q"), "");
    engine.refuses("rm aa missing bb").err("missing");
    assert_eq!(engine.ok("ps -aq"), "");
}

#[test]
fn two_commands_on_one_container_at_once_are_one_after_the_other() {
    let engine = Engine::new();
    engine.ok("create --name c1 busybox sleep 100");
    for _ in 0..5 {
        let sessions: Vec<_> = (0..6)
            .map(|n| {
                engine.spawn(if n % 2 == 0 {
                    "start c1"
                } else {
                    "stop -t 0 c1"
                })
            })
            .collect();
        for session in sessions {
            session.wait().success();
        }
        let status = engine.field("c1", "{{.State.Status}}");
        assert!(
            ["running", "exited", "created"].contains(&status.as_str()),
            "{status}"
        );
    }
    let sessions: Vec<_> = (0..4).map(|_| engine.spawn("rm -f c1")).collect();
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
