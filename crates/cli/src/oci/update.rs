//! `update`.

use std::io::Read as _;

use coracle_engine::oci::runtime::LinuxResources;
use serde_json::{Map, Value, json};

use super::{Runtime, Verb};
use crate::error::Error;
use crate::units;

/// What may be typed.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Update {
    /// A file with linux.resources of the specification; - is standard input. Other options are not looked at then
    #[arg(short, long, value_name = "FILE")]
    resources: Option<String>,
    /// Relative weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Period of the CPU quota, microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// CPU time in a period, microseconds; -1 is no limit
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// CPU time saved up for a burst, microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_burst: Option<u64>,
    /// Relative share of CPU time
    #[arg(long, visible_alias = "cpu-shares", value_name = "SHARES")]
    cpu_share: Option<u64>,
    /// Period of the real-time limit, microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<u64>,
    /// Real-time CPU time in a period, microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    /// Only run when nobody else wants to: 1, or 0
    #[arg(long, value_name = "0|1")]
    cpu_idle: Option<i64>,
    /// CPUs, as 0-3,8
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Memory, as 512m; -1 is no limit
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<String>,
    /// Memory that is left alone under pressure
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_reservation: Option<String>,
    /// Memory and swap together; -1 is no limit
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Memory of TCP buffers (cgroup v1)
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    kernel_memory_tcp: Option<String>,
    /// Without effect: kernels have no such limit any more
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, hide = true)]
    kernel_memory: Option<String>,
    /// Processes and threads; -1 is no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Refused: Intel RDT
    #[arg(long, value_name = "SCHEMA", hide = true)]
    l3_cache_schema: Option<String>,
    /// Refused: Intel RDT
    #[arg(long, value_name = "SCHEMA", hide = true)]
    mem_bw_schema: Option<String>,
    /// The container's id
    #[arg(value_name = "ID")]
    id: String,
}

impl Verb for Update {
    fn run(self, runtime: &Runtime) -> Result<u8, Error> {
        let resources = match &self.resources {
            Some(source) => read(source)?,
            None => self.document()?,
        };
        runtime.bundles.update(&self.id, &resources)?;
        Ok(0)
    }
}

/// The document of `--resources`.
fn read(source: &str) -> Result<LinuxResources, Error> {
    let text = match source {
        "-" => {
            let mut text = Vec::new();
            let read = std::io::stdin().read_to_end(&mut text);
            read.map_err(Error::file("read", "standard input"))?;
            text
        }
        path => std::fs::read(path).map_err(Error::file("read", path))?,
    };
    serde_json::from_slice(&text).map_err(|error| Error::Value {
        option: "--resources".into(),
        problem: format!("it is not linux.resources of the specification: {error}"),
    })
}

impl Update {
    /// The same document from single options, so that there is one way on from here.
    fn document(&self) -> Result<LinuxResources, Error> {
        if self.l3_cache_schema.is_some() || self.mem_bw_schema.is_some() {
            return Err(Error::usage(
                "Intel RDT is not supported",
                "leave --l3-cache-schema and --mem-bw-schema away",
            ));
        }
        let size = |option: &str, text: &Option<String>| -> Result<Option<i64>, Error> {
            text.as_deref()
                .map(units::parse_bytes_or_unlimited)
                .transpose()
                .map_err(Error::value(option))
        };
        let mut document = Map::new();
        let mut put = |group: &str, member: &str, value: Option<Value>| {
            if let Some(value) = value {
                document.entry(group).or_insert_with(|| json!({}))[member] = value;
            }
        };
        put(
            "memory",
            "limit",
            size("--memory", &self.memory)?.map(Value::from),
        );
        let reservation = size("--memory-reservation", &self.memory_reservation)?;
        put("memory", "reservation", reservation.map(Value::from));
        put(
            "memory",
            "swap",
            size("--memory-swap", &self.memory_swap)?.map(Value::from),
        );
        let tcp = size("--kernel-memory-tcp", &self.kernel_memory_tcp)?;
        put("memory", "kernelTCP", tcp.map(Value::from));
        put("cpu", "period", self.cpu_period.map(Value::from));
        put("cpu", "quota", self.cpu_quota.map(Value::from));
        put("cpu", "burst", self.cpu_burst.map(Value::from));
        put("cpu", "shares", self.cpu_share.map(Value::from));
        put("cpu", "realtimePeriod", self.cpu_rt_period.map(Value::from));
        put(
            "cpu",
            "realtimeRuntime",
            self.cpu_rt_runtime.map(Value::from),
        );
        put("cpu", "idle", self.cpu_idle.map(Value::from));
        put("cpu", "cpus", self.cpuset_cpus.clone().map(Value::from));
        put("cpu", "mems", self.cpuset_mems.clone().map(Value::from));
        put("pids", "limit", self.pids_limit.map(Value::from));
        put("blockIO", "weight", self.blkio_weight.map(Value::from));
        if document.is_empty() && self.kernel_memory.is_none() {
            return Err(Error::usage(
                "no limit is given to be changed",
                "`coracle oci update --help` lists them",
            ));
        }
        serde_json::from_value(Value::Object(document)).map_err(|error| Error::Usage {
            problem: format!("the limits make no sense: {error}"),
            hint: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_options_become_the_document() {
        let update = Update {
            memory: Some("64m".into()),
            memory_swap: Some("-1".into()),
            cpu_quota: Some(50_000),
            pids_limit: Some(7),
            ..Update::default()
        };
        let resources = update.document().expect("sound");
        let memory = resources.memory().expect("there");
        assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), Some(-1)));
        assert_eq!(
            resources.cpu().as_ref().and_then(|cpu| cpu.quota()),
            Some(50_000)
        );
        assert_eq!(resources.pids().map(|pids| pids.limit()), Some(7));
        assert!(Update::default().document().is_err());
    }
}
