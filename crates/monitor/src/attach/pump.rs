//! A user's terminal, or any three descriptors, connected to a container until it ends or the user detaches.
//!
//! One poll loop. Nothing waits inside a read or a write, so that signals and detach keys always work. Signals that
//! would end the process are taken: the terminal is itself again before this returns.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};

use super::client::{Client, Event};
use crate::detach_keys::DetachKeys;
use crate::error::{Error, Result, system};
use crate::exit::ExitStatus;
use crate::output::Sink;
use crate::signals::{ENDS, Signals, TSTP, WINCH, forwarded};
use crate::terminal::{RawMode, WindowSize};

const CHUNK: usize = 32 * 1024;

/// The user's side.
#[derive(Debug, Clone)]
pub struct PumpOptions<'a> {
    /// Read and sent, if the client wanted stdin.
    pub stdin: Option<BorrowedFd<'a>>,
    /// Gets standard output.
    pub stdout: Option<BorrowedFd<'a>>,
    /// Gets standard error.
    pub stderr: Option<BorrowedFd<'a>>,
    /// Leave the container; only looked for where it has a terminal.
    pub detach_keys: DetachKeys,
    /// Send signals on to the container instead of ending here.
    pub sig_proxy: bool,
}

/// Why [`pump`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// A run ended.
    Exited {
        /// How.
        status: ExitStatus,
        /// Another run will follow.
        restarting: bool,
        /// A process was killed for memory.
        oom: bool,
    },
    /// The user pressed the detach keys.
    Detached,
    /// This signal number came and was not forwarded: exit as it would have (128 + it).
    Signalled(i32),
}

struct Pump<'a> {
    client: &'a Client,
    options: &'a PumpOptions<'a>,
    sinks: [Sink<BorrowedFd<'a>>; 2],
    raw: Option<RawMode>,
    stdin: Option<BorrowedFd<'a>>,
    /// Input that the monitor has not taken yet, and whether its end follows.
    input: Vec<u8>,
    input_ends: bool,
}

/// Connects `client` to the user. Where the container has a terminal and `stdin` is one, that is in raw mode meanwhile.
pub fn pump(client: &Client, options: &PumpOptions<'_>) -> Result<Ended> {
    let stdin = options.stdin.filter(|_| client.wants().stdin);
    let signals = Signals::take(options.sig_proxy, client.has_terminal())?;
    // After the signals are taken and dropped before they are released: none finds the terminal raw.
    let raw = match stdin {
        Some(stdin) if client.has_terminal() => RawMode::enter(stdin)?,
        _ => None,
    };
    let mut pump = Pump {
        client,
        options,
        sinks: [Sink::new(options.stdout), Sink::new(options.stderr)],
        raw,
        stdin,
        input: Vec::new(),
        input_ends: false,
    };
    if let Some(size) = pump.size() {
        client.resize(size)?;
    }
    pump.run(&signals)
}

impl Pump<'_> {
    fn run(&mut self, signals: &Signals) -> Result<Ended> {
        let mut scanner = match self.client.has_terminal() {
            true => self.options.detach_keys.scanner(),
            false => DetachKeys::none().scanner(),
        };
        let mut buffer = Vec::new();
        let mut end: Option<Ended> = None;
        loop {
            let waiting = self.sinks.iter().any(Sink::pending);
            if let (Some(end), false) = (end, waiting) {
                return Ok(end);
            }
            // Output that the user has not taken holds up the monitor, and thereby the container.
            let has_input = !self.input.is_empty() || self.input_ends;
            let socket_events = match (waiting || end.is_some(), has_input) {
                (false, false) => PollFlags::IN,
                (false, true) => PollFlags::IN | PollFlags::OUT,
                (true, true) => PollFlags::OUT,
                (true, false) => PollFlags::empty(),
            };
            let stdin = self.stdin.filter(|_| !has_input && end.is_none());
            let [
                ready_signal,
                ready_socket,
                ready_stdin,
                ready_out,
                ready_err,
            ] = self.wait([
                Some((signals.descriptor().as_fd(), PollFlags::IN)),
                (!socket_events.is_empty()).then(|| (self.client.as_fd(), socket_events)),
                stdin.map(|stdin| (stdin, PollFlags::IN)),
                self.sinks[0].waiting().map(|fd| (fd, PollFlags::OUT)),
                self.sinks[1].waiting().map(|fd| (fd, PollFlags::OUT)),
            ])?;
            if !ready_signal.is_empty() {
                while let Some(signal) = signals.next()? {
                    if let (Some(end), true) = (end, ENDS.contains(&signal)) {
                        return Ok(end);
                    }
                    if let Some(ended) = self.signal(signal)? {
                        return Ok(ended);
                    }
                }
            }
            for (sink, ready) in [(0, ready_out), (1, ready_err)] {
                if !ready.is_empty() {
                    // The user's side has gone: what the container says is dropped until it ends.
                    let _ = self.sinks[sink].flush();
                }
            }
            if ready_socket.contains(PollFlags::OUT) {
                self.send_input()?;
            }
            if ready_socket.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
                && socket_events.contains(PollFlags::IN)
            {
                end = self.event(&mut buffer)?;
            }
            if !ready_stdin.is_empty() && self.read_stdin(&mut scanner)? {
                return Ok(Ended::Detached);
            }
        }
    }

    /// Polls those that are there; what happened on each.
    fn wait<const N: usize>(
        &self,
        wanted: [Option<(BorrowedFd<'_>, PollFlags)>; N],
    ) -> Result<[PollFlags; N]> {
        let mut happened = [PollFlags::empty(); N];
        let mut polled: Vec<PollFd<'_>> = wanted
            .iter()
            .flatten()
            .map(|(fd, events)| PollFd::from_borrowed_fd(*fd, *events))
            .collect();
        match poll(&mut polled, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(happened),
            Err(error) => return Err(system("waiting for the container")(error)),
        }
        let slots = happened
            .iter_mut()
            .zip(&wanted)
            .filter(|(_, w)| w.is_some());
        for ((slot, _), result) in slots.zip(&polled) {
            *slot = result.revents();
        }
        Ok(happened)
    }

    fn signal(&mut self, signal: i32) -> Result<Option<Ended>> {
        match signal {
            WINCH if self.client.has_terminal() => self.resize()?,
            TSTP => {
                if let Some(raw) = &self.raw {
                    raw.suspend()?;
                }
                kill_process(getpid(), Signal::STOP).map_err(system("stopping"))?;
                // Continued: the terminal may have changed hands and size meanwhile.
                if let Some(raw) = &self.raw {
                    raw.again()?;
                }
                self.resize()?;
            }
            _ if self.options.sig_proxy => {
                if let Some(signal) = forwarded(signal) {
                    self.beside(|client| client.signal(signal))?;
                }
                // With the terminal gone nobody is left to serve.
                if signal == Signal::HUP.as_raw() && self.raw.is_some() {
                    return Ok(Some(Ended::Signalled(signal)));
                }
            }
            _ if ENDS.contains(&signal) || signal == Signal::HUP.as_raw() => {
                return Ok(Some(Ended::Signalled(signal)));
            }
            _ => {}
        }
        Ok(None)
    }

    /// Asks over a second connection: this one's requests may be waiting behind input that nobody reads.
    fn beside(&self, ask: impl FnOnce(&Client) -> Result<()>) -> Result<()> {
        match self.client.beside().and_then(|client| ask(&client)) {
            // It is ending: the event that says how, or that it was not told, is on its way.
            Err(Error::NoMonitor { .. } | Error::MonitorGone) => Ok(()),
            other => other,
        }
    }

    fn resize(&self) -> Result<()> {
        match self.size() {
            Some(size) => self.beside(|client| client.resize(size)),
            None => Ok(()),
        }
    }

    /// The size of the user's terminal, if the container has one that could follow it.
    fn size(&self) -> Option<WindowSize> {
        [self.options.stdout, self.options.stdin]
            .into_iter()
            .flatten()
            .filter(|_| self.client.has_terminal())
            .find_map(WindowSize::of)
    }

    fn event(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Ended>> {
        let (sink, data) = match self.client.receive(buffer)? {
            Event::Stdout(data) => (0, data),
            Event::Stderr(data) => (1, data),
            Event::Exit {
                status,
                restarting,
                oom,
            } => {
                return Ok(Some(Ended::Exited {
                    status,
                    restarting,
                    oom,
                }));
            }
            Event::Done(_) => return Ok(None),
            // Only signals are asked for here, and one to a container that has just ended is too late, not wrong.
            Event::Failed(..) => return Ok(None),
            Event::Closed => return Err(Error::MonitorGone),
        };
        // The user's side has gone: what the container says is dropped until it ends.
        let _ = self.sinks[sink].write(data);
        Ok(None)
    }

    /// Reads what the user typed; whether the detach keys were in it.
    fn read_stdin(&mut self, scanner: &mut crate::detach_keys::Scanner) -> Result<bool> {
        let Some(stdin) = self.stdin else {
            return Ok(false);
        };
        let mut chunk = vec![0; CHUNK];
        let detached = match rustix::io::read(stdin, &mut chunk) {
            Err(Errno::INTR | Errno::AGAIN) => return Ok(false),
            // A terminal that went away (EIO) is an end of input.
            Ok(0) | Err(_) => {
                self.stdin = None;
                self.input_ends = true;
                scanner.finish(&mut self.input);
                false
            }
            Ok(count) => scanner.scan(&chunk[..count], &mut self.input),
        };
        self.send_input()?;
        Ok(detached)
    }

    fn send_input(&mut self) -> Result<()> {
        match self.try_send_input() {
            // How it ended, if it was told, is still to be received.
            Err(Error::MonitorGone) => {
                self.stdin = None;
                self.input.clear();
                self.input_ends = false;
                Ok(())
            }
            other => other,
        }
    }

    fn try_send_input(&mut self) -> Result<()> {
        let taken = self.client.try_send_stdin(&self.input)?;
        self.input.drain(..taken);
        if self.input.is_empty() && self.input_ends {
            self.input_ends = !self.client.try_end_stdin()?;
        }
        Ok(())
    }
}
