//! `pause` and `unpause`: the cgroup freezer.

use coracle_oci::ContainerId;

use super::stop::running;
use crate::Engine;
use crate::answer::Status;
use crate::error::{Error, Result};
use crate::events::Happening;

impl Engine {
    /// Freezes every process of a running container.
    ///
    /// # Errors
    /// [`Error::WrongState`] when it does not run or is paused already; what the freezer says.
    pub fn pause(&self, id: &ContainerId) -> Result<()> {
        self.freeze(id, "pause", Status::Running)
    }

    /// Thaws a paused container.
    ///
    /// # Errors
    /// [`Error::WrongState`] when it is not paused; what the freezer says.
    pub fn unpause(&self, id: &ContainerId) -> Result<()> {
        self.freeze(id, "unpause", Status::Paused)
    }

    fn freeze(&self, id: &ContainerId, verb: &'static str, from: Status) -> Result<()> {
        let record = self.existing(id)?;
        let observed = self.observe(&record)?;
        let run = running(&record, &observed, verb)?;
        if observed.status != from {
            return Err(Error::WrongState {
                verb,
                name: record.name.clone(),
                status: observed.status.as_str().into(),
                hint: None,
            });
        }
        let cgroup = self.cgroup_of(run)?;
        match from {
            Status::Paused => cgroup.thaw()?,
            _ => cgroup.freeze()?,
        }
        self.happened(Happening::container(verb, &record))
    }
}
