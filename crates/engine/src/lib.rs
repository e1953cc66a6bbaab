//! The engine: everything a door may ask for, as transactions over files and the kernel.
//!
//! Invariants: no daemon, so an [`Engine`] is opened by every command and holds nothing but paths; status is derived
//! (`status`), never stored; every verb that changes the world is ordered as docs/format/state.md says, so that a
//! command killed at any instant is finished or undone by the next one on the same object. The engine reads no
//! terminal, no environment and no home directory: [`EngineConfig`] is a value that a door makes.
//!
//! One file a verb below `verbs`; what several verbs share is named by its subject.

pub mod answer;
pub mod bundle;
mod error;
mod etc;
mod events;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod host_root;
mod leases;
mod names;
mod process;
pub mod request;
mod root;
mod spec;
mod start;
mod state;
mod status;
mod users;
mod verbs;
mod volumes;

use std::path::PathBuf;
use std::sync::OnceLock;

pub use coracle_image as image;
pub use coracle_monitor as monitor;
pub use coracle_oci as oci;
use coracle_oci::ContainerId;
pub use coracle_runtime::init_main as init;
pub use coracle_runtime::seal::ensure as seal;
pub use error::{Error, Result};
pub use events::Events;
pub use start::{ADOPT, MONITOR, MonitorStreams};
pub use verbs::copy::{CopyStat, HELPER as COPY_HELPER, helper as copy_helper};
pub use verbs::create::Created;
pub use verbs::exec::{Exec, ExecIo};
pub use verbs::logs::{LogLine, LogLines, Stream};
pub use verbs::wait::WaitFor;

use crate::state::Paths;

/// The name under which this binary is a container's init (`--init`).
pub const INIT: &str = "init";

/// What an engine needs to know before it opens anything.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Lasting state, as `/var/lib/coracle`.
    pub root: PathBuf,
    /// State of what runs, as `/run/coracle`; may vanish at a reboot.
    pub run_root: PathBuf,
    /// The caller is an ordinary user, at this moment root of a user namespace that maps its own id and, where it
    /// has them, its subordinate ids.
    pub rootless: bool,
    /// Directory below each cgroup hierarchy that is ours, as `coracle`.
    pub cgroup_prefix: String,
}

/// An open engine.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    paths: Paths,
    images: OnceLock<coracle_image::Images>,
    cgroups: OnceLock<coracle_cgroup::Manager>,
    events: OnceLock<std::fs::File>,
}

impl Engine {
    /// Opens the engine; makes its directories if they are not there.
    ///
    /// # Errors
    /// [`Error::File`] when the directories cannot be made.
    pub fn open(config: EngineConfig) -> Result<Engine> {
        let paths = Paths {
            root: config.root.clone(),
            run: config.run_root.clone(),
        };
        for directory in [
            paths.containers(),
            paths.names(),
            paths.volumes(),
            paths.runs(),
            paths.ids(),
        ] {
            state::make_directory(&directory)?;
        }
        Ok(Engine {
            config,
            paths,
            images: OnceLock::new(),
            cgroups: OnceLock::new(),
            events: OnceLock::new(),
        })
    }

    /// The images; the store is opened at the first use.
    ///
    /// # Errors
    /// What opening the store says.
    pub fn images(&self) -> Result<&coracle_image::Images> {
        if let Some(images) = self.images.get() {
            return Ok(images);
        }
        let options = coracle_store::Options::default();
        let store = coracle_store::Store::open(&self.paths.root.join("store"), &options)?;
        let images = coracle_image::Images::open(store)?;
        Ok(self.images.get_or_init(|| images))
    }

    /// The cgroup hierarchies; probed at the first use.
    fn cgroups(&self) -> Result<&coracle_cgroup::Manager> {
        if let Some(manager) = self.cgroups.get() {
            return Ok(manager);
        }
        let manager = self.recall_cgroups()?;
        Ok(self.cgroups.get_or_init(|| manager))
    }

    /// Finding out reads the kernel's list of mounts, a tenth of a start; so it is remembered as long as it holds.
    fn recall_cgroups(&self) -> Result<coracle_cgroup::Manager> {
        let path = self.paths.run.join("cgroups.json");
        let prefix = &self.config.cgroup_prefix;
        // One that does not parse was written by another version: it is found out again.
        let remembered = state::load(&path).unwrap_or_default();
        if let Some(manager) =
            remembered.and_then(|found| coracle_cgroup::Manager::recall(prefix, found))
        {
            return Ok(manager);
        }
        let manager = coracle_cgroup::Manager::open(prefix)?;
        if let Some(found) = manager.remember() {
            state::store(&path, &found)?;
        }
        Ok(manager)
    }

    /// The container with this name, id, or unique beginning of an id.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`], [`Error::Ambiguous`].
    pub fn find(&self, name_or_prefix: &str) -> Result<ContainerId> {
        let name = name_or_prefix.strip_prefix('/').unwrap_or(name_or_prefix);
        if let Some(id) = names::owner(&self.paths, name)? {
            return Ok(id);
        }
        let hexadecimal = !name.is_empty()
            && name
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !hexadecimal {
            return Err(Error::NoSuchContainer(name_or_prefix.into()));
        }
        let mut found: Vec<ContainerId> = Vec::new();
        for candidate in state::names_in(&self.paths.containers())? {
            if candidate.starts_with(name) {
                found.extend(candidate.parse().ok());
            }
        }
        match found.len() {
            0 => Err(Error::NoSuchContainer(name_or_prefix.into())),
            1 => {
                let id = found.remove(0);
                if self.record(&id)?.is_some() {
                    Ok(id)
                } else {
                    Err(Error::NoSuchContainer(name_or_prefix.into()))
                }
            }
            count => Err(Error::Ambiguous {
                prefix: name.into(),
                count,
            }),
        }
    }

    /// As [`request::ContainerSpec::shares_host_ids`], of a container that was made.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`].
    pub fn shares_host_ids(&self, id: &ContainerId) -> Result<bool> {
        Ok(!self.config.rootless && self.existing(id)?.spec.shares_host_ids())
    }

    /// What was decided of a container; `None` when it is gone or its creation did not end.
    fn record(&self, id: &ContainerId) -> Result<Option<state::Record>> {
        let path = self.paths.config(id);
        let record: Option<state::Record> = state::load(&path)?;
        match record {
            Some(record) if record.version > state::VERSION => Err(Error::refused_with(
                format!(
                    "container {} was made by a newer version of this engine",
                    id.short()
                ),
                "use that version, or remove the container with it",
            )),
            other => Ok(other),
        }
    }

    /// As [`Engine::record`], but it must be there.
    fn existing(&self, id: &ContainerId) -> Result<state::Record> {
        self.record(id)?
            .ok_or_else(|| Error::NoSuchContainer(id.short().into()))
    }
}
