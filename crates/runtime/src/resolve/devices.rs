//! /dev: the nodes that every container has, those of the document, and the links.

use std::path::{Path, PathBuf};

use coracle_linux::descriptor::Slot;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{FileType, makedev, stat};

use super::{Host, HostDevice, in_root, string};
use crate::Error;
use crate::plan::{Device, Link, Node};
use crate::request::IdMapping;

/// Name, major, minor: character devices for everybody.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

pub(super) struct Devices {
    pub(super) devices: Vec<Device>,
    pub(super) links: Vec<Link>,
    pub(super) on_host: Vec<HostDevice>,
}

pub(super) fn resolve(
    asked: &[LinuxDevice],
    ids: &IdMapping,
    host: &Host,
) -> Result<Devices, Error> {
    let mut resolved = Devices {
        devices: Vec::new(),
        links: Vec::new(),
        on_host: Vec::new(),
    };
    // The kernel lets only the first user namespace make nodes; elsewhere the host's own are bound.
    let may_make = matches!(ids, IdMapping::Host) && host.initial && host.has("CAP_MKNOD");
    for (name, major, minor) in DEFAULT {
        let path = PathBuf::from("/dev").join(name);
        if asked.iter().any(|device| device.path() == &path) {
            continue;
        }
        let number = makedev(major, minor);
        let node = if may_make {
            Node::Make {
                mode: FileType::CharacterDevice.as_raw_mode() | 0o666,
                device: number,
                uid: 0,
                gid: 0,
            }
        } else {
            bound(&mut resolved, path.clone(), number, host)?
        };
        resolved.devices.push(device(&path, node)?);
    }
    for asked in asked {
        let kind = match asked.typ() {
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
            LinuxDeviceType::P => FileType::Fifo,
            LinuxDeviceType::A => {
                return Err(Error::invalid(
                    format!("linux.devices {}", asked.path().display()),
                    "\"a\" is no type of a device node",
                ));
            }
        };
        let (Ok(major), Ok(minor)) = (u32::try_from(asked.major()), u32::try_from(asked.minor()))
        else {
            return Err(Error::invalid(
                format!("linux.devices {}", asked.path().display()),
                "its number is negative",
            ));
        };
        let number = makedev(major, minor);
        let node = if may_make || kind == FileType::Fifo {
            Node::Make {
                mode: kind.as_raw_mode() | asked.file_mode().unwrap_or(0o666) & 0o7777,
                device: if kind == FileType::Fifo { 0 } else { number },
                uid: asked.uid().unwrap_or(0),
                gid: asked.gid().unwrap_or(0),
            }
        } else {
            let path = find(asked.path(), kind, major, minor)?;
            bound(&mut resolved, path, number, host)?
        };
        resolved.devices.push(device(asked.path(), node)?);
    }
    for (name, text) in LINKS {
        resolved.links.push(Link {
            directory: c"dev".to_owned(),
            name: string("link", name)?,
            text: string("link", text)?,
        });
    }
    Ok(resolved)
}

fn device(path: &Path, node: Node) -> Result<Device, Error> {
    let relative = in_root("linux.devices", path)?;
    let text = relative.to_string_lossy();
    let name = text
        .strip_prefix("dev/")
        .filter(|name| !name.contains('/') && *name != ".." && *name != ".");
    let name = name.map(|name| string("linux.devices", name)).transpose()?;
    if name.is_none() && !text.contains('/') {
        return Err(Error::invalid(
            format!("linux.devices {}", path.display()),
            "a device lies in a directory",
        ));
    }
    Ok(Device {
        name,
        path: relative,
        node,
    })
}

/// A node of the host: opened by the parent if it may, else by the child.
fn bound(resolved: &mut Devices, path: PathBuf, number: u64, host: &Host) -> Result<Node, Error> {
    if host.may_mount {
        resolved.on_host.push(HostDevice {
            device: resolved.devices.len(),
            path,
            number,
        });
        return Ok(Node::Bind { mount: Slot::new() });
    }
    let text = path
        .to_str()
        .ok_or_else(|| Error::invalid(format!("{path:?}"), "it is not UTF-8"))?;
    Ok(Node::BindPath {
        path: string("linux.devices", text)?,
        device: number,
    })
}

/// Where the host has the node: at the same path, or where the kernel's list of devices says.
fn find(path: &Path, kind: FileType, major: u32, minor: u32) -> Result<PathBuf, Error> {
    let is_it = |path: &Path| {
        stat(path).is_ok_and(|status| {
            status.st_rdev == makedev(major, minor)
                && FileType::from_raw_mode(status.st_mode) == kind
        })
    };
    if is_it(path) {
        return Ok(path.to_owned());
    }
    let class = if kind == FileType::BlockDevice {
        "block"
    } else {
        "char"
    };
    let events = std::fs::read_to_string(format!("/sys/dev/{class}/{major}:{minor}/uevent"))
        .unwrap_or_default();
    let named = events
        .lines()
        .find_map(|line| line.strip_prefix("DEVNAME="))
        .map(|name| Path::new("/dev").join(name));
    named.filter(|path| is_it(path)).ok_or_else(|| {
        Error::invalid(
            format!("linux.devices {}", path.display()),
            format!("a user namespace can only have the host's own node, and the host has none for {class} {major}:{minor}"),
        )
    })
}
