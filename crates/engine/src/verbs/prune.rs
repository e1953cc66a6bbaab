//! `container prune`: stopped containers.

use crate::Engine;
use crate::answer::Status;
use crate::error::{Error, Result};
use crate::request::RemoveOptions;
use crate::state;

impl Engine {
    /// Removes containers that do not run. Filters: `until` (a time, Unix nanoseconds, as text) and `label`. Gives
    /// their ids and the bytes freed.
    ///
    /// # Errors
    /// What removing says.
    pub fn container_prune(&self, filters: &[(String, String)]) -> Result<(Vec<String>, u64)> {
        let before = match filters.iter().find(|(key, _)| key == "until") {
            None => i128::MAX,
            Some((_, time)) => time
                .parse()
                .map_err(|_| Error::refused(format!("not a time: {time:?}")))?,
        };
        let (mut ids, mut freed) = (Vec::new(), 0);
        self.sweep()?;
        for record in self.records()? {
            let labelled = filters
                .iter()
                .filter(|(key, _)| key == "label")
                .all(|(_, value)| match value.split_once('=') {
                    Some((label, value)) => record
                        .process
                        .labels
                        .get(label)
                        .is_some_and(|found| found == value),
                    None => record.process.labels.contains_key(value),
                });
            let status = self.observe(&record)?.status;
            let stopped = matches!(status, Status::Created | Status::Exited);
            // Gone by itself while it was looked at.
            if !stopped
                || !labelled
                || record.created >= before
                || self.record(&record.id)?.is_none()
            {
                continue;
            }
            freed += crate::root::disk_use(&self.paths.upper(&record.id))?;
            match self.remove(&record.id, RemoveOptions::default()) {
                Ok(()) => ids.push(record.id.to_string()),
                // Started or removed by another command in between.
                Err(Error::WrongState { .. } | Error::NoSuchContainer(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.remove_leftover_names()?;
        Ok((ids, freed))
    }

    /// Names whose container is gone would be taken over at their next use; here they go at once.
    fn remove_leftover_names(&self) -> Result<()> {
        for name in state::names_in(&self.paths.names())? {
            if crate::names::owner(&self.paths, &name)?.is_none() {
                crate::names::drop_leftover(&self.paths, &name)?;
            }
        }
        Ok(())
    }
}
