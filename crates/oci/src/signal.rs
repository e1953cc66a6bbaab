//! Signals as users and images write them: `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3`, `RTMAX-2`.
//!
//! Numbers are those of x86-64, Arm, RISC-V, PowerPC and s390x, which agree. Real-time signals are counted as glibc and musl
//! programs count them for others to send: 34 to 64 (32 and 33 belong to the C library).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::shorten;

const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

/// Standard signals; the first name of a number is the one that is printed.
const NAMES: &[(&str, u8)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// A text that names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid signal {0:?}: expected a name such as TERM, SIGTERM or RTMIN+3, or a number from 1 to 64"
)]
pub struct SignalError(String);

/// A signal's number, 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signal(u8);

impl Signal {
    /// SIGHUP.
    pub const HUP: Signal = Signal(1);
    /// SIGINT.
    pub const INT: Signal = Signal(2);
    /// SIGQUIT.
    pub const QUIT: Signal = Signal(3);
    /// SIGKILL.
    pub const KILL: Signal = Signal(9);
    /// SIGTERM, what stops a container unless its image says otherwise.
    pub const TERM: Signal = Signal(15);

    /// The signal of this number, if there is one.
    pub fn from_number(number: i32) -> Option<Signal> {
        u8::try_from(number)
            .ok()
            .filter(|number| (1..=RTMAX).contains(number))
            .map(Signal)
    }

    /// The number the kernel knows it by.
    pub fn number(self) -> i32 {
        i32::from(self.0)
    }
}

impl FromStr for Signal {
    type Err = SignalError;

    fn from_str(text: &str) -> Result<Self, SignalError> {
        let refused = || SignalError(shorten(text));
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text
                .parse()
                .ok()
                .and_then(Signal::from_number)
                .ok_or_else(refused);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(Signal(*number));
        }
        let offset = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain
                .then(|| digits.parse::<u8>().ok())
                .flatten()
                .filter(|offset| *offset <= RTMAX - RTMIN)
        };
        let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
            (Some(""), _) => Some(RTMIN),
            (_, Some("")) => Some(RTMAX),
            (Some(rest), _) => rest
                .strip_prefix('+')
                .and_then(offset)
                .map(|offset| RTMIN + offset),
            (_, Some(rest)) => rest
                .strip_prefix('-')
                .and_then(offset)
                .map(|offset| RTMAX - offset),
            (None, None) => None,
        };
        number.map(Signal).ok_or_else(refused)
    }
}

impl fmt::Display for Signal {
    /// `SIGTERM`, `SIGRTMIN+3`; a number that has no name (32, 33) as the number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None if self.0 == RTMIN => f.write_str("SIGRTMIN"),
            None if self.0 == RTMAX => f.write_str("SIGRTMAX"),
            None if self.0 > RTMIN => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
            None => write!(f, "{}", self.0),
        }
    }
}

impl TryFrom<String> for Signal {
    type Error = SignalError;
    fn try_from(text: String) -> Result<Self, SignalError> {
        text.parse()
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> String {
        signal.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_understood() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigterm", 15),
            ("15", 15),
            ("9", 9),
            ("SIGRTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMIN+30", 64),
            ("RTMAX", 64),
            ("RTMAX-2", 62),
            ("iot", 6),
            ("64", 64),
        ] {
            assert_eq!(
                text.parse::<Signal>().map(Signal::number),
                Ok(number),
                "{text}"
            );
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "0",
            "65",
            "-1",
            "+9",
            "SIG",
            "SIGSIGTERM",
            "RTMIN-1",
            "RTMIN+31",
            "RTMAX+1",
            "RTMIN+",
            "RTMIN++1",
            "999999999999",
        ] {
            assert!(text.parse::<Signal>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn printed_form_parses_to_the_same_signal() {
        for number in 1..=64 {
            let signal = Signal::from_number(number).expect("in range");
            assert_eq!(signal.to_string().parse::<Signal>(), Ok(signal));
        }
    }
}
