//! Block I/O and huge page limits as files.

use super::memory::{max_or, unsupported_on_unified};
use super::{Files, Previous, Setting, Version};
use crate::controller::Controller;
use crate::error::{Error, Result};
use crate::limits::{DeviceRate, Limits, io_weight_of_blkio_weight};

const NO_IO_WEIGHT: &str = "the weight needs the BFQ scheduler (CONFIG_BFQ_GROUP_IOSCHED) or, on v2, iocost; limit bytes or operations per second instead";

pub(super) fn block_io(
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

pub(super) fn hugepages(
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
