//! What the monitor does on its own: restart policies and health checks.

use std::time::Duration;

use coracle_tests::{Engine, docker_archive, eventually};
use serde_json::json;

const LONG: Duration = Duration::from_secs(30);

#[test]
fn on_failure_restarts_so_often_and_no_more() {
    let engine = Engine::new();
    engine.detached("--name c1 --restart on-failure:2", "echo try; exit 1");
    eventually("it gave up", LONG, || {
        engine.field("c1", "{{.RestartCount}} {{.State.Status}}") == "2 exited"
    });
    assert_eq!(engine.ok("logs c1"), "try\ntry\ntry");
    assert_eq!(engine.field("c1", "{{.State.ExitCode}}"), "1");
    engine.detached("--name fine --restart on-failure", "exit 0");
    assert_eq!(engine.ok("wait fine"), "0");
    engine.until_status("fine", "exited");
}

#[test]
fn always_restarts_until_it_is_stopped() {
    let engine = Engine::new();
    engine.detached("--name c1 --restart always", "echo up; sleep 0.2");
    eventually("it came back twice", LONG, || {
        engine.ok("logs c1").lines().count() >= 3
    });
    engine.ok("stop -t 0 c1");
    let count = engine.ok("logs c1").lines().count();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(engine.ok("logs c1").lines().count(), count);
    assert_eq!(engine.field("c1", "{{.State.Status}}"), "exited");
}

#[test]
fn killed_by_hand_is_a_failure_that_restarts() {
    let engine = Engine::new();
    engine.detached("--name c1 --restart unless-stopped", "echo up; sleep 100");
    engine.until_logged("c1", "up");
    let pid = engine.pid("c1");
    // As a program that crashes: not by a command of the engine.
    let raw = rustix::process::Pid::from_raw(pid).expect("a pid");
    if rustix::process::kill_process(raw, rustix::process::Signal::KILL).is_err() {
        coracle_tests::skip("a process of the container cannot be signalled from here");
        return;
    }
    eventually("it came back", LONG, || {
        engine.field("c1", "{{.State.Status}}") == "running" && engine.pid("c1") != pid
    });
    engine.ok("rm -f c1");
}

#[test]
fn restart_policy_and_rm_exclude_each_other() {
    let engine = Engine::new();
    engine
        .run("run --rm --restart always busybox true")
        .code(125)
        .error_form(false);
    engine
        .run("run --restart sometimes busybox true")
        .code(125)
        .error_form(false);
    engine
        .run("run --restart always:3 busybox true")
        .code(125)
        .error_form(false);
}

#[test]
fn health_goes_from_starting_to_healthy_to_unhealthy() {
    let engine = Engine::new();
    let options = "--name c1 --health-cmd 'test -e /tmp/ok' --health-interval 200ms --health-retries 2 --health-timeout 2s";
    engine.detached(options, "touch /tmp/ok; sleep 100");
    let health = || engine.field("c1", "{{.State.Health.Status}}");
    eventually("it is healthy", LONG, || health() == "healthy");
    assert!(engine.ok("ps --format '{{.Status}}'").contains("(healthy)"));
    engine.ok("exec c1 rm /tmp/ok");
    eventually("it is unhealthy", LONG, || health() == "unhealthy");
    let streak: u32 = engine
        .field("c1", "{{.State.Health.FailingStreak}}")
        .parse()
        .expect("a number");
    assert!(streak >= 2);
    let log = engine.field("c1", "{{json .State.Health.Log}}");
    assert!(log.contains("\"ExitCode\":1"), "{log}");
    assert_eq!(
        engine.ok("ps -q --filter health=unhealthy").lines().count(),
        1
    );
}

#[test]
fn probe_that_hangs_is_cut_off() {
    let engine = Engine::new();
    let options = "--name c1 --health-cmd 'sleep 50' --health-interval 200ms --health-retries 1 --health-timeout 300ms";
    engine.detached(options, "sleep 100");
    eventually("it is unhealthy", LONG, || {
        engine.field("c1", "{{.State.Health.Status}}") == "unhealthy"
    });
    eventually("no probe is left", LONG, || {
        !engine.ok("top c1").contains("sleep 50") || engine.ok("top c1").lines().count() <= 3
    });
}

#[test]
fn start_period_forgives() {
    let engine = Engine::new();
    let options = "--name c1 --health-cmd false --health-interval 100ms --health-retries 1 --health-start-period 60s";
    engine.detached(options, "sleep 100");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(engine.field("c1", "{{.State.Health.Status}}"), "starting");
}

#[test]
fn health_check_of_the_image_is_used_or_switched_off() {
    let engine = Engine::empty();
    let config = json!({
        "Env": ["PATH=/bin"],
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 200_000_000, "Retries": 1},
    });
    let layers = [coracle_tests::busybox_layer()];
    let file = docker_archive(&engine.dir().join("h.tar"), "h:1", &layers, &config);
    engine.ok(&format!("load -i {}", file.path.display()));
    engine.ok("run -d --name on h:1 sleep 100");
    eventually("it is healthy", LONG, || {
        engine.field("on", "{{.State.Health.Status}}") == "healthy"
    });
    engine.ok("run -d --name off --no-healthcheck h:1 sleep 100");
    assert_eq!(
        engine.field("off", "{{if .State.Health}}some{{else}}none{{end}}"),
        "none"
    );
}
