//! Limits as the control files that say them: validation, conversion between the versions, and the order of writing.
//!
//! No file is written here. [`settings`] gives a list; `Cgroup::apply` writes it, with these rules:
//! - a setting that is refused with EINVAL is tried once more after the others. That covers every pair that constrains
//!   each other in both directions (`limit` ≤ `memsw`, `burst` ≤ `quota`, quota and period against the parent's share),
//!   whichever of the two goes up or down;
//! - an update remembers what each file said ([`Setting::previous`]) and goes back to it when one fails.

use crate::controller::Controller;
use crate::error::{Error, Result};
use crate::limits::{DeviceRate, Limits, io_weight_of_blkio_weight, weight_of_shares};

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

fn invalid(limit: &'static str, value: impl ToString, reason: impl Into<String>) -> Error {
    Error::InvalidLimit {
        limit,
        value: value.to_string(),
        reason: reason.into(),
    }
}

/// Finds values that make no sense anywhere.
pub(crate) fn validate(limits: &Limits) -> Result<()> {
    for (limit, value) in [
        ("memory", limits.memory),
        ("memory_reservation", limits.memory_reservation),
        ("memory_swap", limits.memory_swap),
        ("memory_kernel_tcp", limits.memory_kernel_tcp),
    ] {
        if value.is_some_and(|bytes| bytes == 0 || bytes < -1) {
            return Err(invalid(
                limit,
                value.unwrap_or_default(),
                "it must be a number of bytes above 0, or -1 for unlimited",
            ));
        }
    }
    if let (Some(memory), Some(reservation)) = (limits.memory, limits.memory_reservation)
        && memory > 0
        && reservation > memory
    {
        return Err(invalid(
            "memory_reservation",
            reservation,
            format!("it is above the memory limit of {memory}"),
        ));
    }
    if let (Some(memory), Some(total)) = (limits.memory, limits.memory_swap) {
        check_swap(memory, total)?;
    }
    if let Some(swappiness) = limits.memory_swappiness.filter(|value| *value > 100) {
        return Err(invalid(
            "memory_swappiness",
            swappiness,
            "it goes from 0 to 100",
        ));
    }
    if let Some(quota) = limits.cpu_quota.filter(|quota| (0..1000).contains(quota)) {
        return Err(invalid(
            "cpu_quota",
            quota,
            "it must be at least 1000 us, or -1 for unlimited",
        ));
    }
    if let Some(period) = limits
        .cpu_period
        .filter(|period| !(1000..=1_000_000).contains(period))
    {
        return Err(invalid(
            "cpu_period",
            period,
            "it goes from 1000 to 1000000 us",
        ));
    }
    if let Some(shares) = limits.cpu_shares.filter(|shares| *shares < 2) {
        return Err(invalid("cpu_shares", shares, "it must be at least 2"));
    }
    for (limit, list) in [
        ("cpuset_cpus", &limits.cpuset_cpus),
        ("cpuset_mems", &limits.cpuset_mems),
    ] {
        if let Some(list) = list {
            check_list(limit, list)?;
        }
    }
    let weights = limits
        .blkio_weight_device
        .iter()
        .map(|device| device.weight)
        .filter(|weight| *weight != 0);
    if let Some(weight) = limits
        .blkio_weight
        .into_iter()
        .chain(weights)
        .find(|w| !(10..=1000).contains(w))
    {
        return Err(invalid("blkio_weight", weight, "it goes from 10 to 1000"));
    }
    for hugepages in &limits.hugepages {
        let size = &hugepages.page_size;
        if hugepages.limit < -1
            || size.is_empty()
            || !size.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            let value = format!("{size}={}", hugepages.limit);
            return Err(invalid(
                "hugepages",
                value,
                "it is a size such as 2MB and a number of bytes, or -1 for unlimited",
            ));
        }
    }
    for (name, value) in &limits.unified {
        let controller = name.split_once('.').map(|(controller, _)| controller);
        let known = controller.is_some_and(|c| Controller::from_unified_name(c).is_some());
        if !known || name.contains(['/', '\0']) {
            return Err(invalid(
                "unified",
                name,
                "it must be a file of a v2 controller, such as memory.high",
            ));
        }
        if value.contains('\0') {
            return Err(invalid("unified", value, "it has a NUL byte"));
        }
    }
    let keys = limits.rdma.keys().chain(limits.network_priorities.keys());
    if let Some(key) = keys
        .into_iter()
        .find(|key| key.is_empty() || key.contains([' ', '\n', '\0']))
    {
        return Err(invalid(
            "rdma or network_priorities",
            key,
            "it names no device",
        ));
    }
    Ok(())
}

fn check_swap(memory: i64, total: i64) -> Result<()> {
    if total > 0 && memory < 0 {
        return Err(invalid(
            "memory_swap",
            total,
            "it limits memory and swap together, and memory is unlimited",
        ));
    }
    if total > 0 && total < memory {
        return Err(invalid(
            "memory_swap",
            total,
            format!(
                "it is the sum of memory and swap, and so cannot be below the memory limit of {memory}"
            ),
        ));
    }
    Ok(())
}

/// Lists are `0-3,5`; the kernel also takes strides, which is why a colon and slash are let through.
fn check_list(limit: &'static str, list: &str) -> Result<()> {
    let ok = list.bytes().any(|byte| byte.is_ascii_digit())
        && list
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b'-' | b':' | b'/'));
    if ok {
        Ok(())
    } else {
        Err(invalid(limit, list, "it is a list such as 0-3,5"))
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

const NO_SWAP_ACCOUNTING: &str =
    "boot with swapaccount=1 and a kernel with CONFIG_SWAP, or leave the swap limit away";

fn memory_legacy(limits: &Limits, files: &dyn Files, list: &mut Vec<Setting>) -> Result<()> {
    let memory =
        |limit, file: &str, value: i64| Setting::new(Controller::Memory, limit, file, value);
    if let Some(bytes) = limits.memory {
        list.push(memory("memory", "memory.limit_in_bytes", bytes));
    }
    if let Some(total) = limits.memory_swap {
        if !files.exists(Controller::Memory, "memory.memsw.limit_in_bytes") {
            return Err(Error::Unsupported {
                wanted: "memory_swap".into(),
                reason: "this kernel does not account for swap by cgroup".into(),
                remedy: Some(NO_SWAP_ACCOUNTING.into()),
            });
        }
        list.push(memory("memory_swap", "memory.memsw.limit_in_bytes", total));
    }
    if let Some(bytes) = limits.memory_reservation {
        list.push(memory(
            "memory_reservation",
            "memory.soft_limit_in_bytes",
            bytes,
        ));
    }
    if let Some(bytes) = limits.memory_kernel_tcp {
        list.push(memory(
            "memory_kernel_tcp",
            "memory.kmem.tcp.limit_in_bytes",
            bytes,
        ));
    }
    if let Some(swappiness) = limits.memory_swappiness {
        list.push(memory(
            "memory_swappiness",
            "memory.swappiness",
            swappiness as i64,
        ));
    }
    if let Some(disable) = limits.oom_kill_disable {
        list.push(
            memory("oom_kill_disable", "memory.oom_control", i64::from(disable))
                .previous(Previous::Flat("oom_kill_disable")),
        );
    }
    Ok(())
}

fn unsupported_on_unified(wanted: &str, reason: &str, remedy: &str) -> Error {
    Error::Unsupported {
        wanted: wanted.into(),
        reason: reason.into(),
        remedy: Some(remedy.into()),
    }
}

fn max_or(bytes: i64) -> String {
    if bytes < 0 {
        "max".into()
    } else {
        bytes.to_string()
    }
}

fn memory_unified(limits: &Limits, files: &dyn Files, list: &mut Vec<Setting>) -> Result<()> {
    if limits.memory_swappiness.is_some() {
        return Err(unsupported_on_unified(
            "memory_swappiness",
            "v2 has no swappiness of a cgroup",
            "leave it away, or forbid swap by setting memory_swap to the memory limit",
        ));
    }
    if limits.memory_kernel_tcp.is_some() {
        return Err(unsupported_on_unified(
            "memory_kernel_tcp",
            "v2 counts TCP buffers as memory",
            "use the memory limit",
        ));
    }
    if limits.oom_kill_disable == Some(true) {
        return Err(unsupported_on_unified(
            "oom_kill_disable",
            "v2 always kills when memory runs out",
            "set memory.high below the limit, which slows down instead",
        ));
    }
    if let Some(bytes) = limits.memory {
        list.push(Setting::new(
            Controller::Memory,
            "memory",
            "memory.max",
            max_or(bytes),
        ));
    }
    if let Some(total) = limits.memory_swap {
        if !files.exists(Controller::Memory, "memory.swap.max") {
            return Err(unsupported_on_unified(
                "memory_swap",
                "this kernel does not account for swap by cgroup",
                NO_SWAP_ACCOUNTING,
            ));
        }
        let swap = if total < 0 {
            "max".to_owned()
        } else {
            (total - memory_in_force(limits, files, total)?).to_string()
        };
        list.push(Setting::new(
            Controller::Memory,
            "memory_swap",
            "memory.swap.max",
            swap,
        ));
    }
    if let Some(bytes) = limits.memory_reservation {
        list.push(Setting::new(
            Controller::Memory,
            "memory_reservation",
            "memory.low",
            max_or(bytes),
        ));
    }
    Ok(())
}

/// The memory limit that a total of memory and swap is about: the new one, else the one in force.
fn memory_in_force(limits: &Limits, files: &dyn Files, total: i64) -> Result<i64> {
    if let Some(memory) = limits.memory {
        return Ok(memory);
    }
    let content = files.read(Controller::Memory, "memory.max")?;
    // "max" does not parse, and check_swap refuses a total without a limit.
    let memory = content.trim().parse().unwrap_or(-1);
    check_swap(memory, total).map(|()| memory)
}

fn cpu_legacy(limits: &Limits, list: &mut Vec<Setting>) {
    let mut push = |limit, file: &str, value: Option<i64>| {
        list.extend(value.map(|value| Setting::new(Controller::Cpu, limit, file, value)));
    };
    // An idle cgroup has no shares (the kernel answers EINVAL).
    let shares = limits.cpu_shares.filter(|_| limits.cpu_idle != Some(true));
    push(
        "cpu_shares",
        "cpu.shares",
        shares.map(|shares| shares.min(262_144) as i64),
    );
    push(
        "cpu_period",
        "cpu.cfs_period_us",
        limits.cpu_period.map(|period| period as i64),
    );
    push(
        "cpu_quota",
        "cpu.cfs_quota_us",
        limits.cpu_quota.map(|quota| quota.max(-1)),
    );
    push(
        "cpu_burst",
        "cpu.cfs_burst_us",
        limits
            .cpu_burst
            .map(|burst| i64::try_from(burst).unwrap_or(i64::MAX)),
    );
    push("cpu_idle", "cpu.idle", limits.cpu_idle.map(i64::from));
    push(
        "cpu_realtime_period",
        "cpu.rt_period_us",
        limits
            .cpu_realtime_period
            .map(|p| i64::try_from(p).unwrap_or(i64::MAX)),
    );
    push(
        "cpu_realtime_runtime",
        "cpu.rt_runtime_us",
        limits.cpu_realtime_runtime,
    );
}

fn cpu_unified(limits: &Limits, files: &dyn Files, list: &mut Vec<Setting>) -> Result<()> {
    if limits.cpu_realtime_runtime.is_some() || limits.cpu_realtime_period.is_some() {
        return Err(unsupported_on_unified(
            "cpu_realtime_runtime",
            "v2 does not control real-time processes",
            "leave it away",
        ));
    }
    if let Some(idle) = limits.cpu_idle {
        list.push(Setting::new(
            Controller::Cpu,
            "cpu_idle",
            "cpu.idle",
            i64::from(idle),
        ));
    }
    // An idle cgroup has no weight (the kernel answers EINVAL).
    if let Some(shares) = limits.cpu_shares.filter(|_| limits.cpu_idle != Some(true)) {
        list.push(Setting::new(
            Controller::Cpu,
            "cpu_shares",
            "cpu.weight",
            weight_of_shares(shares),
        ));
    }
    if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
        let quota = match limits.cpu_quota {
            Some(quota) => max_or(quota),
            None => {
                let content = files.read(Controller::Cpu, "cpu.max")?;
                content
                    .split_ascii_whitespace()
                    .next()
                    .unwrap_or("max")
                    .to_owned()
            }
        };
        // A quota alone leaves the period as it is.
        let value = match limits.cpu_period {
            Some(period) => format!("{quota} {period}"),
            None => quota,
        };
        list.push(Setting::new(Controller::Cpu, "cpu_quota", "cpu.max", value));
    }
    if let Some(burst) = limits.cpu_burst {
        list.push(Setting::new(
            Controller::Cpu,
            "cpu_burst",
            "cpu.max.burst",
            burst,
        ));
    }
    Ok(())
}

const NO_IO_WEIGHT: &str = "the weight needs the BFQ scheduler (CONFIG_BFQ_GROUP_IOSCHED) or, on v2, iocost; limit bytes or operations per second instead";

fn block_io(
    limits: &Limits,
    version: Version,
    files: &dyn Files,
    list: &mut Vec<Setting>,
) -> Result<()> {
    let io = Controller::BlockIo;
    if limits.blkio_weight.is_some() || !limits.blkio_weight_device.is_empty() {
        let candidates: &[&str] = match version {
            Version::Legacy => &["blkio.bfq.weight", "blkio.weight"],
            Version::Unified => &["io.bfq.weight", "io.weight"],
        };
        let Some(file) = candidates.iter().find(|file| files.exists(io, file)) else {
            return Err(unsupported_on_unified(
                "blkio_weight",
                "no scheduler of this kernel weighs block I/O",
                NO_IO_WEIGHT,
            ));
        };
        // BFQ goes from 1 to 1,000 in both versions, iocost from 1 to 10,000.
        let convert = |weight: u16| {
            if *file == "io.weight" {
                io_weight_of_blkio_weight(weight)
            } else {
                u64::from(weight)
            }
        };
        if let Some(weight) = limits.blkio_weight {
            list.push(
                Setting::new(io, "blkio_weight", *file, convert(weight)).previous(match version {
                    Version::Legacy => Previous::Whole,
                    Version::Unified => Previous::FirstLine,
                }),
            );
        }
        let device_file = match version {
            Version::Legacy => format!("{file}_device"),
            Version::Unified => (*file).to_owned(),
        };
        for device in &limits.blkio_weight_device {
            let key = format!("{}:{}", device.major, device.minor);
            let weight = if device.weight == 0 {
                "default".to_owned()
            } else {
                convert(device.weight).to_string()
            };
            list.push(
                Setting::new(
                    io,
                    "blkio_weight_device",
                    device_file.clone(),
                    format!("{key} {weight}"),
                )
                .previous(Previous::Keyed(key, "default")),
            );
        }
    }
    let rates: [(&'static str, &[DeviceRate], &str, &str); 4] = [
        (
            "blkio_read_bps",
            &limits.blkio_read_bps,
            "blkio.throttle.read_bps_device",
            "rbps",
        ),
        (
            "blkio_write_bps",
            &limits.blkio_write_bps,
            "blkio.throttle.write_bps_device",
            "wbps",
        ),
        (
            "blkio_read_iops",
            &limits.blkio_read_iops,
            "blkio.throttle.read_iops_device",
            "riops",
        ),
        (
            "blkio_write_iops",
            &limits.blkio_write_iops,
            "blkio.throttle.write_iops_device",
            "wiops",
        ),
    ];
    for (limit, devices, legacy_file, unified_key) in rates {
        for DeviceRate { major, minor, rate } in devices {
            let key = format!("{major}:{minor}");
            list.push(match version {
                Version::Legacy => Setting::new(io, limit, legacy_file, format!("{key} {rate}"))
                    .previous(Previous::Keyed(key, "0")),
                Version::Unified => {
                    let rate = if *rate == 0 {
                        "max".to_owned()
                    } else {
                        rate.to_string()
                    };
                    Setting::new(io, limit, "io.max", format!("{key} {unified_key}={rate}"))
                        .previous(Previous::Keyed(
                            key,
                            "rbps=max wbps=max riops=max wiops=max",
                        ))
                }
            });
        }
    }
    Ok(())
}

fn hugepages(
    limits: &Limits,
    version: Version,
    files: &dyn Files,
    list: &mut Vec<Setting>,
) -> Result<()> {
    for hugepages in &limits.hugepages {
        let (suffix, value) = match version {
            Version::Legacy => ("limit_in_bytes", hugepages.limit.to_string()),
            Version::Unified => ("max", max_or(hugepages.limit)),
        };
        let size = &hugepages.page_size;
        let file = format!("hugetlb.{size}.{suffix}");
        if !files.exists(Controller::HugeTlb, &file) {
            return Err(Error::Unsupported {
                wanted: format!("hugepages of {size}"),
                reason: "this kernel has no huge pages of that size".into(),
                remedy: Some("see /sys/kernel/mm/hugepages for those that it has".into()),
            });
        }
        list.push(Setting::new(Controller::HugeTlb, "hugepages", file, &value));
        // Reservations are counted apart since 5.7; a limit of pages alone would kill with SIGBUS instead of refusing.
        let reserved = format!("hugetlb.{size}.rsvd.{suffix}");
        if files.exists(Controller::HugeTlb, &reserved) {
            list.push(Setting::new(
                Controller::HugeTlb,
                "hugepages",
                reserved,
                &value,
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
