//! Writing to a descriptor that is shared with others (the user's terminal, a pipe of the shell) without ever waiting
//! inside a write and without changing its flags: O_NONBLOCK belongs to the open file, which the user's shell shares.
//!
//! A pipe that poll(2) calls writable has a free page, so that PIPE_BUF bytes go in at once. A socket has MSG_DONTWAIT.
//! Files do not wait. A terminal that is written to in pieces as small as a pipe's may wait for its reader, not longer.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::net::SendFlags;

/// POSIX's PIPE_BUF on Linux.
const PIPE_BUF: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pieces,
    Socket,
    Whole,
}

/// A destination and what it has not taken yet.
#[derive(Debug)]
pub(crate) struct Sink<F> {
    destination: Option<F>,
    kind: Kind,
    queue: Vec<u8>,
    sent: usize,
}

impl<F: AsFd> Sink<F> {
    /// A sink into `destination`; without one everything is dropped.
    pub(crate) fn new(destination: Option<F>) -> Sink<F> {
        let kind = match destination.as_ref().map(rustix::fs::fstat) {
            Some(Ok(status)) => match FileType::from_raw_mode(status.st_mode) {
                FileType::Fifo => Kind::Pieces,
                FileType::Socket => Kind::Socket,
                FileType::CharacterDevice
                    if destination.as_ref().is_some_and(rustix::termios::isatty) =>
                {
                    Kind::Pieces
                }
                _ => Kind::Whole,
            },
            _ => Kind::Pieces,
        };
        Sink {
            destination,
            kind,
            queue: Vec::new(),
            sent: 0,
        }
    }

    /// Takes `data`: writes what goes at once and keeps the rest. The error is that of a destination that has gone;
    /// it is told once, and everything is dropped from then on.
    pub(crate) fn write(&mut self, data: &[u8]) -> Result<(), Errno> {
        if self.pending() {
            self.queue.extend_from_slice(data);
            return self.flush();
        }
        let taken = self.push(data)?;
        if self.destination.is_some() {
            self.queue.extend_from_slice(&data[taken..]);
        }
        Ok(())
    }

    /// Writes what is kept, as far as it goes.
    pub(crate) fn flush(&mut self) -> Result<(), Errno> {
        let queue = std::mem::take(&mut self.queue);
        let taken = match self.push(&queue[self.sent..]) {
            Ok(taken) => taken,
            Err(error) => {
                self.sent = 0;
                return Err(error);
            }
        };
        self.sent += taken;
        if self.sent < queue.len() {
            self.queue = queue;
        } else {
            self.sent = 0;
        }
        Ok(())
    }

    /// Whether something waits for the destination.
    pub(crate) fn pending(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The descriptor to poll for POLLOUT, while something waits.
    pub(crate) fn waiting(&self) -> Option<BorrowedFd<'_>> {
        match self.pending() {
            true => self.destination.as_ref().map(AsFd::as_fd),
            false => None,
        }
    }

    fn push(&mut self, data: &[u8]) -> Result<usize, Errno> {
        let Some(destination) = &self.destination else {
            return Ok(data.len());
        };
        let mut sent = 0;
        while sent < data.len() {
            let rest = &data[sent..];
            let result = match self.kind {
                Kind::Whole => rustix::io::write(destination, rest),
                Kind::Socket => {
                    rustix::net::send(destination, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
                }
                Kind::Pieces if writable(destination) => {
                    rustix::io::write(destination, &rest[..rest.len().min(PIPE_BUF)])
                }
                Kind::Pieces => break,
            };
            match result {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => {
                    self.destination = None;
                    return Err(error);
                }
            }
        }
        Ok(sent)
    }
}

fn writable(destination: impl AsFd) -> bool {
    let mut events = [PollFd::new(&destination, PollFlags::OUT)];
    // POLLERR counts: the write then says what is wrong. An interrupted poll is "not now".
    poll(&mut events, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    #[test]
    fn full_blocking_pipe_is_not_waited_for() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        let mut sink = Sink::new(Some(write));
        let data: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
        sink.write(&data[..200_000]).expect("taken");
        sink.write(&data[200_000..]).expect("taken");
        assert!(sink.pending() && sink.waiting().is_some());
        let mut seen = Vec::new();
        while seen.len() < data.len() {
            let mut chunk = [0; 10_000];
            let count = rustix::io::read(&read, &mut chunk).expect("read");
            seen.extend_from_slice(&chunk[..count]);
            sink.flush().expect("flushed");
        }
        assert_eq!(seen, data);
        assert!(!sink.pending() && sink.waiting().is_none());
    }

    #[test]
    fn reader_that_left_is_told_once() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        drop(read);
        let mut sink = Sink::new(Some(write));
        assert_eq!(sink.write(b"x"), Err(Errno::PIPE));
        assert_eq!(sink.write(b"y"), Ok(()));
        assert!(!sink.pending());
    }
}
