//! What a cgroup uses, and the parsers of the files that say so.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What a cgroup uses, at one moment. `None` where no controller accounts for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Memory.
    pub memory: Option<MemoryUsage>,
    /// CPU time.
    pub cpu: Option<CpuUsage>,
    /// Tasks.
    pub pids: Option<PidsUsage>,
    /// Block I/O, one entry a device that was used.
    pub io: Option<Vec<DeviceIo>>,
}

/// Memory of a cgroup and everything below it; bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUsage {
    /// In use, page cache included.
    pub usage: u64,
    /// The limit; `None` is unlimited.
    pub limit: Option<u64>,
    /// The most that was ever in use; `None` where the kernel does not keep it (v2 before 5.19).
    pub peak: Option<u64>,
    /// Swap in use; `None` where the kernel does not account for it.
    pub swap: Option<u64>,
    /// Anonymous memory.
    pub anon: u64,
    /// Page cache, tmpfs and shared memory included.
    pub file: u64,
    /// Page cache that was not used for a while; Docker's `stats` shows `usage - inactive_file`.
    pub inactive_file: u64,
    /// Page cache in use.
    pub active_file: u64,
    /// Processes killed because the limit was reached.
    pub oom_kills: u64,
    /// How often the limit was hit (v1 `failcnt`, v2 `memory.events` max). Recent kernels (6.18) leave v1's count of
    /// hits of the total with swap at 0.
    pub limit_hits: u64,
}

/// CPU time of a cgroup and everything below it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuUsage {
    /// Total, nanoseconds.
    pub total_ns: u64,
    /// In user space, nanoseconds.
    pub user_ns: u64,
    /// In the kernel, nanoseconds.
    pub system_ns: u64,
    /// Periods of the quota that passed with something to run.
    pub periods: u64,
    /// Periods in which the quota was used up.
    pub throttled_periods: u64,
    /// How long tasks waited for the next period, nanoseconds (summed over CPUs).
    pub throttled_ns: u64,
}

/// Tasks of a cgroup and everything below it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidsUsage {
    /// Processes and threads.
    pub current: u64,
    /// The limit; `None` is unlimited.
    pub limit: Option<u64>,
}

/// I/O on one block device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceIo {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Read operations.
    pub read_ops: u64,
    /// Write operations.
    pub write_ops: u64,
}

/// A number, or `max` as `None`.
pub(crate) fn parse_max(file: &Path, content: &str) -> Result<Option<u64>> {
    match content.trim() {
        "max" => Ok(None),
        number => parse_number(file, number).map(Some),
    }
}

/// One number.
pub(crate) fn parse_number(file: &Path, content: &str) -> Result<u64> {
    content.trim().parse().map_err(|_| Error::Parse {
        file: file.to_owned(),
        content: content.trim().to_owned(),
    })
}

/// v1 has no word for "unlimited": it is the largest page-aligned signed number, which depends on the page size.
pub(crate) fn legacy_limit(bytes: u64) -> Option<u64> {
    (bytes < (i64::MAX as u64) - (1 << 24)).then_some(bytes)
}

/// The value of `key` in a file of lines "key value"; `None` if the line is not there.
pub(crate) fn flat_key(content: &str, key: &str) -> Option<u64> {
    content.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok())?
    })
}

/// `io.stat` of v2: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6" a line.
pub(crate) fn parse_io_stat(file: &Path, content: &str) -> Result<Vec<DeviceIo>> {
    let mut devices = Vec::new();
    for line in content.lines() {
        let unknown = || Error::Parse {
            file: file.to_owned(),
            content: line.to_owned(),
        };
        let mut words = line.split_ascii_whitespace();
        let Some(device) = words.next() else { continue };
        let (major, minor) = parse_device(device).ok_or_else(unknown)?;
        let mut io = DeviceIo {
            major,
            minor,
            ..DeviceIo::default()
        };
        for word in words {
            let Some((key, value)) = word.split_once('=') else {
                continue;
            };
            let field = match key {
                "rbytes" => &mut io.read_bytes,
                "wbytes" => &mut io.write_bytes,
                "rios" => &mut io.read_ops,
                "wios" => &mut io.write_ops,
                _ => continue,
            };
            *field = value.parse().map_err(|_| unknown())?;
        }
        devices.push(io);
    }
    Ok(devices)
}

/// `blkio.throttle.io_service_bytes_recursive` and its twin `io_serviced`: "8:0 Read 512" a line, "Total" among them.
pub(crate) fn parse_blkio(file: &Path, bytes: &str, operations: &str) -> Result<Vec<DeviceIo>> {
    let mut devices: Vec<DeviceIo> = Vec::new();
    for (content, is_bytes) in [(bytes, true), (operations, false)] {
        for line in content.lines() {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [device, kind, value] = words[..] else {
                continue;
            };
            let unknown = || Error::Parse {
                file: file.to_owned(),
                content: line.to_owned(),
            };
            let (major, minor) = parse_device(device).ok_or_else(unknown)?;
            let value: u64 = value.parse().map_err(|_| unknown())?;
            let index = devices
                .iter()
                .position(|io| (io.major, io.minor) == (major, minor))
                .unwrap_or_else(|| {
                    devices.push(DeviceIo {
                        major,
                        minor,
                        ..DeviceIo::default()
                    });
                    devices.len() - 1
                });
            let io = &mut devices[index];
            match (kind, is_bytes) {
                ("Read", true) => io.read_bytes = value,
                ("Write", true) => io.write_bytes = value,
                ("Read", false) => io.read_ops = value,
                ("Write", false) => io.write_ops = value,
                _ => {}
            }
        }
    }
    Ok(devices)
}

fn parse_device(device: &str) -> Option<(u32, u32)> {
    let (major, minor) = device.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_stat_of_v2_is_read_by_key() {
        let content =
            "8:0 rbytes=4096 wbytes=1 rios=2 wios=3 dbytes=9 dios=9 cost.usage=7\n253:1 \n";
        let devices = parse_io_stat(Path::new("io.stat"), content).unwrap();
        assert_eq!(
            devices,
            [
                DeviceIo {
                    major: 8,
                    minor: 0,
                    read_bytes: 4096,
                    write_bytes: 1,
                    read_ops: 2,
                    write_ops: 3
                },
                DeviceIo {
                    major: 253,
                    minor: 1,
                    ..DeviceIo::default()
                },
            ]
        );
        assert!(parse_io_stat(Path::new("io.stat"), "disk rbytes=1").is_err());
        assert!(parse_io_stat(Path::new("io.stat"), "8:0 rbytes=x").is_err());
    }

    #[test]
    fn blkio_of_v1_is_joined_by_device() {
        let bytes =
            "8:0 Read 10\n8:0 Write 20\n8:0 Sync 30\n8:0 Total 30\n254:0 Read 5\nTotal 35\n";
        let operations = "8:0 Read 1\n8:0 Write 2\nTotal 3\n";
        let devices = parse_blkio(Path::new("x"), bytes, operations).unwrap();
        assert_eq!(
            devices,
            [
                DeviceIo {
                    major: 8,
                    minor: 0,
                    read_bytes: 10,
                    write_bytes: 20,
                    read_ops: 1,
                    write_ops: 2
                },
                DeviceIo {
                    major: 254,
                    minor: 0,
                    read_bytes: 5,
                    ..DeviceIo::default()
                },
            ]
        );
        assert_eq!(
            parse_blkio(Path::new("x"), "Total 0\n", "Total 0\n").unwrap(),
            []
        );
    }

    #[test]
    fn unlimited_is_recognised_for_every_page_size() {
        for page in [4096u64, 16384, 65536] {
            assert_eq!(legacy_limit(i64::MAX as u64 / page * page), None);
        }
        assert_eq!(legacy_limit(1 << 40), Some(1 << 40));
        assert_eq!(parse_max(Path::new("x"), "max\n").unwrap(), None);
        assert_eq!(parse_max(Path::new("x"), "12\n").unwrap(), Some(12));
        assert!(parse_max(Path::new("x"), "-").is_err());
    }

    #[test]
    fn keys_match_whole_words_only() {
        assert_eq!(
            flat_key("oom 1\noom_kill 3\noom_kill_disable 0\n", "oom_kill"),
            Some(3)
        );
        assert_eq!(flat_key("anon_thp 4\n", "anon"), None);
    }
}
