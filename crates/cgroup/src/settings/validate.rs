//! Values that make no sense anywhere, found before any file is written.

use crate::controller::Controller;
use crate::error::{Error, Result};
use crate::limits::Limits;

pub(super) fn invalid(
    limit: &'static str,
    value: impl ToString,
    reason: impl Into<String>,
) -> Error {
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

pub(super) fn check_swap(memory: i64, total: i64) -> Result<()> {
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
pub(super) fn check_list(limit: &'static str, list: &str) -> Result<()> {
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
