//! kill -9 at every system call that changes the world, of every verb: docs/design/0003-crashes-and-faults.md.
//!
//! In the ordinary suite a sample of the points of each verb; all of them with `CORACLE_TEST_COMPLETE=1`.

use coracle_tests::crash::{Ground, SCENARIOS, crashes};
use coracle_tests::host;

/// The scenarios by what they need, so that the tests can run side by side.
const START: [&str; 5] = ["run", "run-detached", "start", "start-host", "start-short"];
const END: [&str; 7] = [
    "run-removed",
    "stop",
    "stop-removed",
    "restart",
    "kill",
    "rm",
    "rm-force",
];
const CHANGE: [&str; 9] = [
    "create", "pause", "unpause", "rename", "update", "exec", "cp-in", "cp-link", "cp-out",
];
const KEEP: [&str; 12] = [
    "commit",
    "volume-create",
    "volume-rm",
    "volume-prune",
    "load",
    "import",
    "tag",
    "rmi",
    "image-prune",
    "save",
    "export",
    "system-prune",
];

fn killed_at_points(names: &[&str], strokes: usize) {
    if host::root() {
        Ground::strike_all(names, strokes, crashes);
    }
}

#[test]
fn start_killed_at_any_point_loses_nothing_and_leaves_nothing() {
    killed_at_points(&START, 12);
}

#[test]
fn end_killed_at_any_point_loses_nothing_and_leaves_nothing() {
    killed_at_points(&END, 9);
}

#[test]
fn change_killed_at_any_point_loses_nothing_and_leaves_nothing() {
    killed_at_points(&CHANGE, 8);
}

#[test]
fn image_or_volume_verb_killed_at_any_point_loses_nothing_and_leaves_nothing() {
    killed_at_points(&KEEP, 6);
}

#[test]
fn every_scenario_is_killed_somewhere() {
    let all = [&START[..], &END, &CHANGE, &KEEP].concat();
    for one in SCENARIOS {
        assert!(all.contains(&one.name), "{} is in no test", one.name);
    }
}
