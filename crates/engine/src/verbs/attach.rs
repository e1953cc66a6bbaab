//! `attach`: a client of the monitor.

use coracle_monitor::attach::{Client, Wants};
use coracle_oci::ContainerId;

use super::stop::running;
use crate::Engine;
use crate::error::{Error, Result};

impl Engine {
    /// Attaches to a running container's streams.
    ///
    /// # Errors
    /// [`Error::WrongState`] when it does not run; [`Error::Refused`] when its monitor is gone.
    pub fn attach(&self, id: &ContainerId, wants: Wants) -> Result<Client> {
        let record = self.existing(id)?;
        let observed = self.observe(&record)?;
        running(&record, &observed, "attach to")?;
        if !observed.monitored {
            return Err(Error::refused_with(
                format!(
                    "container {} has lost its monitor: its streams cannot be reached",
                    record.name
                ),
                "its log so far is in `coracle logs`; `coracle restart` gives it a new monitor",
            ));
        }
        Ok(Client::connect(&self.paths.attach(id), wants)?)
    }
}
