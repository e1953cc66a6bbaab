//! The worker: brings the system up, runs the plan's jobs one after the other, and says what came of each.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::system;
use crate::leaks::Snapshot;
use crate::vm::jobs::{PATIENCE, PLAN};
use crate::vm::protocol::{Event, Job, PORT, Who, read_plan};
use crate::vm::userland::USER;
use crate::vm::{Problem, Result};

/// How long a job may print nothing.
const SILENCE: Duration = Duration::from_secs(240);

/// The worker's `main`.
pub(super) fn run() -> ExitCode {
    let mut port = match port() {
        Ok(port) => port,
        Err(reason) => {
            eprintln!("coracle-vm: {reason}");
            return ExitCode::FAILURE;
        }
    };
    let done = match all_jobs(&mut port) {
        Ok(()) => Event::Done,
        Err(reason) => Event::Trouble(reason),
    };
    match say(&mut port, &done) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("coracle-vm: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// The port that the other side reads.
fn port() -> Result<File> {
    let folder = "/sys/class/virtio-ports";
    let ports = fs::read_dir(folder).problem(|| format!("cannot read {folder}"))?;
    let name = ports
        .flatten()
        .find(|port| {
            fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == PORT)
        })
        .ok_or_else(|| format!("no port {PORT} in {folder}"))?
        .file_name();
    let device = Path::new("/dev").join(name);
    OpenOptions::new()
        .write(true)
        .open(&device)
        .problem(|| format!("cannot open {}", device.display()))
}

fn say(port: &mut File, event: &Event) -> Result<()> {
    say_line(port, &event.to_line())
}

fn say_line(port: &mut File, line: &str) -> Result<()> {
    port.write_all(format!("{line}\n").as_bytes())
        .problem(|| "cannot write results".to_owned())
}

fn all_jobs(port: &mut File) -> Result<()> {
    system::bring_up()?;
    let text = fs::read_to_string(PLAN).problem(|| format!("cannot read {PLAN}"))?;
    let mut jobs = VecDeque::from(read_plan(&text).ok_or_else(|| format!("{PLAN} is no plan"))?);
    say(port, &Event::Ready)?;
    let before = Snapshot::take();
    let disks = std::thread::spawn(system::mount_disks);
    let mut number = 0;
    while let Some(job) = jobs.pop_front() {
        say(port, &Event::Begin(number))?;
        let skips = PathBuf::from(format!("/tmp/skips-{number}"));
        let problem = run_job(number, &job, &skips, port)?;
        // No file is no skip.
        for skip in fs::read_to_string(&skips).unwrap_or_default().lines() {
            let skip = skip.strip_prefix("SKIP: ").unwrap_or(skip);
            say(port, &Event::Skip(number, skip.to_owned()))?;
        }
        say(port, &Event::End(number, problem))?;
        number += 1;
    }
    match disks.join() {
        Ok(mounted) => mounted?,
        Err(_) => return Err("mounting the disks panicked".to_owned()),
    }
    for leak in before.leaks_until_quiet() {
        // Where the engine's state is: `conform` uses it, and it stays. Mounts, processes and cgroups do not.
        let own = ["file /var/lib/coracle/", "file /run/coracle/"];
        if !own.iter().any(|place| leak.starts_with(place)) {
            say(port, &Event::Leak(leak))?;
        }
    }
    Ok(())
}

/// Runs one job to its end, passes on what it prints, and says what was wrong with its end.
fn run_job(number: usize, job: &Job, skips: &Path, port: &mut File) -> Result<Option<String>> {
    let (mine, theirs) = std::io::pipe().problem(|| "cannot make a pipe".to_owned())?;
    let errors = theirs
        .try_clone()
        .problem(|| "cannot make a pipe".to_owned())?;
    let cgroup = match job.who {
        Who::Root => system::ROOTS_CGROUP.to_owned(),
        Who::User => system::users_scope(number)?,
    };
    let mut command = command(job, &cgroup, skips);
    command
        .stdin(Stdio::null())
        .stdout(theirs)
        .stderr(errors)
        .process_group(0);
    let mut child = command
        .spawn()
        .problem(|| format!("cannot start {}", job.name))?;
    // Its copies of the writing ends would keep the pipe open.
    drop(command);
    let lines = lines_of(mine);
    loop {
        match lines.recv_timeout(SILENCE) {
            Ok(line) => say_line(port, &line)?,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let group = Pid::from_raw(child.id() as i32).expect("a pid is not 0");
                // The group is this job's own; it may have ended just now.
                let _ = kill_process_group(group, Signal::KILL);
                child
                    .wait()
                    .problem(|| format!("cannot wait for {}", job.name))?;
                return Ok(Some(format!("nothing for {} s; ended", SILENCE.as_secs())));
            }
        }
    }
    let status = child
        .wait()
        .problem(|| format!("cannot wait for {}", job.name))?;
    Ok((!status.success()).then(|| status.to_string()))
}

fn lines_of(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for bytes in BufReader::new(from).split(b'\n') {
            let Ok(bytes) = bytes else { return };
            let line = String::from_utf8_lossy(&bytes).into_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// The job in its cgroup, with its user's identity and a fresh environment.
fn command(job: &Job, cgroup: &str, skips: &Path) -> Command {
    let (home, user) = match job.who {
        Who::Root => ("/root", "root"),
        Who::User => ("/home/user", "user"),
    };
    let mut command = Command::new("/bin/sh");
    let join = r#"echo 0 > "$1/cgroup.procs" || exit 99; shift; exec "$@""#;
    command.args(["-c", join, "join", cgroup]);
    if job.who == Who::User {
        let id = USER.to_string();
        command.args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
        command.args(["--inh-caps=-all", "--"]);
    }
    command
        .args(&job.command)
        .current_dir("/tmp")
        .env_clear()
        .envs([
            ("HOME", home),
            ("USER", user),
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ),
            ("TERM", "dumb"),
            // A disk: a tmpfs takes neither id mappings everywhere nor limits of its rate.
            ("TMPDIR", "/var/tmp"),
            ("CORACLE_BIN", "/payload/coracle"),
            ("CORACLE_TEST_PROGRAMS", "/payload/programs"),
            ("CORACLE_TEST_PATIENCE", PATIENCE),
            ("CORACLE_TEST_DISKS", "/disks"),
        ])
        .env("CORACLE_SKIP_LOG", skips);
    if job.who == Who::User {
        command.env("XDG_RUNTIME_DIR", system::USERS_RUN);
    }
    command
}
