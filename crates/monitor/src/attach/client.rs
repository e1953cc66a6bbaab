//! The client's side of the attach socket.
//!
//! All methods take `&self`: one thread may receive while another sends, as a door with a network connection does.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_oci::Signal;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::frame::{DATA_LIMIT, Kind, Received, Reply, Request, VERSION};
use super::socket;
use super::socket::{receive_frame, send_frame};
use crate::error::{Error, Result, system};
use crate::exit::ExitStatus;
use crate::restart::RestartPolicy;
use crate::terminal::WindowSize;

/// Streams that a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wants {
    /// It will send input.
    pub stdin: bool,
    /// It gets standard output, or a terminal's output.
    pub stdout: bool,
    /// It gets standard error.
    pub stderr: bool,
}

/// How long a stop waits before SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopTimeout {
    /// As the container was configured.
    Configured,
    /// For ever.
    Never,
    /// So long; milliseconds count.
    After(Duration),
}

/// What the monitor says.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Output.
    Stdout(&'a [u8]),
    /// Error output.
    Stderr(&'a [u8]),
    /// A run has ended.
    Exit {
        /// How.
        status: ExitStatus,
        /// Another run will follow.
        restarting: bool,
        /// A process was killed for memory.
        oom: bool,
    },
    /// A request was carried out: [`Kind::Stop`], [`Kind::Signal`] or [`Kind::Restart`].
    Done(Kind),
    /// A request could not be carried out.
    Failed(Kind, String),
    /// The monitor closed the connection. Without an exit before it, the monitor died.
    Closed,
}

/// A connection to a container's monitor.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    path: PathBuf,
    wants: Wants,
    terminal: bool,
    running: bool,
    stdin: bool,
}

impl Client {
    /// Connects to the attach socket at `path`.
    pub fn connect(path: &Path, wants: Wants) -> Result<Client> {
        let mut client = Client::greet(socket::connect_to(path)?, path.to_path_buf(), wants)?;
        client.welcome()?;
        Ok(client)
    }

    /// A client of a monitor that is still to come: the greeting waits in the socket whose other end becomes
    /// [`crate::Supervision::first_client`]. [`Client::welcome`] must follow, once the monitor runs. `path` is where the
    /// monitor will listen: what must not wait behind input goes there.
    pub fn offer(socket: OwnedFd, path: &Path, wants: Wants) -> Result<Client> {
        Client::greet(socket, path.to_path_buf(), wants)
    }

    fn greet(socket: OwnedFd, path: PathBuf, wants: Wants) -> Result<Client> {
        let client = Client {
            socket,
            path,
            wants,
            terminal: false,
            running: false,
            stdin: false,
        };
        client.send(&Request::Hello {
            version: VERSION,
            stdin: wants.stdin,
            stdout: wants.stdout,
            stderr: wants.stderr,
        })?;
        Ok(client)
    }

    /// Waits for the monitor's answer to the greeting of [`Client::offer`].
    pub fn welcome(&mut self) -> Result<()> {
        let mut buffer = Vec::new();
        let length = receive_frame(&self.socket, &mut buffer, RecvFlags::empty())
            .map_err(system("receiving from the container's monitor"))?;
        if length == 0 {
            return Err(Error::NoMonitor {
                path: self.path.clone(),
                source: Errno::CONNRESET,
            });
        }
        match Reply::parse(&buffer[..length]).map_err(Error::Protocol)? {
            Received::Known(Reply::Welcome {
                version: VERSION,
                terminal,
                running,
                stdin,
            }) => {
                self.terminal = terminal;
                self.running = running;
                self.stdin = stdin;
                Ok(())
            }
            Received::Known(Reply::Welcome { version, .. }) => Err(Error::Protocol(format!(
                "the monitor speaks version {version}, this program version {VERSION}"
            ))),
            other => Err(Error::Protocol(format!("{other:?} in place of WELCOME"))),
        }
    }

    /// Whether the container has a terminal.
    pub fn has_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether a run was going on when this connected; otherwise the next one is waited for.
    pub fn was_running(&self) -> bool {
        self.running
    }

    /// Whether the container's standard input was open when this connected.
    pub fn has_stdin(&self) -> bool {
        self.stdin
    }

    /// Sends input, waiting while the container does not read.
    pub fn send_stdin(&self, data: &[u8]) -> Result<()> {
        for piece in data.chunks(DATA_LIMIT) {
            self.send(&Request::Stdin(piece))?;
        }
        Ok(())
    }

    /// Sends input without waiting; how much of it was taken.
    pub(super) fn try_send_stdin(&self, data: &[u8]) -> Result<usize> {
        let mut taken = 0;
        for piece in data.chunks(DATA_LIMIT) {
            let frame = Request::Stdin(piece).encode();
            match send_frame(&self.socket, &frame, SendFlags::DONTWAIT) {
                Ok(()) => taken += piece.len(),
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(gone(error)),
            }
        }
        Ok(taken)
    }

    /// Sends the end of the input without waiting; whether it was sent.
    pub(super) fn try_end_stdin(&self) -> Result<bool> {
        match send_frame(
            &self.socket,
            &Request::StdinEof.encode(),
            SendFlags::DONTWAIT,
        ) {
            Ok(()) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(gone(error)),
        }
    }

    /// A second connection, for requests that must not wait behind input that the container does not read.
    pub(super) fn beside(&self) -> Result<Client> {
        Client::connect(&self.path, Wants::default())
    }

    pub(super) fn wants(&self) -> Wants {
        self.wants
    }

    /// The end of the input (docs/format/attach.md says when it closes the container's).
    pub fn end_stdin(&self) -> Result<()> {
        self.send(&Request::StdinEof)
    }

    /// Sets the terminal's size.
    pub fn resize(&self, size: WindowSize) -> Result<()> {
        self.send(&Request::Resize(size))
    }

    /// Sends a signal to the container's init. Answered by an event.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.send(&Request::Signal(signal))
    }

    /// Stops the container for good: no policy restarts it. `signal` in place of the container's stop signal. Answered
    /// by an event when the signal is sent; the end is an exit event.
    pub fn stop(&self, signal: Option<Signal>, timeout: StopTimeout) -> Result<()> {
        let milliseconds = match timeout {
            StopTimeout::Configured => -2,
            StopTimeout::Never => -1,
            StopTimeout::After(time) => i32::try_from(time.as_millis()).unwrap_or(i32::MAX),
        };
        self.send(&Request::Stop {
            signal,
            milliseconds,
        })
    }

    /// Changes the restart policy from the next exit on. Answered by an event.
    pub fn set_restart(&self, policy: RestartPolicy) -> Result<()> {
        self.send(&Request::Restart(policy))
    }

    /// Leaves; the container runs on.
    pub fn detach(self) -> Result<()> {
        self.send(&Request::Detach)
    }

    /// Waits for the next event. `buffer` is the caller's, for any event's data.
    pub fn receive<'a>(&self, buffer: &'a mut Vec<u8>) -> Result<Event<'a>> {
        loop {
            let length = receive_frame(&self.socket, buffer, RecvFlags::empty())
                .map_err(system("receiving from the container's monitor"))?;
            if length == 0 {
                return Ok(Event::Closed);
            }
            // Parsed twice: a frame that is ignored must not borrow the buffer for the caller's lifetime.
            if let Received::Unknown = Reply::parse(&buffer[..length]).map_err(Error::Protocol)? {
                continue;
            }
            return event(&buffer[..length]);
        }
    }

    fn send(&self, request: &Request<'_>) -> Result<()> {
        send_frame(&self.socket, &request.encode(), SendFlags::empty()).map_err(gone)
    }
}

impl AsFd for Client {
    /// Readable when [`Client::receive`] has something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn event(frame: &[u8]) -> Result<Event<'_>> {
    let reply = match Reply::parse(frame).map_err(Error::Protocol)? {
        Received::Known(reply) => reply,
        Received::Unknown => return Err(Error::Protocol("an unknown frame".into())),
    };
    Ok(match reply {
        Reply::Stdout(data) => Event::Stdout(data),
        Reply::Stderr(data) => Event::Stderr(data),
        Reply::Exit {
            status,
            restarting,
            oom,
        } => Event::Exit {
            status,
            restarting,
            oom,
        },
        Reply::Done(kind) => Event::Done(kind),
        Reply::Failed(kind, why) => Event::Failed(kind, why.to_owned()),
        Reply::Welcome { .. } => return Err(Error::Protocol("a second WELCOME".into())),
    })
}

fn gone(error: Errno) -> Error {
    match error {
        Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => Error::MonitorGone,
        source => system("sending to the container's monitor")(source),
    }
}
