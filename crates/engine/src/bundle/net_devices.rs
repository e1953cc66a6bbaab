//! `linux.netDevices`: network devices of the host that go into the container's network namespace.
//!
//! By rtnetlink, with messages put together here: a device is found by its name, moved and renamed in one step, gets back its
//! addresses of global scope, which the kernel takes from what moves, and is brought up.
//!
//! ```text
//! nlmsghdr   length u32, type u16, flags u16, sequence u32, port u32
//! ifinfomsg  family u8, pad u8, type u16, index i32, flags u32, change u32
//! ifaddrmsg  family u8, prefix length u8, flags u8, scope u8, index u32
//! rtattr     length u16, type u16, value, padded to 4
//! ```

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use coracle_linux::namespace;
use coracle_linux::process::in_thread;
use coracle_oci::runtime::Spec;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use crate::error::{Error, Result};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const CREATE_EXCL: u16 = 0x600;
const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_F_PERMANENT: u8 = 0x80;
/// `IFNAMSIZ` without its null.
const NAME: usize = 15;

/// A device and what it is called inside.
#[derive(Debug, PartialEq)]
pub(super) struct NetDevice {
    host: String,
    inside: String,
}

/// Takes the devices out of the document.
pub(super) fn take(spec: &mut Spec) -> Result<Vec<NetDevice>> {
    let Some(linux) = spec.linux_mut() else {
        return Ok(Vec::new());
    };
    let asked = linux.net_devices().clone().unwrap_or_default();
    linux.set_net_devices(None);
    // A document is a map; the same document does the same thing each time.
    let asked: BTreeMap<_, _> = asked.into_iter().collect();
    let mut devices: Vec<NetDevice> = Vec::new();
    for (host, device) in asked {
        let inside = device.name().clone().filter(|name| !name.is_empty());
        let inside = inside.unwrap_or_else(|| host.clone());
        for name in [&host, &inside] {
            let sound = !name.is_empty()
                && name.len() <= NAME
                && name != "."
                && name != ".."
                && !name.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace());
            if !sound {
                return Err(Error::refused(format!(
                    "linux.netDevices: {name:?} is no name of a network device"
                )));
            }
        }
        if devices.iter().any(|other| other.inside == inside) {
            return Err(Error::refused(format!(
                "linux.netDevices: two devices would be called {inside:?}"
            )));
        }
        devices.push(NetDevice { host, inside });
    }
    Ok(devices)
}

/// Moves them into the namespace.
pub(super) fn give(devices: &[NetDevice], container: BorrowedFd<'_>) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let own = rustix::fs::stat("/proc/self/ns/net");
    let theirs = rustix::fs::fstat(container);
    let is_own = matches!((own, theirs), (Ok(own), Ok(theirs))
        if (own.st_dev, own.st_ino) == (theirs.st_dev, theirs.st_ino));
    if is_own {
        return Err(Error::refused(
            "linux.netDevices: the container has no network namespace of its own to move devices to",
        ));
    }
    let host = open().map_err(failed("", "opening rtnetlink for"))?;
    let inside =
        opened_inside(container).map_err(failed("", "opening the container's rtnetlink for"))?;
    for device in devices {
        let name = &device.host;
        let index = find(&host, name).map_err(failed(name, "finding"))?;
        if find(&inside, &device.inside).is_ok() {
            return Err(Error::refused(format!(
                "linux.netDevices: the container has a device {:?} already",
                device.inside
            )));
        }
        let addresses =
            addresses(&host, index).map_err(failed(name, "reading the addresses of"))?;
        shift(&host, index, &device.inside, container).map_err(failed(name, "moving"))?;
        let index =
            find(&inside, &device.inside).map_err(failed(name, "finding in the container"))?;
        for address in &addresses {
            restore(&inside, index, address).map_err(failed(name, "restoring an address of"))?;
        }
        bring_up(&inside, index).map_err(failed(name, "bringing up"))?;
    }
    Ok(())
}

fn failed(name: &str, doing: &'static str) -> impl FnOnce(Errno) -> Error {
    let name = name.to_owned();
    move |error| {
        let path = std::path::PathBuf::from(format!("network device {name}"));
        Error::file(doing, &path, error)
    }
}

fn open() -> Result<OwnedFd, Errno> {
    socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // NETLINK_ROUTE is protocol 0.
        None,
    )
}

/// A socket belongs to the namespace that it was made in, wherever it is used.
fn opened_inside(container: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    in_thread(|| {
        namespace::join(container, namespace::NETWORK)?;
        open()
    })?
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn text(name: &str) -> Vec<u8> {
    name.bytes().chain([0]).collect()
}

fn link(index: i32, flags: u32, change: u32) -> Vec<u8> {
    let mut message = vec![0; 4];
    message.extend(index.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(change.to_ne_bytes());
    message
}

fn find(socket: &OwnedFd, name: &str) -> Result<i32, Errno> {
    let mut body = link(0, 0, 0);
    attribute(&mut body, IFLA_IFNAME, &text(name));
    let answers = ask(socket, RTM_GETLINK, REQUEST | ACK, &body)?;
    let answer = answers.first().ok_or(Errno::NODEV)?;
    number(answer, 4).map(u32::cast_signed).ok_or(Errno::PROTO)
}

/// The addresses of global scope that do not expire, as they are to be asked for again.
fn addresses(socket: &OwnedFd, index: i32) -> Result<Vec<Vec<u8>>, Errno> {
    let mut kept = Vec::new();
    for answer in ask(socket, RTM_GETADDR, REQUEST | DUMP, &[0; 8])? {
        let [family, prefix, flags, scope, ..] = answer[..] else {
            continue;
        };
        let is_its = number(&answer, 4) == Some(index.cast_unsigned());
        if !is_its || scope != 0 || flags & IFA_F_PERMANENT == 0 {
            continue;
        }
        let mut message = vec![family, prefix, 0, 0, 0, 0, 0, 0];
        for (kind, value) in attributes(answer.get(8..).unwrap_or_default()) {
            if [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST].contains(&kind) {
                attribute(&mut message, kind, value);
            }
        }
        kept.push(message);
    }
    Ok(kept)
}

fn restore(socket: &OwnedFd, index: i32, address: &[u8]) -> Result<(), Errno> {
    let mut message = address.to_owned();
    if let Some(place) = message.get_mut(4..8) {
        place.copy_from_slice(&index.to_ne_bytes());
    }
    ask(socket, RTM_NEWADDR, REQUEST | ACK | CREATE_EXCL, &message).map(drop)
}

fn shift(socket: &OwnedFd, index: i32, name: &str, container: BorrowedFd<'_>) -> Result<(), Errno> {
    // Only what is down can be renamed.
    let mut body = link(index, 0, IFF_UP);
    attribute(
        &mut body,
        IFLA_NET_NS_FD,
        &container.as_raw_fd().to_ne_bytes(),
    );
    attribute(&mut body, IFLA_IFNAME, &text(name));
    ask(socket, RTM_NEWLINK, REQUEST | ACK, &link(index, 0, IFF_UP))?;
    ask(socket, RTM_NEWLINK, REQUEST | ACK, &body).map(drop)
}

fn bring_up(socket: &OwnedFd, index: i32) -> Result<(), Errno> {
    let body = link(index, IFF_UP, IFF_UP);
    ask(socket, RTM_NEWLINK, REQUEST | ACK, &body).map(drop)
}

/// Sends a request; gives the bodies of the answers when the kernel says that these are all.
fn ask(socket: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
    let length = u32::try_from(16 + body.len()).map_err(|_| Errno::MSGSIZE)?;
    let mut message = Vec::with_capacity(16 + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    send(socket.as_fd(), &message, SendFlags::empty())?;
    let mut answers = Vec::new();
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        let (count, _) = match recv(socket.as_fd(), &mut buffer[..], RecvFlags::empty()) {
            Err(Errno::INTR) => continue,
            received => received?,
        };
        let mut rest = buffer.get(..count).unwrap_or_default();
        while let Some((kind, body, behind)) = split(rest) {
            match kind {
                NLMSG_DONE => return Ok(answers),
                NLMSG_ERROR => {
                    return match number(body, 0).map(u32::cast_signed) {
                        Some(0) => Ok(answers),
                        Some(error) => Err(Errno::from_raw_os_error(-error)),
                        None => Err(Errno::PROTO),
                    };
                }
                _ => answers.push(body.to_owned()),
            }
            rest = behind;
        }
    }
}

/// The first message: its type, its body, and what is behind it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(number(bytes, 0)?).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(16..length)?;
    let behind = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, behind))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut all = Vec::new();
    while let (Some(length), Some(kind)) = (bytes.get(..2), bytes.get(2..4)) {
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        let kind = u16::from_ne_bytes([kind[0], kind[1]]);
        let Some(value) = bytes.get(4..length) else {
            break;
        };
        all.push((kind, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_are_written() {
        let mut message = Vec::new();
        attribute(&mut message, IFLA_IFNAME, &text("eth0"));
        attribute(&mut message, 7, &[1]);
        assert_eq!(
            attributes(&message),
            [(IFLA_IFNAME, &b"eth0\0"[..]), (7, &[1][..])]
        );
        assert!(attributes(&[9, 0, 1]).is_empty());
        assert!(attributes(&[3, 0, 1, 0, 0]).is_empty());
        assert!(split(&[0; 8]).is_none());
    }

    #[test]
    fn names_that_are_none_and_names_twice_are_refused() {
        let taken = |devices: &str| {
            let text = format!(r#"{{"ociVersion":"1.0.0","linux":{{"netDevices":{devices}}}}}"#);
            let mut spec: Spec = serde_json::from_str(&text).expect("a document");
            let taken = take(&mut spec);
            assert!(
                spec.linux()
                    .as_ref()
                    .is_some_and(|linux| linux.net_devices().is_none())
            );
            taken
        };
        assert_eq!(
            taken(r#"{"b":{},"a":{"name":"eth0"}}"#).expect("sound"),
            [("a", "eth0"), ("b", "b")].map(|(host, inside)| NetDevice {
                host: host.into(),
                inside: inside.into()
            })
        );
        for wrong in [
            r#"{"a/b":{}}"#,
            r#"{"":{}}"#,
            r#"{"a":{"name":"x"},"x":{}}"#,
            r#"{"aaaaaaaaaaaaaaaa":{}}"#,
        ] {
            assert!(taken(wrong).is_err(), "{wrong}");
        }
    }
}
