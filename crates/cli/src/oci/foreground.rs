//! Waiting for a process: its terminal is carried, signals are passed on, its exit code becomes ours.

use std::os::fd::AsFd as _;

use coracle_engine::bundle::Launched;
use coracle_engine::monitor::WindowSize;
use coracle_linux::signal::{Blocked, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::error::Error;
use crate::terminal;

/// All that a caller may send to a runtime and means for the container: not those that stop us, tell of our own children, or
/// say that we are broken.
const PASSED_ON: [i32; 10] = [1, 2, 3, 10, 12, 14, 15, 16, 18, 28];

/// This command from before it starts the process until that ends: a signal that comes in between is the process's too.
pub(super) struct Foreground {
    /// Held for its drop.
    _blocked: Blocked,
    arrived: SignalFd,
}

fn failed(source: Errno) -> Error {
    Error::Terminal {
        action: "wait for the process",
        source: source.into(),
    }
}

impl Foreground {
    /// Keeps signals for the process from now on.
    pub(super) fn begin() -> Result<Foreground, Error> {
        let blocked = Blocked::new(&PASSED_ON).map_err(failed)?;
        let arrived = blocked.descriptor().map_err(failed)?;
        Ok(Foreground {
            _blocked: blocked,
            arrived,
        })
    }

    /// Waits for its end; gives its exit code. `carried`: its terminal, if it has one, is this command's.
    pub(super) fn wait(self, launched: Launched, carried: bool) -> Result<u8, Error> {
        if let Some(terminal) = launched.running.terminal.as_ref().filter(|_| carried) {
            if let Some(size) = WindowSize::of(std::io::stdout()) {
                size.apply(terminal).map_err(coracle_engine::Error::from)?;
            }
            return Ok(terminal::code(terminal::converse(launched.into(), true)?));
        }
        let process = &launched.running.pidfd;
        loop {
            let mut watched = [
                PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN),
                PollFd::new(&self.arrived, PollFlags::IN),
            ];
            match poll(&mut watched, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(failed(error)),
            }
            while let Some(signal) = self.arrived.next().map_err(failed)? {
                match coracle_linux::signal::send(process, signal) {
                    // It may have ended this instant.
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            if coracle_linux::pidfd::has_ended(process.as_fd()).map_err(failed)? {
                break;
            }
        }
        let exec = coracle_engine::Exec::from(launched);
        Ok(terminal::code(exec.wait()?))
    }
}
