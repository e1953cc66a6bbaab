//! One run of a container: what is allocated before the clone, and the subject that the monitor supervises.
//!
//! The same code runs in two processes: in the foreground command itself, which then is the container's parent, and in
//! the monitor process of a detached container (`coracle-monitor`), which is this binary executed again so that it
//! holds no memory of the command that started it.

mod identities;
mod limits;
mod subject;
mod supervision;

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use coracle_monitor::attach::{Client, Wants};
use coracle_monitor::{BrokenPipe, LocalClient, Readiness, Supervision, WindowSize, supervise};
use coracle_oci::ContainerId;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, pipe_with};

pub(crate) use identities::Maps;
pub(crate) use limits::{PIDS, limits};
use subject::Subject;
pub(crate) use supervision::policy;

use crate::Engine;
use crate::answer::Status;
use crate::error::{Error, Result};
use crate::state::{self, Lock, Record, Run};
use crate::status::PATIENCE;

/// The name under which this binary is the monitor of one container.
pub const MONITOR: &str = "coracle-monitor";

/// A monitor allocates much at its start and then waits for days: freed memory kept for the next allocation would only
/// keep pages from being given back (mallopt(3), glibc's tunables; other C libraries do not read it).
const MONITOR_ALLOCATOR: &str = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0";

/// The monitor's option to take over what runs already.
pub const ADOPT: &str = "--adopt";

/// What a monitor process gets from the command that starts it.
#[derive(Debug, Default)]
pub struct MonitorStreams {
    /// Gets one message about the first start.
    pub ready: Option<OwnedFd>,
    /// A socket whose other end the starting command holds.
    pub client: Option<OwnedFd>,
    /// The size of that command's terminal.
    pub size: Option<WindowSize>,
    /// The container runs already; its monitor was killed.
    pub adopt: bool,
}

impl Engine {
    /// Starts the container in the background; that it runs already is no error.
    ///
    /// # Errors
    /// What kept it from starting, as its monitor reports it.
    pub fn start(&self, id: &ContainerId) -> Result<()> {
        let record = self.existing(id)?;
        self.start_detached(&record, None)
            .map_err(|error| starting(&record, error))
    }

    /// Starts the container in the background with a first client attached, which misses no output.
    ///
    /// # Errors
    /// As [`Engine::start`]; and that it runs already.
    pub fn start_attached(
        &self,
        id: &ContainerId,
        wants: Wants,
        size: Option<WindowSize>,
    ) -> Result<Client> {
        let record = self.existing(id)?;
        let pair = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        );
        let (ours, theirs) = pair.map_err(|error| {
            Error::file("making the socket pair of", &self.paths.attach(id), error)
        })?;
        let mut client = Client::offer(ours, &self.paths.attach(id), wants)?;
        self.start_detached(&record, Some((theirs, size)))
            .map_err(|error| starting(&record, error))?;
        client.welcome()?;
        Ok(client)
    }

    /// Starts the container as a child of this process and stays until it ends; its output comes out of this
    /// process's own 1 and 2, and its input, when it has one, is this process's 0. Gives its exit code.
    ///
    /// # Errors
    /// What kept it from starting.
    pub fn run_foreground(&self, id: &ContainerId) -> Result<i32> {
        let record = self.existing(id)?;
        let run = || -> Result<i32> {
            let lock = self.lock_for_start(&record)?;
            let streams = supervision::own_streams()?;
            let local = LocalClient {
                stdin: record.spec.interactive.then_some(streams.0),
                stdout: Some(streams.1),
                stderr: Some(streams.2),
                sig_proxy: true,
                broken_pipe: BrokenPipe::Propagate,
            };
            let mut subject = self.begin_run(record.clone(), false)?;
            subject.hold_until_started(lock);
            let options = self.supervision(&record, &mut subject, Some(local), None)?;
            let exit = subject.supervised(|subject| Ok(supervise(subject, options)?))?;
            Ok(exit.status.code())
        };
        run().map_err(|error| starting(&record, error))
    }

    /// The whole life of a monitor process.
    ///
    /// # Errors
    /// What kept the container from starting, after it was reported through [`MonitorStreams::ready`].
    pub fn monitor(&self, id: &ContainerId, streams: MonitorStreams) -> Result<()> {
        let MonitorStreams {
            ready,
            client,
            size,
            adopt,
        } = streams;
        match self.prepare_monitor(id, client, size, adopt) {
            Ok((subject, mut options)) => {
                options.ready = ready;
                subject
                    .supervised(|subject| Ok(supervise(subject, options)?))
                    .map(drop)
            }
            Err(error) => {
                if let Some(ready) = ready {
                    let told = Readiness::failed(&error, error.exit_code(), error.hint());
                    // The starting command is gone: nobody is left to tell.
                    let _ = told.send(ready);
                }
                Err(error)
            }
        }
    }

    /// Apart from [`Engine::monitor`], whose stack stays in memory as long as the container runs.
    #[inline(never)]
    fn prepare_monitor(
        &self,
        id: &ContainerId,
        client: Option<OwnedFd>,
        size: Option<WindowSize>,
        adopt: bool,
    ) -> Result<(Box<Subject<'_>>, Supervision)> {
        let record = self.existing(id)?;
        let mut subject = self.begin_run(record.clone(), adopt)?;
        let mut options = self.supervision(&record, &mut subject, None, client)?;
        options.size = size;
        if adopt {
            options.adopt = subject.adopt()?;
            options.restart_count = subject.restarts();
        }
        Ok((subject, options))
    }

    fn start_detached(
        &self,
        record: &Record,
        client: Option<(OwnedFd, Option<WindowSize>)>,
    ) -> Result<()> {
        let _lock = match self.lock_for_start(record) {
            Ok(lock) => lock,
            Err(Error::WrongState { status, .. }) if status == "running" && client.is_none() => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let (client, size) = client.map_or((None, None), |(client, size)| (Some(client), size));
        let size = size.map(|size| format!("--size={}x{}", size.rows, size.columns));
        let alone = client.is_none();
        match self.spawn_monitor(record, size, client) {
            // Another command's monitor was quicker: it runs, which is what was wanted.
            Err(_) if alone && self.settled(record)?.running().is_some() => Ok(()),
            started => started,
        }
    }

    /// Gives a running container whose monitor was killed another one: output, restarts and health checks go on. Only
    /// where its streams are FIFOs, which outlived the monitor (docs/format/attach.md).
    pub(crate) fn adopt(&self, record: &Record) -> Result<()> {
        self.spawn_monitor(record, Some(ADOPT.into()), None)
    }

    fn spawn_monitor(
        &self,
        record: &Record,
        option: Option<String>,
        client: Option<OwnedFd>,
    ) -> Result<()> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)
            .map_err(|error| Error::file("making a pipe for", &self.paths.run, error))?;
        let executable = std::path::Path::new("/proc/self/exe");
        let mut command = Command::new(executable);
        // What it needs to be told travels as its standard streams: nothing else is inherited.
        command
            .arg0(MONITOR)
            .arg("--root")
            .arg(&self.config.root)
            .arg("--run-root")
            .arg(&self.config.run_root)
            .arg("--cgroup-prefix")
            .arg(&self.config.cgroup_prefix)
            .args(self.config.rootless.then_some("--rootless"))
            .args(option)
            .arg(record.id.as_str())
            .env_clear()
            .env("GLIBC_TUNABLES", MONITOR_ALLOCATOR)
            .current_dir("/")
            .stdin(client.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::from(write))
            .stderr(Stdio::null());
        // It lives on as a child of init once this command has ended; nobody here waits for it.
        coracle_linux::signal::unblocked(|| command.spawn())
            .map(drop)
            .map_err(|source| Error::file("starting the monitor", executable, source))?;
        // The pipe's other end: only the monitor's copy may keep it open.
        drop(command);
        let outcome = Readiness::receive(read)
            .map_err(|source| Error::file("reading from the monitor", executable, source))?;
        match outcome {
            Some(Readiness { ok: true, .. }) => Ok(()),
            Some(failure) => Err(Error::reported(failure)),
            None => Err(Error::refused_with(
                "the monitor ended before it could say whether the container started",
                "look at `coracle inspect`; the next command on this container cleans up after it",
            )),
        }
    }

    /// The container's lock, with the container in a state that can be started.
    fn lock_for_start(&self, record: &Record) -> Result<Lock> {
        let directory = self.paths.container(&record.id);
        let lock = Lock::wait(&directory)?
            .ok_or_else(|| Error::NoSuchContainer(record.id.short().into()))?;
        let observed = self.settled(record)?;
        match observed.status {
            Status::Created | Status::Exited => Ok(lock),
            status => Err(Error::WrongState {
                verb: "start",
                name: record.name.clone(),
                status: status.as_str().into(),
                hint: Some("stop it first, or use `coracle restart`".into()),
            }),
        }
    }

    /// Makes and locks the run's directory: from here on the run exists and must be released.
    fn begin_run(&self, record: Record, adopt: bool) -> Result<Box<Subject<'_>>> {
        let directory = self.paths.run_of(&record.id);
        let lock = loop {
            state::make_directory(&directory)?;
            match Lock::try_now(&directory)? {
                Ok(Some(lock)) => break lock,
                // A look found the new directory without a monitor and deleted it: once more.
                Ok(None) => {}
                // A look, another start, or an end: each is over soon, unless the container runs, started by a
                // monitor whose command was killed before this one began.
                Err(state::Held) => {
                    let observed = self.observe(&record)?;
                    if observed.running().is_some() {
                        return Err(already_running(&record));
                    }
                    std::thread::sleep(PATIENCE);
                }
            }
        };
        let monitor = rustix::process::getpid().as_raw_nonzero().get();
        let left: Option<Run> = state::load(&self.paths.run_file(&record.id))?;
        let run = match (left, adopt) {
            (Some(run), true) => run,
            (None, false) => Run::expected(&record),
            (Some(_), false) => return Err(already_running(&record)),
            (None, true) => {
                return Err(Error::refused(
                    "the container ended before it could be taken over",
                ));
            }
        };
        Ok(Subject::new(self, record, Run { monitor, ..run }, lock))
    }

    /// The running container that a `container:X` refers to.
    pub(crate) fn other(&self, name: &str) -> Result<(Record, Run)> {
        let id = self.find(name)?;
        let record = self.existing(&id)?;
        let observed = self.observe(&record)?;
        match observed.running() {
            Some(run) => Ok((record, run.clone())),
            None => Err(Error::WrongState {
                verb: "join the namespaces of",
                name: record.name.clone(),
                status: observed.status.as_str().into(),
                hint: Some(format!("start it first: `coracle start {}`", record.name)),
            }),
        }
    }
}

fn already_running(record: &Record) -> Error {
    Error::WrongState {
        verb: "start",
        name: record.name.clone(),
        status: "running".into(),
        hint: None,
    }
}

fn starting(record: &Record, error: Error) -> Error {
    match error {
        Error::WrongState { .. } => error,
        error => error.during(format!("cannot start container {}", record.name)),
    }
}
