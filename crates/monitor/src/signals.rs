//! Which signals a process that stands for a container takes, and what it does with them.

use coracle_linux::signal::{Blocked, SignalFd};
use coracle_oci::Signal;

use crate::error::{Result, system};

/// WINCH, PIPE, TSTP.
pub(crate) const WINCH: i32 = 28;
pub(crate) const PIPE: i32 = 13;
pub(crate) const TSTP: i32 = 20;

/// Ends that a user asks for.
pub(crate) const ENDS: [i32; 3] = [2, 3, 15];
const HUP: i32 = 1;

/// Forwarded besides the real-time signals: HUP INT QUIT USR1 USR2 ALRM TERM CONT WINCH PWR.
const FORWARDED: [i32; 10] = [1, 2, 3, 10, 12, 14, 15, 18, 28, 30];
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// Signals taken instead of acted on, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Signals {
    descriptor: SignalFd,
    _blocked: Blocked,
}

impl Signals {
    /// Takes the ends, HUP, PIPE, WINCH and TSTP where `terminal`, and all that can be forwarded where `forward`.
    pub(crate) fn take(forward: bool, terminal: bool) -> Result<Signals> {
        let mut signals = vec![HUP, PIPE];
        signals.extend(ENDS);
        if terminal {
            signals.extend([WINCH, TSTP]);
        }
        if forward {
            signals.extend(FORWARDED);
            signals.extend(REAL_TIME);
        }
        let blocked = Blocked::new(&signals).map_err(system("blocking signals"))?;
        Ok(Signals {
            descriptor: blocked.descriptor().map_err(system("making a signalfd"))?,
            _blocked: blocked,
        })
    }

    /// The next one that has arrived.
    pub(crate) fn next(&self) -> Result<Option<i32>> {
        self.descriptor.next().map_err(system("reading a signal"))
    }

    pub(crate) fn descriptor(&self) -> &SignalFd {
        &self.descriptor
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // A SIGPIPE of our own writes must not come true when the mask is restored. Others that arrived are meant for
        // this process and do come true.
        let mut kept = Vec::new();
        while let Ok(Some(signal)) = self.descriptor.next() {
            if signal != PIPE {
                kept.push(signal);
            }
        }
        let own = rustix::process::getpid();
        for signal in kept {
            if let Some(signal) = rustix::process::Signal::from_named_raw(signal) {
                // A process may always signal itself.
                let _ = rustix::process::kill_process(own, signal);
            }
        }
    }
}

/// The signal to forward, if it is one that is.
pub(crate) fn forwarded(signal: i32) -> Option<Signal> {
    match FORWARDED.contains(&signal) || REAL_TIME.contains(&signal) {
        true => Signal::from_number(signal),
        false => None,
    }
}
