//! Limits, usage, freezing and killing of a container's processes: cgroup v2, v1 and hybrid behind one type.
//!
//! [`Manager::open`] finds out what this host has (`layout`), [`Manager::create`] makes a [`Cgroup`] with [`Limits`] and
//! [`DeviceRules`], and [`Cgroup::entry`] is how a child gets in without the 10 ms that moving a process costs. The
//! kernel holds all state: a `Cgroup` is a path, so any command can open it again by [`Manager::open_existing`].
//!
//! ```text
//! v2       /sys/fs/cgroup/coracle/PATH                one directory
//! v1       /sys/fs/cgroup/{memory,cpu,pids,…}/coracle/PATH
//! hybrid   both: v1 for the controllers that it holds, the v2 hierarchy for freezing, killing, CPU time and the rest
//! none     nothing; a limit is refused with the remedy, no limit gives a Cgroup that is_none()
//! ```
//!
//! On v1 only those hierarchies are used that are needed (see [`Manager::create`]); a later [`Cgroup::update`] adds
//! others and moves the processes there. A relative [`CgroupPath`] is below the prefix, which stays when its last
//! child goes (removing it would race with other commands); [`Manager::prune`] removes it.
//!
//! Nothing here is asynchronous, logs, or reads the environment.

mod cgroup;
mod confine;
mod control;
mod controller;
mod device_program;
mod devices;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod layout;
mod life;
mod limits;
mod make;
mod manager;
mod measure;
mod path;
mod remember;
mod settings;
mod usage;
mod yielding;

pub use cgroup::{Cgroup, Entry};
pub use controller::Controller;
pub use devices::{DeviceAccess, DeviceKind, DeviceRule, DeviceRules};
pub use error::{Error, Result};
pub use layout::Layout;
pub use limits::{
    DeviceRate, DeviceWeight, HugepageLimit, Limits, RdmaLimit, io_weight_of_blkio_weight,
    weight_of_shares,
};
pub use manager::Manager;
pub use path::CgroupPath;
pub use remember::Remembered;
pub use usage::{CpuUsage, DeviceIo, MemoryUsage, PidsUsage, Usage};
