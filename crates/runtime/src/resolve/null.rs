//! The host's null device as a standard stream.
//!
//! A stream is a handle on the node as well as on the device: a container with the host's ids could give /dev/null another
//! mode or owner through it, for the whole host. So such a stream is opened again from a read-only mount of its node,
//! which refuses that, and through which the device is read and written as before (a link to it then reads `/`).

use std::os::fd::{AsFd, OwnedFd};

use coracle_linux::mount::{Attributes, RDONLY, set_attributes};
use coracle_linux::procfs;
use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fstat, major, minor, open};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::geteuid;

use crate::Error;

/// The major number of null, zero, full, random and urandom.
const MEMORY: u32 = 1;

/// The stream itself, or in place of one of the host's memory devices a handle that cannot change the node.
pub(super) fn harmless(stream: OwnedFd) -> Result<OwnedFd, Error> {
    let fail = |source| Error::host("opening through a read-only mount", "/dev/null", source);
    let status = fstat(&stream).map_err(fail)?;
    let device = FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice
        && major(status.st_rdev) == MEMORY;
    // Whoever does not own the node outside does not own it inside.
    if !device || status.st_uid != geteuid().as_raw() {
        return Ok(stream);
    }
    through_read_only_mount(&stream).map_err(fail)
}

fn through_read_only_mount(stream: &OwnedFd) -> Result<OwnedFd, Errno> {
    let access = fcntl_getfl(stream)? & OFlags::RWMODE;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = match open_tree(stream, c"", flags) {
        // Opened in another mount namespace, whose mounts nobody clones here: another node of the device is as good.
        Err(Errno::INVAL) => open_tree(ours(stream)?, c"", flags)?,
        opened => opened?,
    };
    let attributes = Attributes {
        set: RDONLY,
        ..Attributes::default()
    };
    set_attributes(mount.as_fd(), false, attributes, None)?;
    procfs::reopen(mount.as_fd(), access | OFlags::NOCTTY | OFlags::CLOEXEC)
}

/// The node of the same device in our own mount namespace.
fn ours(stream: &OwnedFd) -> Result<OwnedFd, Errno> {
    let number = fstat(stream)?.st_rdev;
    let path = match minor(number) {
        3 => c"/dev/null",
        5 => c"/dev/zero",
        7 => c"/dev/full",
        8 => c"/dev/random",
        9 => c"/dev/urandom",
        _ => return Err(Errno::INVAL),
    };
    let node = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let status = fstat(&node)?;
    let same = FileType::from_raw_mode(status.st_mode) == FileType::CharacterDevice
        && status.st_rdev == number;
    if same { Ok(node) } else { Err(Errno::NODEV) }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, fchmod};

    use super::*;

    #[test]
    fn null_device_is_written_but_not_changed_and_other_streams_are_left_alone() {
        let null = open(c"/dev/null", OFlags::RDWR, Mode::empty()).expect("it is there");
        let owned = fstat(&null).expect("open").st_uid == geteuid().as_raw();
        match harmless(null) {
            Err(error) => assert!(
                matches!(
                    error,
                    Error::Host {
                        source: Errno::PERM,
                        ..
                    }
                ),
                "only for want of the right to mount: {error}"
            ),
            Ok(null) => {
                assert_eq!(rustix::io::write(&null, b"x"), Ok(1));
                if owned {
                    assert_eq!(fchmod(&null, Mode::from_raw_mode(0o666)), Err(Errno::ROFS));
                }
            }
        }
        let file = rustix::fs::openat(CWD, c"/proc/self/status", OFlags::RDONLY, Mode::empty());
        let file = file.expect("procfs");
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        let same = harmless(file).expect("nothing to do");
        assert_eq!(std::os::fd::AsRawFd::as_raw_fd(&same), number);
    }

    #[test]
    fn null_device_of_another_mount_namespace_is_as_good() {
        let null = open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let null = null.expect("it is there");
        let elsewhere = coracle_linux::process::in_thread(|| {
            // Without the right to it the thread stays, and the device is of its own namespace.
            let _ = coracle_linux::namespace::unshare_mounts();
            harmless(null)
        });
        match elsewhere.expect("a thread") {
            Ok(null) => assert_eq!(rustix::io::write(&null, b"x"), Ok(1)),
            Err(Error::Host { source, .. }) => assert_eq!(source, Errno::PERM),
            Err(error) => panic!("{error}"),
        }
    }
}
