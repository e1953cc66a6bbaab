//! The maps of a user namespace that exists, as its parent sees them.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use coracle_linux::clone::{Birth, Entry, Mailbox, Process, Sharing};
use coracle_linux::procfs::Proc;
use coracle_linux::{futex, namespace};
use rustix::io::Errno;

use super::binds::wait;
use crate::Error;
use crate::request::Map;
use crate::resolve::maps_of;

/// 1 when the process is in the namespace, else 1 + the error's number.
const ANSWER: usize = 1;

/// Reads the maps of `namespace`. The kernel shows them only for a process in it, so one goes there for a moment.
///
/// # Errors
/// [`Error::Host`] when it cannot be joined.
pub(crate) fn maps(namespace: &OwnedFd) -> Result<(Vec<Map>, Vec<Map>), Error> {
    let fail = |source| Error::host("joining", "the user namespace", source);
    let visitor = Visitor {
        mailbox: Mailbox::new().map_err(fail)?,
        namespace: rustix::io::fcntl_dupfd_cloexec(namespace, 3).map_err(fail)?,
    };
    let birth = Birth {
        namespaces: 0,
        cgroup: None,
        sharing: Sharing::Memory,
        stack: 16 * 1024,
        successor: false,
    };
    let entry = Entry {
        child: |visitor: &Visitor, _| visitor.stay(),
        successor: |visitor| visitor.stay(),
    };
    let child = Process::spawn(&birth, visitor, entry).map_err(|source| Error::Clone { source })?;
    let answer = child.plan().mailbox.word(ANSWER);
    match futex::wait_while(answer, 0, Some(Duration::from_secs(10))) {
        1 => {}
        0 => return Err(fail(Errno::TIMEDOUT)),
        error => return Err(fail(Errno::from_raw_os_error(error as i32 - 1))),
    }
    let pid = child.pid().as_raw_nonzero().get();
    let proc = Proc::host().map_err(|source| Error::host("opening", "/proc", source))?;
    Ok((
        maps_of(proc, pid, "uid_map")?,
        maps_of(proc, pid, "gid_map")?,
    ))
}

struct Visitor {
    mailbox: Mailbox,
    namespace: OwnedFd,
}

impl AsRef<Mailbox> for Visitor {
    fn as_ref(&self) -> &Mailbox {
        &self.mailbox
    }
}

impl Visitor {
    /// In the namespace, until it is killed.
    fn stay(&self) -> ! {
        let answer = match namespace::join(self.namespace.as_fd(), namespace::USER) {
            Ok(()) => 1,
            Err(error) => error.raw_os_error() as u32 + 1,
        };
        futex::set(self.mailbox.word(ANSWER), answer);
        wait()
    }
}
