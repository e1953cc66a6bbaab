//! `update`: limits and restart policy, live when the container runs.

use coracle_oci::ContainerId;

use super::stop::ask;
use crate::Engine;
use crate::error::{Error, Result};
use crate::events::Happening;
use crate::request::{Resources, Restart};
use crate::start::{limits, policy};
use crate::state::{self, Lock};

impl Engine {
    /// Changes what is `Some` in `change`; all or nothing. A memory limit below what is in use is refused.
    ///
    /// # Errors
    /// What the limits say; [`Error::Refused`] for what cannot be changed.
    pub fn update(
        &self,
        id: &ContainerId,
        change: &Resources,
        restart: Option<Restart>,
    ) -> Result<()> {
        let _lock = Lock::wait(&self.paths.container(id))?;
        let mut record = self.existing(id)?;
        if change.oom_score_adj.is_some()
            || change.cgroup_parent.is_some()
            || change.oom_kill_disable
        {
            return Err(Error::refused_with(
                "oom score, OOM killer and cgroup parent are fixed when a container is made",
                "make a new container with them",
            ));
        }
        if restart.is_some_and(|restart| restart != Restart::No) && record.spec.auto_remove {
            return Err(Error::refused(
                "a container that removes itself (--rm) cannot have a restart policy",
            ));
        }
        super::create::check_cpus(change)?;
        let before = record.clone();
        merge(&mut record.spec.resources, change);
        if let Some(restart) = restart {
            record.spec.restart = restart;
        }
        let observed = self.observe(&record)?;
        // The decision is written first and taken back if the kernel refuses: a kill between leaves the decision, and
        // the next start carries it out.
        state::store(&self.paths.config(id), &record)?;
        if let Some(run) = observed.running() {
            let live = limits(change, false)?;
            let applied = match live.is_empty() {
                true => Ok(()),
                false => self
                    .cgroup_of(run)
                    .and_then(|cgroup| Ok(cgroup.update(&live)?)),
            };
            if let Err(error) = applied {
                state::store(&self.paths.config(id), &before)?;
                return Err(error.during(format!("cannot update container {}", record.name)));
            }
        }
        if let Some(restart) = restart
            && observed.monitored
        {
            ask(&self.paths.attach(id), |client| {
                client.set_restart(policy(restart))
            })?;
        }
        self.happened(Happening::container("update", &record))
    }
}

fn merge(old: &mut Resources, change: &Resources) {
    macro_rules! take {
        ($($field:ident),*) => { $( if change.$field.is_some() { old.$field = change.$field.clone(); } )* };
    }
    take!(
        memory,
        memory_reservation,
        memory_swap,
        memory_swappiness,
        cpu_quota,
        cpu_period,
        cpu_shares,
        cpuset_cpus,
        cpuset_mems,
        pids,
        blkio_weight
    );
    macro_rules! replace {
        ($($field:ident),*) => { $( if !change.$field.is_empty() { old.$field = change.$field.clone(); } )* };
    }
    replace!(
        device_read_bps,
        device_write_bps,
        device_read_iops,
        device_write_iops
    );
}
