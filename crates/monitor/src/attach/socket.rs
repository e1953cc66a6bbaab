//! The socket's address: a path may be longer than the 107 bytes that an address holds, so that both sides go through
//! an open directory when it is.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, recv,
    send, socket_with,
};

use super::frame::FRAME_LIMIT;
use crate::error::{Error, Result, file, system};

/// Bytes of `sun_path` without its final zero.
const ADDRESS_LIMIT: usize = 107;
const BACKLOG: i32 = 16;

/// An address, and the directory that must stay open while it is used.
struct Address {
    address: SocketAddrUnix,
    _directory: Option<OwnedFd>,
}

impl Address {
    fn of(path: &Path) -> Result<Address> {
        let invalid = || Error::SocketPath(path.to_path_buf());
        let name = path.file_name().ok_or_else(invalid)?;
        if path.as_os_str().len() <= ADDRESS_LIMIT {
            return Ok(Address {
                address: SocketAddrUnix::new(path).map_err(|_| invalid())?,
                _directory: None,
            });
        }
        let parent = path.parent().ok_or_else(invalid)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(parent, flags, Mode::empty()).map_err(file("opening", parent))?;
        let short = through(&directory, name);
        Ok(Address {
            address: SocketAddrUnix::new(&short).map_err(|_| invalid())?,
            _directory: Some(directory),
        })
    }
}

fn through(directory: &OwnedFd, name: &OsStr) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    path.push(OsStr::from_bytes(name.as_bytes()));
    path
}

/// Makes the listening socket, non-blocking, mode 0600; a stale one is replaced.
pub(super) fn listen_at(path: &Path) -> Result<OwnedFd> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let address = Address::of(&new)?;
    let socket = new_socket(SocketFlags::NONBLOCK)?;
    match rustix::fs::unlink(&new) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(file("removing the stale socket", &new)(error)),
    }
    // fchmod on the socket before it is bound is the mode that its file is made with.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)
        .map_err(system("setting the attach socket's mode"))?;
    bind(&socket, &address.address).map_err(file("making the attach socket", &new))?;
    listen(&socket, BACKLOG).map_err(file("listening on", &new))?;
    // Whoever sees the socket can connect to it.
    rustix::fs::rename(&new, path).map_err(file("making the attach socket", path))?;
    Ok(socket)
}

/// Connects, blocking.
pub(super) fn connect_to(path: &Path) -> Result<OwnedFd> {
    let no_monitor = |source| Error::NoMonitor {
        path: path.to_path_buf(),
        source,
    };
    let address = match Address::of(path) {
        Err(Error::File { source, .. }) => return Err(no_monitor(source)),
        other => other?,
    };
    let socket = new_socket(SocketFlags::empty())?;
    loop {
        match connect(&socket, &address.address) {
            Ok(()) => return Ok(socket),
            Err(Errno::INTR) => {}
            Err(error) => return Err(no_monitor(error)),
        }
    }
}

fn new_socket(flags: SocketFlags) -> Result<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(system("making a socket"))
}

/// Sends one frame. EAGAIN when it must wait and `flags` or the socket say that it may not.
pub(super) fn send_frame(socket: &OwnedFd, frame: &[u8], flags: SendFlags) -> Result<(), Errno> {
    loop {
        match send(socket, frame, flags | SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Receives one frame into `buffer`, which has room for any; its length, 0 at the end of the connection. A longer
/// packet gives a length beyond [`FRAME_LIMIT`], which parsing refuses.
pub(super) fn receive_frame(
    socket: &OwnedFd,
    buffer: &mut Vec<u8>,
    flags: rustix::net::RecvFlags,
) -> Result<usize, Errno> {
    buffer.resize(FRAME_LIMIT + 1, 0);
    loop {
        match recv(socket, &mut buffer[..], flags) {
            Ok((length, _)) => return Ok(length),
            // A peer that closed without reading everything resets the connection. That is told once, and before what
            // the peer had sent: that and then the end follow.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(error) => return Err(error),
        }
    }
}
