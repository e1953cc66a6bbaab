//! All other limits, and device rules, against the kernel of this host.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use coracle_cgroup::{
    CgroupPath, Controller, DeviceAccess, DeviceRule, DeviceRules, Error, HugepageLimit, Limits,
};

use crate::{MIB, Scratch, eventually, joined};

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
            assert!(!scratch.manager.can_restrict_devices());
            eprintln!("SKIP: {test}: {source}");
            return;
        }
        // From here on Scratch cleans up the new one; the first is empty.
        created => std::mem::replace(&mut scratch.cgroup, created.unwrap())
            .remove()
            .unwrap(),
    }
    assert!(scratch.manager.can_restrict_devices());
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
