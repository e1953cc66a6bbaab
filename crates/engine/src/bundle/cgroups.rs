//! A bundle's cgroup: where, with which limits and device rules.

use std::path::Path;
use std::time::Duration;

use coracle_cgroup::{Cgroup, CgroupPath, DeviceRules, Layout, Limits, Manager};
use coracle_oci::runtime::{LinuxResources, Spec};

use super::Bundles;
use super::record::Record;
use crate::error::{Error, Result};

/// The directory of containers whose document names no place.
pub(super) const PREFIX: &str = "coracle-oci";

/// How long killed processes get to go.
pub(super) const KILL_WITHIN: Duration = Duration::from_secs(10);

/// The inode number of the first user namespace, fixed in the kernel's ABI (`PROC_USER_INIT_INO`).
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

impl Bundles {
    /// Where the document wants the container's cgroup: an absolute path is below the hierarchies' mount points, a relative
    /// one below our own directory.
    pub(super) fn cgroup_path(&self, spec: &Spec, id: &str) -> Result<CgroupPath> {
        let asked = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.cgroups_path().as_deref())
            .filter(|path| !path.as_os_str().is_empty());
        let Some(path) = asked else {
            // Some ids are names of control files.
            return Ok(CgroupPath::new(&format!("id-{id}"))?);
        };
        let text = path.to_str().ok_or_else(|| {
            Error::refused(format!("linux.cgroupsPath {} is not UTF-8", path.display()))
        })?;
        if self.config.systemd_cgroup || is_systemd_form(text) {
            return Err(Error::refused_with(
                format!(
                    "the cgroup {text:?} would have to be made by systemd, which this runtime does not ask yet"
                ),
                "have the caller use the cgroupfs manager (Podman: --cgroup-manager cgroupfs; Docker: native.cgroupdriver=cgroupfs)",
            ));
        }
        Ok(CgroupPath::new(text)?)
    }

    /// Makes the cgroup. What a container that is gone left behind at its place is cleared; one with processes is in use.
    pub(super) fn make_cgroup(&self, spec: &Spec, path: &CgroupPath) -> Result<Cgroup> {
        let manager = self.cgroups()?;
        let resources = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.resources().as_ref());
        let limits = resources.map(Limits::from).unwrap_or_default();
        let rules = device_rules(resources, manager)?;
        match manager.create(path, &limits, &rules) {
            Err(coracle_cgroup::Error::Exists { .. }) => {
                let left = manager.open_existing(path)?;
                if !left.processes()?.is_empty() {
                    return Err(Error::refused(format!(
                        "the cgroup {path} is in use: there are processes in it"
                    )));
                }
                left.remove()?;
                Ok(manager.create(path, &limits, &rules)?)
            }
            other => Ok(other?),
        }
    }

    /// The container's cgroup, if it has one and it is still there.
    pub(super) fn cgroup_of(&self, record: &Record) -> Result<Option<Cgroup>> {
        let Some(path) = &record.cgroup else {
            return Ok(None);
        };
        match self.cgroups()?.open_existing(&CgroupPath::new(path)?) {
            Ok(cgroup) if cgroup.is_none() => Ok(None),
            Ok(cgroup) => Ok(Some(cgroup)),
            Err(coracle_cgroup::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// As [`Bundles::cgroup_of`], for what cannot be done without.
    pub(super) fn needed_cgroup(&self, record: &Record, doing: &str) -> Result<Cgroup> {
        self.cgroup_of(record)?.ok_or_else(|| {
            Error::refused_with(
                format!("cannot {doing} container {:?}: it has no cgroup", record.id),
                "run as root, or have cgroups delegated to this user",
            )
        })
    }
}

/// Ends every process in a cgroup and removes it.
pub(super) fn clear(cgroup: &Cgroup) -> Result<()> {
    if !cgroup.is_none() && !cgroup.processes()?.is_empty() {
        cgroup.kill(KILL_WITHIN)?;
    }
    Ok(cgroup.remove()?)
}

/// `slice:prefix:name`.
fn is_systemd_form(path: &str) -> bool {
    !path.contains('/') && path.split(':').count() == 3
}

/// The document's rules and, as every runtime adds, the devices that the specification has in every container.
fn device_rules(resources: Option<&LinuxResources>, manager: &Manager) -> Result<DeviceRules> {
    let asked = resources
        .and_then(|resources| resources.devices().as_deref())
        .unwrap_or_default();
    let may_restrict =
        !matches!(manager.layout(), Layout::Unavailable { .. }) && manager.can_restrict_devices();
    // In a user namespace of the caller's the kernel lets nobody make device nodes: there is nothing to restrict.
    if !may_restrict && (asked.is_empty() || !in_first_user_namespace()?) {
        return Ok(DeviceRules::unrestricted());
    }
    if asked.is_empty() {
        return Ok(DeviceRules::docker_default());
    }
    let mut rules = DeviceRules::from_oci(asked)?;
    let allows = DeviceRules::docker_default();
    for rule in allows.rules().iter().filter(|rule| rule.allow) {
        rules.push(*rule);
    }
    Ok(rules)
}

fn in_first_user_namespace() -> Result<bool> {
    let path = Path::new("/proc/self/ns/user");
    let status = rustix::fs::stat(path).map_err(|error| Error::file("looking at", path, error))?;
    Ok(status.st_ino == FIRST_USER_NAMESPACE)
}
