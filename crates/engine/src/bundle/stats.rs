//! What a container uses, in the shape of runc's `events --stats`.

use coracle_cgroup::{DeviceIo, Usage};
use serde_json::{Value, json};

use super::Bundles;
use crate::error::Result;

impl Bundles {
    /// The usage of a container now, as an event.
    ///
    /// # Errors
    /// When it has no cgroup, or there is no container of this id.
    pub fn stats(&self, id: &str) -> Result<Value> {
        let (_, record) = self.existing(id)?;
        let usage = self.needed_cgroup(&record, "measure")?.usage()?;
        Ok(json!({ "type": "stats", "id": id, "data": stats(&usage) }))
    }

    /// A descriptor that becomes readable when the container may have run out of memory, and how often that killed so far.
    ///
    /// # Errors
    /// As [`Bundles::stats`].
    pub fn oom_watch(&self, id: &str) -> Result<(Option<std::os::fd::OwnedFd>, u64)> {
        let (_, record) = self.existing(id)?;
        let cgroup = self.needed_cgroup(&record, "watch")?;
        Ok((cgroup.oom_event()?, cgroup.oom_kills()?))
    }

    /// How many processes were killed because memory ran out; `None` when the container has ended.
    ///
    /// # Errors
    /// When the count cannot be read.
    pub fn oom_kills(&self, id: &str) -> Result<Option<u64>> {
        let (_, record) = self.existing(id)?;
        let kills = match self.cgroup_of(&record)? {
            Some(cgroup) => cgroup.oom_kills()?,
            None => return Ok(None),
        };
        Ok(record.process()?.map(|_| kills))
    }
}

/// The data of a stats event.
#[must_use]
pub fn stats(usage: &Usage) -> Value {
    let mut data = json!({});
    if let Some(cpu) = &usage.cpu {
        data["cpu"] = json!({
            "usage": { "total": cpu.total_ns, "kernel": cpu.system_ns, "user": cpu.user_ns },
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled_ns,
            },
        });
    }
    if let Some(memory) = &usage.memory {
        let entry = |usage: u64, limit: Option<u64>, max: Option<u64>| {
            json!({
                "limit": limit.unwrap_or(u64::MAX),
                "usage": usage,
                "max": max.unwrap_or(0),
                "failcnt": memory.limit_hits,
            })
        };
        data["memory"] = json!({
            "cache": memory.file,
            "usage": entry(memory.usage, memory.limit, memory.peak),
            "raw": {
                "anon": memory.anon,
                "file": memory.file,
                "inactive_file": memory.inactive_file,
                "active_file": memory.active_file,
                "oom_kill": memory.oom_kills,
            },
        });
        if let Some(swap) = memory.swap {
            data["memory"]["swap"] = json!({ "usage": swap });
        }
    }
    if let Some(pids) = &usage.pids {
        data["pids"] = json!({ "current": pids.current, "limit": pids.limit.unwrap_or(0) });
    }
    if let Some(io) = &usage.io {
        let entries = |read: fn(&DeviceIo) -> u64, write: fn(&DeviceIo) -> u64| -> Vec<Value> {
            io.iter()
                .flat_map(|device| {
                    [("Read", read(device)), ("Write", write(device))].map(|(op, value)| {
                        json!({ "major": device.major, "minor": device.minor, "op": op, "value": value })
                    })
                })
                .collect()
        };
        data["blkio"] = json!({
            "ioServiceBytesRecursive": entries(|io| io.read_bytes, |io| io.write_bytes),
            "ioServicedRecursive": entries(|io| io.read_ops, |io| io.write_ops),
        });
    }
    data
}
