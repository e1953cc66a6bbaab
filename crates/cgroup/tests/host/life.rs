//! Entering, freezing, signalling and killing.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use coracle_cgroup::{Controller, Limits};

use crate::{Scratch, eventually, joined};

#[test]
fn frozen_processes_stand_still_and_go_on() {
    let Some(mut scratch) = Scratch::new(
        "frozen_processes_stand_still_and_go_on",
        &[Controller::Freezer],
        &Limits::default(),
    ) else {
        return;
    };
    joined(scratch.spawn("while :; do :; done"));
    let time = |scratch: &Scratch| scratch.cgroup.usage().unwrap().cpu.unwrap().total_ns;
    assert!(!scratch.cgroup.is_frozen().unwrap());
    scratch.cgroup.freeze().unwrap();
    scratch.cgroup.freeze().unwrap();
    assert!(scratch.cgroup.is_frozen().unwrap());
    let stopped = time(&scratch);
    std::thread::sleep(Duration::from_millis(200));
    // The last tick before it stopped may be counted late.
    let ran = time(&scratch) - stopped;
    assert!(ran < 20_000_000, "it ran {ran} ns while frozen");
    scratch.cgroup.thaw().unwrap();
    assert!(!scratch.cgroup.is_frozen().unwrap());
    eventually("going on", || time(&scratch) > stopped);
}

#[test]
fn kill_ends_all_processes_also_forking_and_frozen_ones_and_below() {
    let test = "kill_ends_all_processes_also_forking_and_frozen_ones_and_below";
    let Some(mut scratch) = Scratch::new(test, &[Controller::Freezer], &Limits::default()) else {
        return;
    };
    let inner: Vec<_> = scratch
        .cgroup
        .directories()
        .map(|directory| directory.join("inner"))
        .collect();
    for directory in &inner {
        fs::create_dir(directory).unwrap();
    }
    let move_down: String = inner
        .iter()
        .map(|inner| format!("echo $! > '{}/cgroup.procs' && ", inner.display()))
        .collect();
    joined(scratch.spawn(&format!(
        "trap '' TERM; sleep 600 & {move_down} while :; do (:); done"
    )));
    eventually("moving down", || {
        scratch.cgroup.processes().unwrap().len() >= 2
    });
    eventually("moving down", || {
        !fs::read_to_string(inner[0].join("cgroup.procs"))
            .unwrap()
            .is_empty()
    });
    scratch.cgroup.freeze().unwrap();
    scratch.cgroup.kill(Duration::from_secs(10)).unwrap();
    assert!(scratch.cgroup.processes().unwrap().is_empty());
    assert_eq!(scratch.wait().signal(), Some(9));
    scratch.cgroup.kill(Duration::from_secs(1)).unwrap();
    // The cgroups made inside go with it.
    scratch.cgroup.remove().unwrap();
    assert!(inner.iter().all(|directory| !directory.exists()));
    scratch.cgroup.remove().unwrap();
}

#[test]
fn signal_reaches_every_process() {
    let Some(mut scratch) = Scratch::new("signal_reaches_every_process", &[], &Limits::default())
    else {
        return;
    };
    scratch.spawn("sleep 600 & sleep 600 & wait");
    eventually("starting", || {
        scratch.cgroup.processes().unwrap().len() == 3
    });
    assert_eq!(
        scratch
            .cgroup
            .signal(rustix::process::Signal::TERM)
            .unwrap(),
        3
    );
    assert_eq!(scratch.wait().signal(), Some(15));
    eventually("ending", || scratch.cgroup.processes().unwrap().is_empty());
}

#[test]
fn entry_takes_a_thread_into_every_hierarchy() {
    let Some(scratch) = Scratch::new(
        "entry_takes_a_thread_into_every_hierarchy",
        &[],
        &Limits::default(),
    ) else {
        return;
    };
    let entry = scratch.cgroup.entry().unwrap();
    let legacy = scratch
        .cgroup
        .directories()
        .filter(|directory| directory.join("tasks").exists())
        .count();
    assert_eq!(entry.tasks.len(), legacy);
    assert_eq!(
        entry.clone_into.is_some(),
        scratch.cgroup.directories().count() > legacy
    );
    let own = std::thread::spawn(move || {
        for tasks in &entry.tasks {
            rustix::io::write(tasks, b"0").unwrap();
        }
        fs::read_to_string("/proc/thread-self/cgroup").unwrap()
    });
    let own = own.join().unwrap();
    assert_eq!(
        own.lines()
            .filter(|line| line.contains("entry_takes_a_thread"))
            .count(),
        legacy,
        "{own}"
    );
}

#[test]
fn exec_goes_where_init_went() {
    let test = "exec_goes_where_init_went";
    let Some(mut scratch) = Scratch::new(test, &[], &Limits::default()) else {
        return;
    };
    let directory = scratch.cgroup.directories().next().unwrap().to_owned();
    if directory.join("tasks").exists() {
        eprintln!("SKIP: {test}: no v2 hierarchy");
        return;
    }
    let inner = directory.join("init.scope");
    fs::create_dir(&inner).unwrap();
    let child = scratch.spawn("exec sleep 600");
    joined(child);
    let init = rustix::process::Pid::from_child(child);
    let inode =
        |entry: coracle_cgroup::Entry| rustix::fs::fstat(entry.clone_into.unwrap()).unwrap().st_ino;
    let inode_of = |path: &std::path::Path| rustix::fs::stat(path).unwrap().st_ino;
    assert_eq!(
        inode(scratch.cgroup.entry_beside(init).unwrap()),
        inode_of(&directory)
    );
    fs::write(
        inner.join("cgroup.procs"),
        init.as_raw_nonzero().to_string(),
    )
    .unwrap();
    assert_eq!(
        inode(scratch.cgroup.entry_beside(init).unwrap()),
        inode_of(&inner)
    );
    assert_eq!(inode(scratch.cgroup.entry().unwrap()), inode_of(&directory));
}
