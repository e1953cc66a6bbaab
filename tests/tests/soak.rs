//! The short form of `cargo xtask soak`: two hundred cycles, and leaks that were planted.

use std::fs;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use coracle_tests::soak::{Plan, leaks, soak, table};
use coracle_tests::{Engine, host};

const SHORT: Plan = Plan {
    cycles: 200,
    workers: 8,
};

/// The CPU time of commands is this process's: one soak at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn two_hundred_cycles_leave_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let engine = Engine::new();
    let points = soak(&engine, SHORT, |_| ());
    let found = leaks(&points);
    assert!(found.is_empty(), "{found:#?}\n{}", table(&points));
}

#[test]
fn planted_file_and_planted_mount_are_found() {
    if !host::root() {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let engine = Engine::new();
    let plan = Plan {
        cycles: 30,
        workers: 2,
    };
    let mut planted = Vec::new();
    let points = soak(&engine, plan, |point| {
        let file = engine.run_root().join(format!("planted-{}", point.cycles));
        fs::write(&file, "left behind").expect("it is the test's own");
        let mount = engine.make_dir(&format!("planted-{}", point.cycles));
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "planted"])
            .arg(&mount)
            .status()
            .expect("mount is installed");
        assert!(status.success());
        planted.push((file, mount));
    });
    for (file, mount) in planted {
        fs::remove_file(file).expect("it is the test's own");
        let status = Command::new("umount").arg(&mount).status();
        assert!(status.expect("umount is installed").success());
    }
    let found = leaks(&points);
    for name in ["run-time state, files", "mounts"] {
        assert!(
            found.iter().any(|leak| leak.starts_with(name)),
            "{name}: {found:#?}"
        );
    }
}
