//! Hooks: programs of the caller that run at six points of a container's life.
//!
//! ```text
//! create  … namespaces, mounts ─► prestart, createRuntime (host) ─► createContainer (container's namespaces, host's root) ─► pivot
//! start   startContainer (container's namespaces and root) ─► command ─► poststart (host)
//! delete  … removed ─► poststop (host)
//! ```
//! Each gets the state on standard input, and exactly the environment that the document gives it.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use coracle_linux::enter::{self, Place};
use coracle_linux::namespace;
use coracle_linux::pidfd::wait_exit;
use coracle_linux::procfs::Proc;
use coracle_oci::runtime::{Hook, Spec};
use rustix::fs::{MemfdFlags, OFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::record::{LateHooks, Record, Status};
use crate::error::{Error, Result};

/// What of a hook's complaint is passed on.
const SAID: u64 = 2048;

/// Where a hook runs.
#[derive(Debug, Clone, Copy)]
enum Where<'a> {
    Host,
    /// In the namespaces of this process (descriptor, pid), with this root, or else the container's.
    Inside(BorrowedFd<'a>, i32, Option<BorrowedFd<'a>>),
}

/// Those that run when the creating command is gone.
pub(super) fn late(spec: &Spec) -> LateHooks {
    let list = |list: &Option<Vec<Hook>>| list.clone().unwrap_or_default();
    match spec.hooks() {
        None => LateHooks::default(),
        Some(hooks) => LateHooks {
            start_container: list(hooks.start_container()),
            poststart: list(hooks.poststart()),
            poststop: list(hooks.poststop()),
        },
    }
}

/// prestart, createRuntime and createContainer; the process `pid` stands before its pivot.
pub(super) fn before_pivot(spec: &Spec, record: &Record, pid: Pid) -> Result<()> {
    let Some(hooks) = spec.hooks() else {
        return Ok(());
    };
    let number = pid.as_raw_nonzero().get();
    let mut record = record.clone();
    record.pid = Some(number);
    let state = state_of(&record, Status::Creating)?;
    #[allow(deprecated, reason = "the specification still has them run")]
    let prestart = hooks.prestart();
    run_all("prestart", prestart, &state, Where::Host)?;
    run_all("createRuntime", hooks.create_runtime(), &state, Where::Host)?;
    if hooks.create_container().as_ref().is_none_or(Vec::is_empty) {
        return Ok(());
    }
    let fail = |what: &'static str| {
        move |error: rustix::io::Errno| {
            Error::file(what, Path::new(&format!("/proc/{number}")), error)
        }
    };
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(fail("opening"))?;
    // The process has the host's root still, in a mount namespace of its own: there the hook's path is the host's.
    let directory = Proc::host()
        .and_then(|proc| proc.open(&number.to_string(), OFlags::PATH | OFlags::DIRECTORY))
        .map_err(fail("opening"))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(&directory, "root", flags, rustix::fs::Mode::empty())
        .map_err(fail("opening the root of"))?;
    let place = Where::Inside(process.as_fd(), number, Some(root.as_fd()));
    run_all("createContainer", hooks.create_container(), &state, place)
}

/// startContainer; `process` is the container's first.
pub(super) fn start_container(record: &Record, process: BorrowedFd<'_>) -> Result<()> {
    if record.hooks.start_container.is_empty() {
        return Ok(());
    }
    let state = state_of(record, Status::Created)?;
    let place = Where::Inside(process, record.pid.unwrap_or(0), None);
    run_list(
        "startContainer",
        &record.hooks.start_container,
        &state,
        place,
    )
}

/// poststart.
pub(super) fn poststart(record: &Record) -> Result<()> {
    if record.hooks.poststart.is_empty() {
        return Ok(());
    }
    let state = state_of(record, Status::Running)?;
    run_list("poststart", &record.hooks.poststart, &state, Where::Host)
}

/// poststop: every one runs, whatever the others do; gives what failed.
pub(super) fn poststop(record: &Record) -> Vec<String> {
    let mut failed = Vec::new();
    if record.hooks.poststop.is_empty() {
        return failed;
    }
    let state = match state_of(record, Status::Stopped) {
        Ok(state) => state,
        Err(error) => return vec![error.to_string()],
    };
    for hook in &record.hooks.poststop {
        if let Err(error) = run(hook, &state, Where::Host) {
            failed.push(format!("poststop hook {}: {error}", hook.path().display()));
        }
    }
    failed
}

fn state_of(record: &Record, status: Status) -> Result<Vec<u8>> {
    serde_json::to_vec(&record.document(status))
        .map_err(|error| Error::refused(format!("the state cannot be written: {error}")))
}

fn run_all(point: &str, hooks: &Option<Vec<Hook>>, state: &[u8], place: Where<'_>) -> Result<()> {
    run_list(point, hooks.as_deref().unwrap_or_default(), state, place)
}

fn run_list(point: &str, hooks: &[Hook], state: &[u8], place: Where<'_>) -> Result<()> {
    for hook in hooks {
        run(hook, state, place)
            .map_err(|error| error.during(format!("{point} hook {}", hook.path().display())))?;
    }
    Ok(())
}

/// Runs one and waits for its end. Input and complaints go through files in memory: nothing that it does or leaves undone
/// makes us wait longer than its timeout.
fn run(hook: &Hook, state: &[u8], place: Where<'_>) -> Result<()> {
    let path = hook.path();
    if !path.is_absolute() {
        return Err(Error::refused("its path is not absolute"));
    }
    let timeout = match hook.timeout() {
        None => None,
        Some(seconds) if seconds > 0 => Some(Duration::from_secs(seconds.unsigned_abs())),
        Some(seconds) => {
            return Err(Error::refused(format!(
                "its timeout {seconds} is not above 0"
            )));
        }
    };
    let failed = |what: &'static str| move |source| Error::file(what, path, source);
    let mut input = memory().map_err(failed("making the input of"))?;
    input
        .write_all(state)
        .map_err(failed("making the input of"))?;
    input.rewind().map_err(failed("making the input of"))?;
    let mut complaints = memory().map_err(failed("making the output of"))?;
    let error_stream = complaints
        .try_clone()
        .map_err(failed("making the output of"))?;
    let mut command = Command::new(path);
    let arguments = hook.args().as_deref().unwrap_or_default();
    if let Some((name, rest)) = arguments.split_first() {
        command.arg0(name).args(rest);
    }
    command
        .env_clear()
        .envs(
            hook.env()
                .iter()
                .flatten()
                .filter_map(|entry| entry.split_once('=')),
        )
        .stdin(Stdio::from(input))
        .stdout(Stdio::null())
        .stderr(Stdio::from(error_stream));
    let spawned = match place {
        Where::Host => command.spawn(),
        Where::Inside(process, pid, root) => enter::spawn(
            &mut command,
            Place {
                process,
                namespaces: other_namespaces(pid)?,
                root,
            },
        ),
    };
    let mut child = spawned.map_err(failed("executing"))?;
    let waited = Pid::from_raw(child.id().cast_signed())
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
        .and_then(|pidfd| wait_exit(pidfd.as_fd(), timeout));
    let in_time = waited.map_err(|error| Error::file("waiting for", path, error))?;
    if !in_time {
        child.kill().map_err(failed("killing"))?;
    }
    let status = child.wait().map_err(failed("waiting for"))?;
    if !in_time {
        let seconds = timeout.unwrap_or_default().as_secs();
        return Err(Error::refused(format!(
            "it took longer than its timeout of {seconds} s and was killed"
        )));
    }
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    complaints
        .rewind()
        .map_err(failed("reading the output of"))?;
    complaints
        .take(SAID)
        .read_to_end(&mut said)
        .map_err(failed("reading the output of"))?;
    let said = String::from_utf8_lossy(&said);
    let said = said.trim();
    let separator = if said.is_empty() { "" } else { ": " };
    Err(Error::refused(format!(
        "it ended with {status}{separator}{said}"
    )))
}

fn memory() -> std::io::Result<File> {
    Ok(File::from(memfd_create("hook", MemfdFlags::CLOEXEC)?))
}

/// The namespaces of a process that are not ours.
fn other_namespaces(pid: i32) -> Result<u64> {
    let failed = |error| {
        Error::file(
            "looking at the namespaces of",
            Path::new(&format!("/proc/{pid}")),
            error,
        )
    };
    let proc = Proc::host().map_err(failed)?;
    let mut others = 0;
    for (kind, name) in namespace::KINDS {
        let own = match rustix::fs::stat(format!("/proc/self/ns/{name}")) {
            Ok(own) => own,
            // A kind that this kernel does not have.
            Err(rustix::io::Errno::NOENT) => continue,
            Err(error) => return Err(failed(error)),
        };
        let theirs = proc.namespace_status(pid, name).map_err(failed)?;
        if (own.st_dev, own.st_ino) != (theirs.st_dev, theirs.st_ino) {
            others |= kind;
        }
    }
    Ok(others)
}
