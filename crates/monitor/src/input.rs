//! The container's standard input, fed by clients: bytes wait here while the container does not read.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

/// Clients are not read while this much waits.
const FULL: usize = 64 * 1024;

/// The writing end and what waits for it. The descriptor is non-blocking.
#[derive(Debug, Default)]
pub(crate) struct Input {
    destination: Option<OwnedFd>,
    queue: Vec<u8>,
    sent: usize,
    /// To be closed when everything was written.
    ending: bool,
}

impl Input {
    pub(crate) fn new(destination: Option<OwnedFd>) -> Input {
        Input {
            destination,
            ..Input::default()
        }
    }

    /// Whether the container can still be fed.
    pub(crate) fn is_open(&self) -> bool {
        self.destination.is_some() && !self.ending
    }

    /// Whether no more should be taken from clients.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() - self.sent >= FULL
    }

    /// The descriptor to poll for POLLOUT, while something waits.
    pub(crate) fn waiting(&self) -> Option<BorrowedFd<'_>> {
        match self.queue.is_empty() {
            true => None,
            false => self.destination.as_ref().map(AsFd::as_fd),
        }
    }

    /// Takes `data`; dropped when the input is closed, as it would be in a pipe nobody reads.
    pub(crate) fn feed(&mut self, data: &[u8]) {
        if self.is_open() {
            self.queue.extend_from_slice(data);
            self.flush();
        }
    }

    /// No more follows.
    pub(crate) fn end(&mut self) {
        self.ending = true;
        self.flush();
    }

    /// Writes as much as the container takes.
    pub(crate) fn flush(&mut self) {
        let Some(destination) = &self.destination else {
            return;
        };
        while self.sent < self.queue.len() {
            match rustix::io::write(destination, &self.queue[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // The container has closed its standard input (EPIPE) or is gone (EIO on a terminal).
                Err(_) => {
                    *self = Input::default();
                    return;
                }
            }
        }
        self.queue = Vec::new();
        self.sent = 0;
        if self.ending {
            self.destination = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    #[test]
    fn end_comes_after_everything_that_waits() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe");
        let mut input = Input::new(Some(write));
        input.feed(&vec![b'a'; 200_000]);
        assert!(input.is_full() && input.waiting().is_some());
        input.end();
        assert!(!input.is_open());
        input.feed(b"too late");
        let mut seen = 0;
        let mut chunk = [0; 4096];
        loop {
            match rustix::io::read(&read, &mut chunk) {
                Ok(0) => break,
                Ok(count) => seen += count,
                Err(Errno::AGAIN) => input.flush(),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(seen, 200_000);
        assert!(input.waiting().is_none());
    }

    #[test]
    fn container_that_closed_its_input_is_no_error() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe");
        drop(read);
        let mut input = Input::new(Some(write));
        input.feed(b"x");
        assert!(!input.is_open() && !input.is_full());
    }
}
