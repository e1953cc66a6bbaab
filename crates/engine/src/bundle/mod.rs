//! Containers from OCI bundles, as an OCI runtime makes them: no image, no store, no monitor.
//!
//! What is stored, and how a status is derived from it, is docs/format/oci-state.md. Apart from the engine's own containers:
//! whoever calls an OCI runtime (Podman, containerd, Slurm) keeps names, logs and restarts itself.
//!
//! Invariants: a container's directory is changed under its flock; what a killed command left is cleared by `delete`; between
//! `create` and `start` no process of ours is needed.

mod cgroup_mount;
mod cgroups;
mod create;
mod delete;
mod document;
mod exec;
mod features;
mod hooks;
mod launch;
mod net_devices;
mod record;
mod sockets;
mod start;
mod stats;
mod template;
mod verbs;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::OnceLock;

pub use coracle_runtime::Deviations;
pub use create::CreateRequest;
pub use document::{parse, parse_process, shares_host_ids};
pub use exec::{ExecCommand, ExecRequest, ExecSource};
pub use features::features;
pub use launch::Launched;
#[cfg(feature = "fuzzing")]
pub(crate) use record::Record as StoredForFuzzing;
pub use record::{StateDocument, Status};
pub use stats::stats;
pub use template::template;

use crate::error::{Error, Result};
use crate::state;

/// Where an OCI runtime keeps its state, and how it makes cgroups.
#[derive(Debug, Clone)]
pub struct BundlesConfig {
    /// One directory a container below it.
    pub root: PathBuf,
    /// Cgroups are made by systemd, as transient scopes.
    pub systemd_cgroup: bool,
}

/// The containers of one OCI runtime's root.
#[derive(Debug)]
pub struct Bundles {
    config: BundlesConfig,
    cgroups: OnceLock<coracle_cgroup::Manager>,
    warnings: RefCell<Vec<String>>,
}

impl Bundles {
    /// Opens them; nothing is made before the first container is.
    #[must_use]
    pub fn open(config: BundlesConfig) -> Bundles {
        Bundles {
            config,
            cgroups: OnceLock::new(),
            warnings: RefCell::new(Vec::new()),
        }
    }

    /// What is not as it was asked for and yet no error; each is told once.
    pub fn take_warnings(&self) -> Vec<String> {
        self.warnings.take()
    }

    fn warn(&self, warning: impl Into<String>) {
        self.warnings.borrow_mut().push(warning.into());
    }

    /// A container's directory.
    fn directory(&self, id: &str) -> Result<PathBuf> {
        check_id(id)?;
        Ok(self.config.root.join(id))
    }

    /// The cgroup hierarchies; probed at the first use in a boot.
    fn cgroups(&self) -> Result<&coracle_cgroup::Manager> {
        if let Some(manager) = self.cgroups.get() {
            return Ok(manager);
        }
        // No id has a comma in it.
        let path = self.config.root.join(",cgroups");
        let remembered = state::load(&path).unwrap_or_default();
        let manager = remembered
            .and_then(|found| coracle_cgroup::Manager::recall(cgroups::PREFIX, found))
            .map_or_else(|| self.probe_cgroups(&path), Ok)?;
        Ok(self.cgroups.get_or_init(|| manager))
    }

    fn probe_cgroups(&self, path: &std::path::Path) -> Result<coracle_cgroup::Manager> {
        let manager = coracle_cgroup::Manager::open(cgroups::PREFIX)?;
        // Without the root there is no container yet, and nothing is worth remembering.
        if let Some(found) = manager.remember().filter(|_| self.config.root.is_dir()) {
            state::store(path, &found)?;
        }
        Ok(manager)
    }
}

/// An id is a file's name, and safe in every message.
fn check_id(id: &str) -> Result<()> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if !id.is_empty() && id.len() <= 255 && id.bytes().all(sound) && id != "." && id != ".." {
        return Ok(());
    }
    Err(Error::refused_with(
        format!("{id:?} is no container id"),
        "an id has 1 to 255 letters, digits, and characters of \"_+-.\"",
    ))
}

/// The sentence that callers look for.
fn does_not_exist(id: &str) -> Error {
    Error::refused(format!("container {id:?} does not exist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_of_files_and_nothing_else() {
        for id in ["a", "n1.root.9.0.-1", "A_b+c-d.e", "..."] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "a b", "ä", "a\n", &"x".repeat(256)] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
    }
}
