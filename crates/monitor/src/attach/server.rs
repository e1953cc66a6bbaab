//! The monitor's side of the attach socket: clients, what they want, and what is queued for them. It carries frames;
//! what requests mean is [`crate::supervise`]'s business.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with};

pub(crate) use super::frame::Kind;
use super::frame::{DATA_LIMIT, Received, Reply, Request, VERSION};
use super::socket;
use super::socket::{receive_frame, send_frame};
use crate::error::{Result, file};
use crate::exit::Exit;
use crate::log::Stream;
use crate::restart::RestartPolicy;
use crate::terminal::WindowSize;

/// Output is not read while a client has more than this queued.
const QUEUE_LIMIT: usize = 1024 * 1024;
const CLIENTS: usize = 256;

/// Names one client as long as it is connected.
pub(crate) type ClientId = u32;

/// What a client asks of the container.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Stdin(Vec<u8>),
    /// It sent its last input, by a frame or by leaving.
    StdinEnd,
    Resize(WindowSize),
    Stop {
        signal: Option<coracle_oci::Signal>,
        milliseconds: i32,
    },
    Signal(coracle_oci::Signal),
    Restart(RestartPolicy),
}

#[derive(Debug)]
struct Connection {
    id: ClientId,
    socket: OwnedFd,
    greeted: bool,
    stdin: bool,
    streams: [bool; 2],
    /// It sent input and did not end it.
    feeding: bool,
    queue: VecDeque<Rc<[u8]>>,
    queued: usize,
}

/// What a client is told about the container when it comes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation {
    pub(crate) terminal: bool,
    pub(crate) running: bool,
    pub(crate) stdin: bool,
}

/// The listening socket and its clients.
#[derive(Debug)]
pub(crate) struct Server {
    listener: OwnedFd,
    path: PathBuf,
    clients: Vec<Connection>,
    next: ClientId,
}

impl Server {
    pub(crate) fn listen(path: &Path) -> Result<Server> {
        Ok(Server {
            listener: socket::listen_at(path)?,
            path: path.to_path_buf(),
            clients: Vec::new(),
            next: 0,
        })
    }

    /// Removes the socket; one that is not there (`--rm` took the directory) is as it should be.
    pub(crate) fn remove(&self) -> Result<()> {
        match rustix::fs::unlink(&self.path) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(file("removing the attach socket", &self.path)(error)),
        }
    }

    /// The listener, while there is room for another client.
    pub(crate) fn listener(&self) -> Option<BorrowedFd<'_>> {
        (self.clients.len() < CLIENTS).then(|| self.listener.as_fd())
    }

    /// The sockets to poll. Clients that would feed the container are left out when `input_full`, unless output
    /// waits for them: a hang-up among unread input would wake the loop for nothing.
    pub(crate) fn polled(
        &self,
        input_full: bool,
    ) -> impl Iterator<Item = (ClientId, BorrowedFd<'_>, PollFlags)> {
        self.clients.iter().filter_map(move |client| {
            let mut events = PollFlags::empty();
            if !(input_full && client.stdin) {
                events |= PollFlags::IN;
            }
            if !client.queue.is_empty() {
                events |= PollFlags::OUT;
            }
            (!events.is_empty()).then(|| (client.id, client.socket.as_fd(), events))
        })
    }

    /// Whether a client is so slow that no more output may be read.
    pub(crate) fn is_congested(&self) -> bool {
        self.clients
            .iter()
            .any(|client| client.queued > QUEUE_LIMIT)
    }

    /// Whether something waits for a client.
    pub(crate) fn is_pending(&self) -> bool {
        self.clients.iter().any(|client| !client.queue.is_empty())
    }

    /// Takes the connections that wait. An error is one of this process (no descriptors left).
    pub(crate) fn accept(&mut self) -> Result<(), Errno> {
        while self.clients.len() < CLIENTS {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = match accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(error) => return Err(error),
            };
            let own = rustix::process::geteuid();
            let welcome =
                socket_peercred(&socket).is_ok_and(|peer| peer.uid == own || peer.uid.is_root());
            if !welcome {
                continue;
            }
            self.adopt(socket);
        }
        Ok(())
    }

    /// Takes a connection that is there already.
    pub(crate) fn adopt(&mut self, socket: OwnedFd) -> ClientId {
        self.next = self.next.wrapping_add(1);
        self.clients.push(Connection {
            id: self.next,
            socket,
            greeted: false,
            stdin: false,
            streams: [false; 2],
            feeding: false,
            queue: VecDeque::new(),
            queued: 0,
        });
        self.next
    }

    /// Reads one frame of a client. The request, if it is one for the container; a warning, if it broke the protocol.
    pub(crate) fn read(
        &mut self,
        id: ClientId,
        buffer: &mut Vec<u8>,
        situation: Situation,
    ) -> (Option<Ask>, Option<String>) {
        let Some(client) = self.clients.iter_mut().find(|client| client.id == id) else {
            return (None, None);
        };
        let length = match receive_frame(&client.socket, buffer, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => return (None, None),
            Ok(0) | Err(_) => return (self.leave(id), None),
            Ok(length) => length,
        };
        let request = match Request::parse(&buffer[..length]) {
            Ok(Received::Unknown) => return (None, None),
            Ok(Received::Known(request)) => request,
            Err(what) => return (self.leave(id), Some(broken(&what))),
        };
        if client.greeted == matches!(request, Request::Hello { .. }) {
            return (
                self.leave(id),
                Some(broken("HELLO must come once, and first")),
            );
        }
        let ask = match request {
            Request::Hello {
                version,
                stdin,
                stdout,
                stderr,
            } => {
                client.greeted = true;
                client.stdin = stdin;
                client.streams = [stdout, stderr];
                client.send(
                    Reply::Welcome {
                        version: VERSION,
                        terminal: situation.terminal,
                        running: situation.running,
                        stdin: situation.stdin,
                    }
                    .encode()
                    .into(),
                );
                if version != VERSION {
                    return (self.leave(id), None);
                }
                return (None, None);
            }
            Request::Stdin(data) if client.stdin => {
                client.feeding = true;
                Ask::Stdin(data.to_vec())
            }
            Request::Stdin(_) => {
                return (
                    self.leave(id),
                    Some(broken("STDIN of a client that did not want it")),
                );
            }
            // An end without data before it is an end too: `run -i IMAGE cat < /dev/null`.
            Request::StdinEof => {
                client.feeding = false;
                Ask::StdinEnd
            }
            Request::Detach => return (self.leave(id), None),
            Request::Resize(size) => Ask::Resize(size),
            Request::Stop {
                signal,
                milliseconds,
            } => Ask::Stop {
                signal,
                milliseconds,
            },
            Request::Signal(signal) => Ask::Signal(signal),
            Request::Restart(policy) => Ask::Restart(policy),
        };
        (Some(ask), None)
    }

    /// Writes to a client what waits for it, as far as it goes.
    pub(crate) fn flush(&mut self, id: ClientId) -> Option<Ask> {
        let client = self.clients.iter_mut().find(|client| client.id == id)?;
        match client.flush() {
            true => None,
            false => self.leave(id),
        }
    }

    /// Sends output to those who want it. What those who left ask thereby.
    pub(crate) fn output(&mut self, stream: Stream, data: &[u8]) -> Vec<Ask> {
        if !self
            .clients
            .iter()
            .any(|client| client.streams[stream as usize])
        {
            return Vec::new();
        }
        let mut gone = Vec::new();
        for piece in data.chunks(DATA_LIMIT) {
            let reply = match stream {
                Stream::Stdout => Reply::Stdout(piece),
                Stream::Stderr => Reply::Stderr(piece),
            };
            let frame: Rc<[u8]> = reply.encode().into();
            for client in &mut self.clients {
                if client.streams[stream as usize] && !client.send(Rc::clone(&frame)) {
                    gone.push(client.id);
                }
            }
        }
        gone.into_iter().filter_map(|id| self.leave(id)).collect()
    }

    /// Tells every client that a run has ended.
    pub(crate) fn exited(&mut self, exit: &Exit) {
        let frame: Rc<[u8]> = Reply::Exit {
            status: exit.status,
            restarting: exit.restart_in.is_some(),
            oom: exit.oom,
        }
        .encode()
        .into();
        self.clients
            .retain_mut(|client| !client.greeted || client.send(Rc::clone(&frame)));
    }

    /// Answers a request of a client.
    pub(crate) fn answer(&mut self, id: ClientId, kind: Kind, result: Result<(), String>) {
        let frame = match &result {
            Ok(()) => Reply::Done(kind).encode(),
            Err(why) => Reply::Failed(kind, why).encode(),
        };
        if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
            // One that has gone is noticed when its socket is read.
            let _ = client.send(frame.into());
        }
    }

    /// Forgets a client; the end of its input, if it was feeding.
    fn leave(&mut self, id: ClientId) -> Option<Ask> {
        let index = self.clients.iter().position(|client| client.id == id)?;
        let client = self.clients.swap_remove(index);
        if self.clients.is_empty() {
            self.clients = Vec::new();
        }
        client.feeding.then_some(Ask::StdinEnd)
    }
}

impl Connection {
    /// Sends or queues a frame; false when the client has gone.
    fn send(&mut self, frame: Rc<[u8]>) -> bool {
        self.queued += frame.len();
        self.queue.push_back(frame);
        self.flush()
    }

    fn flush(&mut self) -> bool {
        while let Some(frame) = self.queue.front() {
            match send_frame(&self.socket, frame, SendFlags::DONTWAIT) {
                Ok(()) => {
                    self.queued -= frame.len();
                    self.queue.pop_front();
                }
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        self.queue = VecDeque::new();
        true
    }
}

fn broken(what: &str) -> String {
    format!("a client broke the attach protocol: {what}")
}
