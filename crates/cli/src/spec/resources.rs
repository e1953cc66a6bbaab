//! Limits: the options that `run`, `create` and `update` share.

use std::path::PathBuf;

use coracle_engine::request::Resources;

use crate::error::Error;
use crate::units;

/// Limits as typed.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct ResourceArguments {
    /// Memory
    #[arg(short = 'm', long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Memory that is left when memory is short on the host
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_reservation: Option<String>,
    /// Memory and swap together; -1: unlimited swap
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory_swap: Option<String>,
    /// Inclination to swap, 0 to 100
    #[arg(long, value_name = "NUMBER")]
    pub(crate) memory_swappiness: Option<String>,
    /// Do not kill when memory runs out (cgroup v1)
    #[arg(long)]
    pub(crate) oom_kill_disable: bool,
    /// Inclination to be killed when the host's memory runs out, -1000 to 1000
    #[arg(long, value_name = "NUMBER")]
    pub(crate) oom_score_adj: Option<String>,
    /// Number of CPUs, as 0.5
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpus: Option<String>,
    /// Microseconds of CPU time in each period
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_quota: Option<String>,
    /// Length of a period
    #[arg(long, value_name = "MICROSECONDS")]
    pub(crate) cpu_period: Option<String>,
    /// Weight against other containers (default: 1024)
    #[arg(short = 'c', long, value_name = "NUMBER")]
    pub(crate) cpu_shares: Option<String>,
    /// CPUs that it may use, as 0-3,5
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes that it may use
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Number of processes and threads; -1: unlimited
    #[arg(long, value_name = "NUMBER")]
    pub(crate) pids_limit: Option<String>,
    /// Weight of block I/O against other containers, 10 to 1000
    #[arg(long, value_name = "NUMBER")]
    pub(crate) blkio_weight: Option<String>,
    /// Bytes a second read from a device
    #[arg(long, value_name = "DEVICE:SIZE")]
    pub(crate) device_read_bps: Vec<String>,
    /// Bytes a second written to a device
    #[arg(long, value_name = "DEVICE:SIZE")]
    pub(crate) device_write_bps: Vec<String>,
    /// Reads a second from a device
    #[arg(long, value_name = "DEVICE:NUMBER")]
    pub(crate) device_read_iops: Vec<String>,
    /// Writes a second to a device
    #[arg(long, value_name = "DEVICE:NUMBER")]
    pub(crate) device_write_iops: Vec<String>,
    /// Parent cgroup, below the engine's
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<String>,
}

impl ResourceArguments {
    /// The request's part.
    pub(crate) fn resolve(self) -> Result<Resources, Error> {
        let mut resources = Resources {
            memory: optional("--memory", self.memory, units::parse_bytes)?,
            memory_reservation: optional(
                "--memory-reservation",
                self.memory_reservation,
                units::parse_bytes,
            )?,
            memory_swap: optional(
                "--memory-swap",
                self.memory_swap,
                units::parse_bytes_or_unlimited,
            )?,
            memory_swappiness: optional("--memory-swappiness", self.memory_swappiness, |text| {
                between(text, 0, 100)
            })?,
            oom_kill_disable: self.oom_kill_disable,
            oom_score_adj: optional("--oom-score-adj", self.oom_score_adj, |text| {
                between(text, -1000, 1000)
            })?,
            cpu_quota: optional("--cpu-quota", self.cpu_quota, |text| {
                between(text, -1, i64::MAX)
            })?,
            cpu_period: optional("--cpu-period", self.cpu_period, |text| {
                between(text, 1_000, 1_000_000)
            })?,
            cpu_shares: optional("--cpu-shares", self.cpu_shares, |text| {
                between(text, 0, 262_144)
            })?,
            cpuset_cpus: optional("--cpuset-cpus", self.cpuset_cpus, list)?,
            cpuset_mems: optional("--cpuset-mems", self.cpuset_mems, list)?,
            pids: optional("--pids-limit", self.pids_limit, |text| {
                between(text, -1, i64::MAX)
            })?,
            blkio_weight: optional("--blkio-weight", self.blkio_weight, |text| {
                between(text, 10, 1000)
            })?,
            device_read_bps: rates(
                "--device-read-bps",
                &self.device_read_bps,
                units::parse_bytes,
            )?,
            device_write_bps: rates(
                "--device-write-bps",
                &self.device_write_bps,
                units::parse_bytes,
            )?,
            device_read_iops: rates("--device-read-iops", &self.device_read_iops, |text| {
                between(text, 1, i64::MAX)
            })?,
            device_write_iops: rates("--device-write-iops", &self.device_write_iops, |text| {
                between(text, 1, i64::MAX)
            })?,
            cgroup_parent: self.cgroup_parent,
        };
        if let Some(text) = self.cpus {
            if resources.cpu_quota.is_some() || resources.cpu_period.is_some() {
                return Err(Error::usage(
                    "--cpus and --cpu-quota or --cpu-period contradict each other",
                    "give one of the two forms",
                ));
            }
            resources.cpu_quota = Some(units::parse_cpus(&text).map_err(Error::value("--cpus"))?);
            resources.cpu_period = Some(100_000);
        }
        Ok(resources)
    }
}

fn optional<T>(
    option: &str,
    text: Option<String>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Error> {
    text.as_deref()
        .map(parse)
        .transpose()
        .map_err(Error::value(option))
}

/// A whole number in a range.
fn between<T: TryFrom<i64>>(text: &str, least: i64, most: i64) -> Result<T, String> {
    let number = text
        .parse::<i64>()
        .ok()
        .filter(|number| (least..=most).contains(number));
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| match most {
            i64::MAX => format!("{text:?} is not a whole number of {least} or more"),
            _ => format!("{text:?} is not a whole number from {least} to {most}"),
        })
}

/// A list of numbers and ranges, as the kernel takes it.
fn list(text: &str) -> Result<String, String> {
    let part = |part: &str| match part.split_once('-') {
        Some((from, to)) => {
            matches!((from.parse::<u32>(), to.parse::<u32>()), (Ok(from), Ok(to)) if from <= to)
        }
        None => part.parse::<u32>().is_ok(),
    };
    if text.split(',').all(part) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a list such as 0-3,5"))
    }
}

fn rates(
    option: &str,
    texts: &[String],
    parse: impl Fn(&str) -> Result<u64, String>,
) -> Result<Vec<(PathBuf, u64)>, Error> {
    let one = |text: &String| {
        let (device, rate) = text
            .rsplit_once(':')
            .ok_or_else(|| format!("{text:?} is not DEVICE:RATE"))?;
        if !device.starts_with('/') {
            return Err(format!("{device:?} is not the absolute path of a device"));
        }
        match parse(rate)? {
            0 => Err(format!("a rate of 0 would stop {device} for good")),
            rate => Ok((PathBuf::from(device), rate)),
        }
    };
    texts
        .iter()
        .map(one)
        .collect::<Result<_, String>>()
        .map_err(Error::value(option))
}
