//! Bind sources and device nodes of the host, opened with the host's rights and handed over detached.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use coracle_linux::clone::{Birth, Entry, Mailbox, Process, Sharing};
use coracle_linux::mount::{Attributes, set_attributes};
use coracle_linux::procfs::Proc;
use coracle_linux::{namespace, process};
use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::Error;
use crate::request::Map;
use crate::resolve::{Bind, HostDevice, Idmap};

pub(super) const CLONE: OpenTreeFlags =
    OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC);

/// Opens a bind source as a detached mount, mapped if that was asked for.
pub(super) fn open(bind: &Bind, container: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Error> {
    let flags = if bind.recursive {
        CLONE | OpenTreeFlags::AT_RECURSIVE
    } else {
        CLONE
    };
    let mount = open_tree(CWD, &bind.source, flags)
        .map_err(|source| Error::host("opening the bind source", &bind.source, source))?;
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
    set_attributes(
        mount.as_fd(),
        *recursive,
        Attributes::default(),
        Some(namespace),
    )
    .map_err(|source| Error::host("mapping the ids of", &bind.source, source))?;
    Ok(mount)
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

/// Until it is killed; for the case that its parent is, not for ever.
fn wait() -> ! {
    // Without it, and after an error of the other, the wait only ends early or at its time.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let _ = rustix::thread::nanosleep(&rustix::thread::Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    });
    process::exit(0)
}
