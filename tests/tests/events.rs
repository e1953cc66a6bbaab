//! The record of what happened.

use std::time::Duration;

use coracle_tests::{Engine, host};
use serde_json::Value;

#[test]
fn life_of_a_container_is_recorded_in_order() {
    let engine = Engine::new();
    engine
        .run("run --name c1 --label a=b busybox sh -c 'exit 3'")
        .code(3);
    engine.ok("rename c1 d1");
    engine.ok("rm d1");
    let text = engine.ok("events --since 1h --until 0s --format json");
    let events: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let of_container = events.iter().filter(|event| event["Type"] == "container");
    let actions: Vec<&str> = of_container
        .filter_map(|event| event["Action"].as_str())
        .collect();
    let expected = ["create", "start", "die", "rename", "destroy"];
    let seen: Vec<&str> = actions
        .into_iter()
        .filter(|action| expected.contains(action))
        .collect();
    assert_eq!(seen, expected);
    let die = events
        .iter()
        .find(|event| event["Action"] == "die")
        .expect("it died");
    assert_eq!(die["Actor"]["Attributes"]["exitCode"], "3");
    assert_eq!(die["Actor"]["Attributes"]["name"], "c1");
    assert_eq!(die["Actor"]["Attributes"]["a"], "b");
}

#[test]
fn events_are_followed_as_they_happen() {
    let engine = Engine::new();
    let mut session = engine.spawn("events --format '{{.Action}} {{.Actor.Attributes.name}}'");
    std::thread::sleep(Duration::from_millis(300));
    engine.detached("--name c1", "sleep 100");
    session.expect("start c1", Duration::from_secs(10));
    engine.ok("kill c1");
    session.expect("die c1", Duration::from_secs(10));
    session.signal(rustix::process::Signal::INT);
    session.wait();
}

#[test]
fn filters_choose() {
    let engine = Engine::new();
    engine.run("run --name aa busybox true").success();
    engine.run("run --name bb busybox true").success();
    engine.ok("volume create vv");
    let line =
        "events --since 1h --until 0s --format '{{.Type}}/{{.Action}}/{{.Actor.Attributes.name}}'";
    let seen = engine.ok(&format!("{line} --filter container=bb --filter event=die"));
    assert_eq!(seen, "container/die/bb");
    let seen = engine.ok(&format!("{line} --filter type=volume"));
    assert!(
        seen.lines().all(|line| line.starts_with("volume/")) && !seen.is_empty(),
        "{seen}"
    );
    engine.refuses(&format!("{line} --filter nonsense"));
}

#[test]
fn out_of_memory_is_an_event() {
    if !host::has_controller("memory") {
        return;
    }
    let engine = Engine::new();
    engine.run("run --name c1 --memory 16m --memory-swap 16m busybox sh -c 'tail /dev/zero'");
    let seen = engine.ok("events --since 1h --until 0s --format '{{.Action}}'");
    assert!(seen.lines().any(|action| action == "oom"), "{seen}");
}
