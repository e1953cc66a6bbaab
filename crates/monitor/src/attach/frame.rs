//! Frames as bytes: docs/format/attach.md, "Frames". Pure.

use coracle_oci::Signal;

use crate::exit::ExitStatus;
use crate::restart::RestartPolicy;
use crate::terminal::WindowSize;

/// The protocol's version.
pub(super) const VERSION: u8 = 1;
/// Longest data of one frame.
pub(super) const DATA_LIMIT: usize = 32 * 1024;
/// Longest frame.
pub(super) const FRAME_LIMIT: usize = DATA_LIMIT + 1;

/// What a frame is; the number is its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// First frame of a client.
    Hello = 1,
    /// Bytes for the container.
    Stdin = 2,
    /// No more of them.
    StdinEof = 3,
    /// Terminal size.
    Resize = 4,
    /// The client leaves.
    Detach = 5,
    /// Graceful stop.
    Stop = 6,
    /// A signal.
    Signal = 7,
    /// Another restart policy.
    Restart = 8,
    /// Answer to [`Kind::Hello`].
    Welcome = 65,
    /// Output.
    Stdout = 66,
    /// Output.
    Stderr = 67,
    /// A run has ended.
    Exit = 68,
    /// A request was carried out.
    Done = 69,
    /// A request could not be carried out.
    Failed = 70,
}

const KINDS: [Kind; 14] = [
    Kind::Hello,
    Kind::Stdin,
    Kind::StdinEof,
    Kind::Resize,
    Kind::Detach,
    Kind::Stop,
    Kind::Signal,
    Kind::Restart,
    Kind::Welcome,
    Kind::Stdout,
    Kind::Stderr,
    Kind::Exit,
    Kind::Done,
    Kind::Failed,
];

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        KINDS.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Frames of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request<'a> {
    Hello {
        version: u8,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    Stdin(&'a [u8]),
    StdinEof,
    Resize(WindowSize),
    Detach,
    Stop {
        signal: Option<Signal>,
        milliseconds: i32,
    },
    Signal(Signal),
    Restart(RestartPolicy),
}

/// Frames of the monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply<'a> {
    Welcome {
        version: u8,
        terminal: bool,
        running: bool,
        stdin: bool,
    },
    Stdout(&'a [u8]),
    Stderr(&'a [u8]),
    Exit {
        status: ExitStatus,
        restarting: bool,
        oom: bool,
    },
    Done(Kind),
    Failed(Kind, &'a str),
}

/// A frame that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Received<T> {
    Known(T),
    /// To be ignored, as its kind says.
    Unknown,
}

type Parsed<T> = Result<Received<T>, String>;

impl Request<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        match *self {
            Request::Hello {
                version,
                stdin,
                stdout,
                stderr,
            } => vec![Kind::Hello as u8, version, flags([stdin, stdout, stderr])],
            Request::Stdin(data) => data_frame(Kind::Stdin, data),
            Request::StdinEof => vec![Kind::StdinEof as u8],
            Request::Resize(size) => {
                let mut frame = vec![Kind::Resize as u8];
                frame.extend_from_slice(&size.rows.to_le_bytes());
                frame.extend_from_slice(&size.columns.to_le_bytes());
                frame
            }
            Request::Detach => vec![Kind::Detach as u8],
            Request::Stop {
                signal,
                milliseconds,
            } => {
                let mut frame = vec![Kind::Stop as u8, signal.map_or(0, signal_byte)];
                frame.extend_from_slice(&milliseconds.to_le_bytes());
                frame
            }
            Request::Signal(signal) => vec![Kind::Signal as u8, signal_byte(signal)],
            Request::Restart(policy) => {
                let (number, most) = match policy {
                    RestartPolicy::No => (0, 0),
                    RestartPolicy::OnFailure { max_retries } => (1, max_retries.unwrap_or(0)),
                    RestartPolicy::Always => (2, 0),
                    RestartPolicy::UnlessStopped => (3, 0),
                };
                let mut frame = vec![Kind::Restart as u8, number];
                frame.extend_from_slice(&u32::to_le_bytes(most));
                frame
            }
        }
    }

    pub(super) fn parse(frame: &[u8]) -> Parsed<Request<'_>> {
        let (kind, body) = split(frame)?;
        let Some(kind) = kind else {
            return Ok(Received::Unknown);
        };
        let request = match (kind, body) {
            (Kind::Hello, &[version, wanted]) => {
                let [stdin, stdout, stderr] = bits(wanted);
                Request::Hello {
                    version,
                    stdin,
                    stdout,
                    stderr,
                }
            }
            // Later versions may say more; the answer tells them which version this is.
            (Kind::Hello, &[version, _, _, ..]) if version > VERSION => Request::Hello {
                version,
                stdin: false,
                stdout: false,
                stderr: false,
            },
            (Kind::Stdin, data) => Request::Stdin(data),
            (Kind::StdinEof, []) => Request::StdinEof,
            (Kind::Resize, &[r0, r1, c0, c1]) => Request::Resize(WindowSize {
                rows: u16::from_le_bytes([r0, r1]),
                columns: u16::from_le_bytes([c0, c1]),
            }),
            (Kind::Detach, []) => Request::Detach,
            (Kind::Stop, &[signal, a, b, c, d]) => Request::Stop {
                signal: match signal {
                    0 => None,
                    number => Some(signal_of(number)?),
                },
                milliseconds: i32::from_le_bytes([a, b, c, d]),
            },
            (Kind::Signal, &[signal]) => Request::Signal(signal_of(signal)?),
            (Kind::Restart, &[policy, a, b, c, d]) => {
                let most = u32::from_le_bytes([a, b, c, d]);
                Request::Restart(match policy {
                    0 => RestartPolicy::No,
                    1 => RestartPolicy::OnFailure {
                        max_retries: (most > 0).then_some(most),
                    },
                    2 => RestartPolicy::Always,
                    3 => RestartPolicy::UnlessStopped,
                    other => return Err(format!("restart policy {other}")),
                })
            }
            (kind, body) => return Err(malformed(kind, body)),
        };
        Ok(Received::Known(request))
    }
}

impl Reply<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        match *self {
            Reply::Welcome {
                version,
                terminal,
                running,
                stdin,
            } => vec![
                Kind::Welcome as u8,
                version,
                flags([terminal, running, stdin]),
            ],
            Reply::Stdout(data) => data_frame(Kind::Stdout, data),
            Reply::Stderr(data) => data_frame(Kind::Stderr, data),
            Reply::Exit {
                status,
                restarting,
                oom,
            } => {
                let (form, value) = match status {
                    ExitStatus::Code(code) => (0, code),
                    ExitStatus::Signal(signal) => (1, signal),
                    ExitStatus::Unknown => (2, 0),
                };
                vec![
                    Kind::Exit as u8,
                    form,
                    value,
                    flags([restarting, oom, false]),
                ]
            }
            Reply::Done(kind) => vec![Kind::Done as u8, kind as u8],
            Reply::Failed(kind, why) => {
                let why = &why.as_bytes()[..why.len().min(DATA_LIMIT - 1)];
                let mut frame = vec![Kind::Failed as u8, kind as u8];
                frame.extend_from_slice(why);
                frame
            }
        }
    }

    pub(super) fn parse(frame: &[u8]) -> Parsed<Reply<'_>> {
        let (kind, body) = split(frame)?;
        let Some(kind) = kind else {
            return Ok(Received::Unknown);
        };
        let reply = match (kind, body) {
            (Kind::Welcome, &[version, flags]) => {
                let [terminal, running, stdin] = bits(flags);
                Reply::Welcome {
                    version,
                    terminal,
                    running,
                    stdin,
                }
            }
            (Kind::Stdout, data) => Reply::Stdout(data),
            (Kind::Stderr, data) => Reply::Stderr(data),
            (Kind::Exit, &[form, value, flags]) => {
                let [restarting, oom, _] = bits(flags);
                Reply::Exit {
                    status: match form {
                        0 => ExitStatus::Code(value),
                        1 => ExitStatus::Signal(value),
                        2 => ExitStatus::Unknown,
                        other => return Err(format!("exit of form {other}")),
                    },
                    restarting,
                    oom,
                }
            }
            (Kind::Done, &[of]) => Reply::Done(request_kind(of)?),
            (Kind::Failed, [of, why @ ..]) => Reply::Failed(
                request_kind(*of)?,
                std::str::from_utf8(why).map_err(|_| "a reason that is no text".to_owned())?,
            ),
            (kind, body) => return Err(malformed(kind, body)),
        };
        Ok(Received::Known(reply))
    }
}

/// The kind and the body; no kind where it is unknown but may be ignored.
fn split(frame: &[u8]) -> Result<(Option<Kind>, &[u8]), String> {
    if frame.len() > FRAME_LIMIT {
        return Err(format!("a frame of {} bytes", frame.len()));
    }
    let (&byte, body) = frame.split_first().ok_or("an empty frame")?;
    match Kind::of(byte) {
        Some(kind) => Ok((Some(kind), body)),
        None if byte & 0x80 != 0 => Ok((None, body)),
        None => Err(format!("a frame of kind {byte}")),
    }
}

fn malformed(kind: Kind, body: &[u8]) -> String {
    format!("a {kind:?} frame with {} bytes", body.len())
}

fn data_frame(kind: Kind, data: &[u8]) -> Vec<u8> {
    debug_assert!(data.len() <= DATA_LIMIT);
    let mut frame = Vec::with_capacity(data.len() + 1);
    frame.push(kind as u8);
    frame.extend_from_slice(data);
    frame
}

fn flags(set: [bool; 3]) -> u8 {
    u8::from(set[0]) | u8::from(set[1]) << 1 | u8::from(set[2]) << 2
}

fn bits(flags: u8) -> [bool; 3] {
    [flags & 1 != 0, flags & 2 != 0, flags & 4 != 0]
}

fn signal_byte(signal: Signal) -> u8 {
    // Signals are 1 to 64.
    signal.number() as u8
}

fn signal_of(number: u8) -> Result<Signal, String> {
    Signal::from_number(i32::from(number)).ok_or_else(|| format!("signal {number}"))
}

fn request_kind(byte: u8) -> Result<Kind, String> {
    Kind::of(byte).ok_or_else(|| format!("an answer to a request of kind {byte}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_documented_bytes() {
        let size = WindowSize {
            rows: 24,
            columns: 0x0150,
        };
        let requests: Vec<(Request<'_>, &[u8])> = vec![
            (
                Request::Hello {
                    version: 1,
                    stdin: true,
                    stdout: false,
                    stderr: true,
                },
                &[1, 1, 5],
            ),
            (Request::Stdin(b"ls"), b"\x02ls"),
            (Request::StdinEof, &[3]),
            (Request::Resize(size), &[4, 24, 0, 0x50, 1]),
            (Request::Detach, &[5]),
            (
                Request::Stop {
                    signal: None,
                    milliseconds: -2,
                },
                &[6, 0, 0xfe, 0xff, 0xff, 0xff],
            ),
            (
                Request::Stop {
                    signal: Some(Signal::QUIT),
                    milliseconds: 1000,
                },
                &[6, 3, 0xe8, 3, 0, 0],
            ),
            (Request::Signal(Signal::KILL), &[7, 9]),
            (
                Request::Restart(RestartPolicy::OnFailure {
                    max_retries: Some(5),
                }),
                &[8, 1, 5, 0, 0, 0],
            ),
            (
                Request::Restart(RestartPolicy::UnlessStopped),
                &[8, 3, 0, 0, 0, 0],
            ),
        ];
        for (request, bytes) in requests {
            assert_eq!(request.encode(), bytes);
            assert_eq!(Request::parse(bytes), Ok(Received::Known(request)));
        }
        let replies: Vec<(Reply<'_>, &[u8])> = vec![
            (
                Reply::Welcome {
                    version: 1,
                    terminal: true,
                    running: true,
                    stdin: false,
                },
                &[65, 1, 3],
            ),
            (Reply::Stdout(b"a"), b"\x42a"),
            (Reply::Stderr(b""), b"\x43"),
            (
                Reply::Exit {
                    status: ExitStatus::Code(3),
                    restarting: false,
                    oom: true,
                },
                &[68, 0, 3, 2],
            ),
            (
                Reply::Exit {
                    status: ExitStatus::Signal(9),
                    restarting: true,
                    oom: false,
                },
                &[68, 1, 9, 1],
            ),
            (
                Reply::Exit {
                    status: ExitStatus::Unknown,
                    restarting: false,
                    oom: false,
                },
                &[68, 2, 0, 0],
            ),
            (Reply::Done(Kind::Stop), &[69, 6]),
            (Reply::Failed(Kind::Signal, "no"), b"\x46\x07no"),
        ];
        for (reply, bytes) in replies {
            assert_eq!(reply.encode(), bytes);
            assert_eq!(Reply::parse(bytes), Ok(Received::Known(reply)));
        }
    }

    #[test]
    fn broken_frames_are_refused_and_optional_ones_ignored() {
        let long = vec![2; FRAME_LIMIT + 1];
        let broken: [&[u8]; 11] = [
            b"",
            &[0],
            &[99],
            &[1],
            &[1, 1],
            &[3, 0],
            &[4, 1, 2, 3],
            &[6, 99, 0, 0, 0, 0],
            &[7, 0],
            &[8, 4, 0, 0, 0, 0],
            &long,
        ];
        for frame in broken {
            assert!(Request::parse(frame).is_err(), "{:?}", frame.first());
        }
        for frame in [&b""[..], &[2, 1], &[68, 3, 0, 0], &[69, 99], &[70, 6, 0xff]] {
            assert!(Reply::parse(frame).is_err(), "{frame:?}");
        }
        assert_eq!(Request::parse(&[0x80, 1, 2]), Ok(Received::Unknown));
        assert_eq!(Reply::parse(&[0xff]), Ok(Received::Unknown));
        let newer = Request::Hello {
            version: 2,
            stdin: false,
            stdout: false,
            stderr: false,
        };
        assert_eq!(Request::parse(&[1, 2, 7, 9]), Ok(Received::Known(newer)));
    }
}
