//! What a container does at this moment, read from the kernel; and the repair of what a killed monitor left.
//!
//! The monitor holds the flock of `RUN/containers/ID` as long as it lives. So: no directory, no run; held, the monitor
//! lives; free, the monitor is dead, and whoever sees it first finishes the run, unless its first process lives on.
//! A look takes the lock shared, so that two looks do not take each other for a monitor.

use std::path::Path;

use coracle_oci::ContainerId;
use coracle_runtime::process;
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::answer::Status;
use crate::error::{Error, Result};
use crate::events::Happening;
use crate::request::Restart;
use crate::state::{self, LastRun, Lock, Record, Run};
use crate::{Engine, leases, names};

/// What was found.
#[derive(Debug)]
pub(crate) struct Observed {
    pub status: Status,
    /// The run, while there is one.
    pub run: Option<Run>,
    /// Whether a monitor looks after it.
    pub monitored: bool,
}

impl Observed {
    /// The run whose first process lives.
    pub(crate) fn running(&self) -> Option<&Run> {
        matches!(self.status, Status::Running | Status::Paused)
            .then_some(self.run.as_ref())
            .flatten()
    }
}

/// How long killed processes may take to be gone; only one stuck in the kernel takes longer.
pub(crate) const KILL_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// Between two looks at a start under way.
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_millis(2);

impl Engine {
    /// Looks, and repairs first where a monitor died.
    pub(crate) fn observe(&self, record: &Record) -> Result<Observed> {
        let id = &record.id;
        let directory = self.paths.run_of(id);
        let idle = |engine: &Engine| -> Result<Observed> {
            let status = if engine.paths.last(id).exists() {
                Status::Exited
            } else {
                Status::Created
            };
            Ok(Observed {
                status,
                run: None,
                monitored: false,
            })
        };
        match Lock::look(&directory)? {
            Err(state::Held) => {
                let Some(run) = state::load::<Run>(&self.paths.run_file(id))? else {
                    return Ok(Observed {
                        monitored: true,
                        ..idle(self)?
                    });
                };
                let status = match self.is_alive(&run) {
                    true if self.is_paused(&run) => Status::Paused,
                    true => Status::Running,
                    false if record.spec.restart != Restart::No => Status::Restarting,
                    // Its monitor clears away after it.
                    false => Status::Exited,
                };
                Ok(Observed {
                    status,
                    run: Some(run),
                    monitored: true,
                })
            }
            Ok(None) => idle(self),
            Ok(Some(look)) => {
                let run = state::load::<Run>(&self.paths.run_file(id))?;
                drop(look);
                if let Some(run) = run.filter(|run| self.is_alive(run)) {
                    let status = if self.is_paused(&run) {
                        Status::Paused
                    } else {
                        Status::Running
                    };
                    let monitored = self.take_over(record)?;
                    return Ok(Observed {
                        status,
                        run: Some(run),
                        monitored,
                    });
                }
                self.finish_lost_run(record)?;
                idle(self)
            }
        }
    }

    /// Gives a container that lost its monitor another one, where that can be; whether it has one now.
    fn take_over(&self, record: &Record) -> Result<bool> {
        if !self.paths.run_of(&record.id).join("stdout").exists() {
            return Ok(false);
        }
        match self.adopt(record) {
            Ok(()) => Ok(true),
            // It ended meanwhile, or another command was quicker: what it does now is what the next look finds.
            Err(error) => {
                self.happened(
                    Happening::container("warning", record).with("warning", error.to_string()),
                )?;
                Ok(false)
            }
        }
    }

    /// As [`Engine::observe`], once a start or an end that is under way is over: a monitor holds the run, and what it
    /// runs is not written down yet, or not any more.
    pub(crate) fn settled(&self, record: &Record) -> Result<Observed> {
        loop {
            let observed = self.observe(record)?;
            let passing = matches!(observed.status, Status::Created | Status::Exited);
            if !observed.monitored || !passing {
                return Ok(observed);
            }
            std::thread::sleep(PATIENCE);
        }
    }

    fn is_alive(&self, run: &Run) -> bool {
        // A process that cannot be read is not one of ours.
        run.pid > 0 && process::is_alive(run.pid, run.start_time).unwrap_or(false)
    }

    fn is_paused(&self, run: &Run) -> bool {
        // A run without a cgroup cannot be frozen; one whose cgroup is just being removed is not.
        self.cgroup_of(run)
            .and_then(|cgroup| Ok(cgroup.is_frozen()?))
            .unwrap_or(false)
    }

    /// The cgroup of a run.
    pub(crate) fn cgroup_of(&self, run: &Run) -> Result<coracle_cgroup::Cgroup> {
        let path = coracle_cgroup::CgroupPath::new(&run.cgroup)?;
        Ok(self.cgroups()?.open_existing(&path)?)
    }

    /// Ends a run whose monitor was killed: what it held is given back, and the record says that its end was not seen.
    fn finish_lost_run(&self, record: &Record) -> Result<()> {
        let id = &record.id;
        let directory = self.paths.run_of(id);
        let Ok(Some(_lock)) = Lock::try_now(&directory)? else {
            return Ok(());
        };
        let run = match state::load::<Run>(&self.paths.run_file(id))? {
            Some(run) => run,
            None => Run {
                ids: leases::find(&self.paths, id)?,
                ..Run::expected(record)
            },
        };
        if self.is_alive(&run) {
            return Ok(());
        }
        self.release_run(id, &run)?;
        if run.started != 0 {
            let last: LastRun = state::load(&self.paths.last(id))?.unwrap_or_default();
            if last.started != run.started || last.finished == 0 {
                let why = "its monitor was killed, so nobody saw it end";
                let lost = LastRun {
                    finished: state::now(),
                    ..LastRun::unseen(&run, why)
                };
                state::store(&self.paths.last(id), &lost)?;
                self.happened(
                    Happening::container("die", record)
                        .with("exitCode", lost.exit_code.to_string()),
                )?;
            }
        }
        state::delete_tree(&directory)?;
        if run.auto_remove {
            self.delete_container(record)?;
        }
        Ok(())
    }

    /// Gives back what a run holds. Goes on past failures; the first is reported.
    pub(crate) fn release_run(&self, id: &ContainerId, run: &Run) -> Result<()> {
        let mut first = Ok(());
        if !run.cgroup.is_empty() {
            let emptied = self.cgroup_of(run).and_then(|cgroup| {
                if !cgroup.is_none() {
                    cgroup.kill(KILL_WITHIN)?;
                }
                Ok(cgroup.remove()?)
            });
            first = match emptied {
                // It was not made yet, or is gone already.
                Err(Error::Cgroup(coracle_cgroup::Error::NotFound { .. })) => first,
                other => first.and(other),
            };
        }
        if let Some(range) = run.ids {
            first = first.and(leases::give_back(&self.paths, range, id));
        }
        first
    }

    /// Deletes the container's files: first out of sight by one rename, so that a killed removal is finished by the
    /// next [`Engine::sweep`].
    pub(crate) fn delete_container(&self, record: &Record) -> Result<()> {
        let directory = self.paths.container(&record.id);
        let doomed = self.paths.containers().join(format!(".rm-{}", record.id));
        match std::fs::rename(&directory, &doomed) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::file("renaming", &directory, source)),
        }
        names::release(&self.paths, &record.name, &record.id)?;
        delete_untouched(&doomed);
        state::delete_tree(&doomed)
    }

    /// Deletes what killed creations and removals left.
    pub(crate) fn sweep(&self) -> Result<()> {
        for name in state::names_in(&self.paths.containers())? {
            let directory = self.paths.containers().join(&name);
            if name.starts_with(".rm-") {
                state::delete_tree(&directory)?;
            } else if !directory.join("config.json").exists()
                && let Ok(Some(_lock)) = Lock::try_now(&directory)?
                && !directory.join("config.json").exists()
            {
                state::delete_tree(&directory)?;
            }
        }
        self.sweep_volumes()
    }
}

/// Deletes what is in the directory of every container, by name: a container that wrote nothing has no more, and what
/// need not be listed is deleted in a third of the time. What stays is for [`state::delete_tree`].
fn delete_untouched(directory: &Path) {
    const DIRECTORIES: [&str; 5] = [
        "work/work/incompat/volatile",
        "work/work/incompat",
        "work/work",
        "work",
        "upper",
    ];
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(opened) = rustix::fs::open(directory, flags, Mode::empty()) else {
        return;
    };
    let files = ["config.json", "container.log"].map(|name| (name, AtFlags::empty()));
    for (name, kind) in DIRECTORIES
        .map(|name| (name, AtFlags::REMOVEDIR))
        .into_iter()
        .chain(files)
    {
        // Missing, or not empty, or more than that is wrong: deleting the tree will say.
        let _ = rustix::fs::unlinkat(&opened, name, kind);
    }
}
