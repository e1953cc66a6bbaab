//! The foreground command as a client of its own container: its streams, without a socket between.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::error::Result;
use crate::log::Stream;
use crate::options::{BrokenPipe, LocalClient};
use crate::output::Sink;
use crate::terminal::{RawMode, WindowSize};

/// The command's streams while a container runs.
#[derive(Debug)]
pub(crate) struct Local {
    stdin: Option<OwnedFd>,
    sinks: [Sink<OwnedFd>; 2],
    pub(crate) sig_proxy: bool,
    broken_pipe: BrokenPipe,
    raw: Option<RawMode>,
}

impl Local {
    /// With a container that has a terminal, the user's own is made raw.
    pub(crate) fn new(client: LocalClient, terminal: bool) -> Result<Local> {
        let raw = match &client.stdin {
            Some(stdin) if terminal => RawMode::enter(stdin)?,
            _ => None,
        };
        Ok(Local {
            stdin: client.stdin,
            sinks: [Sink::new(client.stdout), Sink::new(client.stderr)],
            sig_proxy: client.sig_proxy,
            broken_pipe: client.broken_pipe,
            raw,
        })
    }

    /// The user's terminal's size, where it is one.
    pub(crate) fn size(&self) -> Option<WindowSize> {
        self.stdin.as_ref().and_then(WindowSize::of)
    }

    /// The user's terminal in raw mode, to be given back while the process is stopped.
    pub(crate) fn raw(&self) -> Option<&RawMode> {
        self.raw.as_ref()
    }

    pub(crate) fn stdin(&self) -> Option<BorrowedFd<'_>> {
        self.stdin.as_ref().map(AsFd::as_fd)
    }

    /// Reads what there is: `None` is the end of the input.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let stdin = self.stdin.as_ref()?;
        match rustix::io::read(stdin, buffer) {
            Err(Errno::INTR | Errno::AGAIN) => Some(0),
            // A terminal that went away (EIO) is an end of input.
            Ok(0) | Err(_) => {
                self.stdin = None;
                None
            }
            Ok(count) => Some(count),
        }
    }

    /// Passes output on. Returns whether the container's own end should break, because the reader has gone.
    pub(crate) fn output(&mut self, stream: Stream, data: &[u8]) -> bool {
        let result = self.sinks[stream as usize].write(data);
        self.breaks(result)
    }

    /// Writes what waits; the same answer.
    pub(crate) fn flush(&mut self, stream: Stream) -> bool {
        let result = self.sinks[stream as usize].flush();
        self.breaks(result)
    }

    fn breaks(&self, result: std::result::Result<(), Errno>) -> bool {
        result.is_err() && self.broken_pipe == BrokenPipe::Propagate
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.sinks.iter().any(Sink::pending)
    }

    /// What waits to be written to.
    pub(crate) fn waiting(&self, stream: Stream) -> Option<BorrowedFd<'_>> {
        self.sinks[stream as usize].waiting()
    }
}
