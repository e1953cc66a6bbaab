//! `stats`: what a container uses now, from its cgroup and its network namespace.

use coracle_oci::ContainerId;

use super::stop::running;
use crate::Engine;
use crate::answer::Stats;
use crate::error::{Error, Result};

impl Engine {
    /// One reading. Rates are the caller's to make of two.
    ///
    /// # Errors
    /// [`Error::WrongState`] when it does not run.
    pub fn stats(&self, id: &ContainerId) -> Result<Stats> {
        let record = self.existing(id)?;
        let observed = self.observe(&record)?;
        let run = running(&record, &observed, "read the use of")?;
        let usage = self.cgroup_of(run)?.usage()?;
        let (net_rx, net_tx) = network(run.pid)?;
        let host = host_memory()?;
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let quota = match (
            record.spec.resources.cpu_quota,
            record.spec.resources.cpu_period,
        ) {
            (Some(quota), period) if quota > 0 => {
                Some(quota as f64 / period.unwrap_or(100_000) as f64)
            }
            _ => None,
        };
        let cpus = std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
        Ok(Stats {
            cpu_nanos: usage.cpu.as_ref().map_or(0, |cpu| cpu.total_ns),
            read_at: time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs(),
            cpus: quota.unwrap_or(cpus).min(cpus),
            memory: usage.memory.as_ref().map_or(0, |memory| {
                memory.usage.saturating_sub(memory.inactive_file)
            }),
            memory_limit: usage
                .memory
                .as_ref()
                .and_then(|memory| memory.limit)
                .filter(|limit| *limit < host)
                .unwrap_or(host),
            block_read: usage
                .io
                .iter()
                .flatten()
                .map(|device| device.read_bytes)
                .sum(),
            block_write: usage
                .io
                .iter()
                .flatten()
                .map(|device| device.write_bytes)
                .sum(),
            net_rx,
            net_tx,
            pids: usage.pids.as_ref().map_or(0, |pids| pids.current),
        })
    }
}

/// Bytes received and sent by every interface but the loopback in the namespace of this process.
fn network(pid: i32) -> Result<(u64, u64)> {
    let path = std::path::Path::new("/proc")
        .join(pid.to_string())
        .join("net/dev");
    let text =
        std::fs::read_to_string(&path).map_err(|source| Error::file("reading", &path, source))?;
    Ok(interfaces(&text))
}

fn interfaces(text: &str) -> (u64, u64) {
    let line = |line: &str| -> Option<(u64, u64)> {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers
            .split_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect();
        (name.trim() != "lo").then_some((*numbers.first()?, *numbers.get(8)?))
    };
    text.lines()
        .filter_map(line)
        .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

/// The host's memory in bytes.
pub(crate) fn host_memory() -> Result<u64> {
    let path = std::path::Path::new("/proc/meminfo");
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::file("reading", path, source))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = line
        .and_then(|line| line.split_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok());
    Ok(kibibytes.unwrap_or(0) * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_does_not_count() {
        let text = "Inter-|   Receive                     |  Transmit\n face |bytes packets\n    lo: 10 1 0 0 0 0 0 0 10 1 0\n  eth0: 100 1 0 0 0 0 0 0 7 1 0\n";
        assert_eq!(interfaces(text), (100, 7));
    }
}
