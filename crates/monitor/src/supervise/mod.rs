//! The loop. [`Supervisor`] holds everything; this file is its life from start to end, [`events`] what it polls,
//! [`requests`] what clients and signals ask.
//!
//! ```text
//! begin ─► run ──(init ends, output drained)──► end_run ──(policy says so)──► waiting ──(time, no stop)──► run
//!                                                  │                             │ stop
//!                                                  └─────────► conclude ◄────────┘
//!                                                                 └─(clients served)─► return
//! ```

mod events;
mod requests;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::PollFlags;

use crate::attach::server::Server;
use crate::error::{Error, Result};
use crate::exit::{Exit, ExitStatus};
use crate::local::Local;
use crate::log::LogWriter;
use crate::options::{LogDriver, Streams, Supervision};
use crate::readiness::{Readiness, StartFailure};
use crate::restart::{Asked, RestartState};
use crate::run::Run;
use crate::signals::Signals;
use crate::stdio;
use crate::subject::{BoxError, Subject};
use crate::terminal::WindowSize;

/// How long clients have to take what is queued for them after the last run.
const LINGER: Duration = Duration::from_secs(10);

/// After this much quiet a detached monitor gives back the memory that a burst of work needed.
const QUIET: Duration = Duration::from_secs(1);

/// Starts `subject` (or adopts it) and supervises it until no further run follows. Returns the last run's end.
///
/// A failure of the first start is told through [`Supervision::ready`] and returned. Later failures of the subject do
/// not stop the container: the first one of [`Subject::exited`] or [`Subject::finished`] prevents restarts and is
/// returned once all is cleared away; others are [`Subject::warn`]ings.
pub fn supervise(subject: &mut dyn Subject, mut options: Supervision) -> Result<Exit> {
    let ready = options.ready.take();
    let mut supervisor = match Supervisor::prepare(subject, options) {
        Ok(supervisor) => supervisor,
        Err(error) => {
            tell(ready, || Readiness::failed(&error, 125, error.hint()));
            return Err(error);
        }
    };
    match supervisor.begin() {
        Ok(pid) => tell(ready, || Readiness::started(pid)),
        Err(error) => {
            supervisor.clear();
            tell(ready, || match &error {
                Error::Start(source) => Readiness::of_start_error(source),
                other => Readiness::failed(other, 125, other.hint()),
            });
            return Err(error);
        }
    }
    supervisor.serve()
}

/// The log and the attach socket, where they are not there yet.
fn open(
    options: &Supervision,
    log: &mut Option<LogWriter>,
    server: &mut Option<Server>,
) -> Result<()> {
    if let (None, LogDriver::JsonFile(file)) = (&log, &options.log) {
        *log = Some(LogWriter::open(file)?);
    }
    if let (None, Some(path)) = (&server, options.attach.as_deref()) {
        *server = Some(Server::listen(path)?);
    }
    Ok(())
}

fn tell(ready: Option<OwnedFd>, message: impl FnOnce() -> Readiness) {
    if let Some(ready) = ready {
        // The starting command has gone: nobody is left to tell, and the container runs all the same.
        let _ = message().send(ready);
    }
}

/// Everything that is held while a container is supervised.
struct Supervisor<'a> {
    subject: &'a mut dyn Subject,
    options: Supervision,
    local: Option<Local>,
    server: Option<Server>,
    log: Option<LogWriter>,
    /// The terminal's size as last told.
    size: Option<WindowSize>,
    run: Option<Run>,
    restart: RestartState,
    restart_at: Option<Instant>,
    asked: Asked,
    kill_at: Option<Instant>,
    /// With [`crate::StdinMode::Once`]: the client that fed the container has left.
    input_ended: bool,
    /// The end of the last run.
    last: Option<Exit>,
    /// No run follows; clients have so long.
    over_at: Option<Instant>,
    /// The first failure that must not be lost.
    failure: Option<Error>,
    trim_at: Option<Instant>,
    /// After running out of descriptors, connections are not taken before this time.
    accept_after: Option<Instant>,
    buffer: Vec<u8>,
    /// Last, so that the terminal is restored (`local`) before signals can end the process.
    signals: Signals,
}

impl<'a> Supervisor<'a> {
    fn prepare(subject: &'a mut dyn Subject, mut options: Supervision) -> Result<Supervisor<'a>> {
        let terminal = options.streams == Streams::Terminal;
        let forward = options.local.as_ref().is_some_and(|local| local.sig_proxy);
        let signals = Signals::take(forward, terminal && options.local.is_some())?;
        let local = options.local.take();
        let local = local
            .map(|client| Local::new(client, terminal))
            .transpose()?;
        Ok(Supervisor {
            subject,
            size: local.as_ref().and_then(Local::size).or(options.size),
            local,
            server: None,
            log: None,
            run: None,
            restart: RestartState::new(options.restart, options.restart_count),
            restart_at: None,
            asked: Asked::default(),
            kill_at: None,
            input_ended: false,
            last: None,
            over_at: None,
            failure: None,
            trim_at: None,
            accept_after: None,
            buffer: Vec::new(),
            signals,
            options,
        })
    }

    /// The first run. The process id of the container's init.
    fn begin(&mut self) -> Result<i32> {
        match self.options.adopt.take() {
            Some(adopt) => {
                open(&self.options, &mut self.log, &mut self.server)?;
                let ends = stdio::reopen(&self.options.streams)?;
                self.run = Some(Run::adopted(adopt, ends, self.options.health.clone()));
            }
            None => self.start()?,
        }
        if let (Some(server), Some(socket)) = (&mut self.server, self.options.first_client.take()) {
            let client = server.adopt(socket);
            self.client(client, PollFlags::IN);
        }
        self.trim_at = Some(Instant::now());
        Ok(self
            .run
            .as_ref()
            .map_or(0, |run| run.pid.as_raw_nonzero().get()))
    }

    fn start(&mut self) -> Result<()> {
        let options = &self.options;
        let (request, ends) =
            stdio::open(&options.streams, options.stdin, options.owner, self.size)?;
        let (log, server) = (&mut self.log, &mut self.server);
        let mut meanwhile = || open(options, log, server);
        let process = self
            .subject
            .start(request, &mut meanwhile)
            .map_err(Error::Start)?;
        let mut run = Run::started(process, ends, options.health.clone());
        if let Err(error) = run.open_terminal(options.streams == Streams::Terminal) {
            run.kill()?;
            let exit = self.failed_start(&error, 125);
            self.subject
                .exited(&exit)
                .map_err(subject("releasing a container that cannot be supervised"))?;
            return Err(error);
        }
        if self.input_ended {
            run.input.end();
        }
        self.asked = Asked::default();
        self.run = Some(run);
        Ok(())
    }

    /// What is due, then what comes, until everything is over.
    fn serve(mut self) -> Result<Exit> {
        loop {
            let now = Instant::now();
            self.tick(now)?;
            if let Some(over_at) = self.over_at {
                let waiting = self.server.as_ref().is_some_and(Server::is_pending);
                if !waiting || now >= over_at {
                    break;
                }
            }
            self.wait()?;
        }
        match (self.failure.take(), self.last.take()) {
            (Some(failure), _) => Err(failure),
            (None, Some(exit)) => Ok(exit),
            (None, None) => unreachable!("over_at is set together with last"),
        }
    }

    /// Everything that a time has come for.
    fn tick(&mut self, now: Instant) -> Result<()> {
        let due = |at: &Option<Instant>| at.is_some_and(|at| at <= now);
        if due(&self.kill_at) {
            self.kill_at = None;
            if let Err(why) = self.send(coracle_oci::Signal::KILL) {
                self.subject
                    .warn(&format!("killing the container failed: {why}"));
            }
        }
        if let Some(run) = &mut self.run {
            if let Some(health) = &mut run.health
                && let Some(update) = health.tick(now, self.subject)
                && let Err(error) = self.subject.health(update)
            {
                self.subject
                    .warn(&format!("recording the container's health failed: {error}"));
            }
            let drained = run.is_drained(now);
            if drained && !self.local.as_ref().is_some_and(Local::is_pending) {
                self.end_run();
            }
        }
        if due(&self.restart_at) {
            self.restart_at = None;
            if let Err(error) = self.start() {
                self.restart_failed(&error);
            }
        }
        if due(&self.accept_after) {
            self.accept_after = None;
        }
        if due(&self.trim_at) {
            self.trim_at = None;
            if self.local.is_none() {
                self.buffer = Vec::new();
                coracle_linux::memory::trim();
            }
        }
        Ok(())
    }

    /// When [`Supervisor::tick`] has something to do; `None`: never.
    fn deadline(&self) -> Option<Instant> {
        let run = self.run.as_ref();
        [
            self.kill_at,
            self.restart_at,
            self.over_at,
            self.accept_after,
            self.trim_at,
            run.and_then(|run| run.health.as_ref()?.deadline()),
            run.and_then(|run| Some(run.end?.drain_until)),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The run has ended and its output is in the log.
    fn end_run(&mut self) {
        let Some((run, end)) = self
            .run
            .take()
            .and_then(|run| run.end.map(|end| (run, end)))
        else {
            return;
        };
        self.kill_at = None;
        if let Some(warning) = self
            .log
            .as_mut()
            .and_then(|log| log.finish(Timestamp::now()))
        {
            self.subject.warn(&warning);
        }
        // The event of the kill that ended the run may come later than the end.
        let killed = end.status == ExitStatus::Signal(9) && run.oom_event.is_some();
        let oom = run.oom || (killed && self.check_oom());
        let restart_count = self.restart.count();
        let asked = std::mem::take(&mut self.asked);
        let exit = Exit {
            status: end.status,
            started_at: run.started_at,
            finished_at: end.at,
            oom,
            stopped_by_user: asked.stop,
            restart_count,
            restart_in: self.restart.after(end.status, end.ran, asked),
            error: None,
        };
        drop(run);
        if let Err(source) = self.subject.exited(&exit) {
            self.keep(subject("recording the container's exit")(source));
            return self.conclude(exit);
        }
        match exit.restart_in {
            Some(delay) => {
                self.restart_at = Some(Instant::now() + delay);
                if let Some(server) = &mut self.server {
                    server.exited(&exit);
                }
                self.last = Some(exit);
            }
            None => self.conclude(exit),
        }
    }

    fn restart_failed(&mut self, error: &Error) {
        let code = match error {
            Error::Start(source) => source
                .downcast_ref::<StartFailure>()
                .map_or(125, |failure| failure.code),
            _ => 125,
        };
        let exit = self.failed_start(error, code);
        if let Err(source) = self.subject.exited(&exit) {
            self.keep(subject("recording the failed restart")(source));
        }
        self.conclude(exit);
    }

    fn failed_start(&self, error: &Error, code: u8) -> Exit {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        let now = Timestamp::now();
        Exit {
            status: ExitStatus::Code(code),
            started_at: now,
            finished_at: now,
            oom: false,
            stopped_by_user: false,
            restart_count: self.restart.count(),
            restart_in: None,
            error: Some(text),
        }
    }

    /// A stop came between two runs: the record of the last one is amended.
    fn cancel_restart(&mut self) {
        self.restart_at = None;
        let Some(mut exit) = self.last.take() else {
            return;
        };
        exit.restart_in = None;
        exit.stopped_by_user = true;
        if let Err(source) = self.subject.exited(&exit) {
            self.keep(subject("recording the container's exit")(source));
        }
        self.conclude(exit);
    }

    /// No run follows: everything is cleared away, then clients are told.
    fn conclude(&mut self, mut exit: Exit) {
        exit.restart_in = None;
        // What is at the paths of this run belongs to the next one as soon as the subject has let go of them.
        self.clear();
        if let Err(source) = self.subject.finished() {
            self.keep(subject("clearing the container away")(source));
        }
        if let Some(server) = &mut self.server {
            server.exited(&exit);
        }
        self.last = Some(exit);
        self.over_at = Some(Instant::now() + LINGER);
    }

    /// Removes what this made in the run directory.
    fn clear(&mut self) {
        if let Err(error) = stdio::remove(&self.options.streams) {
            self.keep(error);
        }
        if let Some(Err(error)) = self.server.as_ref().map(Server::remove) {
            self.keep(error);
        }
    }

    fn keep(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    /// Asks the subject whether this run lost a process for memory.
    fn check_oom(&mut self) -> bool {
        self.subject.oom().unwrap_or_else(|error| {
            self.subject
                .warn(&format!("looking for out-of-memory kills failed: {error}"));
            false
        })
    }
}

/// Shorthand for `map_err` on the subject's methods.
fn subject(doing: &'static str) -> impl FnOnce(BoxError) -> Error {
    move |source| Error::Subject { doing, source }
}
