//! What clients and signals ask: input, sizes, signals, stops.

use std::time::{Duration, Instant};

use coracle_oci::Signal;
use rustix::io::Errno;
use rustix::process::{Signal as Named, getpid, kill_process};

use super::Supervisor;
use crate::attach::server::{Ask, ClientId, Kind};
use crate::error::{Result, system};
use crate::local::Local;
use crate::options::{StdinMode, Streams};
use crate::signals::{ENDS, TSTP, WINCH, forwarded};
use crate::terminal::WindowSize;

/// STOP's milliseconds: the container's own timeout, and none.
const CONFIGURED: i32 = -2;
const NEVER: i32 = -1;

impl Supervisor<'_> {
    /// Does what `client` (if it is still there to be answered) asks.
    pub(super) fn ask(&mut self, client: Option<ClientId>, ask: Ask) {
        let (kind, result) = match ask {
            Ask::Stdin(data) => {
                if let Some(run) = &mut self.run {
                    run.input.feed(&data);
                }
                return;
            }
            Ask::StdinEnd => return self.end_input(),
            Ask::Resize(size) => return self.resize(size),
            Ask::Stop {
                signal,
                milliseconds,
            } => (Kind::Stop, self.stop(signal, milliseconds)),
            Ask::Signal(signal) => (Kind::Signal, self.signal(signal)),
            Ask::Restart(policy) => {
                self.restart.set_policy(policy);
                (Kind::Restart, Ok(()))
            }
        };
        if let (Some(id), Some(server)) = (client, &mut self.server) {
            server.answer(id, kind, result);
        }
    }

    /// A signal to this process.
    pub(super) fn signalled(&mut self, signal: i32) -> Result<()> {
        let terminal = self.options.streams == Streams::Terminal;
        let proxy = self.local.as_ref().map(|local| local.sig_proxy);
        match (signal, proxy) {
            (WINCH, Some(_)) if terminal => {
                if let Some(size) = self.local.as_ref().and_then(Local::size) {
                    self.resize(size);
                }
            }
            (TSTP, Some(_)) => self.suspend()?,
            (_, Some(true)) => {
                let idle = self.run.as_ref().is_none_or(|run| run.end.is_some());
                if idle && ENDS.contains(&signal) {
                    self.stop_for(signal);
                } else if let Some(forwarded) = forwarded(signal)
                    && let Err(why) = self.signal(forwarded)
                {
                    self.subject
                        .warn(&format!("forwarding {forwarded} failed: {why}"));
                }
            }
            // A foreground command that does not forward ends with its terminal; a detached monitor has none.
            (_, Some(false)) if signal == Signal::HUP.number() => self.stop_for(signal),
            _ if ENDS.contains(&signal) => self.stop_for(signal),
            _ => {}
        }
        Ok(())
    }

    fn stop_for(&mut self, signal: i32) {
        if let Err(why) = self.stop(None, CONFIGURED) {
            self.subject.warn(&format!(
                "stopping the container for signal {signal} failed: {why}"
            ));
        }
    }

    /// Stopped by the user's shell: the terminal is given back meanwhile.
    fn suspend(&mut self) -> Result<()> {
        let raw = self.local.as_ref().and_then(Local::raw);
        if let Some(raw) = raw {
            raw.suspend()?;
        }
        kill_process(getpid(), Named::STOP).map_err(system("stopping"))?;
        if let Some(raw) = raw {
            raw.again()?;
        }
        if let Some(size) = self.local.as_ref().and_then(Local::size) {
            self.resize(size);
        }
        Ok(())
    }

    fn end_input(&mut self) {
        let terminal = self.options.streams == Streams::Terminal;
        if terminal || self.options.stdin != StdinMode::Once {
            return;
        }
        self.input_ended = true;
        if let Some(run) = &mut self.run {
            run.input.end();
        }
    }

    fn resize(&mut self, size: WindowSize) {
        self.size = Some(size);
        if let Some(terminal) = self.run.as_ref().and_then(|run| run.terminal.as_ref())
            && let Err(error) = size.apply(terminal)
        {
            self.subject.warn(&error.to_string());
        }
    }

    /// A stop for good: no policy brings the container back.
    fn stop(&mut self, signal: Option<Signal>, milliseconds: i32) -> Result<(), String> {
        let rule = self.options.stop;
        if self.restart_at.is_some() {
            self.cancel_restart();
            return Ok(());
        }
        if self.run.is_none() {
            return Ok(());
        }
        self.asked.stop = true;
        self.asked.signal = true;
        let timeout = match milliseconds {
            CONFIGURED => rule.timeout,
            NEVER => None,
            // Other negative numbers mean nothing; at once is the safe reading of "stop".
            given => Some(Duration::from_millis(u64::try_from(given).unwrap_or(0))),
        };
        self.kill_at = timeout.map(|timeout| Instant::now() + timeout);
        self.send(signal.unwrap_or(rule.signal))
    }

    /// A signal for the container's init that a user sent.
    fn signal(&mut self, signal: Signal) -> Result<(), String> {
        self.asked.signal = true;
        self.asked.stop |= signal == self.options.stop.signal || signal == Signal::KILL;
        self.send(signal)
    }

    /// Sends a signal to the container's init, if it runs.
    pub(super) fn send(&mut self, signal: Signal) -> Result<(), String> {
        let Some(run) = self.run.as_ref().filter(|run| run.end.is_none()) else {
            return Ok(());
        };
        match coracle_linux::signal::send(&run.pidfd, signal.number()) {
            // It has ended, which is about to be noticed.
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(std::io::Error::from(error).to_string()),
        }
    }
}
