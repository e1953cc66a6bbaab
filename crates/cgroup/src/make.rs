//! Making a cgroup's directory, with what the kernel wants above it: directories up to the prefix, v1's cpusets filled,
//! v2's controllers handed down.
//!
//! Other commands make and prune the same directories at the same moment; whatever vanishes is made again.

use std::path::Path;

use rustix::fs::Mode;
use rustix::io::Errno;

use crate::cgroup::Directory;
use crate::control;
use crate::controller::Controller;
use crate::error::{Error, Result};
use crate::layout::{LEAF, UnifiedBase};
use crate::settings::Version;

/// How often creation starts again when another command prunes the prefix at the same moment.
const CREATE_ATTEMPTS: u32 = 32;

/// Makes a cgroup's directory and those above it.
pub(crate) fn make(directory: &Directory) -> Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    let failed = |path: &Path, source| Error::Create {
        path: path.to_owned(),
        source,
    };
    let mut attempt = 0;
    loop {
        match rustix::fs::mkdir(&directory.path, mode) {
            Ok(()) => break,
            Err(Errno::EXIST) => {
                return Err(Error::Exists {
                    path: directory.path.clone(),
                });
            }
            Err(Errno::NOENT) if attempt < CREATE_ATTEMPTS => attempt += 1,
            Err(source) => return Err(failed(&directory.path, source)),
        }
        let mut above: Vec<&Path> = directory
            .path
            .ancestors()
            .skip(1)
            .take_while(|level| *level != directory.base)
            .collect();
        above.reverse();
        for level in above {
            match rustix::fs::mkdir(level, mode) {
                Ok(()) => use_hierarchy(level, directory)?,
                Err(Errno::EXIST) => {}
                // Pruned by another command between two levels: from the top again.
                Err(Errno::NOENT) => break,
                Err(source) => return Err(failed(level, source)),
            }
        }
    }
    let initialised = if directory.version == Version::Legacy
        && directory.controllers.contains(&Controller::Cpuset)
    {
        inherit_cpuset(directory)
    } else {
        Ok(())
    };
    initialised.map_err(|error| match rustix::fs::rmdir(&directory.path) {
        Ok(()) => error,
        Err(source) => Error::Several {
            first: Box::new(error),
            others: vec![Error::Remove {
                path: directory.path.clone(),
                source,
            }],
        },
    })
}

/// Before 5.11 a v1 memory cgroup did not count its children unless told so before it had any.
fn use_hierarchy(level: &Path, directory: &Directory) -> Result<()> {
    if directory.version != Version::Legacy || !directory.controllers.contains(&Controller::Memory)
    {
        return Ok(());
    }
    let file = level.join("memory.use_hierarchy");
    match control::read_opt(&file)?.as_deref().map(str::trim) {
        Some("0") => control::write(&file, "1"),
        _ => Ok(()),
    }
}

/// A new v1 cpuset has no CPU and no memory node, and takes no task until it has.
fn inherit_cpuset(directory: &Directory) -> Result<()> {
    let mut levels: Vec<&Path> = directory
        .path
        .ancestors()
        .take_while(|level| *level != directory.base)
        .collect();
    levels.reverse();
    let mut parent = directory.base.as_path();
    for level in levels {
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let file = level.join(name);
            if control::read(&file)?.trim().is_empty() {
                let inherited = control::read(&parent.join(name))?;
                control::write(&file, inherited.trim())?;
            }
        }
        parent = level;
    }
    Ok(())
}

/// Sees to it that a v2 cgroup has no process of its own, which it may not have when it hands controllers down.
///
/// The kernel itself refuses only the first domain controller (EBUSY). It takes `cpu` or `pids` from a cgroup with
/// processes, which makes a *threaded* domain of it: then every cgroup below is invalid and takes no process.
pub(crate) fn make_room(unified: &UnifiedBase, level: &Path) -> Result<()> {
    // The hierarchy's root is free of the rule; it is known by having no cgroup.events.
    let count = control::read(&level.join("cgroup.procs"))?.lines().count();
    if count == 0 || !control::exists(&level.join("cgroup.events")) {
        return Ok(());
    }
    if level == unified.base && unified.may_vacate {
        return vacate(level);
    }
    Err(Error::InternalProcesses {
        path: level.to_owned(),
        count,
    })
}

/// Turns a controller on for the children of a v2 cgroup.
pub(crate) fn hand_down(level: &Path, controller: Controller) -> Result<()> {
    let name = controller.unified_name().unwrap_or_default();
    match control::write(&level.join("cgroup.subtree_control"), &format!("+{name}")) {
        // A process came in since room was made.
        Err(Error::Write {
            source: Errno::BUSY | Errno::OPNOTSUPP,
            ..
        }) => {
            let count = control::read(&level.join("cgroup.procs"))?.lines().count();
            Err(Error::InternalProcesses {
                path: level.to_owned(),
                count,
            })
        }
        result => result,
    }
}

/// Moves the processes of a cgroup that was handed to us into a leaf: with processes in it, it hands nothing down.
fn vacate(base: &Path) -> Result<()> {
    let leaf = base.join(LEAF);
    match rustix::fs::mkdir(&leaf, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(source) => return Err(Error::Create { path: leaf, source }),
    }
    move_processes(&base.join("cgroup.procs"), &leaf.join("cgroup.procs")).and_then(|left| {
        if left == 0 {
            Ok(())
        } else {
            Err(Error::InternalProcesses {
                path: base.to_owned(),
                count: left,
            })
        }
    })
}

/// Writes every process listed in one file into another until none is left; returns how many could not be moved.
fn move_processes(from: &Path, to: &Path) -> Result<usize> {
    let mut left = 0;
    // Each round catches what was forked during the one before.
    for _ in 0..64 {
        let listed = control::read(from)?;
        let pids: Vec<&str> = listed.lines().collect();
        if pids.is_empty() {
            return Ok(0);
        }
        left = 0;
        for pid in pids {
            // A process outside of our pid namespace is listed as 0; writing that would move ourselves.
            if pid == "0" {
                left += 1;
                continue;
            }
            match control::write(to, pid) {
                Ok(())
                | Err(Error::Write {
                    source: Errno::SRCH,
                    ..
                }) => {}
                Err(error) => return Err(error),
            }
        }
        if left > 0 {
            break;
        }
    }
    Ok(left)
}
