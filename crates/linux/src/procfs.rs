//! The host's /proc by a handle that was proven to be procfs.
//!
//! Files below it are opened without leaving it: a directory mounted over part of /proc, or another file system in its
//! place, is an error rather than a trap (CVE-2025-52881).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstat, fstatfs, open, openat2};
use rustix::io::Errno;

/// The inode number of procfs's root directory.
const ROOT_INODE: u64 = 1;

/// A handle on the root of a procfs.
#[derive(Debug)]
pub struct Proc(OwnedFd);

impl Proc {
    /// The one at /proc, opened and verified once in the life of the program.
    ///
    /// # Errors
    /// EXDEV when /proc is not a procfs, else as openat(2).
    pub fn host() -> Result<&'static Self, Errno> {
        static HOST: OnceLock<Proc> = OnceLock::new();
        if let Some(host) = HOST.get() {
            return Ok(host);
        }
        let fd = open(
            c"/proc",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        verify(fd.as_fd())?;
        Ok(HOST.get_or_init(|| Self(fd)))
    }

    /// Opens `path` below it, through no symbolic link and no other mount.
    ///
    /// # Errors
    /// As openat2(2): EXDEV when something is mounted in the way, ELOOP for a link.
    pub fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        // openat2 refuses flags that mean nothing beside O_PATH (EINVAL), where openat ignores them.
        let no_terminal = if flags.contains(OFlags::PATH) {
            OFlags::empty()
        } else {
            OFlags::NOCTTY
        };
        openat2(
            &self.0,
            path,
            flags | OFlags::CLOEXEC | no_terminal,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS,
        )
    }

    /// All of a file.
    ///
    /// # Errors
    /// As [`Proc::open`] and read(2); EILSEQ when it is not UTF-8.
    pub fn read(&self, path: &str) -> Result<String, Errno> {
        let mut file = File::from(self.open(path, OFlags::RDONLY)?);
        let mut bytes = Vec::with_capacity(1024);
        file.read_to_end(&mut bytes)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        String::from_utf8(bytes).map_err(|_| Errno::ILSEQ)
    }

    /// Writes all of `content` with one write, as the kernel's own files ask for.
    ///
    /// # Errors
    /// As [`Proc::open`] and write(2).
    pub fn write(&self, path: &str, content: &str) -> Result<(), Errno> {
        let mut file = File::from(self.open(path, OFlags::WRONLY)?);
        file.write_all(content.as_bytes())
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    /// A namespace of a process: the one link below it that is followed, since it is the kernel's own.
    ///
    /// # Errors
    /// As openat(2).
    pub fn namespace(&self, pid: i32, name: &str) -> Result<OwnedFd, Errno> {
        let directory = self.open(&format!("{pid}/ns"), OFlags::PATH | OFlags::DIRECTORY)?;
        // The directory is procfs's own (no mount was crossed), so the link in it is a namespace, not text.
        rustix::fs::openat(
            &directory,
            name,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
    }

    /// Which namespace a process is in: device and inode say so.
    ///
    /// # Errors
    /// As stat(2).
    pub fn namespace_status(&self, pid: i32, name: &str) -> Result<rustix::fs::Stat, Errno> {
        let directory = self.open(&format!("{pid}/ns"), OFlags::PATH | OFlags::DIRECTORY)?;
        rustix::fs::statat(&directory, name, rustix::fs::AtFlags::empty())
    }
}

impl AsFd for Proc {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Opens again what a descriptor names, an `O_PATH` one too, with other flags: what is opened cannot have been exchanged.
///
/// # Errors
/// As openat(2).
pub fn reopen(fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
    use std::os::fd::AsRawFd;
    let own = rustix::process::getpid().as_raw_nonzero();
    let directory = Proc::host()?.open(&format!("{own}/fd"), OFlags::PATH | OFlags::DIRECTORY)?;
    rustix::fs::openat(
        &directory,
        fd.as_raw_fd().to_string(),
        flags | OFlags::CLOEXEC | OFlags::NOCTTY,
        Mode::empty(),
    )
}

/// Proves that `fd` is the root of a procfs.
///
/// # Errors
/// EXDEV when it is not.
pub fn verify(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    if fstatfs(fd)?.f_type as u64 != PROC_SUPER_MAGIC as u64 || fstat(fd)?.st_ino != ROOT_INODE {
        return Err(Errno::XDEV);
    }
    Ok(())
}

/// A field of mountinfo or mounts as it really is: they write blanks, tabs, line ends and backslashes in octal
/// (proc_pid_mountinfo(5)).
#[must_use]
pub fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = tail
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal {
            Some(byte) => {
                plain.push(byte);
                rest = &tail[3..];
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}
