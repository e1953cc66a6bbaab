//! The names of what a cgroup can control.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A cgroup controller, by its v1 name where the versions differ ([`Controller::unified_name`] is v2's).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Controller {
    /// CPU time: quota, shares; `cpu`.
    Cpu,
    /// CPU accounting, v1 only (`cpuacct`); part of every v2 cgroup.
    CpuAccounting,
    /// Which CPUs and memory nodes; `cpuset`.
    Cpuset,
    /// Memory; `memory`.
    Memory,
    /// Device access: `devices` on v1, an eBPF program on v2.
    Devices,
    /// Freezing: `freezer` on v1, part of every v2 cgroup.
    Freezer,
    /// Block I/O: `blkio` on v1, `io` on v2.
    BlockIo,
    /// Number of tasks; `pids`.
    Pids,
    /// Huge pages; `hugetlb`.
    HugeTlb,
    /// RDMA handles; `rdma`.
    Rdma,
    /// Network class id, v1 only; `net_cls`.
    NetworkClass,
    /// Network priorities, v1 only; `net_prio`.
    NetworkPriority,
}

impl Controller {
    /// All of them, in the order in which their directories are made.
    pub const ALL: [Controller; 12] = [
        Controller::Cpu,
        Controller::CpuAccounting,
        Controller::Cpuset,
        Controller::Memory,
        Controller::Devices,
        Controller::Freezer,
        Controller::BlockIo,
        Controller::Pids,
        Controller::HugeTlb,
        Controller::Rdma,
        Controller::NetworkClass,
        Controller::NetworkPriority,
    ];

    /// The name in `/proc/self/cgroup` and in mount options of a v1 hierarchy.
    pub fn legacy_name(self) -> &'static str {
        match self {
            Controller::Cpu => "cpu",
            Controller::CpuAccounting => "cpuacct",
            Controller::Cpuset => "cpuset",
            Controller::Memory => "memory",
            Controller::Devices => "devices",
            Controller::Freezer => "freezer",
            Controller::BlockIo => "blkio",
            Controller::Pids => "pids",
            Controller::HugeTlb => "hugetlb",
            Controller::Rdma => "rdma",
            Controller::NetworkClass => "net_cls",
            Controller::NetworkPriority => "net_prio",
        }
    }

    /// The name in `cgroup.controllers` of v2; `None` for what v2 has built in, does by eBPF, or lacks.
    pub fn unified_name(self) -> Option<&'static str> {
        match self {
            Controller::Cpu => Some("cpu"),
            Controller::Cpuset => Some("cpuset"),
            Controller::Memory => Some("memory"),
            Controller::BlockIo => Some("io"),
            Controller::Pids => Some("pids"),
            Controller::HugeTlb => Some("hugetlb"),
            Controller::Rdma => Some("rdma"),
            Controller::CpuAccounting
            | Controller::Devices
            | Controller::Freezer
            | Controller::NetworkClass
            | Controller::NetworkPriority => None,
        }
    }

    /// The controller of this v1 name.
    pub fn from_legacy_name(name: &str) -> Option<Controller> {
        Controller::ALL
            .into_iter()
            .find(|controller| controller.legacy_name() == name)
    }

    /// The controller of this v2 name.
    pub fn from_unified_name(name: &str) -> Option<Controller> {
        Controller::ALL
            .into_iter()
            .find(|controller| controller.unified_name() == Some(name))
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.legacy_name())
    }
}
