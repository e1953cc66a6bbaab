//! state.json, and the status that follows from it and the kernel.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use coracle_oci::runtime::Hook;
use serde::{Deserialize, Serialize};

use super::{Bundles, does_not_exist};
use crate::error::{Error, Result};
use crate::state::{self, Lock};

pub(super) const VERSION: u32 = 1;

/// The pipe that a created process waits at; its name says that the container was not started.
pub(super) const START: &str = "start";
/// The pipe that says how the start went.
pub(super) const OUTCOME: &str = "outcome";
/// The document as it was read.
pub(super) const CONFIG: &str = "config.json";

/// What was decided of a container; docs/format/oci-state.md.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub version: u32,
    pub oci_version: String,
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    pub created: String,
    pub owner: u32,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    pub cgroup: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    pub pid: Option<i32>,
    pub start_time: Option<u64>,
    pub own_pids: bool,
    pub command: String,
    #[serde(default)]
    pub hooks: LateHooks,
}

/// Hooks that run when the command that made the container is gone.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LateHooks {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<Hook>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

/// What a container is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// A command is making it.
    Creating,
    /// It waits for its start.
    Created,
    /// Its command runs.
    Running,
    /// It runs and is frozen.
    Paused,
    /// Its first process is gone.
    Stopped,
}

impl Status {
    /// The word of the specification.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// The state as callers read it: the specification's members, and those that runc adds.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StateDocument {
    /// Version of the specification.
    pub oci_version: String,
    /// Id.
    pub id: String,
    /// The first process, 0 when there is none.
    pub pid: i32,
    /// Status.
    pub status: Status,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The root file system's directory.
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The user name or id of who made it.
    pub owner: String,
}

impl Record {
    /// The state with this status.
    pub(super) fn document(&self, status: Status) -> StateDocument {
        let alive = !matches!(status, Status::Stopped | Status::Creating);
        StateDocument {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            // While it is being created, hooks are told the process that there is.
            pid: match (alive, status, self.pid) {
                (true, _, Some(pid)) | (_, Status::Creating, Some(pid)) => pid,
                _ => 0,
            },
            status,
            bundle: self.bundle.clone(),
            rootfs: self.rootfs.clone(),
            created: self.created.clone(),
            annotations: self.annotations.clone(),
            owner: match self.owner {
                0 => "root".to_owned(),
                owner => owner.to_string(),
            },
        }
    }

    /// Its first process, if that is the one that was started and is not a zombie.
    pub(super) fn process(&self) -> Result<Option<std::os::fd::OwnedFd>> {
        let (Some(pid), Some(started)) = (self.pid, self.start_time) else {
            return Ok(None);
        };
        coracle_runtime::process::open(pid, started)
            .map_err(|error| Error::file("looking for", Path::new(&format!("/proc/{pid}")), error))
    }

    pub(super) fn store(&self, directory: &Path) -> Result<()> {
        state::store(&directory.join("state.json"), self)
    }
}

/// Reads a container's record; `None`: there is none (yet).
pub(super) fn load(directory: &Path) -> Result<Option<Record>> {
    let record: Option<Record> = state::load(&directory.join("state.json"))?;
    match record {
        Some(record) if record.version > VERSION => Err(Error::refused_with(
            format!("container {:?} was made by a newer version", record.id),
            "use that version",
        )),
        other => Ok(other),
    }
}

impl Bundles {
    /// The record of a container that has one, with its directory.
    pub(super) fn existing(&self, id: &str) -> Result<(PathBuf, Record)> {
        let directory = self.directory(id)?;
        match load(&directory)? {
            Some(record) => Ok((directory, record)),
            None => Err(does_not_exist(id)),
        }
    }

    /// Derived from the kernel, now. `locked`: the caller holds the container's lock.
    pub(super) fn status(&self, directory: &Path, record: &Record, locked: bool) -> Result<Status> {
        let Some(pid) = record.pid else {
            let held = !locked && Lock::look(directory)?.is_err();
            return Ok(if held {
                Status::Creating
            } else {
                Status::Stopped
            });
        };
        let alive = match record.start_time {
            Some(started) => coracle_runtime::process::is_alive(pid, started).map_err(|error| {
                Error::file("reading", Path::new(&format!("/proc/{pid}/stat")), error)
            })?,
            None => false,
        };
        if !alive {
            return Ok(Status::Stopped);
        }
        if directory.join(START).exists() {
            return Ok(Status::Created);
        }
        Ok(match self.cgroup_of(record)? {
            Some(cgroup) if cgroup.is_frozen()? => Status::Paused,
            _ => Status::Running,
        })
    }
}
