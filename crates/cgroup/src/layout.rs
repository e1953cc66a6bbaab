//! Where cgroups are and may be made: read from `/proc/self/mountinfo` and `/proc/self/cgroup`, nothing assumed.
//!
//! The texts are parsed and the decision is made without I/O ([`Mounts::parse`], [`Own::parse`], [`decide`]); what the
//! decision has to ask the file system goes through [`Facts`], so that every kind of host is a fixture of the tests.
//!
//! The parent of everything that we make is `BASE/PREFIX`, where BASE is
//! - v2: the hierarchy's root, if we may write there; else the nearest cgroup above us that systemd marked as delegated
//!   (`user.delegate`, `trusted.delegate`); else our cgroup namespace's root (a container of our own); else our own
//!   cgroup, if we may write there. Never a unit of somebody's `user@UID.service` that is not delegated: systemd owns
//!   that tree, and it would be pulled from under us.
//! - v1: the hierarchy's root as it is mounted here; else our own cgroup, each if we may write there.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::controller::Controller;
use crate::error::Result;

/// The cgroup that we move processes into to free the inner cgroup they were in (see [`UnifiedBase::may_vacate`]).
pub(crate) const LEAF: &str = "coracle-self";

/// Which versions of cgroups can be used here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// v2 only.
    V2,
    /// v1 only.
    V1,
    /// v1 controllers beside a v2 hierarchy that has the rest.
    Hybrid,
    /// Neither; containers can run, but nothing can be limited.
    Unavailable {
        /// Why.
        reason: String,
        /// What would change that.
        remedy: Option<String>,
    },
}

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Which of its cgroups is mounted there, seen from our cgroup namespace.
    pub root: String,
    /// `None` is v2; else the names in its options (controllers, `name=…`).
    pub legacy: Option<Vec<String>>,
}

/// The cgroup mounts that can be seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mounts(pub Vec<Mount>);

impl Mounts {
    /// Reads the text of `/proc/self/mountinfo`; lines that are not cgroups only matter if they hide one.
    pub(crate) fn parse(mountinfo: &str) -> Mounts {
        struct Line<'a> {
            id: &'a str,
            parent: &'a str,
            mount_point: PathBuf,
            cgroup: Option<Mount>,
        }
        let lines: Vec<Line<'_>> = mountinfo
            .lines()
            .filter_map(|line| {
                // 36 35 98:0 /root /mount/point rw,noatime shared:1 - type source super,options
                let (before, after) = line.split_once(" - ")?;
                let mut fields = before.split(' ');
                let (id, parent) = (fields.next()?, fields.next()?);
                let root = unescape(fields.nth(1)?);
                let mount_point = PathBuf::from(unescape(fields.next()?));
                let mut after = after.split(' ');
                let kind = after.next()?;
                let options = after.nth(1).unwrap_or_default();
                let legacy = match kind {
                    "cgroup2" => Some(None),
                    "cgroup" => Some(Some(options.split(',').map(unescape).collect())),
                    _ => None,
                };
                let cgroup = legacy.map(|legacy| Mount {
                    mount_point: mount_point.clone(),
                    root,
                    legacy,
                });
                Some(Line {
                    id,
                    parent,
                    mount_point,
                    cgroup,
                })
            })
            .collect();
        let is_ancestor = |ancestor: &str, of: &Line<'_>| {
            let mut parent = of.parent;
            for _ in 0..lines.len() {
                if parent == ancestor {
                    return true;
                }
                match lines.iter().find(|line| line.id == parent) {
                    Some(line) if line.parent != parent => parent = line.parent,
                    _ => return false,
                }
            }
            false
        };
        let hidden = |mount: &Line<'_>| {
            lines.iter().any(|other| {
                other.id != mount.id
                    && mount.mount_point.starts_with(&other.mount_point)
                    && !is_ancestor(other.id, mount)
            })
        };
        Mounts(
            lines
                .iter()
                .filter(|line| line.cgroup.is_some() && !hidden(line))
                .filter_map(|l| l.cgroup.clone())
                .collect(),
        )
    }
}

/// A field of mountinfo as text.
fn unescape(field: &str) -> String {
    String::from_utf8_lossy(&coracle_linux::procfs::unescape(field.as_bytes())).into_owned()
}

/// Which cgroups a process is in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Own {
    /// In the v2 hierarchy.
    pub unified: Option<String>,
    /// In each v1 hierarchy: names and path.
    pub legacy: Vec<(Vec<String>, String)>,
}

impl Own {
    /// Reads the text of `/proc/self/cgroup`.
    pub(crate) fn parse(text: &str) -> Own {
        let mut own = Own::default();
        for line in text.lines() {
            // 4:cpu,cpuacct:/user.slice
            let mut fields = line.splitn(3, ':');
            let (Some(id), Some(names), Some(path)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            if id == "0" && names.is_empty() {
                own.unified = Some(path.to_owned());
            } else {
                own.legacy.push((
                    names.split(',').map(str::to_owned).collect(),
                    path.to_owned(),
                ));
            }
        }
        own
    }
}

/// What the decision asks the file system.
pub(crate) trait Facts {
    /// The cgroups of this process; asked for only where the roots of the hierarchies are closed (0.1 ms).
    fn own(&self) -> Result<&Own>;
    /// Whether cgroups can be made in this directory, and processes put there, by us.
    fn manageable(&self, directory: &Path) -> bool;
    /// Whether systemd marked the cgroup as delegated.
    fn delegated(&self, directory: &Path) -> bool;
    /// Whether it is the true root of the v2 hierarchy rather than a cgroup namespace's.
    fn is_hierarchy_root(&self, directory: &Path) -> bool;
}

/// The v2 hierarchy and our place in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnifiedBase {
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// The cgroup under which ours are made.
    pub base: PathBuf,
    /// The cgroup namespace's path of the mounted root, to find a process by `/proc/PID/cgroup`.
    pub root: String,
    /// Whether processes in `base` may be moved to a leaf there: it was handed to us, and with it all that is inside.
    pub may_vacate: bool,
}

/// A v1 hierarchy and our place in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LegacyBase {
    /// Its controllers.
    pub controllers: Vec<Controller>,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// The cgroup under which ours are made.
    pub base: PathBuf,
}

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Decision {
    pub layout: Layout,
    pub unified: Option<UnifiedBase>,
    pub legacy: Vec<LegacyBase>,
    /// Hierarchies that are there but not for us, by the controllers that they hold.
    pub closed: Vec<(Controller, PathBuf)>,
}

const RUN_AS_ROOT: &str = "run as root";
const SYSTEMD_SCOPE: &str =
    "ask systemd for a cgroup of your own: systemd-run --user --scope -p Delegate=yes COMMAND";

/// Decides where cgroups are made.
///
/// # Errors
/// What [`Facts::own`] says.
pub(crate) fn decide(mounts: &Mounts, facts: &dyn Facts) -> Result<Decision> {
    let mut decision = Decision {
        layout: Layout::V2,
        unified: None,
        legacy: Vec::new(),
        closed: Vec::new(),
    };
    let mut refusal = None;
    if let Some(mount) = best(mounts.0.iter().filter(|mount| mount.legacy.is_none())) {
        match unified_base(mount, facts)? {
            Ok(base) => decision.unified = Some(base),
            Err(reason) => refusal = Some(reason),
        }
    }
    for mount in mounts.0.iter().filter(|mount| mount.legacy.is_some()) {
        // The same hierarchy may be mounted at several places, with the same names each time.
        if best(mounts.0.iter().filter(|other| other.legacy == mount.legacy)) != Some(mount) {
            continue;
        }
        let names = mount.legacy.as_deref().unwrap_or_default();
        let controllers: Vec<Controller> = names
            .iter()
            .filter_map(|name| Controller::from_legacy_name(name))
            .collect();
        if controllers.is_empty() {
            continue;
        }
        let base = match facts.manageable(&mount.mount_point) {
            true => Some(mount.mount_point.clone()),
            false => {
                let same =
                    |(own, _): &&(Vec<String>, String)| own.iter().all(|name| names.contains(name));
                let own = facts.own()?.legacy.iter().find(same);
                own.and_then(|(_, path)| directory_of(mount, path))
                    .filter(|own| facts.manageable(own))
            }
        };
        match base {
            Some(base) => decision.legacy.push(LegacyBase {
                controllers,
                mount_point: mount.mount_point.clone(),
                base,
            }),
            None => decision.closed.extend(
                controllers
                    .into_iter()
                    .map(|c| (c, mount.mount_point.clone())),
            ),
        }
    }
    decision.layout = match (&decision.unified, decision.legacy.is_empty()) {
        (Some(_), true) => Layout::V2,
        (Some(_), false) => Layout::Hybrid,
        (None, false) => Layout::V1,
        (None, true) => {
            let (reason, remedy) = refusal.unwrap_or_else(|| match decision.closed.first() {
                Some((_, mount_point)) => (
                    format!("the cgroup v1 hierarchies (such as {}) are not writable for this user, and v1 cannot be delegated", mount_point.display()),
                    RUN_AS_ROOT.into(),
                ),
                None => (
                    "no cgroup hierarchy is mounted".into(),
                    "mount one: mount -t cgroup2 none /sys/fs/cgroup".into(),
                ),
            });
            Layout::Unavailable {
                reason,
                remedy: Some(remedy),
            }
        }
    };
    Ok(decision)
}

/// A mount of the hierarchy's root is better than one of a part of it.
fn best<'a>(mounts: impl Iterator<Item = &'a Mount>) -> Option<&'a Mount> {
    mounts.min_by_key(|mount| mount.root != "/")
}

/// Where a path of `/proc/PID/cgroup` is in this mount; `None` if it is outside of what is mounted.
pub(crate) fn directory_of(mount: &Mount, path: &str) -> Option<PathBuf> {
    directory_under(&mount.mount_point, &mount.root, path)
}

/// The same from the parts of a mount.
pub(crate) fn directory_under(mount_point: &Path, root: &str, path: &str) -> Option<PathBuf> {
    let below = Path::new(path).strip_prefix(root).ok()?;
    // "/../x" is a cgroup outside of our namespace.
    if below
        .components()
        .any(|component| !matches!(component, std::path::Component::Normal(_)))
    {
        return None;
    }
    if below.as_os_str().is_empty() {
        return Some(mount_point.to_owned());
    }
    Some(mount_point.join(below))
}

/// The base in the v2 hierarchy, or why there is none and what to do.
fn unified_base(
    mount: &Mount,
    facts: &dyn Facts,
) -> Result<std::result::Result<UnifiedBase, (String, String)>> {
    let found = |base: &Path, may_vacate| UnifiedBase {
        mount_point: mount.mount_point.clone(),
        base: base.to_owned(),
        root: mount.root.clone(),
        may_vacate,
    };
    let top = mount.mount_point.as_path();
    let is_root = facts.is_hierarchy_root(top);
    if is_root && facts.manageable(top) {
        return Ok(Ok(found(top, false)));
    }
    let own = facts.own()?.unified.as_deref();
    let own_directory = own
        .and_then(|path| directory_of(mount, path))
        .map(|directory| {
            // An earlier command moved us (or our shell) into the leaf; our cgroup is the one above.
            if directory.ends_with(LEAF) {
                directory.parent().map_or(directory.clone(), Path::to_owned)
            } else {
                directory
            }
        });
    let systemd = own.is_some_and(|path| {
        path.contains(".slice") || path.contains(".service") || path.contains(".scope")
    });
    let remedy = || {
        if systemd {
            SYSTEMD_SCOPE.to_owned()
        } else {
            RUN_AS_ROOT.to_owned()
        }
    };
    if let Some(own_directory) = &own_directory {
        let mark = own_directory
            .ancestors()
            .take_while(|a| a.starts_with(top))
            .find(|a| facts.delegated(a));
        if let Some(marked) = mark {
            let name = marked.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("user@") && name.ends_with(".service") && marked != own_directory {
                let reason = format!(
                    "this process is in {}, a unit of the systemd user manager that was not delegated",
                    own_directory.display()
                );
                return Ok(Err((reason, SYSTEMD_SCOPE.into())));
            }
            if facts.manageable(marked) {
                return Ok(Ok(found(marked, true)));
            }
        }
    }
    if !is_root && facts.manageable(top) {
        return Ok(Ok(found(top, true)));
    }
    Ok(match own_directory {
        Some(directory) if facts.manageable(&directory) && !(is_root && directory == top) => {
            Ok(found(&directory, false))
        }
        Some(directory) => Err((
            format!(
                "the cgroup of this process, {}, is not writable for this user",
                directory.display()
            ),
            remedy(),
        )),
        None => Err((
            format!(
                "the cgroup of this process is not visible in {}, and that is not writable for this user",
                top.display()
            ),
            remedy(),
        )),
    })
}

#[cfg(test)]
mod tests;
