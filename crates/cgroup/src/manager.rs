//! Where cgroups may be made, and making them.
//!
//! The prefix directory is shared by all commands, which run at the same time: it is made when a child needs it, and
//! creation starts again when [`Manager::prune`] of another command took it away in between. Creating is all or nothing.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::io::Errno;

use crate::cgroup::{Cgroup, Directory};
use crate::control;
use crate::controller::Controller;
use crate::device_program;
use crate::devices::DeviceRules;
use crate::error::{Error, Result, all};
use crate::layout::{self, Decision, Facts, Layout, Mounts, Own, UnifiedBase};
use crate::limits::Limits;
use crate::make::{hand_down, make, make_room};
use crate::path::CgroupPath;
use crate::settings::{self, Version};

/// Where cgroups may be made on this host. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Manager {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    prefix: String,
    decision: Decision,
    /// What `base` of the v2 hierarchy can hand down, once it was needed.
    unified_controllers: OnceLock<Vec<Controller>>,
}

/// The facts of this host.
#[derive(Default)]
struct Host {
    own: OnceCell<Own>,
}

impl Facts for Host {
    fn own(&self) -> Result<&Own> {
        if let Some(own) = self.own.get() {
            return Ok(own);
        }
        let own = Own::parse(&control::read(Path::new("/proc/self/cgroup"))?);
        Ok(self.own.get_or_init(|| own))
    }

    fn manageable(&self, directory: &Path) -> bool {
        // The directory too: systemd delegates a cgroup's directory and its files one by one.
        control::writable(directory)
            && (rustix::process::geteuid().is_root()
                || control::writable(&directory.join("cgroup.procs")))
    }

    fn delegated(&self, directory: &Path) -> bool {
        // systemd.resource-control(5): set on units with Delegate=; the user attribute since 251.
        ["user.delegate", "trusted.delegate"].iter().any(|name| {
            let mut value = [0u8; 8];
            rustix::fs::getxattr(directory, *name, &mut value)
                .is_ok_and(|length| value[..length] == *b"1")
        })
    }

    fn is_hierarchy_root(&self, directory: &Path) -> bool {
        // Every cgroup but the true root has this file.
        !control::exists(&directory.join("cgroup.events"))
    }
}

impl Manager {
    /// Finds out where cgroups can be made.
    ///
    /// `prefix` names the directory that all of them are below, in each hierarchy: `coracle`. A host where none can be
    /// made is no error: [`Manager::layout`] says so, and [`Manager::create`] refuses limits.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] for a prefix that is not one name; [`Error::Read`] when `/proc` cannot be read.
    pub fn open(prefix: &str) -> Result<Manager> {
        let valid = CgroupPath::new(prefix)?;
        if valid.is_absolute() || valid.components().len() != 1 {
            return Err(Error::InvalidPath {
                path: prefix.to_owned(),
                reason: "the prefix must be one name",
            });
        }
        let mounts = Mounts::parse(&control::read(Path::new("/proc/self/mountinfo"))?);
        let decision = layout::decide(&mounts, &Host::default())?;
        Ok(Manager::from_decision(prefix, decision))
    }

    pub(crate) fn from_decision(prefix: &str, decision: Decision) -> Manager {
        let inner = Inner {
            prefix: prefix.to_owned(),
            decision,
            unified_controllers: OnceLock::new(),
        };
        Manager {
            inner: Arc::new(inner),
        }
    }

    pub(crate) fn decision(&self) -> &Decision {
        &self.inner.decision
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.inner.prefix
    }

    /// Which versions are used here.
    pub fn layout(&self) -> Layout {
        self.inner.decision.layout.clone()
    }

    /// Whether a controller can be used here.
    pub fn supports(&self, controller: Controller) -> bool {
        self.place(controller).is_some()
    }

    /// Whether device rules can be put into force here: always on v1, on v2 if this process may load eBPF programs (not
    /// in a user namespace; there no device node can be used in the first place, so give
    /// [`DeviceRules::unrestricted`]).
    pub fn can_restrict_devices(&self) -> bool {
        match self.place(Controller::Devices) {
            Some(Version::Legacy) => true,
            Some(Version::Unified) => {
                let program = device_program::compile(&DeviceRules::unrestricted());
                coracle_linux::bpf::load_device_program(&program).is_ok()
            }
            None => false,
        }
    }

    /// Makes a cgroup and sets its limits, before any process is in it. All or nothing.
    ///
    /// On v1 that is one directory in each hierarchy that is needed: always `memory` (use and OOM), `cpu` (or else the
    /// container's every thread would weigh as much as another container) and `pids`; `devices` with rules; `freezer`
    /// and `cpuacct` only without a v2 hierarchy, which does both; `cpuset`, `blkio`, `hugetlb`, `rdma`, `net_*` only if
    /// limited. Each costs about 0.1 ms to make, 0.04 ms to remove and 0.04 ms to join. On v2 it is one directory.
    ///
    /// Without any usable hierarchy ([`Layout::Unavailable`]), empty limits and no device rules, the result
    /// [is none](Cgroup::is_none): it holds no process and limits nothing, and says so when asked to act.
    /// A controller that no limit asks for but that accounts for use may be missing; [`Cgroup::usage`] then has `None`.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Unavailable`], [`Error::ControllerMissing`], [`Error::Unsupported`],
    /// [`Error::InvalidLimit`], [`Error::InvalidDeviceRule`], [`Error::InternalProcesses`] and failures of files.
    pub fn create(
        &self,
        path: &CgroupPath,
        limits: &Limits,
        devices: &DeviceRules,
    ) -> Result<Cgroup> {
        let cgroup = self.make(path, limits, devices)?;
        match cgroup.confine(limits, devices) {
            Ok(()) => Ok(cgroup),
            Err(error) => Err(undo(&cgroup, error)),
        }
    }

    /// The first half of [`Manager::create`]: a cgroup with the controllers that `limits` and `devices` need, and no limit
    /// yet. [`Cgroup::confine`] is the second, due before a process in it runs what it is to be protected from.
    ///
    /// # Errors
    /// As [`Manager::create`].
    pub fn make(
        &self,
        path: &CgroupPath,
        limits: &Limits,
        devices: &DeviceRules,
    ) -> Result<Cgroup> {
        settings::validate(limits)?;
        let required = required(limits, devices);
        if let Layout::Unavailable { reason, remedy } = self.layout() {
            return match required.into_iter().next() {
                Some((wanted, _)) => Err(Error::Unavailable {
                    wanted,
                    reason,
                    remedy,
                }),
                None => Ok(Cgroup::new(self.clone(), path.clone(), Vec::new())),
            };
        }
        for (wanted, controller) in &required {
            if self.place(*controller).is_none() {
                return Err(self.missing(*controller, wanted));
            }
        }
        let mut cgroup = Cgroup::new(self.clone(), path.clone(), Vec::new());
        match self.fill(&mut cgroup, &required, limits) {
            Ok(()) => Ok(cgroup),
            Err(error) => Err(undo(&cgroup, error)),
        }
    }

    fn fill(
        &self,
        cgroup: &mut Cgroup,
        required: &[(String, Controller)],
        limits: &Limits,
    ) -> Result<()> {
        let mut needed: BTreeSet<Controller> =
            required.iter().map(|(_, controller)| *controller).collect();
        needed.extend([Controller::Memory, Controller::Cpu, Controller::Pids]);
        if limits.blkio_accounting == Some(true) {
            needed.insert(Controller::BlockIo);
        }
        if let Some(unified) = &self.inner.decision.unified {
            let directory = self.make_unified(unified, cgroup.path())?;
            // cgroup.freeze came with 5.2; until then a hybrid host's freezer is v1's.
            let freezes = control::exists(&directory.path.join("cgroup.freeze"));
            cgroup.directories.push(directory);
            if !freezes {
                needed.insert(Controller::Freezer);
            }
            // Accounting for block I/O is free on v2.
            if self.place(Controller::BlockIo) == Some(Version::Unified) {
                needed.insert(Controller::BlockIo);
            }
            self.enable(unified, cgroup, &needed, required)?;
        } else {
            needed.extend([Controller::Freezer, Controller::CpuAccounting]);
        }
        for controller in needed {
            self.add_legacy(cgroup, controller)?;
        }
        Ok(())
    }

    /// Opens a cgroup made before, in whichever hierarchies it is.
    ///
    /// # Errors
    /// [`Error::NotFound`] when no hierarchy has it. Where no cgroups can be made, the result [is none](Cgroup::is_none).
    pub fn open_existing(&self, path: &CgroupPath) -> Result<Cgroup> {
        let mut directories = Vec::new();
        for mut directory in self.candidates(path) {
            if !control::exists(&directory.path) {
                continue;
            }
            if directory.version == Version::Unified {
                directory.controllers = directory.unified_controllers()?;
            }
            directories.push(directory);
        }
        if directories.is_empty() && !matches!(self.layout(), Layout::Unavailable { .. }) {
            return Err(Error::NotFound {
                path: path.to_string(),
            });
        }
        Ok(Cgroup::new(self.clone(), path.clone(), directories))
    }

    /// The names directly below the prefix, in whichever hierarchies they are; sorted.
    ///
    /// # Errors
    /// [`Error::Open`] when a directory cannot be listed.
    pub fn list(&self) -> Result<Vec<CgroupPath>> {
        let mut paths = BTreeSet::new();
        for parent in self.parents() {
            for child in control::children(&parent)? {
                if let Some(name) = child.file_name().and_then(|name| name.to_str()) {
                    paths.insert(CgroupPath::new(name)?);
                }
            }
        }
        Ok(paths.into_iter().collect())
    }

    /// Removes the prefix directories that are empty; returns how many. For `system prune` and leak checks: commands
    /// that create at the same moment start again.
    ///
    /// # Errors
    /// [`Error::Remove`] for any other reason than being in use.
    pub fn prune(&self) -> Result<usize> {
        let mut removed = 0;
        let mut errors = Vec::new();
        for parent in self.parents() {
            match rustix::fs::rmdir(&parent) {
                Ok(()) => removed += 1,
                Err(Errno::NOENT | Errno::BUSY | Errno::NOTEMPTY) => {}
                Err(source) => errors.push(Error::Remove {
                    path: parent,
                    source,
                }),
            }
        }
        all(errors).map(|()| removed)
    }

    /// The prefix directory in every hierarchy.
    fn parents(&self) -> impl Iterator<Item = PathBuf> {
        let Decision {
            unified, legacy, ..
        } = &self.inner.decision;
        let bases = unified
            .iter()
            .map(|unified| &unified.base)
            .chain(legacy.iter().map(|legacy| &legacy.base));
        bases.map(|base| base.join(&self.inner.prefix))
    }

    /// Where a cgroup of this path would be in each hierarchy, v2 first.
    pub(crate) fn candidates(&self, path: &CgroupPath) -> Vec<Directory> {
        let Decision {
            unified, legacy, ..
        } = &self.inner.decision;
        let directory = |version, mount_point: &Path, base: &Path, controllers: &[Controller]| {
            let (base, top) = if path.is_absolute() {
                (mount_point.to_owned(), mount_point.to_owned())
            } else {
                (base.to_owned(), base.join(&self.inner.prefix))
            };
            let path = path
                .components()
                .iter()
                .fold(top.clone(), |path, component| path.join(component));
            Directory {
                version,
                controllers: controllers.to_vec(),
                path,
                top,
                base,
            }
        };
        let unified = unified
            .iter()
            .map(|u| directory(Version::Unified, &u.mount_point, &u.base, &[]));
        let legacy = legacy
            .iter()
            .map(|l| directory(Version::Legacy, &l.mount_point, &l.base, &l.controllers));
        unified.chain(legacy).collect()
    }

    /// The v2 hierarchy.
    pub(crate) fn unified(&self) -> Option<&UnifiedBase> {
        self.inner.decision.unified.as_ref()
    }

    /// Which version holds a controller here; `None` if neither does.
    pub(crate) fn place(&self, controller: Controller) -> Option<Version> {
        let decision = &self.inner.decision;
        if decision
            .legacy
            .iter()
            .any(|legacy| legacy.controllers.contains(&controller))
        {
            return Some(Version::Legacy);
        }
        decision.unified.as_ref()?;
        let built_in = matches!(
            controller,
            Controller::Devices | Controller::Freezer | Controller::CpuAccounting
        );
        (built_in || self.unified_controllers().contains(&controller)).then_some(Version::Unified)
    }

    /// What the v2 hierarchy can give us. A list that cannot be read gives us nothing, and is named where that matters.
    fn unified_controllers(&self) -> &[Controller] {
        self.inner.unified_controllers.get_or_init(|| {
            let unified = self.inner.decision.unified.as_ref();
            let content =
                unified.map(|unified| control::read(&unified.base.join("cgroup.controllers")));
            content
                .and_then(Result::ok)
                .map(|content| unified_controllers(&content))
                .unwrap_or_default()
        })
    }

    /// Why a controller is not to be had, and what to do.
    pub(crate) fn missing(&self, controller: Controller, wanted: &str) -> Error {
        let decision = &self.inner.decision;
        let (reason, remedy) = if let Layout::Unavailable { reason, remedy } = &decision.layout {
            (reason.clone(), remedy.clone())
        } else if let Some((_, mount_point)) = decision
            .closed
            .iter()
            .find(|(closed, _)| *closed == controller)
        {
            let reason = format!(
                "its v1 hierarchy at {} is not writable for this user",
                mount_point.display()
            );
            (
                reason,
                Some("run as root; cgroup v1 cannot be delegated".to_owned()),
            )
        } else if let (Some(unified), Some(name)) = (&decision.unified, controller.unified_name()) {
            let names: Vec<_> = self
                .unified_controllers()
                .iter()
                .filter_map(|controller| controller.unified_name())
                .collect();
            let reason = format!(
                "{} has only: {}",
                unified.base.join("cgroup.controllers").display(),
                names.join(" ")
            );
            let remedy = if unified.base.to_string_lossy().contains("/user@") {
                "let systemd delegate it: systemctl edit user@.service, add [Service] Delegate=cpu cpuset io memory pids, and log in again".to_owned()
            } else {
                format!(
                    "see /proc/cgroups whether the kernel has it and a v1 hierarchy holds it; the cgroup above must have +{name} in its cgroup.subtree_control (at boot: cgroup_enable={name})"
                )
            };
            (reason, Some(remedy))
        } else {
            let name = controller.legacy_name();
            let remedy = format!(
                "mount it where the kernel has it (/proc/cgroups): mount -t cgroup -o {name} none DIRECTORY"
            );
            (
                "no hierarchy that has it is mounted".to_owned(),
                Some(remedy),
            )
        };
        Error::ControllerMissing {
            wanted: wanted.to_owned(),
            controller,
            reason,
            remedy,
        }
    }

    fn make_unified(&self, unified: &UnifiedBase, path: &CgroupPath) -> Result<Directory> {
        let mut candidates = self.candidates(path).into_iter();
        let directory = candidates.find(|candidate| candidate.version == Version::Unified);
        let directory = directory.ok_or_else(|| Error::NotFound {
            path: unified.base.display().to_string(),
        })?;
        make(&directory)?;
        Ok(directory)
    }

    /// Makes the directory of a v1 controller, unless the cgroup has it already or v1 does not hold it. Returns it if made.
    pub(crate) fn add_legacy(
        &self,
        cgroup: &mut Cgroup,
        controller: Controller,
    ) -> Result<Option<PathBuf>> {
        if cgroup
            .directories
            .iter()
            .any(|directory| directory.controllers.contains(&controller))
        {
            return Ok(None);
        }
        let candidates = self.candidates(cgroup.path());
        let Some(directory) = candidates
            .into_iter()
            .find(|candidate| candidate.controllers.contains(&controller))
        else {
            return Ok(None);
        };
        make(&directory)?;
        let path = directory.path.clone();
        cgroup.directories.push(directory);
        Ok(Some(path))
    }

    /// Has the v2 cgroups above hand down the controllers that this one needs, and notes those that it has.
    ///
    /// What is not in `required` is for accounting: where it cannot be had, it is left away.
    pub(crate) fn enable(
        &self,
        unified: &UnifiedBase,
        cgroup: &mut Cgroup,
        needed: &BTreeSet<Controller>,
        required: &[(String, Controller)],
    ) -> Result<()> {
        let Some(directory) = cgroup
            .directories
            .iter_mut()
            .find(|d| d.version == Version::Unified)
        else {
            return Ok(());
        };
        // On a hybrid host nothing is wanted of v2 as a rule, and nothing is read.
        let mut missing: Vec<Controller> = needed
            .iter()
            .copied()
            .filter(|c| c.unified_name().is_some() && self.place(*c) == Some(Version::Unified))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        directory.controllers = directory.unified_controllers()?;
        missing.retain(|controller| !directory.controllers.contains(controller));
        if missing.is_empty() {
            return Ok(());
        }
        let levels: Vec<PathBuf> = {
            let above = directory
                .path
                .ancestors()
                .skip(1)
                .take_while(|level| level.starts_with(&directory.base));
            let mut levels: Vec<PathBuf> = above.map(Path::to_owned).collect();
            levels.reverse();
            levels
        };
        for level in &levels {
            let enabled =
                unified_controllers(&control::read(&level.join("cgroup.subtree_control"))?);
            let off: Vec<Controller> = missing
                .iter()
                .copied()
                .filter(|controller| !enabled.contains(controller))
                .collect();
            let wanted_of = |controller: Controller| {
                required
                    .iter()
                    .find(|(_, needed)| *needed == controller)
                    .map(|(wanted, _)| wanted)
            };
            if off.is_empty() {
                continue;
            }
            if let Err(error) = make_room(unified, level) {
                match off
                    .iter()
                    .any(|controller| wanted_of(*controller).is_some())
                {
                    true => return Err(error),
                    // Accounting only: Usage says None for it, and a later limit gets this error.
                    false => break,
                }
            }
            for controller in off {
                match (hand_down(level, controller), wanted_of(controller)) {
                    (Ok(()), _) => {}
                    // Accounting only, as above.
                    (Err(_), None) => {}
                    (
                        Err(Error::Write {
                            source: Errno::NOENT,
                            ..
                        }),
                        Some(wanted),
                    ) => {
                        return Err(self.missing(controller, wanted));
                    }
                    (Err(error), Some(_)) => return Err(error),
                }
            }
        }
        directory.controllers = directory.unified_controllers()?;
        Ok(())
    }
}

/// Removes only what was made here: another cgroup of this name may be why it failed.
fn undo(cgroup: &Cgroup, error: Error) -> Error {
    match cgroup.remove_those(&cgroup.directories) {
        Ok(()) => error,
        Err(besides) => Error::Several {
            first: Box::new(error),
            others: vec![besides],
        },
    }
}

/// What must be there for these limits, each with the limit that needs it.
pub(crate) fn required(limits: &Limits, devices: &DeviceRules) -> Vec<(String, Controller)> {
    let mut required: Vec<(String, Controller)> = limits
        .wanted()
        .into_iter()
        .map(|(name, controller)| (name.to_owned(), controller))
        .collect();
    for file in limits.unified.keys() {
        let controller = file
            .split_once('.')
            .and_then(|(name, _)| Controller::from_unified_name(name));
        required.extend(controller.map(|controller| (file.clone(), controller)));
    }
    if !devices.is_unrestricted() {
        required.push(("restricting devices".to_owned(), Controller::Devices));
    }
    required
}

/// The controllers in a file such as `cgroup.controllers`; those that this crate does not know are left away.
pub(crate) fn unified_controllers(content: &str) -> Vec<Controller> {
    content
        .split_ascii_whitespace()
        .filter_map(Controller::from_unified_name)
        .collect()
}
