//! CPU limits as files.

use super::memory::{max_or, unsupported_on_unified};
use super::{Files, Setting};
use crate::controller::Controller;
use crate::error::Result;
use crate::limits::{Limits, weight_of_shares};

pub(super) fn cpu_legacy(limits: &Limits, list: &mut Vec<Setting>) {
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

pub(super) fn cpu_unified(
    limits: &Limits,
    files: &dyn Files,
    list: &mut Vec<Setting>,
) -> Result<()> {
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
