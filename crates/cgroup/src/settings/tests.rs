//! Limits to files, for both versions, against a kernel made of a table.

use super::*;
use crate::limits::{DeviceRate, DeviceWeight, HugepageLimit};

struct Fake {
    version: Version,
    present: &'static [&'static str],
    content: &'static str,
}

impl Files for Fake {
    fn version(&self, _: Controller, _: &str) -> Result<Version> {
        Ok(self.version)
    }
    fn exists(&self, _: Controller, file: &str) -> bool {
        self.present.contains(&file)
    }
    fn read(&self, _: Controller, _: &str) -> Result<String> {
        Ok(self.content.to_owned())
    }
}

fn v1() -> Fake {
    let present = &[
        "memory.memsw.limit_in_bytes",
        "blkio.bfq.weight",
        "hugetlb.2MB.limit_in_bytes",
    ];
    Fake {
        version: Version::Legacy,
        present,
        content: "",
    }
}

fn v2(content: &'static str) -> Fake {
    let present = &[
        "memory.swap.max",
        "io.weight",
        "hugetlb.2MB.max",
        "hugetlb.2MB.rsvd.max",
    ];
    Fake {
        version: Version::Unified,
        present,
        content,
    }
}

fn written(limits: &Limits, files: &Fake) -> Vec<String> {
    settings(limits, files)
        .unwrap()
        .iter()
        .map(|setting| format!("{}={}", setting.file, setting.value))
        .collect()
}

fn everything() -> Limits {
    Limits {
        memory: Some(1000),
        memory_swap: Some(1500),
        memory_reservation: Some(800),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        cpu_shares: Some(1024),
        cpuset_cpus: Some("0-1".into()),
        pids: Some(10),
        blkio_weight: Some(500),
        blkio_weight_device: vec![DeviceWeight {
            major: 8,
            minor: 0,
            weight: 0,
        }],
        blkio_read_bps: vec![DeviceRate {
            major: 8,
            minor: 0,
            rate: 7,
        }],
        blkio_write_iops: vec![DeviceRate {
            major: 8,
            minor: 0,
            rate: 0,
        }],
        hugepages: vec![HugepageLimit {
            page_size: "2MB".into(),
            limit: -1,
        }],
        ..Limits::default()
    }
}

#[test]
fn v1_files() {
    assert_eq!(
        written(&everything(), &v1()),
        [
            "memory.limit_in_bytes=1000",
            "memory.memsw.limit_in_bytes=1500",
            "memory.soft_limit_in_bytes=800",
            "cpu.shares=1024",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=50000",
            "cpuset.cpus=0-1",
            "pids.max=10",
            "blkio.bfq.weight=500",
            "blkio.bfq.weight_device=8:0 default",
            "blkio.throttle.read_bps_device=8:0 7",
            "blkio.throttle.write_iops_device=8:0 0",
            "hugetlb.2MB.limit_in_bytes=-1",
        ]
    );
}

#[test]
fn v2_files() {
    let mut limits = everything();
    limits.unified.insert("memory.high".into(), "900".into());
    assert_eq!(
        written(&limits, &v2("")),
        [
            "memory.max=1000",
            "memory.swap.max=500",
            "memory.low=800",
            "cpu.weight=100",
            "cpu.max=50000 100000",
            "cpuset.cpus=0-1",
            "pids.max=10",
            "io.weight=4950",
            "io.weight=8:0 default",
            "io.max=8:0 rbps=7",
            "io.max=8:0 wiops=max",
            "hugetlb.2MB.max=max",
            "hugetlb.2MB.rsvd.max=max",
            "memory.high=900",
        ]
    );
}

#[test]
fn a_part_is_completed_from_what_is_in_force_on_v2() {
    let period = Limits {
        cpu_period: Some(20_000),
        ..Limits::default()
    };
    assert_eq!(
        written(&period, &v2("5000 100000\n")),
        ["cpu.max=5000 20000"]
    );
    let quota = Limits {
        cpu_quota: Some(-1),
        ..Limits::default()
    };
    assert_eq!(written(&quota, &v2("")), ["cpu.max=max"]);
    let swap = Limits {
        memory_swap: Some(3000),
        ..Limits::default()
    };
    assert_eq!(written(&swap, &v2("1000\n")), ["memory.swap.max=2000"]);
    assert!(
        settings(&swap, &v2("max\n")).is_err(),
        "a total without a memory limit means nothing"
    );
}

#[test]
fn nonsense_is_refused_by_name() {
    let d = Limits::default;
    for (limits, name) in [
        (
            Limits {
                memory: Some(0),
                ..d()
            },
            "memory",
        ),
        (
            Limits {
                memory: Some(-2),
                ..d()
            },
            "memory",
        ),
        (
            Limits {
                memory: Some(10),
                memory_swap: Some(9),
                ..d()
            },
            "memory_swap",
        ),
        (
            Limits {
                memory: Some(-1),
                memory_swap: Some(9),
                ..d()
            },
            "memory_swap",
        ),
        (
            Limits {
                memory: Some(10),
                memory_reservation: Some(11),
                ..d()
            },
            "memory_reservation",
        ),
        (
            Limits {
                memory_swappiness: Some(101),
                ..d()
            },
            "memory_swappiness",
        ),
        (
            Limits {
                cpu_quota: Some(999),
                ..d()
            },
            "cpu_quota",
        ),
        (
            Limits {
                cpu_period: Some(1_000_001),
                ..d()
            },
            "cpu_period",
        ),
        (
            Limits {
                cpu_shares: Some(1),
                ..d()
            },
            "cpu_shares",
        ),
        (
            Limits {
                cpuset_cpus: Some("0\n1".into()),
                ..d()
            },
            "cpuset_cpus",
        ),
        (
            Limits {
                cpuset_mems: Some("".into()),
                ..d()
            },
            "cpuset_mems",
        ),
        (
            Limits {
                blkio_weight: Some(9),
                ..d()
            },
            "blkio_weight",
        ),
        (
            Limits {
                unified: [("cgroup.procs".to_owned(), "1".to_owned())].into(),
                ..d()
            },
            "unified",
        ),
        (
            Limits {
                unified: [("memory.x/../y".to_owned(), "1".to_owned())].into(),
                ..d()
            },
            "unified",
        ),
    ] {
        match settings(&limits, &v1()) {
            Err(Error::InvalidLimit { limit, .. }) => assert_eq!(limit, name),
            other => panic!("{limits:?}: {other:?}"),
        }
    }
}

#[test]
fn what_a_version_cannot_do_is_refused_with_a_way_out() {
    let d = Limits::default;
    let unified = Limits {
        unified: [("memory.high".to_owned(), "1".to_owned())].into(),
        ..d()
    };
    let cases = [
        (unified, v1()),
        (
            Limits {
                memory_swap: Some(-1),
                ..d()
            },
            Fake {
                present: &[],
                ..v1()
            },
        ),
        (
            Limits {
                memory_swap: Some(-1),
                ..d()
            },
            Fake {
                present: &[],
                ..v2("")
            },
        ),
        (
            Limits {
                blkio_weight: Some(10),
                ..d()
            },
            Fake {
                present: &[],
                ..v1()
            },
        ),
        (
            Limits {
                memory_swappiness: Some(1),
                ..d()
            },
            v2(""),
        ),
        (
            Limits {
                oom_kill_disable: Some(true),
                ..d()
            },
            v2(""),
        ),
        (
            Limits {
                cpu_realtime_runtime: Some(1),
                ..d()
            },
            v2(""),
        ),
        (
            Limits {
                hugepages: vec![HugepageLimit {
                    page_size: "3MB".into(),
                    limit: 1,
                }],
                ..d()
            },
            v2(""),
        ),
    ];
    for (limits, files) in cases {
        let error = settings(&limits, &files).unwrap_err();
        assert!(
            matches!(error, Error::Unsupported { .. }),
            "{limits:?}: {error:?}"
        );
        assert!(error.hint().is_some(), "{error}");
    }
}

#[test]
fn the_way_back_is_found_in_what_files_say() {
    let setting = |previous| Setting::new(Controller::BlockIo, "x", "x", "x").previous(previous);
    let keyed = |key: &str, otherwise| setting(Previous::Keyed(key.into(), otherwise));
    assert_eq!(
        setting(Previous::Whole).value_of("max 100000\n"),
        "max 100000"
    );
    assert_eq!(
        setting(Previous::FirstLine).value_of("default 100\n8:0 50\n"),
        "default 100"
    );
    assert_eq!(
        setting(Previous::Flat("oom_kill_disable")).value_of("oom_kill_disable 1\nunder_oom 0\n"),
        "1"
    );
    assert_eq!(keyed("8:0", "0").value_of("8:16 5\n8:0 7\n"), "8:0 7");
    assert_eq!(keyed("8:0", "0").value_of("8:01 7\n"), "8:0 0");
}
