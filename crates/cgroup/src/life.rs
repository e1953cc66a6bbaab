//! What is done to the processes of a cgroup: listing, freezing, signalling, killing; and waiting for it.
//!
//! Freezing and killing go through the v2 hierarchy wherever there is one with `cgroup.freeze` (5.2) and `cgroup.kill`
//! (5.14), also on hybrid hosts, and else through v1's freezer.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::cgroup::Cgroup;
use crate::control::{self, Pause};
use crate::controller::Controller;
use crate::error::{Error, Result};

/// How long freezing and thawing may take: a task in uninterruptible sleep freezes when that ends.
const FREEZE_WITHIN: Duration = Duration::from_secs(10);

/// What freezes this cgroup.
enum Freezer {
    /// The v2 directory.
    Unified(PathBuf),
    /// The v1 directory.
    Legacy(PathBuf),
}

impl Cgroup {
    /// Every process in it and in cgroups below it, without their threads; in no order. None when it is gone.
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::Unavailable`] when [it is none](Cgroup::is_none).
    pub fn processes(&self) -> Result<Vec<Pid>> {
        self.must_exist("listing the processes")?;
        let mut pids = Vec::new();
        if let Some(path) = self.directories().next() {
            list_processes(path, &mut pids)?;
        }
        Ok(pids)
    }

    /// Stops every process where it is, and returns when all have stopped.
    ///
    /// # Errors
    /// [`Error::Timeout`] after 10 s; it is then thawed again. [`Error::Unavailable`] when [it is none](Cgroup::is_none).
    pub fn freeze(&self) -> Result<()> {
        let frozen = match self.freezer("freezing")? {
            Freezer::Unified(path) => {
                control::write(&path.join("cgroup.freeze"), "1")?;
                wait_for_event(&path, "frozen 1", "freezing", FREEZE_WITHIN)
            }
            Freezer::Legacy(path) => freeze_legacy(&path),
        };
        frozen.or_else(|error| {
            self.thaw()?;
            Err(error)
        })
    }

    /// Lets the processes go on.
    ///
    /// # Errors
    /// [`Error::Timeout`] when a cgroup above stays frozen; [`Error::Unavailable`] when [it is none](Cgroup::is_none).
    pub fn thaw(&self) -> Result<()> {
        match self.freezer("thawing")? {
            Freezer::Unified(path) => {
                control::write(&path.join("cgroup.freeze"), "0")?;
                wait_for_event(&path, "frozen 0", "thawing", FREEZE_WITHIN)
            }
            Freezer::Legacy(path) => {
                control::write(&path.join("freezer.state"), "THAWED")?;
                wait_until(&path, "thawing", FREEZE_WITHIN, || {
                    Ok(control::read(&path.join("freezer.state"))?.trim() == "THAWED")
                })
            }
        }
    }

    /// Whether its processes are stopped. What [is none](Cgroup::is_none) never is.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn is_frozen(&self) -> Result<bool> {
        if self.is_none() {
            return Ok(false);
        }
        match self.freezer("freezing") {
            Ok(Freezer::Unified(path)) => Ok(control::read(&path.join("cgroup.events"))?
                .lines()
                .any(|line| line == "frozen 1")),
            Ok(Freezer::Legacy(path)) => {
                Ok(control::read(&path.join("freezer.state"))?.trim() == "FROZEN")
            }
            // Without a freezer nothing was ever frozen.
            Err(Error::ControllerMissing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends a signal to every process; returns to how many. A frozen one gets it when it is thawed.
    ///
    /// # Errors
    /// [`Error::Signal`]; [`Error::Unavailable`] when [it is none](Cgroup::is_none).
    pub fn signal(&self, signal: Signal) -> Result<usize> {
        self.must_exist("signalling")?;
        let Some(path) = self.directories().next() else {
            return Ok(0);
        };
        let mut count = 0;
        for pid in self.processes()? {
            let failed = |source| Error::Signal {
                pid: pid.as_raw_nonzero().get(),
                path: path.to_owned(),
                source,
            };
            let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
                Ok(pidfd) => pidfd,
                Err(Errno::SRCH) => continue,
                Err(source) => return Err(failed(source)),
            };
            // The number may have gone to another process between listing and opening; the descriptor cannot.
            if !is_member(&format!("/proc/{}/cgroup", pid.as_raw_nonzero()), self)? {
                continue;
            }
            match pidfd_send_signal(&pidfd, signal) {
                Ok(()) => count += 1,
                Err(Errno::SRCH) => {}
                Err(source) => return Err(failed(source)),
            }
        }
        Ok(count)
    }

    /// Kills every process in it and below it, frozen or not, and returns when none is left.
    ///
    /// # Errors
    /// [`Error::Timeout`] when one is still there after `within` (stuck in the kernel);
    /// [`Error::Unavailable`] when [it is none](Cgroup::is_none): then kill the container's first process, with which
    /// its pid namespace ends.
    pub fn kill(&self, within: Duration) -> Result<()> {
        self.must_exist("killing all processes")?;
        if let Some(directory) = self.directory_of_unified() {
            let file = directory.path.join("cgroup.kill");
            match control::write(&file, "1") {
                Ok(()) => return wait_for_event(&directory.path, "populated 0", "killing", within),
                // Before 5.14 there is no such file; ENODEV: the cgroup was just removed.
                Err(Error::Write {
                    source: Errno::NOENT | Errno::NODEV,
                    ..
                }) => {}
                Err(error) => return Err(error),
            }
        }
        let Some(path) = self.directories().next() else {
            return Ok(());
        };
        let mut pause = Pause::until(within);
        loop {
            let freezer = self.freezer("killing").ok();
            if let Some(Freezer::Legacy(path)) = &freezer {
                // Not waited for: it only keeps most from forking while the list is walked; the loop does the rest.
                freeze_request(path, "FROZEN")?;
            }
            let signalled = self.signal(Signal::KILL);
            match &freezer {
                // Frozen tasks of v1 die when they are thawed.
                Some(Freezer::Legacy(path)) => freeze_request(path, "THAWED")?,
                Some(Freezer::Unified(_)) | None => {}
            }
            signalled?;
            if self.processes()?.is_empty() {
                return Ok(());
            }
            if !pause.again() {
                return Err(Error::Timeout {
                    action: "killing",
                    path: path.to_owned(),
                    waited: within,
                });
            }
        }
    }

    fn freezer(&self, wanted: &str) -> Result<Freezer> {
        self.must_exist(wanted)?;
        if let Some(directory) = self.directory_of_unified()
            && control::exists(&directory.path.join("cgroup.freeze"))
        {
            return Ok(Freezer::Unified(directory.path.clone()));
        }
        match self.directory_opt(Controller::Freezer) {
            Some(directory) => Ok(Freezer::Legacy(directory.path.clone())),
            // A cgroup that vanished is one without processes, and is reported as such.
            None if self.directories().all(|path| !control::exists(path)) => Err(Error::NotFound {
                path: self.path().to_string(),
            }),
            None => Err(Error::ControllerMissing {
                wanted: wanted.to_owned(),
                controller: Controller::Freezer,
                reason:
                    "the v1 freezer is not mounted, and cgroup v2 has cgroup.freeze since Linux 5.2"
                        .into(),
                remedy: Some("mount it: mount -t cgroup -o freezer none DIRECTORY".into()),
            }),
        }
    }
}

/// Whether a `/proc/PID/cgroup` names a cgroup at or below ours. What is above the prefix is not compared: it is seen
/// from our cgroup namespace there, and by mount point in our paths.
fn is_member(file: &str, cgroup: &Cgroup) -> Result<bool> {
    let Some(content) = control::read_opt(Path::new(file)).or_else(gone)? else {
        return Ok(false);
    };
    Ok(cgroup.directories.iter().any(|directory| {
        let Ok(below) = directory.path.strip_prefix(&directory.base) else {
            return false;
        };
        let ours = format!("/{}", below.display());
        content.lines().any(|line| has_part(line, &ours))
    }))
}

/// Whether `path` has `part` as a run of whole components.
fn has_part(path: &str, part: &str) -> bool {
    path.match_indices(part).any(|(start, _)| {
        let rest = &path[start + part.len()..];
        rest.is_empty() || rest.starts_with('/')
    })
}

/// A process that is gone reads as ESRCH.
fn gone(error: Error) -> Result<Option<String>> {
    match error {
        Error::Read {
            source: Errno::SRCH,
            ..
        } => Ok(None),
        error => Err(error),
    }
}

fn list_processes(path: &Path, pids: &mut Vec<Pid>) -> Result<()> {
    let content = match control::read_opt(&path.join("cgroup.procs")) {
        Ok(Some(content)) => content,
        Ok(None) => return Ok(()),
        // A threaded cgroup has no list of its own; its processes are in that of the cgroup above.
        Err(Error::Read {
            source: Errno::OPNOTSUPP,
            ..
        }) => String::new(),
        Err(error) => return Err(error),
    };
    // 0 stands for a process outside of our pid namespace: it has no number here.
    pids.extend(
        content
            .lines()
            .filter_map(|line| Pid::from_raw(line.parse().ok()?)),
    );
    for child in control::children(path)? {
        list_processes(&child, pids)?;
    }
    Ok(())
}

/// Waits for a line in `cgroup.events`; the kernel wakes pollers of that file.
fn wait_for_event(path: &Path, line: &str, action: &'static str, within: Duration) -> Result<()> {
    let file = path.join("cgroup.events");
    let deadline = Instant::now() + within;
    let fd = match rustix::fs::open(&file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => fd,
        // Removed by somebody else: nothing is in it.
        Err(Errno::NOENT | Errno::NODEV) if line == "populated 0" => return Ok(()),
        Err(source) => return Err(Error::Read { file, source }),
    };
    loop {
        let mut content = [0u8; 256];
        let length = match rustix::io::pread(&fd, &mut content, 0) {
            Ok(length) => length,
            Err(Errno::NODEV) if line == "populated 0" => return Ok(()),
            Err(source) => return Err(Error::Read { file, source }),
        };
        if content[..length]
            .split(|byte| *byte == b'\n')
            .any(|found| found == line.as_bytes())
        {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Timeout {
                action,
                path: path.to_owned(),
                waited: within,
            });
        }
        let timeout = Timespec::try_from(left).unwrap_or(Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        });
        match poll(&mut [PollFd::new(&fd, PollFlags::PRI)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(source) => return Err(Error::Watch { file, source }),
        }
    }
}

/// Writes the state of v1's freezer; a cgroup that is gone has nothing to freeze.
fn freeze_request(path: &Path, state: &str) -> Result<()> {
    match control::write(&path.join("freezer.state"), state) {
        Err(Error::Write {
            source: Errno::NOENT | Errno::NODEV,
            ..
        }) => Ok(()),
        result => result,
    }
}

/// v1's freezer can hang in FREEZING when a process forks or is traced meanwhile: asking again, and now and then thawing
/// in between, gets it there (as runc found, <https://github.com/opencontainers/runc/issues/3803>).
fn freeze_legacy(path: &Path) -> Result<()> {
    let file = path.join("freezer.state");
    let mut round = 0u32;
    wait_until(path, "freezing", FREEZE_WITHIN, || {
        round += 1;
        if round.is_multiple_of(50) {
            control::write(&file, "THAWED")?;
            std::thread::sleep(Duration::from_millis(10));
        }
        control::write(&file, "FROZEN")?;
        Ok(control::read(&file)?.trim() == "FROZEN")
    })
}

fn wait_until(
    path: &Path,
    action: &'static str,
    within: Duration,
    mut done: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let mut pause = Pause::until(within);
    while !done()? {
        if !pause.again() {
            return Err(Error::Timeout {
                action,
                path: path.to_owned(),
                waited: within,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn membership_compares_whole_names() {
        for (line, expected) in [
            ("4:memory:/coracle/web", true),
            ("0::/jail/coracle/web/system.slice", true),
            ("0::/coracle/web2", false),
            ("0::/coracle/webx/coracle/web", true),
            ("0::/", false),
        ] {
            assert_eq!(has_part(line, "/coracle/web"), expected, "{line}");
        }
    }
}
