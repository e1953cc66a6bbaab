//! Which namespaces are made, by whom, and which are joined.

use std::os::fd::OwnedFd;
use std::path::Path;

use coracle_linux::namespace;
use coracle_linux::procfs::Proc;
use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};
use rustix::fs::{Mode, OFlags, fstatfs, open, stat};
use rustix::io::Errno;

use super::Host;
use crate::Error;
use crate::request::{IdMapping, Map};

const NSFS_MAGIC: u64 = 0x6e73_6673;

/// The outcome.
#[derive(Debug)]
pub(super) struct Spaces {
    /// New ones, made by the clone itself.
    pub(super) clone: u64,
    /// New ones, made by the child, while its parent works.
    pub(super) unshare: u64,
    /// New ones, made by a successor of the child in joined namespaces.
    pub(super) successor: Option<u64>,
    /// Existing ones, entered by the parent's thread for the time of the clone.
    pub(super) visits: Vec<(OwnedFd, u64)>,
    /// Existing ones, entered by the child, after the user namespace that it joins: the parent could not come back.
    pub(super) join: Vec<(OwnedFd, u64)>,
    /// The mount namespace is new.
    pub(super) new_mount: bool,
}

impl Spaces {
    /// Whether a kind is new.
    pub(super) fn owns(&self, kind: u64) -> bool {
        (self.clone | self.unshare | self.successor.unwrap_or(0)) & kind != 0
    }

    /// Whether a kind is not the caller's: new or joined.
    pub(super) fn has(&self, kind: u64) -> bool {
        let joined = |list: &[(OwnedFd, u64)]| list.iter().any(|(_, joined)| *joined == kind);
        self.owns(kind) || joined(&self.visits) || joined(&self.join)
    }
}

fn kind(of: LinuxNamespaceType) -> u64 {
    match of {
        LinuxNamespaceType::Mount => namespace::MOUNT,
        LinuxNamespaceType::Cgroup => namespace::CGROUP,
        LinuxNamespaceType::Uts => namespace::UTS,
        LinuxNamespaceType::Ipc => namespace::IPC,
        LinuxNamespaceType::User => namespace::USER,
        LinuxNamespaceType::Pid => namespace::PID,
        LinuxNamespaceType::Network => namespace::NETWORK,
        LinuxNamespaceType::Time => namespace::TIME,
    }
}

pub(super) fn resolve(spec: &Spec, ids: &IdMapping, host: &Host) -> Result<Spaces, Error> {
    let mut new = 0u64;
    let mut visits = Vec::new();
    let mut seen = 0u64;
    let none = Vec::new();
    let namespaces = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().as_ref())
        .unwrap_or(&none);
    for entry in namespaces {
        let kind = kind(entry.typ());
        if seen & kind != 0 {
            return Err(Error::invalid(
                format!("linux.namespaces {:?}", entry.typ()),
                "it is there twice",
            ));
        }
        seen |= kind;
        if kind == namespace::USER {
            // `Start::ids` says which.
            continue;
        }
        match entry.path() {
            None => new |= kind,
            Some(path) if path.as_os_str().is_empty() => new |= kind,
            Some(path) => visits.push((open_namespace(path)?, kind)),
        }
    }
    if visits
        .iter()
        .any(|(_, kind)| kind & (namespace::MOUNT | namespace::TIME) != 0)
    {
        return Err(Error::invalid(
            "linux.namespaces",
            "joining a mount or time namespace at the start is not supported; exec into its container instead",
        ));
    }
    if new & namespace::TIME != 0 && !coracle_linux::kernel::enters_time_namespace_at_exec() {
        return Err(Error::invalid(
            "linux.namespaces time",
            "this kernel is not known to take a process into its new time namespace at the exec (Linux 6.11 is)",
        ));
    }
    match ids {
        IdMapping::Own { uids, gids } => {
            super::host::check_maps("uidMappings", uids)?;
            super::host::check_maps("gidMappings", gids)?;
            if !host.may_map_any() && !super::host::is_single(uids, gids) {
                return Err(Error::invalid(
                    "uidMappings",
                    "an ordinary user may map only its own ids; more need newuidmap and an outer user namespace",
                ));
            }
            new |= namespace::USER;
        }
        IdMapping::Join { .. } | IdMapping::Host => {}
    }
    // What a process can only be born with, or what must own the rest.
    let at_birth = new & (namespace::USER | namespace::PID | namespace::TIME);
    let joins_user = matches!(ids, IdMapping::Join { .. });
    if !host.initial && matches!(ids, IdMapping::Own { .. }) && !visits.is_empty() {
        return Err(Error::invalid(
            "linux.namespaces",
            "an ordinary user cannot join namespaces of others together with a new user namespace; join theirs as well",
        ));
    }
    let (visits, join) = match host.initial {
        true => (visits, Vec::new()),
        false => (Vec::new(), visits),
    };
    // Who joins a pid namespace is not in it; whom it clones then is.
    let joins_pid = join.iter().any(|(_, kind)| *kind == namespace::PID);
    let succeeded = joins_pid || joins_user && at_birth != 0;
    Ok(Spaces {
        clone: if succeeded { 0 } else { at_birth },
        unshare: new & !at_birth,
        successor: succeeded.then_some(at_birth),
        visits,
        join,
        new_mount: new & namespace::MOUNT != 0,
    })
}

/// Opens a namespace file and proves that it is one.
fn open_namespace(path: &Path) -> Result<OwnedFd, Error> {
    let fd = open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK,
        Mode::empty(),
    )
    .map_err(|source| Error::host("opening the namespace", path, source))?;
    let magic = fstatfs(&fd)
        .map_err(|source| Error::host("looking at", path, source))?
        .f_type as u64;
    if magic != NSFS_MAGIC {
        return Err(Error::invalid(
            format!("namespace path {}", path.display()),
            "it is not a namespace",
        ));
    }
    Ok(fd)
}

/// The content of /proc/PID/timens_offsets.
pub(super) fn time_offsets(
    linux: Option<&Linux>,
    spaces: &Spaces,
) -> Result<Option<String>, Error> {
    let Some(offsets) = linux.and_then(|linux| linux.time_offsets().as_ref()) else {
        return Ok(None);
    };
    if offsets.is_empty() {
        return Ok(None);
    }
    if !spaces.owns(namespace::TIME) {
        return Err(Error::invalid(
            "linux.timeOffsets",
            "there is no new time namespace to set them in",
        ));
    }
    let mut text = String::new();
    for (clock, offset) in offsets {
        if clock != "monotonic" && clock != "boottime" {
            return Err(Error::invalid(
                format!("linux.timeOffsets {clock:?}"),
                "the clock is not monotonic or boottime",
            ));
        }
        text.push_str(&format!(
            "{clock} {} {}\n",
            offset.secs().unwrap_or(0),
            offset.nanosecs().unwrap_or(0)
        ));
    }
    Ok(Some(text))
}

/// The namespaces of a running container, as seen from here.
pub(super) struct Joined {
    /// Those that differ from ours, without pid.
    pub(super) namespaces: u64,
    pub(super) pid: Option<OwnedFd>,
    pub(super) ids: IdMapping,
}

pub(super) fn of_target(pid: i32, proc: &Proc) -> Result<Joined, Error> {
    let mut namespaces = 0;
    let mut pid_namespace = None;
    let mut ids = IdMapping::Host;
    let gone = |source| match source {
        Errno::NOENT | Errno::SRCH => Error::Gone { pid },
        source => Error::host(
            "opening the namespaces of",
            format!("process {pid}"),
            source,
        ),
    };
    for (kind, name) in namespace::KINDS {
        let own = match stat(format!("/proc/self/ns/{name}")) {
            Ok(own) => own,
            // A kind that this kernel does not have.
            Err(Errno::NOENT) => continue,
            Err(source) => {
                return Err(Error::host(
                    "looking at",
                    format!("/proc/self/ns/{name}"),
                    source,
                ));
            }
        };
        let theirs = proc.namespace_status(pid, name).map_err(gone)?;
        if (own.st_dev, own.st_ino) == (theirs.st_dev, theirs.st_ino) {
            continue;
        }
        match kind {
            namespace::PID => pid_namespace = Some(proc.namespace(pid, name).map_err(gone)?),
            namespace::USER => {
                namespaces |= kind;
                ids = IdMapping::Join {
                    namespace: proc.namespace(pid, name).map_err(gone)?,
                    uids: maps_of(proc, pid, "uid_map")?,
                    gids: maps_of(proc, pid, "gid_map")?,
                };
            }
            kind => namespaces |= kind,
        }
    }
    Ok(Joined {
        namespaces,
        pid: pid_namespace,
        ids,
    })
}

pub(crate) fn maps_of(proc: &Proc, pid: i32, name: &str) -> Result<Vec<Map>, Error> {
    let path = format!("{pid}/{name}");
    let text = proc
        .read(&path)
        .map_err(|source| Error::host("reading", format!("/proc/{path}"), source))?;
    Ok(parse_maps(&text))
}

/// The kernel's own format: three numbers a line.
fn parse_maps(text: &str) -> Vec<Map> {
    text.lines()
        .filter_map(|line| {
            let mut numbers = line
                .split_ascii_whitespace()
                .map(|number| number.parse().ok());
            Some(Map {
                inside: numbers.next()??,
                outside: numbers.next()??,
                count: numbers.next()??,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_maps_are_read() {
        assert_eq!(
            parse_maps("         0     100000      65536\n      65536 1000 1\n"),
            [
                Map {
                    inside: 0,
                    outside: 100_000,
                    count: 65_536
                },
                Map {
                    inside: 65_536,
                    outside: 1000,
                    count: 1
                }
            ]
        );
    }
}
