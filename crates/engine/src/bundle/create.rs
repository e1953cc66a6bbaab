//! `create` and `run`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use coracle_runtime::Deviations;
use rustix::fs::{CWD, Mode, OFlags};

use super::launch::{Launched, Made};
use super::record::{OUTCOME, START};
use super::{Bundles, hooks, sockets};
use crate::error::{Error, Result};

/// What `create` and `run` are asked for.
#[derive(Debug, Default)]
pub struct CreateRequest {
    /// The container's id.
    pub id: String,
    /// The directory with config.json.
    pub bundle: PathBuf,
    /// Where the terminal's master is sent; `run` keeps it when there is none.
    pub console_socket: Option<PathBuf>,
    /// `run` returns as soon as it runs: nobody of this command carries its terminal.
    pub detached: bool,
    /// Gets the first process's pid.
    pub pid_file: Option<PathBuf>,
    /// `--no-pivot`, `--no-new-keyring`.
    pub deviations: Deviations,
    /// Become 3, 4, … inside.
    pub preserved: Vec<OwnedFd>,
    /// Added behind the document's environment.
    pub extra_env: Vec<String>,
    /// A socket of the caller's that the container's service tells its state on.
    pub notify_socket: Option<PathBuf>,
}

impl Bundles {
    /// Makes a container whose process waits for `start`.
    ///
    /// # Errors
    /// What the document asks for and cannot be had; nothing is left then.
    pub fn create(&self, request: CreateRequest) -> Result<()> {
        let (console, pid_file) = (request.console_socket.clone(), request.pid_file.clone());
        let made = self.launch(request, true)?;
        let Made {
            directory,
            record,
            created,
            lock,
        } = made;
        let running = created.release()?;
        let handed = hand_over(
            running.terminal.as_ref(),
            console.as_deref(),
            pid_file.as_deref(),
            running.pid.as_raw_nonzero().get(),
        );
        handed.inspect_err(|_| self.abandon(&directory, &record, lock))
    }

    /// Makes a container and starts it. The process is a child of this command.
    ///
    /// # Errors
    /// As [`Bundles::create`] and [`Bundles::start`].
    pub fn run(&self, request: CreateRequest) -> Result<Launched> {
        let (console, pid_file) = (request.console_socket.clone(), request.pid_file.clone());
        let Made {
            directory,
            record,
            created,
            lock,
        } = self.launch(request, false)?;
        let start = || -> Result<Launched> {
            let process = record.process()?;
            let process = process.ok_or_else(|| Error::refused("the process is gone"))?;
            hooks::start_container(&record, process.as_fd())?;
            let running = created.start()?;
            let pid = running.pid.as_raw_nonzero().get();
            let console = console.as_deref();
            hand_over(running.terminal.as_ref(), console, pid_file.as_deref(), pid)?;
            hooks::poststart(&record)?;
            Ok(Launched { running })
        };
        match start() {
            Ok(launched) => {
                drop(lock);
                Ok(launched)
            }
            Err(error) => {
                self.abandon(&directory, &record, lock);
                Err(error)
            }
        }
    }
}

/// The terminal goes to the caller's socket, the pid into its file.
pub(super) fn hand_over(
    terminal: Option<&OwnedFd>,
    console: Option<&Path>,
    pid_file: Option<&Path>,
    pid: i32,
) -> Result<()> {
    if let (Some(terminal), Some(console)) = (terminal, console) {
        sockets::send(console, b"/dev/ptmx", terminal.as_fd())?;
    }
    match pid_file {
        Some(path) => write_pid(path, pid),
        None => Ok(()),
    }
}

/// Whole or not at all; anybody may read it.
fn write_pid(path: &Path, pid: i32) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{pid}"));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let write = || -> std::io::Result<()> {
        let fd = rustix::fs::openat(CWD, &temporary, flags, Mode::from_raw_mode(0o644))?;
        std::io::Write::write_all(&mut std::fs::File::from(fd), pid.to_string().as_bytes())?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|source| Error::file("writing", path, source))
}

/// The names of a gate.
pub(super) const GATE: [&str; 2] = [START, OUTCOME];
