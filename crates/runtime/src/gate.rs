//! The gate of a created container, from the side of whoever starts it: another process than the one that created it.
//!
//! ```text
//! start    one byte                            to the waiting process
//! outcome  step u32, errno u32 (native order)  from it, if it cannot execute; its end without them: it has executed, or is gone
//! ```

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, write};

use crate::Error;
use crate::error::of_step;
use crate::step::Step;

/// What the waiting process says when it fails. Allocates nothing.
pub(crate) fn encode(step: u32, error: Errno) -> [u8; 8] {
    let mut message = [0; 8];
    let (first, second) = message.split_at_mut(4);
    first.copy_from_slice(&step.to_ne_bytes());
    second.copy_from_slice(&(error.raw_os_error() as u32).to_ne_bytes());
    message
}

/// Lets the process behind a [`crate::Gate`] execute its command, and waits until it has. `start` is the writing end of its
/// first pipe, `outcome` the reading end of the second, opened before the byte is written; `command` is named in errors.
///
/// # Errors
/// As [`crate::Created::start`]; [`Error::Host`] when the pipes fail, EPIPE among it: the process is gone.
pub fn open_gate(
    start: BorrowedFd<'_>,
    outcome: BorrowedFd<'_>,
    command: &str,
) -> Result<(), Error> {
    let fail = |source| Error::host("opening", "the gate of the created process", source);
    write(start, b"0").map_err(fail)?;
    let mut message = [0u8; 8];
    let mut length = 0;
    while let Some(rest) = message.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match read(outcome, rest) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut set = [PollFd::from_borrowed_fd(outcome.as_fd(), PollFlags::IN)];
                match poll(&mut set, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(source) => return Err(fail(source)),
                }
            }
            Err(source) => return Err(fail(source)),
        }
    }
    if length < message.len() {
        return Ok(());
    }
    let [a, b, c, d, e, f, g, h] = message;
    let step = Step::from_word(u32::from_ne_bytes([a, b, c, d]));
    let errno = Errno::from_raw_os_error(i32::from_ne_bytes([e, f, g, h]));
    Err(of_step(step, None, command, errno))
}
