//! One cgroup: how a process gets in, its limits and device rules, and its removal.
//!
//! A `Cgroup` holds no lock and no open file. Its list of directories is what the command that holds it knows; others
//! may have added one (see [`Cgroup::update`]), which is why removal looks in every hierarchy.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::confine::{set_devices_legacy, set_devices_unified};
use crate::control::{self, Pause};
use crate::controller::Controller;
use crate::devices::DeviceRules;
use crate::error::{Error, Result, all};
use crate::layout::{self, Layout};
use crate::limits::Limits;
use crate::manager::{self, Manager};
use crate::path::CgroupPath;
use crate::settings::{self, Files, Setting, Version};
use crate::yielding::{lower_legacy_memory, lower_unified_memory, write_realtime};

/// How long removal waits for processes that were killed, or that are in the kernel on their way out.
const REMOVE_WITHIN: Duration = Duration::from_secs(5);

/// One directory of a cgroup.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    pub version: Version,
    /// v1: those of the hierarchy; v2: those that are on in this cgroup.
    pub controllers: Vec<Controller>,
    pub path: PathBuf,
    /// The prefix directory (or the mount point, for an absolute path): it and all above it are not removed.
    pub top: PathBuf,
    /// The cgroup above the prefix: nothing in it is changed but which controllers it hands down.
    pub base: PathBuf,
}

impl Directory {
    /// The v2 controllers that are on here.
    pub(crate) fn unified_controllers(&self) -> Result<Vec<Controller>> {
        Ok(manager::unified_controllers(&control::read(
            &self.path.join("cgroup.controllers"),
        )?))
    }
}

/// How a child process gets into a cgroup without being moved (moving costs 10 ms after idle).
#[derive(Debug, Default)]
pub struct Entry {
    /// v2: the directory for `CLONE_INTO_CGROUP`.
    pub clone_into: Option<OwnedFd>,
    /// v1: the `tasks` file of each hierarchy, open for writing; the child, single-threaded, writes "0" to each.
    pub tasks: Vec<OwnedFd>,
    /// v1: the controllers of those hierarchies, as the kernel names them.
    pub controllers: Vec<&'static str>,
}

/// A cgroup, in one hierarchy (v2) or several (v1, hybrid), or in none (see [`Cgroup::is_none`]).
#[derive(Debug, Clone)]
pub struct Cgroup {
    manager: Manager,
    path: CgroupPath,
    pub(crate) directories: Vec<Directory>,
}

impl Cgroup {
    pub(crate) fn new(manager: Manager, path: CgroupPath, directories: Vec<Directory>) -> Cgroup {
        Cgroup {
            manager,
            path,
            directories,
        }
    }

    /// Its path, as given to [`Manager::create`].
    pub fn path(&self) -> &CgroupPath {
        &self.path
    }

    /// The directories that it consists of, v2 first.
    pub fn directories(&self) -> impl Iterator<Item = &Path> {
        self.directories
            .iter()
            .map(|directory| directory.path.as_path())
    }

    /// Whether there is no cgroup behind it, because this host lets us make none. Then `entry` is empty, `usage` knows
    /// nothing, no OOM kill is ever counted, and `remove` has nothing to do; `update` with a limit, `processes`,
    /// `freeze`, `thaw`, `signal` and `kill` are [`Error::Unavailable`].
    pub fn is_none(&self) -> bool {
        self.directories.is_empty()
    }

    /// The way in for a new child.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn entry(&self) -> Result<Entry> {
        let mut entry = Entry::default();
        for directory in &self.directories {
            match directory.version {
                Version::Unified => {
                    entry.clone_into = Some(control::open_directory(&directory.path)?)
                }
                Version::Legacy => {
                    entry.tasks.push(open_tasks(&directory.path)?);
                    let names = directory.controllers.iter();
                    entry
                        .controllers
                        .extend(names.map(|controller| controller.legacy_name()));
                }
            }
        }
        Ok(entry)
    }

    /// The way in for a process that joins `init`, a process that is already inside (for `exec`).
    ///
    /// A container that runs systemd made cgroups below its own and handed controllers down to them; v2 then takes no
    /// process into the container's cgroup itself (EBUSY), so the new one goes where `init` is.
    ///
    /// # Errors
    /// [`Error::Open`]; [`Error::Read`] when `init` is gone.
    pub fn entry_beside(&self, init: Pid) -> Result<Entry> {
        let mut entry = self.entry()?;
        let Some(directory) = self.directory_of_unified() else {
            return Ok(entry);
        };
        let Some(unified) = self.manager.unified() else {
            return Ok(entry);
        };
        let file = PathBuf::from(format!("/proc/{}/cgroup", init.as_raw_nonzero()));
        let own = layout::Own::parse(&control::read(&file)?);
        let beside = own
            .unified
            .and_then(|path| layout::directory_under(&unified.mount_point, &unified.root, &path))
            .filter(|beside| beside.starts_with(&directory.path) && *beside != directory.path);
        if let Some(beside) = beside {
            entry.clone_into = Some(control::open_directory(&beside)?);
        }
        Ok(entry)
    }

    /// Changes limits while processes run. What `change` leaves out stays.
    ///
    /// All or nothing: when one value is refused, those before it are set back. A memory limit below what is in use and
    /// cannot be reclaimed is refused ([`Error::BelowUse`]) rather than killing; a pids limit below the present number
    /// is legal and only stops new ones. On v1, a controller that the cgroup did not need so far is added, and its
    /// processes are moved there (10 ms each), which stays if a value is then refused: by itself it limits nothing.
    ///
    /// # Errors
    /// As [`Manager::create`], and [`Error::BelowUse`], [`Error::Rollback`].
    pub fn update(&self, change: &Limits) -> Result<()> {
        settings::validate(change)?;
        let mut required = manager::required(change, &DeviceRules::unrestricted());
        if change.blkio_accounting == Some(true)
            && self.manager.place(Controller::BlockIo).is_some()
        {
            required.push(("blkio_accounting".to_owned(), Controller::BlockIo));
        }
        let Some((wanted, _)) = required.first() else {
            return Ok(());
        };
        self.must_exist(wanted)?;
        let mut cgroup = self.clone();
        for (wanted, controller) in &required {
            match self.manager.place(*controller) {
                None => return Err(self.manager.missing(*controller, wanted)),
                Some(Version::Legacy) => {
                    if let Some(path) = self.manager.add_legacy(&mut cgroup, *controller)? {
                        self.join_late(&path)?;
                    }
                }
                Some(Version::Unified) => {
                    let needed = BTreeSet::from([*controller]);
                    if let Some(unified) = self.manager.unified() {
                        self.manager
                            .enable(unified, &mut cgroup, &needed, &required)?;
                    }
                }
            }
        }
        let list = settings::settings(change, &cgroup)?;
        cgroup.apply(list, true)
    }

    /// Gives a cgroup of [`Manager::make`] its device rules and limits. After a failure it is of no use.
    ///
    /// # Errors
    /// As [`Manager::create`].
    pub fn confine(&self, limits: &Limits, devices: &DeviceRules) -> Result<()> {
        self.set_devices(devices)?;
        self.apply(settings::settings(limits, self)?, false)
    }

    /// Moves all processes into a directory that was added after they started.
    fn join_late(&self, path: &Path) -> Result<()> {
        let file = path.join("cgroup.procs");
        let mut joined = BTreeSet::new();
        // Each round catches what was forked, by a process not moved yet, during the one before.
        for _ in 0..64 {
            let pids = self.processes()?;
            let new: Vec<Pid> = pids
                .into_iter()
                .filter(|pid| !joined.contains(&pid.as_raw_nonzero()))
                .collect();
            if new.is_empty() {
                return Ok(());
            }
            for pid in new {
                match control::write(&file, &pid.as_raw_nonzero().to_string()) {
                    Ok(())
                    | Err(Error::Write {
                        source: Errno::SRCH,
                        ..
                    }) => {
                        joined.insert(pid.as_raw_nonzero());
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Err(Error::Timeout {
            action: "moving the processes",
            path: path.to_owned(),
            waited: Duration::ZERO,
        })
    }

    /// Writes settings; see the `settings` module for the rules.
    fn apply(&self, list: Vec<Setting>, remember: bool) -> Result<()> {
        let mut queue: VecDeque<(Setting, bool)> =
            list.into_iter().map(|setting| (setting, false)).collect();
        let mut done: Vec<(PathBuf, String)> = Vec::new();
        while let Some((setting, deferred)) = queue.pop_front() {
            let outcome = self.apply_one(&setting, remember);
            match outcome {
                Ok(Some(previous)) => done.push(previous),
                Ok(None) => {}
                Err(Error::Write {
                    source: Errno::INVAL,
                    ..
                }) if !deferred && !queue.is_empty() => {
                    queue.push_back((setting, true));
                }
                Err(error) => return Err(go_back(done, error)),
            }
        }
        Ok(())
    }

    /// Writes one setting; returns the file and the value to go back to, if asked to remember.
    fn apply_one(&self, setting: &Setting, remember: bool) -> Result<Option<(PathBuf, String)>> {
        let directory = self.directory_for(setting.controller, setting.limit)?;
        let file = directory.path.join(&setting.file);
        let previous = match remember {
            true => Some(setting.value_of(&control::read(&file)?)),
            false => None,
        };
        let result = match setting.file.as_str() {
            "memory.max" if remember => lower_unified_memory(&directory.path, setting),
            "cpu.rt_runtime_us" => write_realtime(directory, &file, &setting.value),
            name if remember && name.ends_with("limit_in_bytes") => {
                lower_legacy_memory(&file, &setting.value)
            }
            _ => control::write(&file, &setting.value),
        };
        match result {
            Err(Error::Write {
                source: Errno::BUSY,
                ..
            }) if setting.file.ends_with("limit_in_bytes") => {
                let use_file = directory
                    .path
                    .join(setting.file.replace("limit_in_bytes", "usage_in_bytes"));
                let used = crate::usage::parse_number(&use_file, &control::read(&use_file)?)?;
                let wanted = setting.value.parse().unwrap_or_default();
                Err(Error::BelowUse {
                    limit: setting.limit,
                    path: directory.path.clone(),
                    wanted,
                    used,
                })
            }
            result => result.map(|()| previous.map(|previous| (file, previous))),
        }
    }

    /// Sets which devices may be used, in place of the rules before. Without rules, nothing is written.
    ///
    /// # Errors
    /// [`Error::InvalidDeviceRule`] for what v1 cannot express, [`Error::DeviceProgram`], and failures of files.
    pub fn set_devices(&self, rules: &DeviceRules) -> Result<()> {
        if rules.is_unrestricted() {
            return Ok(());
        }
        self.must_exist("restricting devices")?;
        match self.directory_opt(Controller::Devices) {
            Some(directory) => set_devices_legacy(&directory.path, rules),
            None => match self.directory_of_unified() {
                Some(directory) => set_devices_unified(&directory.path, rules),
                None => Err(self
                    .manager
                    .missing(Controller::Devices, "restricting devices")),
            },
        }
    }

    /// Removes it: waits up to 5 s for processes on their way out, removes cgroups that were made inside it, deepest
    /// first, and goes on past failures. What is gone already is fine.
    ///
    /// # Errors
    /// [`Error::Remove`] (EBUSY: there are processes inside), one a directory.
    pub fn remove(&self) -> Result<()> {
        self.remove_those(&self.manager.candidates(&self.path))
    }

    pub(crate) fn remove_those(&self, directories: &[Directory]) -> Result<()> {
        let mut pause = Pause::until(REMOVE_WITHIN);
        let mut errors = Vec::new();
        for directory in directories {
            if let Err(error) = remove_tree(&directory.path, &mut pause) {
                errors.push(error);
                continue;
            }
            // Directories between the prefix and ours are shared with siblings: the last one removes them.
            for above in directory
                .path
                .ancestors()
                .skip(1)
                .take_while(|above| *above != directory.top)
            {
                if self.path.is_absolute() || rustix::fs::rmdir(above).is_err() {
                    break;
                }
            }
        }
        all(errors)
    }

    /// The directory of the v2 hierarchy.
    pub(crate) fn directory_of_unified(&self) -> Option<&Directory> {
        self.directories
            .iter()
            .find(|directory| directory.version == Version::Unified)
    }

    /// The directory whose files a controller has.
    pub(crate) fn directory_opt(&self, controller: Controller) -> Option<&Directory> {
        self.directories
            .iter()
            .find(|directory| directory.controllers.contains(&controller))
    }

    fn directory_for(&self, controller: Controller, wanted: &str) -> Result<&Directory> {
        self.directory_opt(controller)
            .ok_or_else(|| self.manager.missing(controller, wanted))
    }

    /// Refuses to act on nothing.
    pub(crate) fn must_exist(&self, wanted: &str) -> Result<()> {
        if !self.is_none() {
            return Ok(());
        }
        Err(match self.manager.layout() {
            Layout::Unavailable { reason, remedy } => Error::Unavailable {
                wanted: wanted.to_owned(),
                reason,
                remedy,
            },
            _ => Error::NotFound {
                path: self.path.to_string(),
            },
        })
    }
}

impl Files for Cgroup {
    fn version(&self, controller: Controller, wanted: &str) -> Result<Version> {
        self.directory_for(controller, wanted)
            .map(|directory| directory.version)
    }

    fn exists(&self, controller: Controller, file: &str) -> bool {
        self.directory_opt(controller)
            .is_some_and(|directory| control::exists(&directory.path.join(file)))
    }

    fn read(&self, controller: Controller, file: &str) -> Result<String> {
        control::read(&self.directory_for(controller, file)?.path.join(file))
    }
}

fn open_tasks(path: &Path) -> Result<OwnedFd> {
    let path = path.join("tasks");
    rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|source| Error::Open { path, source })
}

/// Sets files back, latest first, a second time for those that another one stood in the way of.
fn go_back(done: Vec<(PathBuf, String)>, failed: Error) -> Error {
    let mut again = Vec::new();
    for (file, value) in done.into_iter().rev() {
        if control::write_raw(&file, &value).is_err() {
            again.push((file, value));
        }
    }
    for (file, value) in again {
        if let Err(source) = control::write_raw(&file, &value) {
            return Error::Rollback {
                failed: Box::new(failed),
                file,
                value,
                source,
            };
        }
    }
    failed
}

/// Removes a directory; only if that is refused it is looked for what is inside.
fn remove_tree(path: &Path, pause: &mut Pause) -> Result<()> {
    loop {
        match rustix::fs::rmdir(path) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY | Errno::NOTEMPTY) => {}
            Err(source) => {
                return Err(Error::Remove {
                    path: path.to_owned(),
                    source,
                });
            }
        }
        let children = control::children(path)?;
        for child in &children {
            remove_tree(child, pause)?;
        }
        if children.is_empty() && !pause.again() {
            return Err(Error::Remove {
                path: path.to_owned(),
                source: Errno::BUSY,
            });
        }
    }
}
