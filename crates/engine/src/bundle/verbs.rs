//! The verbs that look at a container or act on its processes.

use std::os::fd::AsFd;

use coracle_cgroup::{DeviceRules, Limits};
use coracle_oci::runtime::LinuxResources;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::record::{StateDocument, Status, load};
use super::{Bundles, check_id};
use crate::error::{Error, Result};
use crate::state;

const KILL: i32 = 9;

impl Bundles {
    /// The state of a container.
    ///
    /// # Errors
    /// When there is none of this id.
    pub fn state(&self, id: &str) -> Result<StateDocument> {
        let (directory, record) = self.existing(id)?;
        let status = self.status(&directory, &record, false)?;
        Ok(record.document(status))
    }

    /// The states of all, by id.
    ///
    /// # Errors
    /// When the root cannot be read.
    pub fn list(&self) -> Result<Vec<StateDocument>> {
        let mut all = Vec::new();
        for id in state::names_in(&self.config.root)? {
            if check_id(&id).is_err() {
                continue;
            }
            let directory = self.config.root.join(&id);
            // One that is being made or deleted at this moment.
            let Some(record) = load(&directory)? else {
                continue;
            };
            let status = self.status(&directory, &record, false)?;
            all.push(record.document(status));
        }
        all.sort_by(|first, second| first.id.cmp(&second.id));
        Ok(all)
    }

    /// Sends signal `number` to the first process, or with `all` to every process of the container, also when the first has
    /// ended.
    ///
    /// # Errors
    /// Without `all` when it is not created or running.
    pub fn kill(&self, id: &str, number: i32, all: bool) -> Result<()> {
        let (directory, record) = self.existing(id)?;
        let status = self.status(&directory, &record, false)?;
        let process = record.process()?;
        if all || (number == KILL && !record.own_pids && process.is_some()) {
            match self.cgroup_of(&record)? {
                Some(cgroup) => signal_all(&cgroup, number)?,
                None => {
                    if let Some(process) = &process {
                        send(process, number)?;
                    }
                }
            }
        } else {
            let process = process.filter(|_| status != Status::Stopped);
            let process = process.ok_or_else(not_running)?;
            send(&process, number)?;
        }
        // What is frozen dies only when it is thawed (v1), and waits for no command of ours.
        if number == KILL
            && status == Status::Paused
            && let Some(cgroup) = self.cgroup_of(&record)?
        {
            cgroup.thaw()?;
        }
        Ok(())
    }

    /// The pids of all processes, as seen from here.
    ///
    /// # Errors
    /// When there is no container of this id.
    pub fn processes(&self, id: &str) -> Result<Vec<i32>> {
        let (_, record) = self.existing(id)?;
        let mut pids: Vec<i32> = match self.cgroup_of(&record)? {
            Some(cgroup) => cgroup
                .processes()?
                .iter()
                .map(|pid| pid.as_raw_nonzero().get())
                .collect(),
            None => record.process()?.and(record.pid).into_iter().collect(),
        };
        pids.sort_unstable();
        Ok(pids)
    }

    /// As [`Bundles::processes`], with what `ps` shows of each.
    ///
    /// # Errors
    /// As [`Bundles::processes`].
    pub fn process_table(&self, id: &str) -> Result<Vec<crate::answer::ProcessInfo>> {
        crate::verbs::top::table(self.processes(id)?)
    }

    /// Freezes a created or running container.
    ///
    /// # Errors
    /// When it is not that.
    pub fn pause(&self, id: &str) -> Result<()> {
        let (directory, record) = self.existing(id)?;
        match self.status(&directory, &record, false)? {
            Status::Created | Status::Running => {
                Ok(self.needed_cgroup(&record, "pause")?.freeze()?)
            }
            status => Err(wrong("pause", id, status)),
        }
    }

    /// Thaws a paused container.
    ///
    /// # Errors
    /// When it is not paused.
    pub fn resume(&self, id: &str) -> Result<()> {
        let (directory, record) = self.existing(id)?;
        match self.status(&directory, &record, false)? {
            Status::Paused => Ok(self.needed_cgroup(&record, "resume")?.thaw()?),
            status => Err(wrong("resume", id, status)),
        }
    }

    /// Changes limits while it runs: what `resources` leaves out stays.
    ///
    /// # Errors
    /// When it does not run; what the cgroup crate refuses, all or nothing.
    pub fn update(&self, id: &str, resources: &LinuxResources) -> Result<()> {
        let (directory, record) = self.existing(id)?;
        let status = self.status(&directory, &record, false)?;
        if matches!(status, Status::Stopped | Status::Creating) {
            return Err(not_running());
        }
        let cgroup = self.needed_cgroup(&record, "update")?;
        cgroup.update(&Limits::from(resources))?;
        match resources.devices().as_deref() {
            None | Some([]) => Ok(()),
            Some(devices) => Ok(cgroup.set_devices(&DeviceRules::from_oci(devices)?)?),
        }
    }
}

/// The sentence that callers look for.
pub(super) fn not_running() -> Error {
    Error::refused("container not running")
}

fn wrong(verb: &str, id: &str, status: Status) -> Error {
    match status {
        Status::Stopped | Status::Creating => not_running(),
        status => Error::refused(format!(
            "cannot {verb} container {id:?}: it is {}",
            status.as_str()
        )),
    }
}

fn send(process: impl AsFd, number: i32) -> Result<()> {
    match coracle_linux::signal::send(process.as_fd(), number) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::SRCH) => Err(not_running()),
        Err(error) => Err(Error::refused(format!(
            "signal {number} cannot be sent: {error}"
        ))),
    }
}

/// To every process of a cgroup; real-time signals have no names, and go one by one.
fn signal_all(cgroup: &coracle_cgroup::Cgroup, number: i32) -> Result<()> {
    if let Some(signal) = Signal::from_named_raw(number) {
        cgroup.signal(signal)?;
        return Ok(());
    }
    for pid in cgroup.processes()? {
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        // The number may have gone to another process between listing and opening; the descriptor cannot.
        let inside: Vec<Pid> = cgroup.processes()?;
        if inside.contains(&pid) {
            match coracle_linux::signal::send(&process, number) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => {
                    return Err(Error::refused(format!(
                        "signal {number} cannot be sent: {error}"
                    )));
                }
            }
        }
    }
    Ok(())
}
