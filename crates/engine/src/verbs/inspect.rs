//! `inspect`: one container as a document in Docker's shape, so that templates written for Docker work.

use coracle_monitor::health::HealthUpdate;
use coracle_oci::ContainerId;
use serde_json::{Map, Value, json};

use super::list::network;
use crate::Engine;
use crate::answer::Status;
use crate::error::Result;
use crate::request::{
    ContainerSpec, MountKind, NamespaceMode, NetworkMode, Resources, Restart, Seccomp,
    UserNamespace,
};
use crate::state::{self, LastRun, Record};
use crate::status::Observed;

/// Docker's "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

impl Engine {
    /// The container's document.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchContainer`].
    pub fn inspect(&self, id: &ContainerId) -> Result<Value> {
        let record = self.existing(id)?;
        let observed = self.observe(&record)?;
        let last: LastRun = state::load(&self.paths.last(id))?.unwrap_or_default();
        let restarts = observed
            .run
            .as_ref()
            .map_or(last.restarts, |run| run.restarts);
        let directory = self.paths.container(id);
        let file = |name: &str| directory.join(name).to_string_lossy().into_owned();
        // Files that exist while it runs only.
        let inside = |name: &str| {
            let run = observed.running();
            run.map_or(String::new(), |run| {
                format!("/proc/{}/root/{name}", run.pid)
            })
        };
        let (path, arguments) = match record.process.args.split_first() {
            Some((path, arguments)) => (path.clone(), arguments.to_vec()),
            None => Default::default(),
        };
        Ok(json!({
            "Id": id,
            "Created": time(record.created),
            "Path": path,
            "Args": arguments,
            "State": self.state_of(&record, &observed, &last)?,
            "Image": record.image.as_ref().map_or_else(|| record.spec.image.clone(), |image| image.id.to_string()),
            "ResolvConfPath": inside("etc/resolv.conf"),
            "HostnamePath": inside("etc/hostname"),
            "HostsPath": inside("etc/hosts"),
            "LogPath": self.paths.log(id),
            "Name": format!("/{}", record.name),
            "RestartCount": restarts,
            "Driver": "overlay",
            "Platform": "linux",
            "MountLabel": "",
            "ProcessLabel": "",
            "AppArmorProfile": "",
            "ExecIDs": null,
            "HostConfig": host_config(&record.spec),
            "GraphDriver": { "Name": "overlay", "Data": { "UpperDir": file("upper"), "WorkDir": file("work") } },
            "Mounts": self.mount_documents(&record)?,
            "Config": config(&record),
            "NetworkSettings": { "Ports": {}, "Networks": { network(&record.spec.network): { "IPAddress": "", "MacAddress": "" } } },
        }))
    }

    fn state_of(&self, record: &Record, observed: &Observed, last: &LastRun) -> Result<Value> {
        let running = observed.running();
        let started = running.map_or(last.started, |run| run.started);
        let mut state = json!({
            "Status": observed.status.as_str(),
            "Running": running.is_some(),
            "Paused": observed.status == Status::Paused,
            "Restarting": observed.status == Status::Restarting,
            "OOMKilled": running.is_none() && last.oom_killed,
            "Dead": false,
            "Pid": running.map_or(0, |run| run.pid),
            "ExitCode": if running.is_some() { 0 } else { last.exit_code },
            "Error": if running.is_some() { "" } else { &last.error },
            "StartedAt": if started == 0 { NEVER.into() } else { time(started) },
            "FinishedAt": if last.finished == 0 { NEVER.into() } else { time(last.finished) },
        });
        if record.process.health.is_some() {
            let health = self.health_of(record)?;
            state["Health"] = match health {
                None => json!({ "Status": "starting", "FailingStreak": 0, "Log": [] }),
                Some(health) => {
                    let log: Vec<Value> = health
                        .log
                        .iter()
                        .map(|result| {
                            json!({
                                "Start": result.start.to_string(),
                                "End": result.end.to_string(),
                                "ExitCode": result.exit_code,
                                "Output": result.output,
                            })
                        })
                        .collect();
                    json!({ "Status": health.status.as_str().to_owned(), "FailingStreak": health.failing_streak, "Log": log })
                }
            };
        }
        Ok(state)
    }

    /// What the health check of the current run found so far.
    pub(crate) fn health_of(&self, record: &Record) -> Result<Option<HealthUpdate>> {
        state::load(&self.paths.health(&record.id))
    }

    fn mount_documents(&self, record: &Record) -> Result<Vec<Value>> {
        let mut mounts = Vec::new();
        for mount in &record.spec.mounts {
            match &mount.kind {
                MountKind::Bind {
                    source,
                    propagation,
                    ..
                } => mounts.push(json!({
                    "Type": "bind",
                    "Source": source,
                    "Destination": mount.target,
                    "Mode": if mount.read_only { "ro" } else { "" },
                    "RW": !mount.read_only,
                    "Propagation": propagation.as_deref().unwrap_or("rprivate"),
                })),
                MountKind::Tmpfs { .. } => mounts.push(json!({
                    "Type": "tmpfs", "Source": "", "Destination": mount.target, "Mode": "",
                    "RW": !mount.read_only, "Propagation": "",
                })),
                MountKind::Volume { .. } => {}
            }
        }
        for volume in &record.volumes {
            mounts.push(json!({
                "Type": "volume",
                "Name": volume.name,
                "Source": self.paths.volumes().join(&volume.name).join("_data"),
                "Destination": volume.target,
                "Driver": "local",
                "Mode": if volume.read_only { "ro" } else { "z" },
                "RW": !volume.read_only,
                "Propagation": "",
            }));
        }
        Ok(mounts)
    }
}

/// RFC 3339 with nanoseconds, as Docker prints times.
pub(crate) fn time(nanoseconds: i128) -> String {
    jiff::Timestamp::from_nanosecond(nanoseconds)
        .map_or_else(|_| NEVER.into(), |time| format!("{time:.9}"))
}

fn config(record: &Record) -> Value {
    let spec = &record.spec;
    let exposed: Map<String, Value> = record
        .process
        .exposed
        .iter()
        .map(|port| (port.clone(), json!({})))
        .collect();
    let volumes: Map<String, Value> = record
        .volumes
        .iter()
        .map(|volume| (volume.target.clone(), json!({})))
        .collect();
    json!({
        "Hostname": spec.hostname.clone().unwrap_or_else(|| record.id.short().into()),
        "Domainname": spec.domainname.as_deref().unwrap_or_default(),
        "User": record.process.user,
        "AttachStdin": spec.interactive,
        "AttachStdout": true,
        "AttachStderr": true,
        "Tty": spec.tty,
        "OpenStdin": spec.interactive,
        "Env": record.process.env,
        "Cmd": record.process.args,
        "Entrypoint": spec.entrypoint,
        "Image": spec.image,
        "ExposedPorts": exposed,
        "Volumes": volumes,
        "WorkingDir": record.process.workdir,
        "Labels": record.process.labels,
        "StopSignal": record.process.stop_signal,
        "StopTimeout": spec.stop_timeout,
        "Healthcheck": record.process.health.as_ref().map(|health| json!({
            "Test": health.test,
            "Interval": health.interval,
            "Timeout": health.timeout,
            "StartPeriod": health.start_period,
            "StartInterval": health.start_interval,
            "Retries": health.retries,
        })),
    })
}

fn mode(mode: &NamespaceMode) -> String {
    match mode {
        NamespaceMode::Private => "private".into(),
        NamespaceMode::Host => "host".into(),
        NamespaceMode::Container(name) => format!("container:{name}"),
    }
}

fn host_config(spec: &ContainerSpec) -> Value {
    let resources = &spec.resources;
    let restart = match spec.restart {
        Restart::No => json!({ "Name": "no", "MaximumRetryCount": 0 }),
        Restart::OnFailure(most) => json!({ "Name": "on-failure", "MaximumRetryCount": most }),
        Restart::Always => json!({ "Name": "always", "MaximumRetryCount": 0 }),
        Restart::UnlessStopped => json!({ "Name": "unless-stopped", "MaximumRetryCount": 0 }),
    };
    let binds: Vec<String> = spec
        .mounts
        .iter()
        .filter_map(|mount| match &mount.kind {
            MountKind::Bind { source, .. } => {
                let access = if mount.read_only { ":ro" } else { "" };
                Some(format!("{}:{}{access}", source.display(), mount.target))
            }
            _ => None,
        })
        .collect();
    let mut security = Vec::new();
    match &spec.security.seccomp {
        Seccomp::Default => {}
        Seccomp::Unconfined => security.push("seccomp=unconfined".to_owned()),
        Seccomp::Profile(text) => security.push(format!("seccomp={text}")),
    }
    if let Some(yes) = spec.security.no_new_privileges {
        security.push(format!("no-new-privileges={yes}"));
    }
    let mut document = json!({
        "Binds": binds,
        "LogConfig": { "Type": spec.log.driver, "Config": spec.log.options },
        "NetworkMode": match &spec.network {
            NetworkMode::Default => "default".to_owned(),
            NetworkMode::Container(name) => format!("container:{name}"),
            other => network(other).to_owned(),
        },
        "RestartPolicy": restart,
        "AutoRemove": spec.auto_remove,
        "CapAdd": spec.cap_add,
        "CapDrop": spec.cap_drop,
        "CgroupnsMode": mode(&spec.cgroupns),
        "Dns": spec.dns,
        "DnsOptions": spec.dns_options,
        "DnsSearch": spec.dns_search,
        "ExtraHosts": spec.extra_hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect::<Vec<_>>(),
        "GroupAdd": spec.groups,
        "IpcMode": mode(&spec.ipc),
        "PidMode": mode(&spec.pid),
        "UTSMode": mode(&spec.uts),
        "UsernsMode": match &spec.userns {
            UserNamespace::Auto => "auto".to_owned(),
            UserNamespace::Host => "host".to_owned(),
            UserNamespace::Map { .. } => "map".to_owned(),
            UserNamespace::Container(name) => format!("container:{name}"),
        },
        "Annotations": spec.annotations,
        "OomScoreAdj": resources.oom_score_adj.unwrap_or(0),
        "Privileged": spec.privileged,
        "ReadonlyRootfs": spec.read_only,
        "SecurityOpt": security,
        "ShmSize": spec.shm_size.unwrap_or(64 << 20),
        "Sysctls": spec.sysctls,
        "Ulimits": spec.ulimits.iter().map(|(name, soft, hard)| json!({ "Name": name, "Soft": soft, "Hard": hard })).collect::<Vec<_>>(),
        "Init": spec.init,
        "CgroupParent": resources.cgroup_parent.as_deref().unwrap_or_default(),
        "Devices": spec.devices.iter().map(|device| json!({
            "PathOnHost": device.host, "PathInContainer": device.container, "CgroupPermissions": device.access,
        })).collect::<Vec<_>>(),
        "DeviceCgroupRules": spec.device_cgroup_rules,
        "MaskedPaths": spec.security.mask,
    });
    if let (Value::Object(all), Value::Object(limits)) = (&mut document, limits(resources)) {
        all.extend(limits);
    }
    document
}

fn limits(resources: &Resources) -> Value {
    let rates = |list: &[(std::path::PathBuf, u64)]| -> Vec<Value> {
        list.iter()
            .map(|(path, rate)| json!({ "Path": path, "Rate": rate }))
            .collect()
    };
    json!({
        "Memory": resources.memory.unwrap_or(0),
        "MemoryReservation": resources.memory_reservation.unwrap_or(0),
        "MemorySwap": resources.memory_swap.unwrap_or(0),
        "MemorySwappiness": resources.memory_swappiness,
        "OomKillDisable": resources.oom_kill_disable,
        "NanoCpus": nano_cpus(resources),
        "CpuQuota": resources.cpu_quota.unwrap_or(0),
        "CpuPeriod": resources.cpu_period.unwrap_or(0),
        "CpuShares": resources.cpu_shares.unwrap_or(0),
        "CpusetCpus": resources.cpuset_cpus.as_deref().unwrap_or_default(),
        "CpusetMems": resources.cpuset_mems.as_deref().unwrap_or_default(),
        "PidsLimit": resources.pids.unwrap_or(crate::start::PIDS),
        "BlkioWeight": resources.blkio_weight.unwrap_or(0),
        "BlkioDeviceReadBps": rates(&resources.device_read_bps),
        "BlkioDeviceWriteBps": rates(&resources.device_write_bps),
        "BlkioDeviceReadIOps": rates(&resources.device_read_iops),
        "BlkioDeviceWriteIOps": rates(&resources.device_write_iops),
    })
}

/// `--cpus` as Docker counts it: billionths of a CPU.
fn nano_cpus(resources: &Resources) -> i64 {
    let period = resources.cpu_period.unwrap_or(100_000).max(1);
    match resources.cpu_quota {
        Some(quota) if quota > 0 => (i128::from(quota) * 1_000_000_000 / i128::from(period)) as i64,
        _ => 0,
    }
}
