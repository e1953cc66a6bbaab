//! Limits as the control files that say them: validation, conversion between the versions, and the order of writing.
//!
//! No file is written here. [`settings`] gives a list; `Cgroup::apply` writes it, with these rules:
//! - a setting that is refused with EINVAL is tried once more after the others. That covers every pair that constrains
//!   each other in both directions (`limit` ≤ `memsw`, `burst` ≤ `quota`, quota and period against the parent's share),
//!   whichever of the two goes up or down;
//! - an update remembers what each file said ([`Setting::previous`]) and goes back to it when one fails.

mod block_io;
mod cpu;
mod memory;
mod validate;

pub(crate) use validate::validate;

use block_io::{block_io, hugepages};
use cpu::{cpu_legacy, cpu_unified};
use memory::{memory_legacy, memory_unified};
use validate::invalid;

use crate::controller::Controller;
use crate::error::{Error, Result};
use crate::limits::Limits;

/// Which version of cgroups holds a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Legacy,
    Unified,
}

/// The cgroup that the settings are for, as far as they depend on it.
pub(crate) trait Files {
    /// Which version holds the controller; an error naming `wanted` if none does.
    fn version(&self, controller: Controller, wanted: &str) -> Result<Version>;
    /// Whether the kernel has this file.
    fn exists(&self, controller: Controller, file: &str) -> bool;
    /// What the file says now.
    fn read(&self, controller: Controller, file: &str) -> Result<String>;
}

/// How a file's old value is found in its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Previous {
    /// All of it is the value.
    Whole,
    /// The first line is ("default 100" of weights).
    FirstLine,
    /// The line "KEY VALUE" holds it, VALUE alone is written.
    Flat(&'static str),
    /// The line that begins with the device (or interface) holds it; without such a line, what is written is the key
    /// and this.
    Keyed(String, &'static str),
}

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub controller: Controller,
    /// The limit's name, for errors.
    pub limit: &'static str,
    pub file: String,
    pub value: String,
    pub previous: Previous,
}

impl Setting {
    fn new(
        controller: Controller,
        limit: &'static str,
        file: impl Into<String>,
        value: impl ToString,
    ) -> Setting {
        Setting {
            controller,
            limit,
            file: file.into(),
            value: value.to_string(),
            previous: Previous::Whole,
        }
    }

    fn previous(self, previous: Previous) -> Setting {
        Setting { previous, ..self }
    }

    /// What has to be written to go back, given what the file says.
    pub(crate) fn value_of(&self, content: &str) -> String {
        match &self.previous {
            Previous::Whole => content.trim_end().to_owned(),
            Previous::FirstLine => content.lines().next().unwrap_or_default().to_owned(),
            Previous::Flat(key) => content
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
                .unwrap_or_default()
                .to_owned(),
            Previous::Keyed(key, otherwise) => content
                .lines()
                .find(|line| line.split_ascii_whitespace().next() == Some(key))
                .map_or_else(
                    || format!("{key} {otherwise}"),
                    |line| line.trim().to_owned(),
                ),
        }
    }
}

/// The files to be written, in order.
///
/// # Errors
/// What [`validate`] finds, a controller that is not there, or something that this version cannot do.
pub(crate) fn settings(limits: &Limits, files: &dyn Files) -> Result<Vec<Setting>> {
    validate(limits)?;
    let wanted = limits.wanted();
    let version = |controller| -> Result<Option<Version>> {
        match wanted.iter().find(|(_, needed)| *needed == controller) {
            Some((limit, _)) => files.version(controller, limit).map(Some),
            None => Ok(None),
        }
    };
    let mut list = Vec::new();
    match version(Controller::Memory)? {
        Some(Version::Legacy) => memory_legacy(limits, files, &mut list)?,
        Some(Version::Unified) => memory_unified(limits, files, &mut list)?,
        None => {}
    }
    match version(Controller::Cpu)? {
        Some(Version::Legacy) => cpu_legacy(limits, &mut list),
        Some(Version::Unified) => cpu_unified(limits, files, &mut list)?,
        None => {}
    }
    if version(Controller::Cpuset)?.is_some() {
        // Both versions have the same names. Nodes first: CPUs whose node is not allowed would run on remote memory.
        for (limit, file, value) in [
            ("cpuset_mems", "cpuset.mems", &limits.cpuset_mems),
            ("cpuset_cpus", "cpuset.cpus", &limits.cpuset_cpus),
        ] {
            list.extend(
                value
                    .iter()
                    .map(|value| Setting::new(Controller::Cpuset, limit, file, value)),
            );
        }
    }
    if version(Controller::Pids)?.is_some() {
        let max = limits
            .pids
            .filter(|pids| *pids > 0)
            .map_or_else(|| "max".to_owned(), |pids| pids.to_string());
        list.push(Setting::new(Controller::Pids, "pids", "pids.max", max));
    }
    if let Some(version) = version(Controller::BlockIo)? {
        block_io(limits, version, files, &mut list)?;
    }
    if let Some(version) = version(Controller::HugeTlb)? {
        hugepages(limits, version, files, &mut list)?;
    }
    if version(Controller::Rdma)?.is_some() {
        for (device, limit) in &limits.rdma {
            let number = |limit: Option<u32>| {
                limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string())
            };
            let value = format!(
                "{device} hca_handle={} hca_object={}",
                number(limit.hca_handles),
                number(limit.hca_objects)
            );
            let previous = Previous::Keyed(device.clone(), "hca_handle=max hca_object=max");
            list.push(Setting::new(Controller::Rdma, "rdma", "rdma.max", value).previous(previous));
        }
    }
    if version(Controller::NetworkClass)?.is_some() {
        let class = limits.network_class.unwrap_or_default();
        list.push(Setting::new(
            Controller::NetworkClass,
            "network_class",
            "net_cls.classid",
            class,
        ));
    }
    if version(Controller::NetworkPriority)?.is_some() {
        for (interface, priority) in &limits.network_priorities {
            let previous = Previous::Keyed(interface.clone(), "0");
            let value = format!("{interface} {priority}");
            list.push(
                Setting::new(
                    Controller::NetworkPriority,
                    "network_priorities",
                    "net_prio.ifpriomap",
                    value,
                )
                .previous(previous),
            );
        }
    }
    for (file, value) in &limits.unified {
        let Some(controller) = file
            .split_once('.')
            .and_then(|(name, _)| Controller::from_unified_name(name))
        else {
            return Err(invalid(
                "unified",
                file,
                "it must be a file of a v2 controller, such as memory.high",
            ));
        };
        if files.version(controller, file)? == Version::Legacy {
            return Err(Error::Unsupported {
                wanted: file.clone(),
                reason: format!(
                    "the controller {controller} is in a v1 hierarchy on this host, and the file is v2's"
                ),
                remedy: Some(
                    "use the limit's own option, or boot with systemd.unified_cgroup_hierarchy=1"
                        .into(),
                ),
            });
        }
        list.push(Setting::new(controller, "unified", file, value));
    }
    Ok(list)
}

#[cfg(test)]
mod tests;
