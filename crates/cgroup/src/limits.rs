//! What a cgroup may be limited to, independent of the cgroup version; units are in each field's documentation.
//!
//! `None` (or an empty list) means "not said": nothing is written, and an `update` leaves it as it is.
//! Values are those of the OCI runtime specification, so `-1` is "unlimited" wherever it makes sense.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxResources, LinuxThrottleDevice};
use serde::{Deserialize, Serialize};

use crate::controller::Controller;

/// A rate for one block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRate {
    /// The device's major number; a whole disk, not a partition.
    pub major: u32,
    /// The device's minor number.
    pub minor: u32,
    /// Bytes or operations per second; 0 lifts the limit.
    pub rate: u64,
}

/// A weight for one block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceWeight {
    /// The device's major number.
    pub major: u32,
    /// The device's minor number.
    pub minor: u32,
    /// 10 to 1000; 0 goes back to the cgroup's own weight.
    pub weight: u16,
}

/// A limit for huge pages of one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugepageLimit {
    /// The size as the kernel names it: `64KB`, `2MB`, `1GB`.
    pub page_size: String,
    /// Bytes; -1 is unlimited.
    pub limit: i64,
}

/// A limit for one RDMA device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RdmaLimit {
    /// HCA handles; `None` is unlimited.
    pub hca_handles: Option<u32>,
    /// HCA objects; `None` is unlimited.
    pub hca_objects: Option<u32>,
}

/// Limits of one cgroup. See the module's documentation for what `None` means.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory in bytes; -1 unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<i64>,
    /// Memory in bytes that reclaim tries to leave alone (v1 soft limit, v2 `memory.low`); -1 unlimited (v2: all of it).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<i64>,
    /// Memory **and** swap in bytes, as Docker's `--memory-swap`; equal to `memory` forbids swap; -1 unlimited swap.
    /// v1 limits the total; v2 limits swap alone to the difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<i64>,
    /// How readily anonymous memory is swapped, 0 to 100; v1 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swappiness: Option<u64>,
    /// TCP buffer memory in bytes; v1 only; -1 unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_kernel_tcp: Option<i64>,
    /// Whether a process that runs out of memory waits instead of being killed; v1 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kill_disable: Option<bool>,

    /// CPU time in microseconds per period; -1 unlimited. Without `cpu_period` the period in force (100 ms at first) counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<i64>,
    /// The period in microseconds, 1,000 to 1,000,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_period: Option<u64>,
    /// Unused quota in microseconds that may be saved up for a burst.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_burst: Option<u64>,
    /// Relative share, 2 to 262,144 (1,024 is the default); becomes a weight of 1 to 10,000 on v2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<u64>,
    /// Whether the cgroup only runs when nobody else wants to (SCHED_IDLE).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_idle: Option<bool>,
    /// Real-time CPU time in microseconds per `cpu_realtime_period`; v1 only. A new v1 cgroup has 0: no SCHED_FIFO inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_realtime_runtime: Option<i64>,
    /// The real-time period in microseconds; v1 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_realtime_period: Option<u64>,
    /// CPUs as a list: `0-3,8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes as a list: `0,1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_mems: Option<String>,

    /// Number of tasks (processes and threads); 0 or less is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<i64>,

    /// Relative block I/O weight, 10 to 1,000 (500 is Docker's default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blkio_weight: Option<u16>,
    /// Weights for single devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blkio_weight_device: Vec<DeviceWeight>,
    /// Bytes read per second. On v1 all four rates hold for direct and synchronous I/O only, not for buffered writes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blkio_read_bps: Vec<DeviceRate>,
    /// Bytes written per second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blkio_write_bps: Vec<DeviceRate>,
    /// Read operations per second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blkio_read_iops: Vec<DeviceRate>,
    /// Write operations per second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blkio_write_iops: Vec<DeviceRate>,
    /// Whether block I/O is accounted even if it is not limited, where that is possible (else [`Usage`](crate::Usage) says
    /// `None`). On v1 that is one more directory (0.18 ms of each start);
    /// on v2 it costs nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blkio_accounting: Option<bool>,

    /// Huge pages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hugepages: Vec<HugepageLimit>,
    /// RDMA devices by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rdma: BTreeMap<String, RdmaLimit>,
    /// Class id of the packets sent; v1 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_class: Option<u32>,
    /// Priority of the packets sent by interface; v1 only.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub network_priorities: BTreeMap<String, u32>,

    /// v2 files by name (`memory.high` → `1073741824`), written after everything else; refused on v1.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unified: BTreeMap<String, String>,
}

impl Limits {
    /// Whether nothing at all is limited.
    pub fn is_empty(&self) -> bool {
        *self == Limits::default()
    }

    /// The limits that are set with the controllers that they need, for messages and for choosing hierarchies.
    pub fn wanted(&self) -> Vec<(&'static str, Controller)> {
        let mut wanted = Vec::new();
        let mut want = |set: bool, name, controller| {
            if set {
                wanted.push((name, controller));
            }
        };
        want(self.memory.is_some(), "memory", Controller::Memory);
        want(
            self.memory_reservation.is_some(),
            "memory_reservation",
            Controller::Memory,
        );
        want(
            self.memory_swap.is_some(),
            "memory_swap",
            Controller::Memory,
        );
        want(
            self.memory_swappiness.is_some(),
            "memory_swappiness",
            Controller::Memory,
        );
        want(
            self.memory_kernel_tcp.is_some(),
            "memory_kernel_tcp",
            Controller::Memory,
        );
        want(
            self.oom_kill_disable.is_some(),
            "oom_kill_disable",
            Controller::Memory,
        );
        want(self.cpu_quota.is_some(), "cpu_quota", Controller::Cpu);
        want(self.cpu_period.is_some(), "cpu_period", Controller::Cpu);
        want(self.cpu_burst.is_some(), "cpu_burst", Controller::Cpu);
        want(self.cpu_shares.is_some(), "cpu_shares", Controller::Cpu);
        want(self.cpu_idle.is_some(), "cpu_idle", Controller::Cpu);
        want(
            self.cpu_realtime_runtime.is_some(),
            "cpu_realtime_runtime",
            Controller::Cpu,
        );
        want(
            self.cpu_realtime_period.is_some(),
            "cpu_realtime_period",
            Controller::Cpu,
        );
        want(
            self.cpuset_cpus.is_some(),
            "cpuset_cpus",
            Controller::Cpuset,
        );
        want(
            self.cpuset_mems.is_some(),
            "cpuset_mems",
            Controller::Cpuset,
        );
        want(self.pids.is_some(), "pids", Controller::Pids);
        want(
            self.blkio_weight.is_some(),
            "blkio_weight",
            Controller::BlockIo,
        );
        want(
            !self.blkio_weight_device.is_empty(),
            "blkio_weight_device",
            Controller::BlockIo,
        );
        want(
            !self.blkio_read_bps.is_empty(),
            "blkio_read_bps",
            Controller::BlockIo,
        );
        want(
            !self.blkio_write_bps.is_empty(),
            "blkio_write_bps",
            Controller::BlockIo,
        );
        want(
            !self.blkio_read_iops.is_empty(),
            "blkio_read_iops",
            Controller::BlockIo,
        );
        want(
            !self.blkio_write_iops.is_empty(),
            "blkio_write_iops",
            Controller::BlockIo,
        );
        want(!self.hugepages.is_empty(), "hugepages", Controller::HugeTlb);
        want(!self.rdma.is_empty(), "rdma", Controller::Rdma);
        want(
            self.network_class.is_some(),
            "network_class",
            Controller::NetworkClass,
        );
        want(
            !self.network_priorities.is_empty(),
            "network_priorities",
            Controller::NetworkPriority,
        );
        wanted
    }
}

/// What v1 calls shares, as v2's weight: both defaults (1,024 and 100) and both ends meet.
///
/// The quadratic formula of runc and crun since 2025 (<https://github.com/kubernetes/kubernetes/issues/131216>):
/// the linear one turned the default of 1,024 shares into a weight of 39, below every cgroup that nobody touched.
pub fn weight_of_shares(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

/// OCI's block I/O weight (10 to 1,000) as v2's `io.weight` (1 to 10,000), as runc and crun convert it.
pub fn io_weight_of_blkio_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).saturating_sub(10)) * 9_999 / 990
}

/// Takes everything that a cgroup can do; left out are fields that no supported kernel acts upon: `memory.kernel`
/// (obsolete since 5.4), `useHierarchy` (always on), `checkBeforeUpdate` (always checked here) and the leaf weights of
/// the CFQ scheduler (gone in 5.0). `devices` are [`DeviceRules`](crate::DeviceRules), not limits.
impl From<&LinuxResources> for Limits {
    fn from(resources: &LinuxResources) -> Limits {
        let mut limits = Limits::default();
        if let Some(memory) = resources.memory() {
            // 0 is "not said" in every engine's use of the document.
            let said = |value: Option<i64>| value.filter(|bytes| *bytes != 0);
            limits.memory = said(memory.limit());
            limits.memory_reservation = said(memory.reservation());
            limits.memory_swap = said(memory.swap());
            limits.memory_kernel_tcp = said(memory.kernel_tcp());
            limits.memory_swappiness = memory.swappiness();
            limits.oom_kill_disable = memory.disable_oom_killer().filter(|disable| *disable);
        }
        if let Some(cpu) = resources.cpu() {
            limits.cpu_quota = cpu.quota().filter(|quota| *quota != 0);
            limits.cpu_period = cpu.period().filter(|period| *period != 0);
            limits.cpu_burst = cpu.burst();
            limits.cpu_shares = cpu.shares().filter(|shares| *shares != 0);
            limits.cpu_idle = cpu.idle().map(|idle| idle != 0);
            limits.cpu_realtime_runtime = cpu.realtime_runtime().filter(|runtime| *runtime != 0);
            limits.cpu_realtime_period = cpu.realtime_period().filter(|period| *period != 0);
            limits.cpuset_cpus = cpu.cpus().clone().filter(|cpus| !cpus.is_empty());
            limits.cpuset_mems = cpu.mems().clone().filter(|mems| !mems.is_empty());
        }
        if let Some(pids) = resources.pids() {
            limits.pids = Some(pids.limit());
        }
        if let Some(io) = resources.block_io() {
            limits.blkio_weight = io.weight().filter(|weight| *weight != 0);
            limits.blkio_weight_device = io
                .weight_device()
                .iter()
                .flatten()
                .filter_map(|device| {
                    Some(DeviceWeight {
                        major: number(device.major()),
                        minor: number(device.minor()),
                        weight: device.weight()?,
                    })
                })
                .collect();
            limits.blkio_read_bps = rates(io.throttle_read_bps_device());
            limits.blkio_write_bps = rates(io.throttle_write_bps_device());
            limits.blkio_read_iops = rates(io.throttle_read_iops_device());
            limits.blkio_write_iops = rates(io.throttle_write_iops_device());
        }
        for hugepages in resources.hugepage_limits().iter().flatten() {
            limits.hugepages.push(HugepageLimit {
                page_size: hugepages.page_size().clone(),
                limit: hugepages.limit(),
            });
        }
        for (device, rdma) in resources.rdma().iter().flatten() {
            let limit = RdmaLimit {
                hca_handles: rdma.hca_handles(),
                hca_objects: rdma.hca_objects(),
            };
            limits.rdma.insert(device.clone(), limit);
        }
        if let Some(network) = resources.network() {
            limits.network_class = network.class_id().filter(|class| *class != 0);
            for priority in network.priorities().iter().flatten() {
                limits
                    .network_priorities
                    .insert(priority.name().clone(), priority.priority());
            }
        }
        limits
            .unified
            .extend(resources.unified().clone().unwrap_or_default());
        limits
    }
}

fn rates(devices: &Option<Vec<LinuxThrottleDevice>>) -> Vec<DeviceRate> {
    devices
        .iter()
        .flatten()
        .map(|device| DeviceRate {
            major: number(device.major()),
            minor: number(device.minor()),
            rate: device.rate(),
        })
        .collect()
}

/// A device number out of range becomes one that no device has, so that the kernel refuses it by name.
fn number(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_ends_of_shares_meet_those_of_weights() {
        for (shares, weight) in [
            (0, 1),
            (2, 1),
            (1024, 100),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight_of_shares(shares), weight, "{shares} shares");
        }
        assert!(
            (2..262_144)
                .step_by(97)
                .all(|s| weight_of_shares(s) <= weight_of_shares(s + 97)),
            "not monotonic"
        );
    }

    #[test]
    fn blkio_weight_covers_the_whole_range() {
        for (given, weight) in [(10, 1), (500, 4950), (1000, 10_000)] {
            assert_eq!(io_weight_of_blkio_weight(given), weight);
        }
    }

    #[test]
    fn oci_resources_are_taken_over() {
        let resources: LinuxResources = serde_json::from_str(
            r#"{"memory":{"limit":1048576,"reservation":0,"swap":-1,"swappiness":10,"disableOOMKiller":false},
                "cpu":{"shares":512,"quota":50000,"period":100000,"cpus":"0-1","mems":""},
                "pids":{"limit":-1},
                "blockIO":{"weight":100,"weightDevice":[{"major":8,"minor":0,"weight":200}],
                           "throttleReadBpsDevice":[{"major":8,"minor":16,"rate":1000}]},
                "hugepageLimits":[{"pageSize":"2MB","limit":4194304}],
                "network":{"classID":7,"priorities":[{"name":"eth0","priority":3}]},
                "rdma":{"mlx5":{"hcaHandles":2}},
                "unified":{"memory.high":"5"}}"#,
        )
        .unwrap();
        let limits = Limits::from(&resources);
        let expected = Limits {
            memory: Some(1_048_576),
            memory_swap: Some(-1),
            memory_swappiness: Some(10),
            cpu_shares: Some(512),
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            cpuset_cpus: Some("0-1".into()),
            pids: Some(-1),
            blkio_weight: Some(100),
            blkio_weight_device: vec![DeviceWeight {
                major: 8,
                minor: 0,
                weight: 200,
            }],
            blkio_read_bps: vec![DeviceRate {
                major: 8,
                minor: 16,
                rate: 1000,
            }],
            hugepages: vec![HugepageLimit {
                page_size: "2MB".into(),
                limit: 4_194_304,
            }],
            network_class: Some(7),
            network_priorities: [("eth0".to_owned(), 3)].into(),
            rdma: [(
                "mlx5".to_owned(),
                RdmaLimit {
                    hca_handles: Some(2),
                    hca_objects: None,
                },
            )]
            .into(),
            unified: [("memory.high".to_owned(), "5".to_owned())].into(),
            ..Limits::default()
        };
        assert_eq!(limits, expected);
        let json = serde_json::to_string(&limits).unwrap();
        assert_eq!(serde_json::from_str::<Limits>(&json).unwrap(), limits);
        assert_eq!(serde_json::to_string(&Limits::default()).unwrap(), "{}");
    }
}
