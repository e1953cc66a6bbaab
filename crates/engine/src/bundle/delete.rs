//! `delete`: everything that a container had, from whatever state it was left in.

use std::path::Path;

use super::record::{Record, Status};
use super::{Bundles, cgroups, does_not_exist, hooks, record};
use crate::error::{Error, Result};
use crate::state::{self, Lock};

impl Bundles {
    /// Deletes a container: one that is stopped, or was never started; with `force` in any state, and one that is not there
    /// is fine then.
    ///
    /// # Errors
    /// Without `force` when it runs or is not there; what could not be removed, after all else was.
    pub fn delete(&self, id: &str, force: bool) -> Result<()> {
        let directory = self.directory(id)?;
        let missing = || match force {
            true => Ok(()),
            false => Err(does_not_exist(id)),
        };
        let Some(lock) = Lock::wait(&directory)? else {
            return missing();
        };
        let Some(record) = record::load(&directory)? else {
            // A create that was killed at once.
            return match force {
                true => state::delete_tree(&directory),
                false => Err(does_not_exist(id)),
            };
        };
        let status = self.status(&directory, &record, true)?;
        if !force && matches!(status, Status::Running | Status::Paused) {
            return Err(Error::refused_with(
                format!(
                    "cannot delete container {id:?} that is not stopped: {}",
                    status.as_str()
                ),
                "kill it first, or delete with --force",
            ));
        }
        self.clear(&directory, &record)?;
        for failed in hooks::poststop(&record) {
            self.warn(failed);
        }
        drop(lock);
        Ok(())
    }

    /// Ends what lives and removes cgroup and directory.
    fn clear(&self, directory: &Path, record: &Record) -> Result<()> {
        let cgroup = self.cgroup_of(record)?;
        if let Some(process) = record.process()? {
            // It may be gone by now; frozen, it dies when the cgroup is thawed below.
            let _ = coracle_linux::signal::send(&process, 9);
            let killed = match &cgroup {
                Some(cgroup) => cgroups::clear(cgroup),
                None => Ok(()),
            };
            killed?;
            use std::os::fd::AsFd as _;
            let ended =
                coracle_linux::pidfd::wait_exit(process.as_fd(), Some(cgroups::KILL_WITHIN))
                    .map_err(|error| Error::file("waiting for the process of", directory, error))?;
            if !ended {
                return Err(Error::refused(format!(
                    "the first process of container {:?} does not end",
                    record.id
                )));
            }
        } else if let Some(cgroup) = &cgroup {
            cgroups::clear(cgroup)?;
        }
        state::delete_tree(directory)
    }

    /// After a failure: the container goes, and the failure is what is told.
    pub(super) fn abandon(&self, directory: &Path, record: &Record, lock: Lock) {
        if let Err(error) = self.clear(directory, record) {
            self.warn(format!("undoing a failed create: {error}"));
        }
        for failed in hooks::poststop(record) {
            self.warn(failed);
        }
        drop(lock);
    }
}
