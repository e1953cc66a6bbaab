//! What is polled, and what is done with it.

use std::os::fd::AsFd;
use std::time::Instant;

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{QUIET, Supervisor};
use crate::attach::server::{Ask, ClientId, Server, Situation};
use crate::error::{Result, system};
use crate::local::Local;
use crate::log::Stream;
use crate::options::{StdinMode, Streams};
use crate::run::DRAIN;

/// A pipe's capacity: nothing is read in smaller pieces than it was written.
const CHUNK: usize = 64 * 1024;

const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// Whose event it is.
#[derive(Debug, Clone, Copy)]
enum Source {
    Signal,
    Process,
    Memory,
    Output(Stream),
    Input,
    Listener,
    Client(ClientId),
    LocalInput,
    LocalOutput(Stream),
    Probe,
    ProbeOutput,
}

impl Supervisor<'_> {
    /// Waits for the next events or the next deadline, and handles them.
    pub(super) fn wait(&mut self) -> Result<()> {
        let congested = self.is_congested();
        if congested && let Some(end) = self.run.as_mut().and_then(|run| run.end.as_mut()) {
            // Output that a slow reader keeps back is not given up: only time in which it could be read counts.
            end.drain_until = Instant::now() + DRAIN;
        }
        let happened = self.poll(congested)?;
        if happened.is_empty() {
            return Ok(());
        }
        // One short timer after each burst; none while nothing happens.
        self.trim_at = Some(Instant::now() + QUIET);
        for (source, flags) in happened {
            self.handle(source, flags)?;
        }
        Ok(())
    }

    /// Whether a reader of the output is so slow that the container must wait.
    fn is_congested(&self) -> bool {
        self.server.as_ref().is_some_and(Server::is_congested)
            || self.local.as_ref().is_some_and(Local::is_pending)
    }

    fn poll(&self, congested: bool) -> Result<Vec<(Source, PollFlags)>> {
        let mut sources = vec![Source::Signal];
        let mut polled = vec![PollFd::new(self.signals.descriptor(), PollFlags::IN)];
        let mut add = |source, fd, events| {
            sources.push(source);
            polled.push(PollFd::from_borrowed_fd(fd, events));
        };
        let mut input_full = false;
        if let Some(run) = &self.run {
            if run.end.is_none() {
                add(Source::Process, run.pidfd.as_fd(), PollFlags::IN);
            }
            if let Some(event) = &run.oom_event {
                add(Source::Memory, event.as_fd(), PollFlags::IN);
            }
            for stream in STREAMS {
                if let (Some(output), false) = (&run.outputs[stream as usize], congested) {
                    add(Source::Output(stream), output.as_fd(), PollFlags::IN);
                }
            }
            if let Some(input) = run.input.waiting() {
                add(Source::Input, input, PollFlags::OUT);
            }
            if let Some(health) = &run.health {
                if let Some(process) = health.process() {
                    add(Source::Probe, process, PollFlags::IN);
                }
                if let Some(output) = health.output() {
                    add(Source::ProbeOutput, output, PollFlags::IN);
                }
            }
            input_full = run.input.is_full();
        }
        if let Some(server) = &self.server {
            if let Some(listener) = server.listener()
                && self.accept_after.is_none()
                && self.over_at.is_none()
            {
                add(Source::Listener, listener, PollFlags::IN);
            }
            for (id, socket, events) in server.polled(input_full) {
                add(Source::Client(id), socket, events);
            }
        }
        if let Some(local) = &self.local {
            if let Some(stdin) = local.stdin()
                && self.takes_input()
                && !input_full
            {
                add(Source::LocalInput, stdin, PollFlags::IN);
            }
            for stream in STREAMS {
                if let Some(output) = local.waiting(stream) {
                    add(Source::LocalOutput(stream), output, PollFlags::OUT);
                }
            }
        }
        let timeout = self.deadline().map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec {
                // Deadlines are at most some years away.
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(system("waiting for the container")(error)),
        }
        Ok(sources
            .into_iter()
            .zip(&polled)
            .map(|(source, polled)| (source, polled.revents()))
            .filter(|(_, flags)| !flags.is_empty())
            .collect())
    }

    /// Whether there is a run that reads the local input.
    fn takes_input(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.input.is_open())
    }

    fn handle(&mut self, source: Source, flags: PollFlags) -> Result<()> {
        match source {
            Source::Signal => {
                while let Some(signal) = self.signals.next()? {
                    self.signalled(signal)?;
                }
            }
            Source::Process => {
                if let Some(run) = &mut self.run {
                    run.reap()?;
                }
            }
            Source::Memory => self.memory(),
            Source::Output(stream) => self.read_output(stream),
            Source::Input => {
                if let Some(run) = &mut self.run {
                    run.input.flush();
                }
            }
            Source::Listener => {
                if let Some(Err(error)) = self.server.as_mut().map(Server::accept) {
                    // Most likely no descriptors are left: the connection keeps waiting, and this does not spin.
                    self.accept_after = Some(Instant::now() + QUIET);
                    self.subject
                        .warn(&format!("taking an attach connection failed: {error}"));
                }
            }
            Source::Client(id) => self.client(id, flags),
            Source::LocalInput => self.read_local(),
            Source::LocalOutput(stream) => {
                if self.local.as_mut().is_some_and(|local| local.flush(stream)) {
                    self.break_output(stream);
                }
            }
            Source::Probe => {
                if let Some(health) = self.run.as_mut().and_then(|run| run.health.as_mut())
                    && let Some(update) = health.ended()
                    && let Err(error) = self.subject.health(update)
                {
                    self.subject
                        .warn(&format!("recording the container's health failed: {error}"));
                }
            }
            Source::ProbeOutput => {
                if let Some(health) = self.run.as_mut().and_then(|run| run.health.as_mut()) {
                    health.read();
                }
            }
        }
        Ok(())
    }

    fn memory(&mut self) {
        let Some(run) = &mut self.run else {
            return;
        };
        let Some(event) = &run.oom_event else {
            return;
        };
        // An eventfd gives 8 bytes, an inotify as many events as there is room for.
        let mut events = [0; 4096];
        match rustix::io::read(event, &mut events) {
            Err(Errno::INTR | Errno::AGAIN) => return,
            Ok(0) | Err(_) => {
                run.oom_event = None;
                return;
            }
            Ok(_) => {}
        }
        let oom = self.check_oom();
        if let Some(run) = &mut self.run {
            run.oom |= oom;
        }
    }

    fn read_output(&mut self, stream: Stream) {
        let Some(run) = &mut self.run else {
            return;
        };
        let slot = &mut run.outputs[stream as usize];
        let Some(output) = slot else {
            return;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(CHUNK, 0);
        match rustix::io::read(output, &mut buffer) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            // A terminal without its other side says EIO.
            Ok(0) | Err(_) => *slot = None,
            Ok(count) => self.deliver(stream, &buffer[..count]),
        }
        self.buffer = buffer;
    }

    fn deliver(&mut self, stream: Stream, data: &[u8]) {
        if let Some(log) = &mut self.log
            && let Some(warning) = log.write(stream, data, Timestamp::now())
        {
            self.subject.warn(&warning);
        }
        let asks = match &mut self.server {
            Some(server) => server.output(stream, data),
            None => Vec::new(),
        };
        for ask in asks {
            // These are ends of input of clients that left; nobody waits for an answer.
            self.ask(None, ask);
        }
        if self
            .local
            .as_mut()
            .is_some_and(|local| local.output(stream, data))
        {
            self.break_output(stream);
        }
    }

    /// The reader of a local stream has gone, and the container's writes are to fail as it would without us.
    fn break_output(&mut self, stream: Stream) {
        if let Some(run) = &mut self.run {
            run.outputs[stream as usize] = None;
        }
    }

    pub(super) fn client(&mut self, id: ClientId, flags: PollFlags) {
        let situation = Situation {
            terminal: self.options.streams == Streams::Terminal,
            running: self.run.as_ref().is_some_and(|run| run.end.is_none()),
            stdin: self.takes_input(),
        };
        let Some(server) = &mut self.server else {
            return;
        };
        if flags.contains(PollFlags::OUT)
            && let Some(ask) = server.flush(id)
        {
            return self.ask(None, ask);
        }
        if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let (ask, warning) = server.read(id, &mut buffer, situation);
        self.buffer = buffer;
        if let Some(warning) = warning {
            self.subject.warn(&warning);
        }
        if let Some(ask) = ask {
            self.ask(Some(id), ask);
        }
    }

    fn read_local(&mut self) {
        let Some(local) = &mut self.local else {
            return;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(CHUNK, 0);
        match local.read(&mut buffer) {
            Some(count) => {
                if let Some(run) = &mut self.run
                    && (self.options.stdin != StdinMode::Closed || run.terminal.is_some())
                {
                    run.input.feed(&buffer[..count]);
                }
            }
            None => self.ask(None, Ask::StdinEnd),
        }
        self.buffer = buffer;
    }
}
