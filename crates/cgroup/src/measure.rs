//! What a cgroup uses, and being told when it runs out of memory.

use std::path::Path;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags, inotify};

use crate::cgroup::Cgroup;
use crate::control;
use crate::controller::Controller;
use crate::error::{Error, Result};
use crate::settings::Version;
use crate::usage::{
    CpuUsage, DeviceIo, MemoryUsage, PidsUsage, Usage, flat_key, legacy_limit, parse_blkio,
    parse_io_stat, parse_max, parse_number,
};

impl Cgroup {
    /// What it uses now, everything below it included. `None` where nothing accounts for it.
    ///
    /// # Errors
    /// [`Error::Read`] (ENOENT, ENODEV: the cgroup is gone), [`Error::Parse`].
    pub fn usage(&self) -> Result<Usage> {
        Ok(Usage {
            memory: self.memory()?,
            cpu: self.cpu()?,
            pids: self.pids()?,
            io: self.io()?,
        })
    }

    /// How many processes were killed because memory ran out, in it and below it.
    ///
    /// # Errors
    /// [`Error::Read`] (ENOENT, ENODEV: the cgroup is gone).
    pub fn oom_kills(&self) -> Result<u64> {
        let Some(directory) = self.directory_opt(Controller::Memory) else {
            return Ok(0);
        };
        let file = directory.path.join(match directory.version {
            Version::Legacy => "memory.oom_control",
            Version::Unified => "memory.events",
        });
        // v1 counts since 4.13 only, and does not count for its children.
        let mut kills = flat_key(&control::read(&file)?, "oom_kill").unwrap_or(0);
        if directory.version == Version::Legacy {
            for child in control::children(&directory.path)? {
                kills += legacy_kills_below(&child)?;
            }
        }
        Ok(kills)
    }

    /// A descriptor that becomes readable when memory runs out (non-blocking; read it empty, then ask
    /// [`Cgroup::oom_kills`]). `None` where no memory controller is.
    ///
    /// v1: an eventfd, which fires before the victim is chosen, so the count may rise a moment later, and fires once more
    /// when the cgroup is removed. v2: an inotify on `memory.events`, which also fires for other events of that file.
    ///
    /// # Errors
    /// [`Error::Watch`], [`Error::Open`], [`Error::Write`].
    pub fn oom_event(&self) -> Result<Option<OwnedFd>> {
        let Some(directory) = self.directory_opt(Controller::Memory) else {
            return Ok(None);
        };
        match directory.version {
            Version::Legacy => {
                let control_file = directory.path.join("memory.oom_control");
                let watch = |source| Error::Watch {
                    file: control_file.clone(),
                    source,
                };
                let event =
                    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(watch)?;
                let oom = rustix::fs::open(
                    &control_file,
                    OFlags::RDONLY | OFlags::CLOEXEC,
                    Mode::empty(),
                )
                .map_err(|source| Error::Open {
                    path: control_file.clone(),
                    source,
                })?;
                let registration = format!("{} {}", event.as_raw_fd(), oom.as_raw_fd());
                control::write(&directory.path.join("cgroup.event_control"), &registration)?;
                Ok(Some(event))
            }
            Version::Unified => {
                let file = directory.path.join("memory.events");
                let watch = |source| Error::Watch {
                    file: file.clone(),
                    source,
                };
                let event =
                    inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
                        .map_err(watch)?;
                inotify::add_watch(&event, &file, inotify::WatchFlags::MODIFY).map_err(watch)?;
                Ok(Some(event))
            }
        }
    }

    fn memory(&self) -> Result<Option<MemoryUsage>> {
        let Some(directory) = self.directory_opt(Controller::Memory) else {
            return Ok(None);
        };
        let path = directory.path.as_path();
        let stat = control::read(&path.join("memory.stat"))?;
        let of = |key: &str| flat_key(&stat, key).unwrap_or(0);
        Ok(Some(match directory.version {
            Version::Legacy => MemoryUsage {
                usage: number(path, "memory.usage_in_bytes")?,
                limit: legacy_limit(of("hierarchical_memory_limit")),
                peak: Some(number(path, "memory.max_usage_in_bytes")?),
                swap: flat_key(&stat, "total_swap"),
                anon: of("total_rss"),
                file: of("total_cache"),
                inactive_file: of("total_inactive_file"),
                active_file: of("total_active_file"),
                oom_kills: self.oom_kills()?,
                // With a total equal to the memory limit, it is the total that is hit.
                limit_hits: number(path, "memory.failcnt")?
                    + number_opt(path, "memory.memsw.failcnt")?.unwrap_or(0),
            },
            Version::Unified => {
                let events = control::read(&path.join("memory.events"))?;
                let max = path.join("memory.max");
                MemoryUsage {
                    usage: number(path, "memory.current")?,
                    limit: parse_max(&max, &control::read(&max)?)?,
                    peak: number_opt(path, "memory.peak")?,
                    swap: number_opt(path, "memory.swap.current")?,
                    anon: of("anon"),
                    file: of("file"),
                    inactive_file: of("inactive_file"),
                    active_file: of("active_file"),
                    oom_kills: flat_key(&events, "oom_kill").unwrap_or(0),
                    limit_hits: flat_key(&events, "max").unwrap_or(0),
                }
            }
        }))
    }

    fn cpu(&self) -> Result<Option<CpuUsage>> {
        let mut cpu = CpuUsage::default();
        let mut known = false;
        if let Some(directory) = self.directory_opt(Controller::CpuAccounting) {
            let path = directory.path.as_path();
            cpu.total_ns = number(path, "cpuacct.usage")?;
            cpu.user_ns = number(path, "cpuacct.usage_user")?;
            cpu.system_ns = number(path, "cpuacct.usage_sys")?;
            known = true;
        } else if let Some(directory) = self.directory_of_unified() {
            // Every v2 cgroup has these three, whether or not the controller is on.
            let stat = control::read(&directory.path.join("cpu.stat"))?;
            let ns = |key| flat_key(&stat, key).unwrap_or(0) * 1000;
            (cpu.total_ns, cpu.user_ns, cpu.system_ns) =
                (ns("usage_usec"), ns("user_usec"), ns("system_usec"));
            known = true;
        }
        if let Some(directory) = self.directory_opt(Controller::Cpu) {
            let stat = control::read(&directory.path.join("cpu.stat"))?;
            let of = |key| flat_key(&stat, key).unwrap_or(0);
            cpu.periods = of("nr_periods");
            cpu.throttled_periods = of("nr_throttled");
            // v1 says nanoseconds, v2 microseconds.
            cpu.throttled_ns = of("throttled_time") + of("throttled_usec") * 1000;
        }
        Ok(known.then_some(cpu))
    }

    fn pids(&self) -> Result<Option<PidsUsage>> {
        let Some(directory) = self.directory_opt(Controller::Pids) else {
            return Ok(None);
        };
        let max = directory.path.join("pids.max");
        let limit = parse_max(&max, &control::read(&max)?)?;
        Ok(Some(PidsUsage {
            current: number(&directory.path, "pids.current")?,
            limit,
        }))
    }

    fn io(&self) -> Result<Option<Vec<DeviceIo>>> {
        let Some(directory) = self.directory_opt(Controller::BlockIo) else {
            return Ok(None);
        };
        let path = directory.path.as_path();
        match directory.version {
            Version::Unified => {
                let file = path.join("io.stat");
                parse_io_stat(&file, &control::read(&file)?).map(Some)
            }
            Version::Legacy => {
                // The recursive files are there since 5.2; before, a container's own cgroups were not counted in.
                let read = |name: &str| -> Result<String> {
                    match control::read_opt(&path.join(format!("{name}_recursive")))? {
                        Some(content) => Ok(content),
                        None => control::read(&path.join(name)),
                    }
                };
                let bytes = read("blkio.throttle.io_service_bytes")?;
                let operations = read("blkio.throttle.io_serviced")?;
                parse_blkio(
                    &path.join("blkio.throttle.io_service_bytes"),
                    &bytes,
                    &operations,
                )
                .map(Some)
            }
        }
    }
}

fn legacy_kills_below(path: &Path) -> Result<u64> {
    let content = control::read_opt(&path.join("memory.oom_control"))?.unwrap_or_default();
    let mut kills = flat_key(&content, "oom_kill").unwrap_or(0);
    for child in control::children(path)? {
        kills += legacy_kills_below(&child)?;
    }
    Ok(kills)
}

fn number(path: &Path, name: &str) -> Result<u64> {
    let file = path.join(name);
    parse_number(&file, &control::read(&file)?)
}

fn number_opt(path: &Path, name: &str) -> Result<Option<u64>> {
    let file = path.join(name);
    control::read_opt(&file)?
        .map(|content| parse_number(&file, &content))
        .transpose()
}
