//! `rm`: the container, its files and its name; with `force` its processes first.

use coracle_oci::ContainerId;

use crate::Engine;
use crate::error::{Error, Result};
use crate::events::Happening;
use crate::request::RemoveOptions;
use crate::state::{self, Lock};

impl Engine {
    /// Removes a container.
    ///
    /// # Errors
    /// [`Error::WrongState`] when it runs and `force` was not given.
    pub fn remove(&self, id: &ContainerId, options: RemoveOptions) -> Result<()> {
        let record = match self.existing(id) {
            Ok(record) => record,
            // A record that cannot be read cannot say more either: by force it goes as it is.
            Err(Error::Damaged { .. }) if options.force => return self.remove_damaged(id),
            Err(error) => return Err(error),
        };
        let directory = self.paths.container(id);
        let Some(_lock) = Lock::wait(&directory)? else {
            return Err(Error::NoSuchContainer(id.short().into()));
        };
        let observed = self.settled(&record)?;
        if observed.run.is_some() {
            if !options.force {
                return Err(Error::WrongState {
                    verb: "remove",
                    name: record.name.clone(),
                    status: observed.status.as_str().into(),
                    hint: Some("stop it first, or remove it with -f".into()),
                });
            }
            self.stop_now(&record, Some(0), Some("KILL"))?;
            self.observe(&record)?;
        }
        self.delete_container(&record)?;
        if options.volumes {
            self.remove_anonymous_volumes(&record)?;
        }
        self.happened(Happening::container("destroy", &record))?;
        self.sweep()
    }

    fn remove_damaged(&self, id: &ContainerId) -> Result<()> {
        let run: Option<state::Run> = state::load(&self.paths.run_file(id))?;
        if let Some(run) = run {
            self.release_run(id, &run)?;
        }
        state::delete_tree(&self.paths.run_of(id))?;
        state::delete_tree(&self.paths.container(id))
    }
}
