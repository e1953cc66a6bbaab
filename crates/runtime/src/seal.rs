//! Keeping the engine's executable from being overwritten by a container (CVE-2019-5736).
//!
//! `/proc/PID/exe` leads to the file that a process executes, whatever the process that opens it has for a root. A container
//! whose root has other ids than the host's cannot write that file. One that shares the host's ids could, once it gets hold of
//! such a link: of the engine's process inside of it before its exec, or by letting the engine execute `#!/proc/self/exe`.
//!
//! Beside that, a command that leads to what the engine executes is refused before the exec ([`Executable`]): such an image
//! gets an error rather than an engine that runs inside. A script may still name /proc/self/exe as its interpreter, and a
//! shared volume may change between the look and the exec, so that this alone would protect nothing.
//!
//! The remedy: the engine runs from a read-only mount of its own file. The link leads to that mount, and no right over the
//! file opens it for writing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use coracle_linux::mount::{Attributes, RDONLY, set_attributes};
use coracle_linux::process::{StringArray, execve_fd};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, StatVfsMountFlags, StatxFlags, openat, statvfs, statx,
};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::Error;
use crate::plan::Executable;

/// Whether the file that we execute can be opened for writing through our link to it.
///
/// # Errors
/// [`Error::Host`] when /proc is not there.
pub fn is_sealed() -> Result<bool, Error> {
    let status = statvfs(c"/proc/self/exe")
        .map_err(|source| Error::host("looking at", "/proc/self/exe", source))?;
    Ok(status.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// For [`crate::Creating::begin`]: a container with the host's ids needs a sealed engine.
pub(crate) fn check() -> Result<(), Error> {
    // Who is not the host's root cannot write to the executable of somebody else, inside or outside.
    if !rustix::process::geteuid().is_root() || is_sealed()? {
        Ok(())
    } else {
        Err(Error::Unsealed)
    }
}

/// What we execute.
pub(crate) fn executable() -> Result<Executable, Error> {
    let fail = |source| Error::host("looking at", "/proc/self/exe", source);
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let file = openat(CWD, c"/proc/self/exe", flags, Mode::empty()).map_err(fail)?;
    Executable::of(file.as_fd()).map_err(fail)
}

impl Executable {
    /// The file behind a descriptor. Allocates nothing.
    pub(crate) fn of(file: BorrowedFd<'_>) -> Result<Self, Errno> {
        let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
        let status = statx(file, c"", AtFlags::EMPTY_PATH, wanted)?;
        if status.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
            // Before Linux 5.8, which is older than what a start needs anyway.
            return Err(Errno::NOSYS);
        }
        Ok(Self {
            device: (status.stx_dev_major, status.stx_dev_minor),
            inode: status.stx_ino,
            mount: status.stx_mnt_id,
        })
    }
}

/// Makes sure that we execute from a read-only mount: executes ourselves again from one when we do not yet. To be called
/// first thing, before a container with the host's user ids is started; costs a millisecond.
///
/// # Errors
/// When the mount or the execution fails.
pub fn ensure() -> Result<(), Error> {
    if is_sealed()? {
        return Ok(());
    }
    let fail = |source| Error::host("sealing", "/proc/self/exe", source);
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount: OwnedFd = open_tree(CWD, c"/proc/self/exe", flags).map_err(fail)?;
    set_attributes(
        mount.as_fd(),
        false,
        Attributes {
            set: RDONLY,
            ..Attributes::default()
        },
        None,
    )
    .map_err(fail)?;
    let strings = |list: Vec<String>| StringArray::new(list).map_err(|_| fail(Errno::INVAL));
    let arguments = strings(
        std::env::args_os()
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect(),
    )?;
    let environment = strings(
        std::env::vars_os()
            .map(|(key, value)| format!("{}={}", key.to_string_lossy(), value.to_string_lossy()))
            .collect(),
    )?;
    Err(fail(execve_fd(mount.as_fd(), &arguments, &environment)))
}
