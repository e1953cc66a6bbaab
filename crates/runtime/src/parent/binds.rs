//! Bind sources and device nodes of the host, opened with the host's rights and handed over detached.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use coracle_linux::clone::{Birth, Entry, Mailbox, Process, Sharing};
use coracle_linux::mount::{Attributes, set_attributes};
use coracle_linux::procfs::{Proc, unescape};
use coracle_linux::{namespace, process};
use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, OpenTreeFlags, mount_change, open_tree};

use crate::Error;
use crate::request::Map;
use crate::resolve::{Bind, HostDevice, Idmap};

pub(super) const CLONE: OpenTreeFlags =
    OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

/// Opens a bind source as a detached mount, mapped if that was asked for.
///
/// `mountinfo` is what [`mount_table`] gave for all binds of the start.
pub(super) fn open(
    bind: &Bind,
    mountinfo: &[u8],
    container: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, Error> {
    let below = match bind.recursive {
        true => mounts_below(mountinfo, &bind.source)?,
        false => Vec::new(),
    };
    let mount = if below.iter().any(|mount| mount.is_namespace) {
        coracle_linux::process::in_thread(|| open_without_namespaces(&bind.source)).flatten()
    } else if bind.recursive {
        open_tree(CWD, &bind.source, CLONE | OpenTreeFlags::AT_RECURSIVE)
    } else {
        open_tree(CWD, &bind.source, CLONE)
    };
    let mount =
        mount.map_err(|source| Error::host("opening the bind source", &bind.source, source))?;
    let Some((idmap, recursive)) = &bind.idmap else {
        return Ok(mount);
    };
    let own;
    let namespace = match idmap {
        Idmap::Container => {
            container.ok_or_else(|| Error::host("mapping the ids of", &bind.source, Errno::BADF))?
        }
        Idmap::Own { uids, gids } => {
            own = user_namespace(uids, gids)?;
            own.as_fd()
        }
    };
    let map = |mount: BorrowedFd<'_>, recursive| {
        set_attributes(mount, recursive, Attributes::default(), Some(namespace))
    };
    match map(mount.as_fd(), *recursive) {
        // All or nothing, and the host's /proc, say, has no id mapping.
        Err(Errno::INVAL) if *recursive => map(mount.as_fd(), false).and_then(|()| {
            for Below { place, .. } in &below {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = match openat(&mount, place, flags, Mode::empty()) {
                    Ok(below) => below,
                    // Unmounted, or under another mount.
                    Err(Errno::NOENT | Errno::NOTDIR) => continue,
                    Err(error) => return Err(error),
                };
                match map(below.as_fd(), false) {
                    // Files of what has no id mapping belong to nobody inside, which is less than was asked for.
                    Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        }),
        result => result,
    }
    .map_err(|source| Error::host("mapping the ids of", &bind.source, source))?;
    Ok(mount)
}

/// A mount below a directory.
#[derive(Debug, Eq, PartialEq)]
struct Below {
    /// Relative to the directory.
    place: PathBuf,
    /// It keeps a mount namespace alive. A tree with such a mount cannot be attached in a younger namespace, which
    /// might be the one that it keeps (ELOOP).
    is_namespace: bool,
}

/// The host's mounts, when one of the binds takes along what is mounted below it.
pub(super) fn mount_table(binds: &[Bind]) -> Result<Vec<u8>, Error> {
    if !binds.iter().any(|bind| bind.recursive) {
        return Ok(Vec::new());
    }
    let table = Path::new("/proc/self/mountinfo");
    std::fs::read(table).map_err(|error| unreadable(table, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
    Error::host("opening the bind source", path, errno)
}

/// What is mounted below a directory of the host.
fn mounts_below(mountinfo: &[u8], directory: &Path) -> Result<Vec<Below>, Error> {
    let real = directory
        .canonicalize()
        .map_err(|error| unreadable(directory, &error))?;
    Ok(below(mountinfo, &real))
}

/// From the text of proc_pid_mountinfo(5).
fn below(mountinfo: &[u8], directory: &Path) -> Vec<Below> {
    mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            let point = PathBuf::from(OsString::from_vec(unescape(point)));
            Some(Below {
                place: point.strip_prefix(directory).ok()?.to_owned(),
                is_namespace: root.starts_with(b"mnt:["),
            })
        })
        .filter(|mount| !mount.place.as_os_str().is_empty())
        .collect()
}

/// A copy of a mount namespace leaves out what keeps others alive. The calling thread must end in it.
fn open_without_namespaces(source: &Path) -> Result<OwnedFd, Errno> {
    namespace::unshare_mounts()?;
    mount_change(
        c"/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?;
    open_tree(CWD, source, CLONE | OpenTreeFlags::AT_RECURSIVE)
}

/// Opens a device node, proves its number, and detaches it.
pub(super) fn open_device(device: &HostDevice) -> Result<OwnedFd, Error> {
    let fail = |source| Error::host("opening the device", &device.path, source);
    let node = openat(
        CWD,
        &device.path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(fail)?;
    if fstat(&node).map_err(fail)?.st_rdev != device.number {
        return Err(Error::invalid(
            format!("the host's {}", device.path.display()),
            "it is not the device that its name says",
        ));
    }
    open_tree(&node, c"", CLONE | OpenTreeFlags::AT_EMPTY_PATH).map_err(fail)
}

/// A user namespace that exists for its maps alone. The process that holds it is gone when this returns.
fn user_namespace(uids: &[Map], gids: &[Map]) -> Result<OwnedFd, Error> {
    let mailbox = Mailbox::new()
        .map_err(|source| Error::host("mapping", "a page of shared memory", source))?;
    let birth = Birth {
        namespaces: namespace::USER,
        cgroup: None,
        sharing: Sharing::Memory,
        stack: 16 * 1024,
        successor: false,
    };
    let entry = Entry {
        child: |_: &Holder, _| wait(),
        successor: |_| wait(),
    };
    let holder =
        Process::spawn(&birth, Holder(mailbox), entry).map_err(|source| Error::Clone { source })?;
    let pid = holder.pid().as_raw_nonzero().get();
    let proc = Proc::host().map_err(|source| Error::host("opening", "/proc", source))?;
    super::ids::write(proc, pid, uids, gids, true)?;
    super::user_namespace(holder.pidfd(), pid, proc)
}

/// The plan of a process that only is there.
struct Holder(Mailbox);

impl AsRef<Mailbox> for Holder {
    fn as_ref(&self) -> &Mailbox {
        &self.0
    }
}

/// Until the calling process is killed; for the case that its parent is, not for ever.
pub(super) fn wait() -> ! {
    // Without it, and after an error of the other, the wait only ends early or at its time.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let _ = rustix::thread::nanosleep(&rustix::thread::Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    });
    process::exit(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_directory_are_found_with_their_real_names() {
        let table = b"22 1 8:1 / / rw - ext4 /dev/a rw\n\
                      23 22 0:5 / /run rw - tmpfs t rw\n\
                      24 23 0:6 / /run/a\\040b rw - tmpfs t rw\n\
                      25 22 0:7 / /runner rw - tmpfs t rw\n\
                      26 23 0:4 mnt:[4026532205] /run/ns rw - nsfs nsfs rw\n";
        let found = below(table, Path::new("/run"));
        let place = |name: &str, is_namespace| Below {
            place: name.into(),
            is_namespace,
        };
        assert_eq!(found, [place("a b", false), place("ns", true)]);
        assert_eq!(below(table, Path::new("/")).len(), 4);
    }
}
