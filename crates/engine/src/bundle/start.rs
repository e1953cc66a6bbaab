//! `start`: the created process is let go by another command than the one that made it.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::create::GATE;
use super::record::{OUTCOME, START, Status};
use super::{Bundles, does_not_exist, hooks, record};
use crate::error::{Error, Result};
use crate::state::{self, Lock};

impl Bundles {
    /// Starts a created container.
    ///
    /// # Errors
    /// When it is not created; when its command cannot be executed (126 and 127 by [`Error::exit_code`]); what a hook says,
    /// after which the container is stopped.
    pub fn start(&self, id: &str) -> Result<()> {
        let directory = self.directory(id)?;
        let lock = Lock::wait(&directory)?.ok_or_else(|| does_not_exist(id))?;
        let record = record::load(&directory)?.ok_or_else(|| does_not_exist(id))?;
        let status = self.status(&directory, &record, true)?;
        let not_created = |status: Status| {
            Error::refused(format!(
                "cannot start container {id:?}: it is {}, not created",
                status.as_str()
            ))
        };
        if status != Status::Created {
            return Err(not_created(status));
        }
        if !record.hooks.start_container.is_empty() {
            // A copy of us goes into the container before it executes the hook (CVE-2019-5736).
            coracle_runtime::seal::ensure()?;
        }
        let process = record
            .process()?
            .ok_or_else(|| not_created(Status::Stopped))?;
        let stop = |error: Error| {
            // A failure to kill it is not the failure that is told; what is left is stopped or shows as running.
            let _ = coracle_linux::signal::send(process.as_fd(), 9);
            error
        };
        hooks::start_container(&record, process.as_fd()).map_err(stop)?;
        let gate = |name: &str, flags: OFlags| {
            let path = directory.join(name);
            open(
                &path,
                flags | OFlags::NONBLOCK | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|error| {
                match error {
                    // Nobody reads it.
                    Errno::NXIO => not_created(Status::Stopped),
                    error => Error::file("opening", &path, error),
                }
            })
        };
        let outcome = gate(OUTCOME, OFlags::RDONLY)?;
        let start = gate(START, OFlags::WRONLY)?;
        let started = coracle_runtime::open_gate(start.as_fd(), outcome.as_fd(), &record.command);
        for name in GATE {
            state::delete_file(&directory.join(name))?;
        }
        started?;
        hooks::poststart(&record).map_err(stop)?;
        drop(lock);
        Ok(())
    }
}
