//! Waiting for a word of shared memory to change.
//!
//! All futexes here are of the shared kind: the two sides may be processes with different address spaces, and the kernel's
//! own wake at the end of an address space (CLONE_CHILD_CLEARTID) is of that kind.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex;

/// Waits while `word` holds `value`, at most for `timeout`; returns what it holds then.
pub fn wait_while(word: &AtomicU32, value: u32, timeout: Option<Duration>) -> u32 {
    // A timeout out of range is the longest wait; there is none to speak of.
    let timeout = timeout.map(|t| futex::Timespec {
        tv_sec: t.as_secs() as i64,
        tv_nsec: t.subsec_nanos().into(),
    });
    loop {
        let now = word.load(Ordering::Acquire);
        if now != value {
            return now;
        }
        // Anything but the end of the time (woken, raced, interrupted) is a reason to look again.
        if futex::wait(word, futex::Flags::empty(), value, timeout.as_ref()) == Err(Errno::TIMEDOUT)
        {
            return word.load(Ordering::Acquire);
        }
    }
}

/// Stores `value` and wakes everybody who waits.
pub fn set(word: &AtomicU32, value: u32) {
    word.store(value, Ordering::Release);
    wake(word);
}

/// Wakes everybody who waits on `word`.
pub fn wake(word: &AtomicU32) {
    // A wake can only fail for a bad address, and a reference is a good one.
    let _ = futex::wake(word, futex::Flags::empty(), i32::MAX as u32);
}
