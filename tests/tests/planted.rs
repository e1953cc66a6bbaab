//! The harness finds bugs: here each class is planted on purpose, most of them by a tracer that lets one system call of
//! the shipped binary say that it was made although it was not.

use coracle_tests::crash::{Ground, scenario};
use coracle_tests::host;
use coracle_tests::trace::{Deed, Moment, Point};

/// Runs a scenario with a bug in it and gives what was found.
fn findings(name: &str, bug: impl FnMut(&Point, Moment) -> Deed + Send) -> Option<Vec<String>> {
    if !host::root() {
        return None;
    }
    let one = scenario(name);
    let mut ground = Ground::new(&[one]);
    let traced = ground.trial(one, "planted", bug);
    assert!(
        traced.struck > 0,
        "the bug was not planted: {:#?}",
        traced.points
    );
    Some(std::mem::take(&mut ground.findings))
}

/// Says of every call like this one that it was made.
fn skipped(call: &'static [&'static str], on: &'static str) -> impl FnMut(&Point, Moment) -> Deed {
    move |point, moment| {
        let skipped = call.contains(&point.call) && point.on.contains(on);
        match (moment, skipped) {
            (Moment::Before, true) => Deed::Pretend(0),
            _ => Deed::Pass,
        }
    }
}

#[track_caller]
fn assert_found(findings: Option<Vec<String>>, wanted: &str) {
    // None: a visible skip.
    if let Some(findings) = findings {
        assert!(
            findings.iter().any(|finding| finding.contains(wanted)),
            "not found: {wanted:?}, but {findings:#?}"
        );
    }
}

const REMOVAL: &[&str] = &["unlinkat", "rmdir", "unlink"];

#[test]
fn without_a_bug_nothing_is_found() {
    let Some(one) = host::root().then(|| scenario("stop")) else {
        return;
    };
    let mut ground = Ground::new(&[one]);
    ground.trial(one, "sound", |_, _| Deed::Pass);
    ground.conclude();
}

#[test]
fn leaked_cgroup_is_found() {
    let found = findings("stop", skipped(REMOVAL, "/sys/fs/cgroup/memory/coracle/ID"));
    assert_found(found, "left behind: cgroup /sys/fs/cgroup/memory/coracle/");
}

#[test]
fn leaked_lease_is_found() {
    assert_found(
        findings("stop", skipped(REMOVAL, "RUN/ids/N")),
        "left behind: file",
    );
}

#[test]
fn leaked_mount_is_found() {
    if !host::root() {
        return;
    }
    let mut ground = Ground::new(&[scenario("volume-create")]);
    let point = ground.engine().make_dir("files/mounted");
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("none", &point, "tmpfs", flags, None).expect("root can mount");
    ground.at_rest("planted");
    host::unmount(&point);
    assert_found(
        Some(std::mem::take(&mut ground.findings)),
        &format!("left behind: mount {}", point.display()),
    );
}

#[test]
fn step_that_is_left_out_is_found() {
    assert_found(
        findings("rename", skipped(&["symlinkat"], "ROOT/names/c2")),
        "there is no container",
    );
}

#[test]
fn lost_container_is_found() {
    let bug = |point: &Point, moment| match moment {
        Moment::Before
            if point.on == "ROOT/containers/ID/config.json" && point.call == "rename" =>
        {
            Deed::Pretend(0)
        }
        _ => Deed::Pass,
    };
    assert_found(findings("rename", bug), "planted");
}

#[test]
fn limit_that_is_not_set_is_found() {
    // 50331648 bytes of memory, and of memory and swap: eight digits each.
    let bug = |point: &Point, moment| match moment {
        Moment::Before if point.call == "write" && point.on.contains("/ID/memory.") => {
            Deed::Pretend(8)
        }
        _ => Deed::Pass,
    };
    assert_found(
        findings("start-host", bug),
        "the limit memory.limit_in_bytes is",
    );
}

#[test]
fn followed_symlink_is_found() {
    // openat2(2) loses what keeps it in the container's root (RESOLVE_IN_ROOT and its like), and its path the slash that
    // would lead it to the host's.
    let bug = |point: &Point, moment| match moment {
        Moment::Before if point.call == "openat2" && point.on.starts_with("/link") => {
            let path = format!("{}/", &point.on[1..]);
            Deed::Overwrite(vec![(1, 0, path.into_bytes()), (2, 16, vec![0; 8])])
        }
        _ => Deed::Pass,
    };
    assert_found(findings("cp-link", bug), "escaped to the host");
}
