//! `system df` and `info`.

use serde_json::{Value, json};

use super::stats::host_memory;
use crate::Engine;
use crate::answer::{DiskUse, Status};
use crate::error::Result;
use crate::root::disk_use;

impl Engine {
    /// What images, containers and volumes take on the disk.
    ///
    /// # Errors
    /// What reading the state says.
    pub fn disk_use(&self) -> Result<Vec<DiskUse>> {
        let records = self.records()?;
        let (mut size, mut idle, mut active) = (0, 0, 0);
        for record in &records {
            let bytes = disk_use(&self.paths.container(&record.id))?;
            size += bytes;
            match self.observe(record)?.run {
                Some(_) => active += 1,
                None => idle += bytes,
            }
        }
        let containers = DiskUse {
            kind: "Containers".into(),
            total: records.len() as u64,
            active,
            size,
            reclaimable: idle,
        };
        let summaries = self.images()?.list(&coracle_image::ListFilter::default())?;
        let used = |id: &coracle_image::ImageId| {
            records.iter().any(|record| {
                record
                    .image
                    .as_ref()
                    .is_some_and(|image| image.id == *id.digest())
            })
        };
        let store = self.images()?.store();
        let mut layers = 0;
        let mut layers_used = 0;
        for digest in store.layers()? {
            let bytes = store.layer(&digest)?.map_or(0, |layer| layer.disk_size);
            layers += bytes;
            let in_use = records.iter().any(|record| {
                record
                    .image
                    .as_ref()
                    .is_some_and(|image| image.layers.contains(&digest))
            });
            layers_used += if in_use { bytes } else { 0 };
        }
        let images = DiskUse {
            kind: "Images".into(),
            total: summaries.len() as u64,
            active: summaries.iter().filter(|summary| used(&summary.id)).count() as u64,
            size: layers,
            reclaimable: layers - layers_used,
        };
        let (mut volumes_size, mut volumes_idle, mut volumes_active) = (0, 0, 0);
        let volumes = self.volume_list()?;
        for volume in &volumes {
            let bytes = disk_use(std::path::Path::new(&volume.mountpoint))?;
            volumes_size += bytes;
            match records
                .iter()
                .any(|record| record.volumes.iter().any(|used| used.name == volume.name))
            {
                true => volumes_active += 1,
                false => volumes_idle += bytes,
            }
        }
        let volumes = DiskUse {
            kind: "Local Volumes".into(),
            total: volumes.len() as u64,
            active: volumes_active,
            size: volumes_size,
            reclaimable: volumes_idle,
        };
        Ok(vec![images, containers, volumes])
    }

    /// What the host offers and what the engine made of it, in the shape of Docker's `info`.
    ///
    /// # Errors
    /// What reading the state says.
    pub fn info(&self) -> Result<Value> {
        let (mut running, mut paused, mut stopped) = (0, 0, 0);
        let records = self.records()?;
        for record in &records {
            match self.observe(record)?.status {
                Status::Running | Status::Restarting => running += 1,
                Status::Paused => paused += 1,
                _ => stopped += 1,
            }
        }
        let system = rustix::system::uname();
        let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
        let store = self.images()?.store();
        Ok(json!({
            "ID": text(system.nodename()),
            "Name": text(system.nodename()),
            "Containers": records.len(),
            "ContainersRunning": running,
            "ContainersPaused": paused,
            "ContainersStopped": stopped,
            "Images": self.images()?.list(&coracle_image::ListFilter::default())?.len(),
            "Driver": format!("{:?}", store.driver()).to_lowercase(),
            "DriverReason": store.driver_reason(),
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": version(&self.cgroups()?.layout()),
            "KernelVersion": text(system.release()),
            "OSType": "linux",
            "Architecture": text(system.machine()),
            "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
            "MemTotal": host_memory()?,
            "Rootless": self.config.rootless,
            "DockerRootDir": self.paths.root,
            "RunRoot": self.paths.run,
            "ServerVersion": env!("CARGO_PKG_VERSION"),
            "SecurityOptions": ["name=seccomp,profile=builtin", "name=userns"],
        }))
    }
}

/// As Docker's `info` says it; where there is none, why.
fn version(layout: &coracle_cgroup::Layout) -> String {
    match layout {
        coracle_cgroup::Layout::V2 => "2".into(),
        coracle_cgroup::Layout::V1 => "1".into(),
        coracle_cgroup::Layout::Hybrid => "1 (hybrid)".into(),
        coracle_cgroup::Layout::Unavailable { reason, .. } => format!("none: {reason}"),
    }
}
