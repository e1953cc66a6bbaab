//! `wait`: until a container does not run, and with which code it ended.

use std::time::Duration;

use coracle_linux::pidfd;
use coracle_oci::ContainerId;
use rustix::fd::AsFd;

use crate::Engine;
use crate::answer::Status;
use crate::error::{Error, Result};
use crate::state::{self, LastRun, Lock, Run};

/// Between two looks at what no descriptor tells of.
const PATIENCE: Duration = Duration::from_millis(5);

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// It does not run (any more).
    NotRunning,
    /// Its next exit.
    NextExit,
    /// It is removed.
    Removed,
}

impl Engine {
    /// Waits, and gives the exit code of the last run (0 if it never ran).
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`] when there is none.
    pub fn wait(&self, id: &ContainerId, condition: WaitFor) -> Result<i32> {
        let record = self.existing(id)?;
        let mut code = 0;
        loop {
            let observed = self.observe(&record)?;
            let running = observed.running().cloned();
            match (&running, condition) {
                (Some(run), _) => {
                    code = self.wait_for_exit(id, run)?;
                    if condition != WaitFor::Removed {
                        return Ok(code);
                    }
                }
                // Between a run and the next none is written down; a run whose process is gone and that still is has an
                // end that its monitor is writing.
                (None, WaitFor::NotRunning)
                    if observed.run.as_ref().is_none_or(|run| {
                        observed.status == Status::Restarting && run.pid == 0
                    }) =>
                {
                    return Ok(self.last_code(id)?.unwrap_or(code));
                }
                _ => std::thread::sleep(PATIENCE),
            }
            if self.record(id)?.is_none() {
                return Ok(code);
            }
        }
    }

    /// Until the first process of this run is gone and its code is written down; a container that removes itself
    /// leaves none, so the code is asked of the kernel where it keeps it.
    fn wait_for_exit(&self, id: &ContainerId, run: &Run) -> Result<i32> {
        let failed =
            |error: rustix::io::Errno| Error::file("waiting for", &self.paths.run_of(id), error);
        let process = coracle_runtime::process::open(run.pid, run.start_time)
            .map_err(|error| Error::file("waiting for", &self.paths.run_of(id), error))?;
        if let Some(process) = &process {
            pidfd::wait_exit(process.as_fd(), None).map_err(failed)?;
        }
        let directory = self.paths.run_of(id);
        // While the monitor has not cleared away, its record is still to come, also of a process that was gone before we
        // looked.
        while directory.exists() && !self.is_recorded(id, run)? && Lock::look(&directory)?.is_err()
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        let kept = match &process {
            Some(process) => {
                coracle_monitor::ExitStatus::kept_by(process.as_fd()).map_err(failed)?
            }
            None => None,
        };
        let kept = kept.map(|status| status.code());
        Ok(self.last_code(id)?.or(kept).unwrap_or(0))
    }

    fn is_recorded(&self, id: &ContainerId, run: &Run) -> Result<bool> {
        let last: Option<LastRun> = state::load(&self.paths.last(id))?;
        Ok(last.is_some_and(|last| last.started == run.started && last.finished != 0))
    }

    fn last_code(&self, id: &ContainerId) -> Result<Option<i32>> {
        let last: Option<LastRun> = state::load(&self.paths.last(id))?;
        Ok(last.map(|last| last.exit_code))
    }

    /// Until the run's directory is gone or nobody looks after it any more.
    pub(crate) fn wait_for_end_of_run(&self, id: &ContainerId) -> Result<()> {
        Lock::wait_until_free(&self.paths.run_of(id))
    }
}
