//! From the request's limits to those of the cgroup: units are the same, devices are named by number there.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use coracle_cgroup::{DeviceRate, Limits};

use crate::error::{Error, Result};
use crate::request::Resources;

/// The default of `--pids-limit`, as Podman's: enough for any sane container, too few for a fork bomb.
pub(crate) const PIDS: i64 = 2_048;

/// The limits of the cgroup. `creating` adds the defaults of a new container.
pub(crate) fn limits(resources: &Resources, creating: bool) -> Result<Limits> {
    let bytes = |value: Option<u64>| value.map(|value| i64::try_from(value).unwrap_or(i64::MAX));
    let pids = match resources.pids {
        Some(pids) if pids <= 0 => Some(-1),
        Some(pids) => Some(pids),
        None if creating => Some(PIDS),
        None => None,
    };
    Ok(Limits {
        memory: bytes(resources.memory),
        memory_reservation: bytes(resources.memory_reservation),
        // Docker's rule: a memory limit alone allows as much swap again.
        memory_swap: match (resources.memory_swap, resources.memory) {
            (Some(swap), _) if swap != 0 => Some(swap),
            (_, Some(memory)) if creating => {
                Some(i64::try_from(memory.saturating_mul(2)).unwrap_or(i64::MAX))
            }
            _ => None,
        },
        memory_swappiness: resources.memory_swappiness,
        oom_kill_disable: resources.oom_kill_disable.then_some(true),
        cpu_quota: resources.cpu_quota,
        cpu_period: resources.cpu_period,
        cpu_shares: resources.cpu_shares,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        pids,
        blkio_weight: resources.blkio_weight,
        blkio_read_bps: rates(&resources.device_read_bps)?,
        blkio_write_bps: rates(&resources.device_write_bps)?,
        blkio_read_iops: rates(&resources.device_read_iops)?,
        blkio_write_iops: rates(&resources.device_write_iops)?,
        ..Limits::default()
    })
}

fn rates(devices: &[(PathBuf, u64)]) -> Result<Vec<DeviceRate>> {
    let rate = |(path, rate): &(PathBuf, u64)| {
        let (major, minor) = block_device(path)?;
        Ok(DeviceRate {
            major,
            minor,
            rate: *rate,
        })
    };
    devices.iter().map(rate).collect()
}

fn block_device(path: &Path) -> Result<(u32, u32)> {
    let metadata = std::fs::metadata(path)
        .map_err(|source| Error::file("looking at the device", path, source))?;
    if !metadata.file_type().is_block_device() {
        return Err(Error::refused_with(
            format!("{} is not a block device", path.display()),
            "I/O limits are set for a whole disk, as /dev/sda",
        ));
    }
    Ok((
        rustix::fs::major(metadata.rdev()),
        rustix::fs::minor(metadata.rdev()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_limit_alone_allows_as_much_swap_again() {
        let asked = Resources {
            memory: Some(1 << 20),
            ..Resources::default()
        };
        assert_eq!(limits(&asked, true).unwrap().memory_swap, Some(2 << 20));
        assert_eq!(limits(&asked, false).unwrap().memory_swap, None);
        let both = Resources {
            memory_swap: Some(1 << 20),
            ..asked
        };
        assert_eq!(limits(&both, true).unwrap().memory_swap, Some(1 << 20));
    }

    #[test]
    fn the_number_of_tasks_is_limited_unless_asked_otherwise() {
        assert_eq!(
            limits(&Resources::default(), true).unwrap().pids,
            Some(PIDS)
        );
        let unlimited = Resources {
            pids: Some(0),
            ..Resources::default()
        };
        assert_eq!(limits(&unlimited, true).unwrap().pids, Some(-1));
    }

    #[test]
    fn an_io_limit_on_what_is_no_disk_is_refused() {
        let asked = Resources {
            device_read_bps: vec![("/dev/null".into(), 1)],
            ..Resources::default()
        };
        assert!(matches!(limits(&asked, true), Err(Error::Refused { .. })));
    }
}
