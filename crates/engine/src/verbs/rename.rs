//! `rename`: the new name is claimed before the old one is given up.

use coracle_oci::ContainerId;

use crate::error::Result;
use crate::events::Happening;
use crate::state::{self, Lock};
use crate::{Engine, names};

impl Engine {
    /// Gives the container another name.
    ///
    /// # Errors
    /// [`Error::NameInUse`]; [`Error::Refused`] for a name outside the rule for names.
    pub fn rename(&self, id: &ContainerId, new: &str) -> Result<()> {
        let _lock = Lock::wait(&self.paths.container(id))?;
        let mut record = self.existing(id)?;
        names::claim(&self.paths, new, id)?;
        let old = std::mem::replace(&mut record.name, new.trim_start_matches('/').to_owned());
        state::store(&self.paths.config(id), &record)?;
        names::release(&self.paths, &old, id)?;
        self.happened(Happening::container("rename", &record).with("oldName", old))
    }
}
