//! The process of the document: what runs, as whom, with what.

use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use coracle_linux::descriptor::Slot;
use coracle_linux::process::{Scheduling, StringArray};
use oci_spec::runtime::{
    IOPriorityClass, LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy,
    LinuxSeccomp, Process as Document, Spec,
};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{Gid, Uid};

use super::{Host, capabilities, host, null, placement, string};
use crate::plan::{Command, Identity, PRESERVED, Terminal};
use crate::request::{IdMapping, Map, RunAs, Stdio};
use crate::state::Clamp;
use crate::{Error, seccomp};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where [`crate::Start::init`] is bound.
pub(crate) const INIT: &str = "/dev/init";

/// What an [`Identity`] is made of.
#[derive(Debug)]
pub(crate) struct Process {
    arguments: Vec<String>,
    environment: Vec<String>,
    own: RunAs,
    maps: Option<(Vec<Map>, Vec<Map>)>,
    may_set_groups: bool,
    /// The caller itself lives in a user namespace.
    confined: bool,
}

/// Compiles the filter for this machine.
pub(crate) fn compile(filter: &LinuxSeccomp) -> Result<seccomp::Program, Error> {
    Ok(seccomp::compile(filter, seccomp::Architecture::native()?)?)
}

impl Process {
    pub(super) fn resolve(
        document: &Document,
        ids: &IdMapping,
        host: &Host,
        init: bool,
    ) -> Result<Self, Error> {
        let mut arguments = document.args().clone().unwrap_or_default();
        if arguments.first().is_none_or(String::is_empty) {
            return Err(Error::invalid("process.args", "there is no command"));
        }
        if init {
            arguments.splice(0..0, [INIT.to_owned(), "--".to_owned()]);
        }
        let user = document.user();
        Ok(Self {
            arguments,
            environment: document.env().clone().unwrap_or_default(),
            own: RunAs {
                uid: user.uid(),
                gid: user.gid(),
                groups: user.additional_gids().clone().unwrap_or_default(),
                env: Vec::new(),
            },
            maps: match ids {
                IdMapping::Host => None,
                IdMapping::Own { uids, gids } | IdMapping::Join { uids, gids, .. } => {
                    Some((uids.clone(), gids.clone()))
                }
            },
            may_set_groups: host.may_set_groups,
            confined: !host.initial,
        })
    }

    /// The identity that the document itself gives.
    pub(super) fn own_identity(&self) -> Result<Identity, Error> {
        identity(self, &self.own)
    }

    /// What was asked for, for an error.
    pub(crate) fn command(&self) -> &str {
        let skipped = if self.arguments[0] == INIT { 2 } else { 0 };
        self.arguments.get(skipped).map_or("", String::as_str)
    }
}

/// Computes what depends on the user.
pub(crate) fn identity(process: &Process, user: &RunAs) -> Result<Identity, Error> {
    // -1 tells the kernel to leave an id as it is: root's.
    if user.uid == u32::MAX
        || [user.gid]
            .iter()
            .chain(&user.groups)
            .any(|gid| *gid == u32::MAX)
    {
        return Err(Error::invalid("process.user", "4294967295 is not an id"));
    }
    if let Some((uids, gids)) = &process.maps {
        let unmapped = |what, id| {
            Err(Error::Unmapped {
                what,
                id,
                confined: process.confined,
            })
        };
        if host::outside(uids, user.uid).is_none() {
            return unmapped("user id", user.uid);
        }
        for gid in [user.gid].iter().chain(&user.groups) {
            if host::outside(gids, *gid).is_none() {
                return unmapped("group id", *gid);
            }
        }
    }
    // The primary one need not be set a second time.
    let only_primary = user.groups.iter().all(|gid| *gid == user.gid);
    let groups = match (process.may_set_groups, only_primary) {
        (true, _) => Some(user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect()),
        (false, true) => None,
        (false, false) => {
            return Err(Error::invalid(
                "supplementary groups",
                "a user namespace with only its maker's own id cannot set any",
            ));
        }
    };
    let environment: Vec<&String> = process.environment.iter().chain(&user.env).collect();
    // As getenv(3): the first one counts.
    let path = environment
        .iter()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH);
    let candidates = candidates(&process.arguments[0], path)?;
    Ok(Identity {
        uid: Uid::from_raw(user.uid),
        gid: Gid::from_raw(user.gid),
        groups,
        environment: StringArray::new(&environment)
            .map_err(|_| Error::invalid("process.env", "an entry has a null byte in it"))?,
        candidates,
    })
}

/// Where to look for a command. Relative and empty entries of PATH are passed over: the working directory is the
/// image's.
fn candidates(command: &str, path: &str) -> Result<Vec<CString>, Error> {
    if command.contains('/') {
        return Ok(vec![string("process.args", command)?]);
    }
    let mut seen = HashSet::new();
    path.split(':')
        .filter(|directory| directory.starts_with('/') && seen.insert(*directory))
        .map(|directory| {
            string(
                "process.args",
                &format!("{}/{command}", directory.trim_end_matches('/')),
            )
        })
        .collect()
}

/// What of the limits the command takes over.
pub(super) struct Limits<'a> {
    pub(super) rlimits: Vec<(Resource, Rlimit)>,
    pub(super) clamp: bool,
    pub(super) clamped: &'a mut Vec<Clamp>,
}

pub(super) fn resolve(
    document: &Document,
    filter: Option<&LinuxSeccomp>,
    stdio: Stdio,
    preserved: Vec<OwnedFd>,
    limits: Limits<'_>,
    process: &Process,
    host: &Host,
) -> Result<Command, Error> {
    if preserved.len() > PRESERVED {
        return Err(Error::invalid(
            "preserved descriptors",
            format!("at most {PRESERVED} can be"),
        ));
    }
    let (terminal, streams) = match stdio {
        Stdio::Terminal => {
            let size = document
                .console_size()
                .map(|size| (size.height() as u16, size.width() as u16));
            (Some(Terminal { size }), None)
        }
        Stdio::Pipes {
            stdin,
            stdout,
            stderr,
        } => {
            let handed = |stream| match process.maps {
                Some(_) => Ok(stream),
                None => null::harmless(stream),
            };
            let [stdin, stdout, stderr] = [stdin, stdout, stderr].map(handed);
            (None, Some([stdin?.into(), stdout?.into(), stderr?.into()]))
        }
    };
    let program = match filter {
        Some(filter) => OnceLock::from(compile(filter)?),
        None => OnceLock::new(),
    };
    let cwd = document.cwd().to_str().filter(|cwd| cwd.starts_with('/'));
    let cwd = cwd.ok_or_else(|| {
        Error::invalid(
            format!("process.cwd {:?}", document.cwd()),
            "it is not an absolute path",
        )
    })?;
    Ok(Command {
        terminal,
        streams,
        preserved: preserved.into_iter().map(Slot::from).collect(),
        gate: None,
        working_directory: string("process.cwd", cwd)?,
        rlimits: limits.rlimits,
        scheduling: scheduling(document)?,
        affinity: None,
        memory_policy: None,
        labels: placement::labels(document)?,
        io_priority: io_priority(document)?,
        personality: None,
        new_session_keyring: true,
        no_new_privileges: document.no_new_privileges().unwrap_or(false),
        seccomp: program,
        umask: document.user().umask().unwrap_or(0o022) & 0o777,
        identity: OnceLock::new(),
        capabilities: Some(capabilities::resolve(
            document.capabilities().as_ref(),
            host,
            process.maps.is_some(),
            limits.clamp,
            limits.clamped,
        )?),
        arguments: StringArray::new(&process.arguments)
            .map_err(|_| Error::invalid("process.args", "an argument has a null byte in it"))?,
    })
}

/// The execution domain, which the document keeps outside of the process.
pub(super) fn personality(spec: &Spec) -> Result<Option<u32>, Error> {
    let Some(personality) = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.personality().as_ref())
    else {
        return Ok(None);
    };
    if personality
        .flags()
        .as_ref()
        .is_some_and(|flags| !flags.is_empty())
    {
        return Err(Error::invalid(
            "linux.personality.flags",
            "no flag is supported",
        ));
    }
    // PER_LINUX, PER_LINUX32
    Ok(Some(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }))
}

fn scheduling(document: &Document) -> Result<Option<Scheduling>, Error> {
    let Some(scheduler) = document.scheduler() else {
        return Ok(None);
    };
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
        LinuxSchedulerPolicy::SchedIso => {
            return Err(Error::invalid(
                "process.scheduler.policy SCHED_ISO",
                "Linux does not have it",
            ));
        }
    };
    let mut flags = 0;
    for flag in scheduler.flags().iter().flatten() {
        flags |= match flag {
            LinuxSchedulerFlag::SchedResetOnFork => 0x01,
            LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
            LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
            LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
            LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
            LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
        };
    }
    let priority = u32::try_from(scheduler.priority().unwrap_or(0))
        .map_err(|_| Error::invalid("process.scheduler.priority", "it is negative"))?;
    let mut scheduling = Scheduling::default();
    scheduling.policy = policy;
    scheduling.flags = flags;
    scheduling.nice = scheduler.nice().unwrap_or(0);
    scheduling.priority = priority;
    scheduling.runtime = scheduler.runtime().unwrap_or(0);
    scheduling.deadline = scheduler.deadline().unwrap_or(0);
    scheduling.period = scheduler.period().unwrap_or(0);
    Ok(Some(scheduling))
}

fn io_priority(document: &Document) -> Result<Option<(u16, u16)>, Error> {
    let Some(priority) = document.io_priority() else {
        return Ok(None);
    };
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u16::try_from(priority.priority()) {
        Ok(level) if level < 8 => Ok(Some((class, level))),
        _ => Err(Error::invalid(
            format!("process.ioPriority.priority {}", priority.priority()),
            "it lies between 0 and 7",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked_for(command: &str, path: &str) -> Vec<String> {
        let found = candidates(command, path).expect("no null byte");
        found
            .into_iter()
            .map(|path| path.into_string().expect("UTF-8"))
            .collect()
    }

    #[test]
    fn a_command_is_looked_for_as_a_shell_would_but_not_in_the_working_directory() {
        assert_eq!(
            looked_for("sh", "/usr/bin:/bin/::bin:.:/usr/bin"),
            ["/usr/bin/sh", "/bin/sh"]
        );
        assert_eq!(looked_for("./sh", "/bin"), ["./sh"]);
        assert_eq!(looked_for("/sh", "/bin"), ["/sh"]);
        assert!(looked_for("sh", "").is_empty());
    }
}
