//! Starting a helper program in the namespaces of another process.
//!
//! The calling thread cannot go there itself: a thread with siblings joins no mount or user namespace, and who joins a pid
//! namespace is not in it, only whom it makes afterwards. So a thread that ends here joins the pid namespace, and the
//! program's process joins the others between fork and exec.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::process::{chroot, fchdir};

use crate::namespace;

/// Where a program is started.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// A process whose namespaces are joined.
    pub process: BorrowedFd<'a>,
    /// Which (`CLONE_NEW*`).
    pub namespaces: u64,
    /// Becomes the program's root and working directory; `None`: the root of the mount namespace joined.
    pub root: Option<BorrowedFd<'a>>,
}

/// Starts `command` in `place`; its path is resolved there.
///
/// # Errors
/// As `Command::spawn`, setns(2), fchdir(2) and chroot(2).
pub fn spawn(command: &mut Command, place: Place<'_>) -> io::Result<Child> {
    use std::os::fd::AsRawFd;
    // Numbers, since the closure outlives every borrow as far as its type goes; both stay open until the spawn is over.
    let (process, root) = (
        place.process.as_raw_fd(),
        place.root.map(|root| root.as_raw_fd()),
    );
    let others = place.namespaces & !namespace::PID;
    let enter = move || {
        // SAFETY: both are open in this process, a copy of the one that borrowed them for the time of the spawn.
        let process = unsafe { BorrowedFd::borrow_raw(process) };
        if others != 0 {
            namespace::join(process, others)?;
        }
        if let Some(root) = root {
            // SAFETY: as above.
            fchdir(unsafe { BorrowedFd::borrow_raw(root) })?;
            chroot(c".")?;
        }
        Ok(())
    };
    // SAFETY: the closure makes a few system calls and allocates nothing, as is asked between fork and exec.
    unsafe { command.pre_exec(enter) };
    crate::process::in_thread(|| {
        if place.namespaces & namespace::PID != 0 {
            namespace::join(place.process, namespace::PID)?;
        }
        command.spawn()
    })?
}
