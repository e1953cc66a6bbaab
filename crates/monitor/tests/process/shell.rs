//! A subject that is a shell, and what tests need around it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use coracle_monitor::health::{HealthCommand, HealthUpdate};
use coracle_monitor::log::{JsonFile, LogQuery, LogReader, Stream};
use coracle_monitor::{
    BoxError, Exit, LogDriver, ProbeProcess, Process, Result, StdioRequest, Subject, Supervision,
    supervise,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

/// First argument of this binary when it is to be a monitor.
pub(crate) const AS_MONITOR: &str = "--as-monitor";

/// What a subject was told.
#[derive(Debug)]
pub(crate) enum Told {
    Started,
    Exited(Exit),
    Oom,
    Health(HealthUpdate),
    Finished,
    Warning(String),
}

/// `sh -c SCRIPT`; the run's number (from 0) is `$RUN`.
pub(crate) struct Shell {
    script: String,
    pub(crate) oom_event: Option<OwnedFd>,
    runs: u32,
    told: Sender<Told>,
}

impl Shell {
    pub(crate) fn new(script: &str) -> (Shell, Receiver<Told>) {
        let (told, heard) = channel();
        let shell = Shell {
            script: script.to_owned(),
            oom_event: None,
            runs: 0,
            told,
        };
        (shell, heard)
    }

    fn tell(&self, what: Told) {
        // A test that has heard enough has dropped its end.
        let _ = self.told.send(what);
    }
}

impl Subject for Shell {
    fn start(
        &mut self,
        stdio: StdioRequest,
        meanwhile: &mut dyn FnMut() -> Result<(), coracle_monitor::Error>,
    ) -> Result<Process, BoxError> {
        meanwhile()?;
        let mut terminal = None;
        let mut command = match stdio {
            StdioRequest::Pipes {
                stdin,
                stdout,
                stderr,
            } => {
                let mut command = Command::new("sh");
                command.stdin(stdin).stdout(stdout).stderr(stderr);
                command
            }
            StdioRequest::Terminal { size } => {
                let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
                let master = openpt(flags)?;
                unlockpt(&master)?;
                let slave = ioctl_tiocgptpeer(&master, flags)?;
                if let Some(size) = size {
                    size.apply(&master)?;
                }
                terminal = Some(master);
                let mut command = Command::new("setsid");
                command.args(["--ctty", "sh"]);
                command
                    .stdin(slave.try_clone()?)
                    .stdout(slave.try_clone()?)
                    .stderr(slave);
                command
            }
        };
        command
            .args(["-c", &self.script])
            .env("RUN", self.runs.to_string());
        // The monitor's signals are blocked in this thread, and a child would inherit that.
        let child = coracle_linux::signal::unblocked(|| command.spawn())?;
        drop(command);
        self.runs += 1;
        let pid = Pid::from_child(&child);
        self.tell(Told::Started);
        Ok(Process {
            pid,
            pidfd: pidfd_open(pid, PidfdFlags::empty())?,
            terminal,
            oom_event: self.oom_event.take(),
        })
    }

    fn exited(&mut self, exit: &Exit) -> Result<(), BoxError> {
        self.tell(Told::Exited(exit.clone()));
        Ok(())
    }

    fn oom(&mut self) -> Result<bool, BoxError> {
        self.tell(Told::Oom);
        Ok(true)
    }

    fn health(&mut self, update: &HealthUpdate) -> Result<(), BoxError> {
        self.tell(Told::Health(update.clone()));
        Ok(())
    }

    fn probe(&mut self, command: &HealthCommand) -> Result<ProbeProcess, BoxError> {
        let HealthCommand::Shell(script) = command else {
            return Err("only shell probes here".into());
        };
        let (output, write) = std::io::pipe()?;
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(write.try_clone()?)
            .stderr(write);
        let child = coracle_linux::signal::unblocked(|| command.spawn())?;
        drop(command);
        let pid = Pid::from_child(&child);
        Ok(ProbeProcess {
            pid,
            pidfd: pidfd_open(pid, PidfdFlags::empty())?,
            output: output.into(),
        })
    }

    fn finished(&mut self) -> Result<(), BoxError> {
        self.tell(Told::Finished);
        Ok(())
    }

    fn warn(&mut self, warning: &str) {
        self.tell(Told::Warning(warning.to_owned()));
    }
}

/// A directory with the usual places.
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place {
            directory: tempfile::tempdir().expect("a directory"),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path().join("attach")
    }
}

/// A log in `directory`.
pub(crate) fn log_in(directory: &Path) -> LogDriver {
    LogDriver::JsonFile(JsonFile {
        path: directory.join("log"),
        max_size: None,
        max_files: 1,
    })
}

/// The text of one stream in the log.
pub(crate) fn logged(directory: &Path, stream: Stream) -> String {
    let mut reader =
        LogReader::open(&directory.join("log"), LogQuery::default()).expect("a readable log");
    let mut text = String::new();
    while let Some(entry) = reader.next_entry().expect("a readable log") {
        if entry.stream == stream {
            text.push_str(&entry.text);
        }
    }
    text
}

/// Supervises `script` in a thread.
pub(crate) fn supervised(
    script: &str,
    options: Supervision,
) -> (std::thread::JoinHandle<Result<Exit>>, Receiver<Told>) {
    let (mut shell, heard) = Shell::new(script);
    let monitor = std::thread::spawn(move || supervise(&mut shell, options));
    (monitor, heard)
}

/// The next thing told that `wanted` takes; fails after ten seconds.
pub(crate) fn hear<T>(heard: &Receiver<Told>, mut wanted: impl FnMut(Told) -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let told = heard.recv_timeout(left).expect("it should have been told");
        if let Some(found) = wanted(told) {
            return found;
        }
    }
}

/// Waits until `condition`; fails after ten seconds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
