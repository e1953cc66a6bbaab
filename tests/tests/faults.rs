//! System calls that fail: disk full, disk broken, no descriptors, no memory, interrupted. A verb succeeds or says in its
//! own form what failed, and leaves nothing behind; an interruption is not seen at all.
//!
//! In the ordinary suite a sample of each error for each verb; all of them with `CORACLE_TEST_COMPLETE=1`.

use coracle_tests::crash::{Ground, faults};
use coracle_tests::host;

fn calls_fail(names: &[&str], strokes: usize) {
    if host::root() {
        Ground::strike_all(names, strokes, faults);
    }
}

#[test]
fn start_whose_calls_fail_says_so_and_leaves_nothing() {
    calls_fail(
        &["run", "run-detached", "start", "start-host", "start-short"],
        14,
    );
}

#[test]
fn end_whose_calls_fail_says_so_and_leaves_nothing() {
    let names = [
        "run-removed",
        "stop",
        "stop-removed",
        "restart",
        "kill",
        "rm",
        "rm-force",
    ];
    calls_fail(&names, 10);
}

#[test]
fn change_whose_calls_fail_says_so_and_leaves_nothing() {
    let names = [
        "create", "pause", "unpause", "rename", "update", "exec", "cp-in", "cp-link", "cp-out",
    ];
    calls_fail(&names, 8);
}

#[test]
fn image_or_volume_verb_whose_calls_fail_says_so_and_leaves_nothing() {
    let names = [
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
    calls_fail(&names, 8);
}
