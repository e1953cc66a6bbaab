//! Descriptors that go to the caller over its own sockets: the terminal's master, the listener of a seccomp filter.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, connect, sendmsg, socket_with,
};

use crate::error::{Error, Result};

/// Sends `descriptor` with `text` to the stream socket at `path`.
///
/// # Errors
/// [`Error::File`] when nobody listens there.
pub(super) fn send(path: &Path, text: &[u8], descriptor: BorrowedFd<'_>) -> Result<()> {
    let failed = |error: rustix::io::Errno| Error::file("sending a descriptor to", path, error);
    let socket = connected(path).map_err(failed)?;
    let descriptors = [descriptor];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(failed(rustix::io::Errno::NOBUFS));
    }
    let mut rest = text;
    let sent = sendmsg(
        &socket,
        &[IoSlice::new(rest)],
        &mut control,
        SendFlags::NOSIGNAL,
    )
    .map_err(failed)?;
    rest = rest.get(sent..).unwrap_or_default();
    while !rest.is_empty() {
        let sent = rustix::net::send(&socket, rest, SendFlags::NOSIGNAL).map_err(failed)?;
        rest = rest.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// A socket's address has 108 bytes; a longer path is reached through a descriptor of its directory.
fn connected(path: &Path) -> Result<OwnedFd, rustix::io::Errno> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    match SocketAddrUnix::new(path) {
        Ok(address) => connect(&socket, &address)?,
        Err(rustix::io::Errno::NAMETOOLONG) => {
            use std::os::fd::AsRawFd as _;
            let directory = rustix::fs::open(
                path.parent().unwrap_or(Path::new("/")),
                rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )?;
            let name = path.file_name().unwrap_or_default();
            let short = Path::new("/proc/self/fd")
                .join(directory.as_fd().as_raw_fd().to_string())
                .join(name);
            connect(&socket, &SocketAddrUnix::new(&short)?)?;
        }
        Err(error) => return Err(error),
    }
    Ok(socket)
}
