//! Limits against the kernel of this host: each is set, pushed against, and must hold.
//!
//! The whole file runs three times: as the host is, and twice more in a mount namespace of its own where the v2 or the
//! v1 hierarchies are covered, so that a hybrid host proves all three layouts. Everything is made below
//! `coracle-test-PID` and removed, also on failure.

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coracle_cgroup::{
    Cgroup, CgroupPath, Controller, DeviceAccess, DeviceRule, DeviceRules, Error, HugepageLimit,
    Layout, Limits, Manager,
};

const MIB: i64 = 1 << 20;

/// Which hierarchies the surrounding test covered: `v1`, `v2`, `none`; unset in the first run.
const COVERED: &str = "CORACLE_TEST_COVERED";

/// A cgroup that goes away with the test.
struct Scratch {
    manager: Manager,
    cgroup: Cgroup,
    children: Vec<Child>,
}

impl Scratch {
    /// Makes it, or says why this host cannot and returns `None`.
    fn new(test: &str, needs: &[Controller], limits: &Limits) -> Option<Scratch> {
        let manager = manager();
        if let Layout::Unavailable { reason, .. } = manager.layout() {
            eprintln!("SKIP: {test}: {reason}");
            return None;
        }
        if let Some(missing) = needs
            .iter()
            .find(|controller| !manager.supports(**controller))
        {
            eprintln!(
                "SKIP: {test}: no controller {missing} here ({:?})",
                manager.layout()
            );
            return None;
        }
        let path = CgroupPath::new(test).unwrap();
        let cgroup = manager
            .create(&path, limits, &DeviceRules::unrestricted())
            .unwrap();
        Some(Scratch {
            manager,
            cgroup,
            children: Vec::new(),
        })
    }

    /// Runs a shell script that joins first, by the way a child of ours does: "0" to `tasks`.
    fn spawn(&mut self, script: &str) -> &mut Child {
        let child = spawn_in(&self.cgroup, script);
        self.children.push(child);
        self.children.last_mut().unwrap()
    }

    fn wait(&mut self) -> std::process::ExitStatus {
        self.children.pop().unwrap().wait().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let killed = self.cgroup.kill(Duration::from_secs(10));
        for child in &mut self.children {
            // It was killed with the cgroup, or never joined it; either way it must be reaped.
            let _ = child.kill();
            let _ = child.wait();
        }
        let removed = self.cgroup.remove();
        let pruned = self.manager.prune();
        if !std::thread::panicking() {
            killed.unwrap();
            removed.unwrap();
            pruned.unwrap();
        }
    }
}

fn manager() -> Manager {
    Manager::open(&format!("coracle-test-{}", std::process::id())).unwrap()
}

fn spawn_in(cgroup: &Cgroup, script: &str) -> Child {
    let mut join = String::new();
    for directory in cgroup.directories() {
        let file = if directory.join("tasks").exists() {
            "tasks"
        } else {
            "cgroup.procs"
        };
        join += &format!("echo 0 > '{}' && ", directory.join(file).display());
    }
    Command::new("/bin/sh")
        .args(["-c", &format!("{join} echo joined && {{ {script}\n}}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the child says that it is inside.
fn joined(child: &mut Child) {
    let mut line = [0u8; 7];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut line)
        .unwrap();
    assert_eq!(&line, b"joined\n");
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "{what} did not happen within 10 s"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn readable(fd: &rustix::fd::OwnedFd, within: Duration) -> bool {
    let timeout = rustix::event::Timespec::try_from(within).unwrap();
    let mut fds = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&timeout)).unwrap() == 1
}

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

#[test]
fn cpu_quota_holds() {
    let limits = Limits {
        cpu_quota: Some(20_000),
        cpu_period: Some(100_000),
        ..Limits::default()
    };
    let Some(mut scratch) = Scratch::new("cpu_quota_holds", &[Controller::Cpu], &limits) else {
        return;
    };
    joined(scratch.spawn("while :; do :; done"));
    std::thread::sleep(Duration::from_millis(200));
    let before = scratch.cgroup.usage().unwrap().cpu.unwrap();
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(2));
    let after = scratch.cgroup.usage().unwrap().cpu.unwrap();
    let share = (after.total_ns - before.total_ns) as f64 / start.elapsed().as_nanos() as f64;
    assert!(
        share < 0.24,
        "20 % were allowed, {:.1} % used",
        share * 100.0
    );
    assert!(share > 0.05, "{:.1} % used", share * 100.0);
    assert!(
        after.throttled_periods > before.throttled_periods
            && after.throttled_ns > before.throttled_ns,
        "{after:?}"
    );
    // Any direction of quota and period.
    for (quota, period) in [
        (500_000, 1_000_000),
        (1_000, 1_000),
        (-1, 100_000),
        (50_000, 50_000),
    ] {
        let change = Limits {
            cpu_quota: Some(quota),
            cpu_period: Some(period),
            ..Limits::default()
        };
        scratch
            .cgroup
            .update(&change)
            .unwrap_or_else(|error| panic!("{quota}/{period}: {error}"));
    }
}

#[test]
fn pids_limit_holds_and_may_go_below_the_present_number() {
    let limits = Limits {
        pids: Some(5),
        ..Limits::default()
    };
    let Some(mut scratch) = Scratch::new(
        "pids_limit_holds_and_may_go_below_the_present_number",
        &[Controller::Pids],
        &limits,
    ) else {
        return;
    };
    scratch.spawn("for i in 1 2 3 4; do sleep 600 & done; wait");
    eventually("reaching the limit", || {
        scratch.cgroup.usage().unwrap().pids.unwrap().current == 5
    });
    // Joining is always possible, forking is not; then the shell gives up.
    scratch.spawn("sleep 0; exit 0");
    assert!(!scratch.wait().success(), "a sixth process was forked");
    assert_eq!(scratch.cgroup.usage().unwrap().pids.unwrap().limit, Some(5));
    assert_eq!(scratch.cgroup.processes().unwrap().len(), 5);
    scratch
        .cgroup
        .update(&Limits {
            pids: Some(2),
            ..Limits::default()
        })
        .unwrap();
    assert_eq!(
        scratch.cgroup.usage().unwrap().pids.unwrap().current,
        5,
        "nobody was killed"
    );
    scratch
        .cgroup
        .update(&Limits {
            pids: Some(-1),
            ..Limits::default()
        })
        .unwrap();
    assert_eq!(scratch.cgroup.usage().unwrap().pids.unwrap().limit, None);
}

#[test]
fn a_refused_update_leaves_every_limit_as_it_was() {
    let limits = Limits {
        memory: Some(64 * MIB),
        pids: Some(50),
        cpu_shares: Some(512),
        ..Limits::default()
    };
    let test = "a_refused_update_leaves_every_limit_as_it_was";
    let needs = [
        Controller::Memory,
        Controller::Pids,
        Controller::Cpu,
        Controller::Cpuset,
    ];
    let Some(scratch) = Scratch::new(test, &needs, &limits) else {
        return;
    };
    let change = Limits {
        memory: Some(128 * MIB),
        cpu_shares: Some(2048),
        pids: Some(9),
        // No such CPU: the kernel refuses it after memory and CPU were set.
        cpuset_cpus: Some("4000".into()),
        ..Limits::default()
    };
    let error = scratch.cgroup.update(&change).unwrap_err();
    assert!(
        matches!(&error, Error::Write { value, .. } if value == "4000"),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("CPUs"), "{:?}", error.hint());
    let usage = scratch.cgroup.usage().unwrap();
    assert_eq!(usage.memory.unwrap().limit, Some(64 << 20));
    assert_eq!(usage.pids.unwrap().limit, Some(50));
    let shares = |directory: &Path| fs::read_to_string(directory.join("cpu.shares")).ok();
    if let Some(shares) = scratch.cgroup.directories().find_map(shares) {
        assert_eq!(shares.trim(), "512");
    }
}

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
fn a_controller_added_later_takes_the_processes_along() {
    let test = "a_controller_added_later_takes_the_processes_along";
    let Some(mut scratch) = Scratch::new(test, &[Controller::Cpuset], &Limits::default()) else {
        return;
    };
    joined(scratch.spawn("sleep 600 & wait"));
    eventually("starting", || {
        scratch.cgroup.processes().unwrap().len() == 2
    });
    let change = Limits {
        cpuset_cpus: Some("0".into()),
        blkio_accounting: Some(true),
        ..Limits::default()
    };
    scratch.cgroup.update(&change).unwrap();
    for pid in scratch.cgroup.processes().unwrap() {
        let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
        assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    }
    // Another command opens it and sees what was added; this one removes that too.
    let again = scratch
        .manager
        .open_existing(scratch.cgroup.path())
        .unwrap();
    assert!(again.usage().unwrap().io.is_some());
    assert_eq!(again.processes().unwrap().len(), 2);
}

#[test]
fn block_io_rates_are_set_changed_and_lifted() {
    use coracle_cgroup::DeviceRate;
    let test = "block_io_rates_are_set_changed_and_lifted";
    let device = rustix::fs::stat(std::env::temp_dir()).unwrap().st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    if !Path::new(&format!("/sys/dev/block/{major}:{minor}")).exists() {
        eprintln!("SKIP: {test}: the temporary directory is not on a block device");
        return;
    }
    let rate = |rate| vec![DeviceRate { major, minor, rate }];
    let limits = Limits {
        blkio_read_bps: rate(1 << 20),
        blkio_write_iops: rate(100),
        ..Limits::default()
    };
    let Some(mut scratch) = Scratch::new(test, &[Controller::BlockIo], &limits) else {
        return;
    };
    scratch
        .cgroup
        .update(&Limits {
            blkio_read_bps: rate(2 << 20),
            ..Limits::default()
        })
        .unwrap();
    let file = std::env::temp_dir().join(format!("coracle-test-io-{}", std::process::id()));
    fs::write(&file, vec![1u8; 3 << 20]).unwrap();
    fs::File::open(&file).unwrap().sync_all().unwrap();
    let start = Instant::now();
    scratch.spawn(&format!(
        "exec dd if='{}' of=/dev/null bs=64k iflag=direct",
        file.display()
    ));
    let status = scratch.wait();
    let took = start.elapsed();
    let same = rustix::fs::stat(&file).unwrap().st_dev == device;
    fs::remove_file(&file).unwrap();
    if !same || !status.success() {
        eprintln!("SKIP: {test}: no direct I/O on the root device from the temporary directory");
        return;
    }
    assert!(
        took > Duration::from_millis(1000),
        "3 MiB at 2 MiB/s took {took:?}"
    );
    let io = scratch.cgroup.usage().unwrap().io.unwrap();
    let used = io
        .iter()
        .find(|io| (io.major, io.minor) == (major, minor))
        .unwrap();
    assert!(used.read_bytes >= 3 << 20 && used.read_ops > 0, "{used:?}");
    scratch
        .cgroup
        .update(&Limits {
            blkio_read_bps: rate(0),
            ..Limits::default()
        })
        .unwrap();
    let none = Limits {
        blkio_read_bps: vec![DeviceRate {
            major: 4000,
            minor: 1,
            rate: 5,
        }],
        ..Limits::default()
    };
    let error = scratch.cgroup.update(&none).unwrap_err();
    assert!(error.hint().unwrap().contains("whole disk"), "{error:?}");
}

#[test]
fn real_time_is_given_through_the_levels_above() {
    let test = "real_time_is_given_through_the_levels_above";
    if !Path::new("/proc/sys/kernel/sched_rt_runtime_us").exists() {
        eprintln!("SKIP: {test}: no real-time scheduling");
        return;
    }
    let Some(scratch) = Scratch::new(test, &[Controller::Cpu], &Limits::default()) else {
        return;
    };
    let Some(cpu) = scratch
        .cgroup
        .directories()
        .find(|directory| directory.join("cpu.rt_runtime_us").exists())
    else {
        eprintln!("SKIP: {test}: no real-time groups (v1 with CONFIG_RT_GROUP_SCHED)");
        return;
    };
    let runtime = || fs::read_to_string(cpu.join("cpu.rt_runtime_us")).unwrap();
    assert_eq!(runtime().trim(), "0", "a new group has none");
    scratch
        .cgroup
        .update(&Limits {
            cpu_realtime_runtime: Some(50_000),
            ..Limits::default()
        })
        .unwrap();
    assert_eq!(runtime().trim(), "50000");
    let too_much = Limits {
        cpu_realtime_runtime: Some(5_000_000),
        ..Limits::default()
    };
    assert!(
        scratch
            .cgroup
            .update(&too_much)
            .unwrap_err()
            .hint()
            .is_some()
    );
    assert_eq!(runtime().trim(), "50000");
}

#[test]
fn huge_pages_are_limited_in_the_v2_hierarchy() {
    let test = "huge_pages_are_limited_in_the_v2_hierarchy";
    let limits = Limits {
        hugepages: vec![HugepageLimit {
            page_size: "2MB".into(),
            limit: 4 * MIB,
        }],
        ..Limits::default()
    };
    let Some(scratch) = Scratch::new(test, &[Controller::HugeTlb], &limits) else {
        return;
    };
    let files = ["hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes"];
    let content = scratch.cgroup.directories().find_map(|directory| {
        files
            .iter()
            .find_map(|file| fs::read_to_string(directory.join(file)).ok())
    });
    assert_eq!(content.unwrap().trim(), "4194304");
}

#[test]
fn devices_are_denied_and_allowed_again() {
    let test = "devices_are_denied_and_allowed_again";
    let Some(mut scratch) = Scratch::new(test, &[Controller::Devices], &Limits::default()) else {
        return;
    };
    let path = CgroupPath::new("devices_are_denied").unwrap();
    let created = scratch
        .manager
        .create(&path, &Limits::default(), &DeviceRules::docker_default());
    match created {
        Err(Error::DeviceProgram { source, .. }) => {
            eprintln!("SKIP: {test}: {source}");
            return;
        }
        // From here on Scratch cleans up the new one; the first is empty.
        created => std::mem::replace(&mut scratch.cgroup, created.unwrap())
            .remove()
            .unwrap(),
    }
    let mut status = |script: &str| {
        scratch.spawn(script);
        scratch.wait().success()
    };
    let kernel_log = "head -c 0 < /dev/kmsg";
    assert!(
        status("echo x > /dev/null && head -c 1 /dev/zero"),
        "what is allowed works"
    );
    assert!(!status(kernel_log), "what is not is refused");
    let mut rules = DeviceRules::docker_default();
    rules.push(DeviceRule::allow_char(
        Some(1),
        Some(11),
        DeviceAccess::parse("r").unwrap(),
    ));
    scratch.cgroup.set_devices(&rules).unwrap();
    let mut status = |script: &str| {
        scratch.spawn(script);
        scratch.wait().success()
    };
    assert!(status(kernel_log), "a device added while running");
    assert!(status("echo x > /dev/null"));
    scratch
        .cgroup
        .set_devices(&DeviceRules::docker_default())
        .unwrap();
    scratch.spawn(kernel_log);
    assert!(!scratch.wait().success(), "and taken away again");
}

#[test]
fn nested_names_share_a_directory_that_goes_with_the_last() {
    let manager = manager();
    if matches!(manager.layout(), Layout::Unavailable { .. }) {
        eprintln!("SKIP: nested_names_share_a_directory_that_goes_with_the_last: no cgroups");
        return;
    }
    let make = |name: &str| {
        manager
            .create(
                &CgroupPath::new(name).unwrap(),
                &Limits::default(),
                &DeviceRules::unrestricted(),
            )
            .unwrap()
    };
    let (a, b) = (make("pod/a"), make("pod/b"));
    let pod = a.directories().next().unwrap().parent().unwrap().to_owned();
    assert!(
        manager
            .list()
            .unwrap()
            .iter()
            .any(|path| path.to_string() == "pod")
    );
    a.remove().unwrap();
    assert!(pod.exists());
    b.remove().unwrap();
    assert!(!pod.exists());
    let error = manager
        .open_existing(&CgroupPath::new("pod/a").unwrap())
        .unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    manager.prune().unwrap();
}

#[test]
fn creating_twice_is_refused_and_leaves_the_first_alone() {
    let test = "creating_twice_is_refused_and_leaves_the_first_alone";
    let Some(mut scratch) = Scratch::new(test, &[], &Limits::default()) else {
        return;
    };
    joined(scratch.spawn("exec sleep 600"));
    let error = scratch
        .manager
        .create(
            scratch.cgroup.path(),
            &Limits::default(),
            &DeviceRules::unrestricted(),
        )
        .unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error:?}");
    assert_eq!(scratch.cgroup.processes().unwrap().len(), 1);
    assert!(scratch.cgroup.directories().all(Path::exists));
}

#[test]
fn a_refused_creation_leaves_nothing() {
    let manager = manager();
    let path = CgroupPath::new("a_refused_creation_leaves_nothing").unwrap();
    // Refused by the kernel (no such CPU), or before it is asked (no cpuset here).
    let limits = Limits {
        memory: Some(64 * MIB),
        cpuset_cpus: Some("4000".into()),
        ..Limits::default()
    };
    assert!(
        manager
            .create(&path, &limits, &DeviceRules::unrestricted())
            .is_err()
    );
    assert!(!manager.list().unwrap().contains(&path));
    manager.prune().unwrap();
}

#[test]
fn creation_survives_others_that_prune_at_the_same_moment() {
    let manager = manager();
    if matches!(manager.layout(), Layout::Unavailable { .. }) {
        eprintln!("SKIP: creation_survives_others_that_prune_at_the_same_moment: no cgroups");
        return;
    }
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let manager = &manager;
            scope.spawn(move || {
                for round in 0..25 {
                    let path = CgroupPath::new(&format!("racing-{thread}/{round}")).unwrap();
                    let cgroup = manager
                        .create(&path, &Limits::default(), &DeviceRules::unrestricted())
                        .unwrap();
                    cgroup.remove().unwrap();
                    manager.prune().unwrap();
                }
            });
        }
    });
}

#[test]
fn without_cgroups_a_limit_is_refused_and_no_limit_is_none() {
    let manager = manager();
    let Layout::Unavailable { remedy, .. } = manager.layout() else {
        assert_ne!(
            std::env::var(COVERED).as_deref(),
            Ok("none"),
            "all hierarchies are covered"
        );
        eprintln!(
            "SKIP: without_cgroups_a_limit_is_refused_and_no_limit_is_none: cgroups are usable here"
        );
        return;
    };
    let path = CgroupPath::new("x").unwrap();
    let limits = Limits {
        memory: Some(64 * MIB),
        ..Limits::default()
    };
    let error = manager
        .create(&path, &limits, &DeviceRules::unrestricted())
        .unwrap_err();
    assert!(
        matches!(&error, Error::Unavailable { wanted, .. } if wanted == "memory"),
        "{error:?}"
    );
    assert_eq!(error.hint(), remedy);
    let cgroup = manager
        .create(&path, &Limits::default(), &DeviceRules::unrestricted())
        .unwrap();
    assert!(cgroup.is_none() && !cgroup.is_frozen().unwrap());
    let entry = cgroup.entry().unwrap();
    assert!(entry.clone_into.is_none() && entry.tasks.is_empty());
    assert_eq!(cgroup.usage().unwrap(), coracle_cgroup::Usage::default());
    assert_eq!(cgroup.oom_kills().unwrap(), 0);
    assert!(cgroup.oom_event().unwrap().is_none());
    cgroup.update(&Limits::default()).unwrap();
    for refused in [
        cgroup.update(&limits),
        cgroup.freeze(),
        cgroup.thaw(),
        cgroup.kill(Duration::ZERO),
        cgroup.processes().map(drop),
        cgroup.set_devices(&DeviceRules::docker_default()),
    ] {
        assert!(
            matches!(refused, Err(Error::Unavailable { .. })),
            "{refused:?}"
        );
    }
    cgroup.remove().unwrap();
    assert!(manager.open_existing(&path).unwrap().is_none());
}

/// In a container with a cgroup namespace of its own, the container's first cgroup is full of its own processes, and so
/// cannot hand down a controller; they are moved to a leaf.
#[test]
fn inside_a_container_processes_make_room() {
    let test = "inside_a_container_processes_make_room";
    let limits = Limits {
        hugepages: vec![HugepageLimit {
            page_size: "2MB".into(),
            limit: 4 * MIB,
        }],
        ..Limits::default()
    };
    if std::env::var(COVERED).as_deref() == Ok("container") {
        let scratch =
            Scratch::new(test, &[Controller::HugeTlb], &limits).expect("a cgroup in a cgroup");
        let own = || fs::read_to_string("/proc/self/cgroup").unwrap();
        assert!(
            own().lines().any(|line| line == "0::/coracle-self"),
            "{}",
            own()
        );
        // The next command starts from within the leaf.
        let again = Manager::open("coracle-test-again").unwrap();
        let path = CgroupPath::new("again").unwrap();
        let cgroup = again
            .create(&path, &limits, &DeviceRules::unrestricted())
            .unwrap();
        let (first, second) = (
            scratch.cgroup.directories().next(),
            cgroup.directories().next(),
        );
        assert_eq!(
            first.unwrap().ancestors().nth(2).unwrap(),
            second.unwrap().ancestors().nth(2).unwrap()
        );
        cgroup.remove().unwrap();
        again.prune().unwrap();
        return;
    }
    let Some(mut scratch) = Scratch::new(test, &[Controller::HugeTlb], &limits) else {
        return;
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount_point = mounts
        .lines()
        .find(|line| line.contains(" - cgroup2 "))
        .and_then(|line| line.split(' ').nth(4));
    let Some(mount_point) = mount_point else {
        eprintln!("SKIP: {test}: no v2 hierarchy");
        return;
    };
    let legacy: String = mounts
        .lines()
        .filter(|line| line.contains(" - cgroup "))
        .filter_map(|line| line.split(' ').nth(4))
        .map(|mount| format!("mount -t tmpfs tmpfs {mount} && "))
        .collect();
    scratch.spawn(&format!(
        "export {COVERED}=container; exec unshare --cgroup --mount --propagation private sh -c \
         '{legacy} mount -t tmpfs tmpfs {mount_point} && mount -t cgroup2 none {mount_point} && exec \"$0\" --exact {test} 2>&1' {}",
        std::env::current_exe().unwrap().display()
    ));
    let output = scratch.children.pop().unwrap().wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

/// Runs this file again with some mounts covered by an empty tmpfs, in a mount namespace that ends with it.
fn run_covered(test: &str, covered: &str, wanted: impl Fn(&str) -> bool) {
    if std::env::var_os(COVERED).is_some() {
        return;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let cover: Vec<&str> = mounts
        .lines()
        .filter(|line| {
            line.split_once(" - ")
                .is_some_and(|(_, after)| wanted(after.split(' ').next().unwrap()))
        })
        .filter_map(|line| line.split(' ').nth(4))
        .collect();
    if cover.is_empty() || !rustix::process::geteuid().is_root() {
        eprintln!("SKIP: {test}: nothing to cover, or not root");
        return;
    }
    let script: String = cover
        .iter()
        .map(|mount| format!("mount -t tmpfs tmpfs '{mount}' && "))
        .collect();
    let output = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            &format!("{script} exec \"$0\" --nocapture"),
        ])
        .arg(std::env::current_exe().unwrap())
        .env(COVERED, covered)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    // Without any hierarchy all others skip, which is the point.
    for line in told
        .lines()
        .filter(|line| line.starts_with("SKIP") && covered != "none")
    {
        eprintln!("{line} [with {covered} covered]");
    }
    assert!(
        output.status.success(),
        "{}\n{told}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn all_of_it_holds_on_v1_alone() {
    run_covered("all_of_it_holds_on_v1_alone", "v2", |kind| {
        kind == "cgroup2"
    });
}

#[test]
fn all_of_it_holds_on_v2_alone() {
    run_covered("all_of_it_holds_on_v2_alone", "v1", |kind| kind == "cgroup");
}

#[test]
fn all_of_it_is_refused_without_any() {
    run_covered("all_of_it_is_refused_without_any", "none", |kind| {
        kind.starts_with("cgroup")
    });
}
