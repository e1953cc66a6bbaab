//! `stop`, `kill` and `restart`: signals, through the monitor where there is one, so that it knows who wanted the end.

use std::time::Duration;

use coracle_linux::pidfd;
use coracle_monitor::attach::{Client, Event, StopTimeout, Wants};
use coracle_oci::{ContainerId, Signal};
use rustix::fd::AsFd;

use crate::Engine;
use crate::answer::Status;
use crate::error::{Error, Result};
use crate::events::Happening;
use crate::state::{self, Record, Run};
use crate::status::Observed;

impl Engine {
    /// Sends the stop signal (or `signal`), and SIGKILL after `timeout` seconds (default: the container's own). That
    /// it does not run is no error.
    ///
    /// # Errors
    /// What talking to the monitor or signalling says.
    pub fn stop(&self, id: &ContainerId, timeout: Option<u32>, signal: Option<&str>) -> Result<()> {
        // A start under way is waited for: only then there is something to stop.
        drop(state::Lock::wait(&self.paths.container(id))?);
        self.stop_now(&self.existing(id)?, timeout, signal)
    }

    /// As [`Engine::stop`], for whoever holds the container's lock.
    pub(crate) fn stop_now(
        &self,
        record: &Record,
        timeout: Option<u32>,
        signal: Option<&str>,
    ) -> Result<()> {
        let id = &record.id;
        let seconds = timeout.or(record.spec.stop_timeout).unwrap_or(10);
        let wait = Duration::from_secs(seconds.into());
        let signal = parse(signal.unwrap_or(&record.process.stop_signal))?;
        let mut stopped = false;
        // A monitor that is killed while it is asked stops nothing, and the next look may give the container another:
        // so it is over when a look says so.
        loop {
            let observed = self.settled(record)?;
            let Some(run) = &observed.run else {
                break;
            };
            stopped = true;
            if observed.status == Status::Paused {
                // A frozen process sees no signal but SIGKILL.
                self.cgroup_of(run)?.thaw()?;
            }
            if !observed.monitored {
                self.stop_without_monitor(record, run, signal, wait)?;
                continue;
            }
            let asked = ask(&self.paths.attach(id), |client| {
                client.stop(Some(signal), StopTimeout::After(wait))
            });
            if unless_gone(asked)?.is_none() && observed.running().is_some() {
                // It cannot be asked, but it still clears away after what it looks after.
                self.stop_without_monitor(record, run, signal, wait)?;
            }
            // The monitor kills when the time is over, and clears away.
            self.wait_for_end_of_run(id)?;
        }
        if !stopped {
            return Ok(());
        }
        self.happened(Happening::container("stop", record))
    }

    fn stop_without_monitor(
        &self,
        record: &Record,
        run: &Run,
        signal: Signal,
        wait: Duration,
    ) -> Result<()> {
        let Some(process) = open(run)? else {
            return self.observe(record).map(drop);
        };
        send(&process, signal)?;
        if !pidfd::wait_exit(process.as_fd(), Some(wait)).map_err(failed)? {
            send(&process, Signal::KILL)?;
            pidfd::wait_exit(process.as_fd(), None).map_err(failed)?;
        }
        self.observe(record).map(drop)
    }

    /// Sends one signal to the first process.
    ///
    /// # Errors
    /// [`Error::WrongState`] when the container does not run.
    pub fn kill(&self, id: &ContainerId, signal: &str) -> Result<()> {
        let record = self.existing(id)?;
        let signal = parse(signal)?;
        let observed = self.observe(&record)?;
        let run = running(&record, &observed, "kill")?;
        let asked = match observed.monitored {
            true => unless_gone(ask(&self.paths.attach(id), |client| client.signal(signal)))?,
            false => None,
        };
        // One that was killed before it answered may not have done it: rather twice than never.
        let asked = asked.unwrap_or(false);
        if !asked && let Some(process) = open(run)? {
            send(&process, signal)?;
        }
        if signal == Signal::KILL && observed.status == Status::Paused {
            // On cgroup v1 a frozen process dies only once it is thawed.
            self.cgroup_of(run)?.thaw()?;
        }
        if signal == Signal::KILL {
            // As `docker kill`: returns when it is over. The last look clears away where there was no monitor.
            self.wait_for_end_of_run(id)?;
            self.observe(&record)?;
        }
        self.happened(
            Happening::container("kill", &record).with("signal", signal.number().to_string()),
        )
    }

    /// Stops it if it runs, and starts it.
    ///
    /// # Errors
    /// As [`Engine::stop`] and [`Engine::start`].
    pub fn restart(&self, id: &ContainerId, timeout: Option<u32>) -> Result<()> {
        self.stop(id, timeout, None)?;
        self.start(id)?;
        self.happened(Happening::container("restart", &self.existing(id)?))
    }
}

/// Asks the monitor for one thing and waits until it was done; false if it went away without a word.
pub(crate) fn ask(
    socket: &std::path::Path,
    request: impl FnOnce(&Client) -> coracle_monitor::Result<()>,
) -> Result<bool> {
    let client = Client::connect(socket, Wants::default())?;
    request(&client)?;
    let mut buffer = Vec::new();
    loop {
        match client.receive(&mut buffer)? {
            Event::Done(_) => return Ok(true),
            Event::Closed => return Ok(false),
            Event::Failed(_, why) => {
                return Err(Error::refused(format!(
                    "the monitor could not do it: {why}"
                )));
            }
            Event::Stdout(_) | Event::Stderr(_) | Event::Exit { .. } => {}
        }
    }
}

/// What [`ask`] says; that there is no monitor to ask is no error, and `None`.
fn unless_gone(asked: Result<bool>) -> Result<Option<bool>> {
    match asked {
        Ok(done) => Ok(Some(done)),
        Err(Error::Monitor(coracle_monitor::Error::NoMonitor { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(text: &str) -> Result<Signal> {
    text.parse()
        .map_err(|error: coracle_oci::SignalError| Error::refused(error.to_string()))
}

/// The run, or why there is none for this verb.
pub(crate) fn running<'a>(
    record: &Record,
    observed: &'a Observed,
    verb: &'static str,
) -> Result<&'a Run> {
    observed.running().ok_or_else(|| Error::WrongState {
        verb,
        name: record.name.clone(),
        status: observed.status.as_str().into(),
        hint: Some(format!("start it first: `coracle start {}`", record.name)),
    })
}

/// The first process; `None` when it is gone.
fn open(run: &Run) -> Result<Option<rustix::fd::OwnedFd>> {
    coracle_runtime::process::open(run.pid, run.start_time).map_err(failed)
}

fn send(process: &rustix::fd::OwnedFd, signal: Signal) -> Result<()> {
    let Some(signal) = rustix::process::Signal::from_named_raw(signal.number()) else {
        return Err(Error::refused(format!(
            "signal {} cannot be sent without a monitor",
            signal.number()
        )));
    };
    match rustix::process::pidfd_send_signal(process, signal) {
        // It ended in between, which is what the signal was to bring about or could not have changed.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

fn failed(error: impl Into<std::io::Error>) -> Error {
    Error::file("signalling through", std::path::Path::new("/proc"), error)
}
