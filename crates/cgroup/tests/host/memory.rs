//! Memory limits against the kernel of this host.

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use coracle_cgroup::{Controller, Error, Limits};

use crate::{MIB, Scratch, eventually, readable};

#[test]
fn memory_limit_kills_inside_and_is_counted_and_told() {
    let limits = Limits {
        memory: Some(16 * MIB),
        memory_swap: Some(16 * MIB),
        ..Limits::default()
    };
    let Some(mut scratch) = Scratch::new(
        "memory_limit_kills_inside_and_is_counted_and_told",
        &[Controller::Memory],
        &limits,
    ) else {
        return;
    };
    let event = scratch
        .cgroup
        .oom_event()
        .unwrap()
        .expect("there is a memory controller");
    assert!(
        !readable(&event, Duration::ZERO),
        "nothing ran out of memory yet"
    );
    assert_eq!(scratch.cgroup.oom_kills().unwrap(), 0);
    scratch.spawn("exec dd if=/dev/zero of=/dev/null bs=64M count=1");
    assert_eq!(scratch.wait().signal(), Some(9), "the hog was killed");
    assert!(readable(&event, Duration::from_secs(5)), "the event fired");
    eventually("counting the kill", || {
        scratch.cgroup.oom_kills().unwrap() >= 1
    });
    let memory = scratch.cgroup.usage().unwrap().memory.unwrap();
    assert_eq!(memory.limit, Some(16 << 20));
    assert!(memory.oom_kills >= 1, "{memory:?}");
    assert!(
        memory.peak.is_none_or(|peak| peak <= 16 << 20),
        "{memory:?}"
    );
}

#[test]
fn memory_below_use_is_refused_and_kills_nothing() {
    let limits = Limits {
        memory: Some(256 * MIB),
        memory_swap: Some(256 * MIB),
        ..Limits::default()
    };
    let Some(mut scratch) = Scratch::new(
        "memory_below_use_is_refused_and_kills_nothing",
        &[Controller::Memory],
        &limits,
    ) else {
        return;
    };
    // The buffer of dd is anonymous memory: it cannot be reclaimed without swap.
    scratch.spawn("exec dd if=/dev/zero of=/dev/null bs=64M");
    eventually("filling memory", || {
        scratch.cgroup.usage().unwrap().memory.unwrap().anon > 48 << 20
    });
    let change = Limits {
        memory: Some(16 * MIB),
        memory_swap: Some(16 * MIB),
        pids: Some(77),
        ..Limits::default()
    };
    match scratch.cgroup.update(&change) {
        Err(error @ Error::BelowUse { wanted, used, .. }) => {
            assert_eq!(wanted, 16 << 20);
            assert!(used > 48 << 20, "{used}");
            assert!(error.hint().is_some());
        }
        other => panic!("a limit below use gave {other:?}"),
    }
    let usage = scratch.cgroup.usage().unwrap();
    assert_eq!(
        usage.memory.unwrap().limit,
        Some(256 << 20),
        "the old limit holds"
    );
    assert_eq!(scratch.cgroup.oom_kills().unwrap(), 0);
    // Up and down again with both limits, whichever has to go first.
    for mib in [512, 128] {
        let change = Limits {
            memory: Some(mib * MIB),
            memory_swap: Some(mib * MIB),
            ..Limits::default()
        };
        scratch.cgroup.update(&change).unwrap();
        assert_eq!(
            scratch.cgroup.usage().unwrap().memory.unwrap().limit,
            Some((mib * MIB) as u64)
        );
    }
    assert!(
        scratch.children[0].try_wait().unwrap().is_none(),
        "the process lives"
    );
}

#[test]
fn memory_that_can_be_reclaimed_does_not_stand_in_the_way() {
    let test = "memory_that_can_be_reclaimed_does_not_stand_in_the_way";
    let limits = Limits {
        memory: Some(256 * MIB),
        ..Limits::default()
    };
    let Some(mut scratch) = Scratch::new(test, &[Controller::Memory], &limits) else {
        return;
    };
    // Files of tmpfs are not cache: they are like anonymous memory.
    let device = rustix::fs::stat(std::env::temp_dir()).unwrap().st_dev;
    if rustix::fs::major(device) == 0 {
        eprintln!("SKIP: {test}: the temporary directory is not on a block device");
        return;
    }
    let file = std::env::temp_dir().join(format!("coracle-test-cache-{}", std::process::id()));
    scratch.spawn(&format!(
        "dd if=/dev/zero of='{0}' bs=1M count=64 conv=fsync; echo written; exec sleep 600",
        file.display()
    ));
    let mut said = [0u8; 15];
    let stdout = scratch.children[0].stdout.as_mut().unwrap();
    stdout.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"joined\nwritten\n");
    eventually("filling the page cache", || {
        scratch.cgroup.usage().unwrap().memory.unwrap().file > 60 << 20
    });
    let change = Limits {
        memory: Some(32 * MIB),
        ..Limits::default()
    };
    let changed = scratch.cgroup.update(&change);
    fs::remove_file(&file).unwrap();
    changed.unwrap();
    let memory = scratch.cgroup.usage().unwrap().memory.unwrap();
    assert!(memory.usage <= 32 << 20, "{memory:?}");
    assert_eq!(scratch.cgroup.oom_kills().unwrap(), 0);
}
