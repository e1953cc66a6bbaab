//! Which system calls change the world, which can fail, and on what they act: read from the registers and the memory of a
//! process that stands before one.
//!
//! A call that is not in the table changes nothing outside of its process (memory, credentials, waiting) and is not
//! forced to fail.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use libc::{c_int, c_long};
use rustix::io::Errno;
use rustix::process::Pid;

/// A system call as the harness sees it.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) name: &'static str,
    /// What it acts on: a path, the kind of a descriptor, or nothing.
    pub(super) on: String,
    /// Whether somebody else can see that it was made.
    pub(super) changes: bool,
    /// The errors that can be forced.
    pub(super) errors: &'static [Errno],
}

/// Which arguments say what it acts on.
#[derive(Clone, Copy)]
enum On {
    Nothing,
    /// A path.
    Path(usize),
    /// A path below a directory's descriptor.
    At(usize, usize),
    /// A descriptor.
    Fd(usize),
}

/// Whether a call changes the world.
#[derive(Clone, Copy)]
enum Changes {
    Yes,
    No,
    /// An open with O_CREAT, O_TRUNC or O_TMPFILE in this argument.
    IfCreating(usize),
    /// As that, with the flags in the memory of openat2(2).
    IfCreatingHow(usize),
    /// Unless its descriptor is one of the three streams of the command.
    IfNotStream,
    /// An ioctl(2) on a file: that of a loop device or a file system, not of a terminal.
    IfFile,
}

const NONE: &[Errno] = &[];
const OPEN: &[Errno] = &[Errno::MFILE];
const CREATE: &[Errno] = &[Errno::NOSPC, Errno::IO];
const WRITE: &[Errno] = &[Errno::NOSPC, Errno::IO];
const DISK: &[Errno] = &[Errno::IO];
const MEMORY: &[Errno] = &[Errno::NOMEM];
const CLONE: &[Errno] = &[Errno::NOMEM, Errno::AGAIN];
const MOUNT: &[Errno] = &[Errno::NOMEM, Errno::NOSPC];
const MOUNT_FD: &[Errno] = &[Errno::NOMEM, Errno::MFILE];
const SLOW: &[Errno] = &[Errno::INTR];
const LOCK: &[Errno] = &[Errno::INTR, Errno::NOLCK];

type Row = (c_long, &'static str, On, Changes, &'static [Errno]);

use Changes::{IfCreating, IfCreatingHow, IfFile, IfNotStream, No, Yes};
use On::{At, Fd, Nothing, Path as AtPath};

const TABLE: &[Row] = &[
    (libc::SYS_openat, "openat", At(0, 1), IfCreating(2), OPEN),
    (
        libc::SYS_openat2,
        "openat2",
        At(0, 1),
        IfCreatingHow(2),
        OPEN,
    ),
    (libc::SYS_write, "write", Fd(0), IfNotStream, WRITE),
    (libc::SYS_pwrite64, "pwrite64", Fd(0), IfNotStream, WRITE),
    (libc::SYS_writev, "writev", Fd(0), IfNotStream, WRITE),
    (libc::SYS_pwritev, "pwritev", Fd(0), IfNotStream, WRITE),
    (libc::SYS_sendfile, "sendfile", Fd(0), IfNotStream, WRITE),
    (
        libc::SYS_copy_file_range,
        "copy_file_range",
        Fd(2),
        Yes,
        WRITE,
    ),
    (libc::SYS_splice, "splice", Fd(2), IfNotStream, SLOW),
    (
        libc::SYS_fallocate,
        "fallocate",
        Fd(0),
        Yes,
        &[Errno::NOSPC],
    ),
    (libc::SYS_ftruncate, "ftruncate", Fd(0), Yes, DISK),
    (libc::SYS_truncate, "truncate", AtPath(0), Yes, DISK),
    (libc::SYS_read, "read", Fd(0), No, DISK),
    (libc::SYS_pread64, "pread64", Fd(0), No, DISK),
    (libc::SYS_getdents64, "getdents64", Fd(0), No, DISK),
    (libc::SYS_renameat, "renameat", At(2, 3), Yes, CREATE),
    (libc::SYS_renameat2, "renameat2", At(2, 3), Yes, CREATE),
    (libc::SYS_linkat, "linkat", At(2, 3), Yes, CREATE),
    (libc::SYS_symlinkat, "symlinkat", At(1, 2), Yes, CREATE),
    (libc::SYS_unlinkat, "unlinkat", At(0, 1), Yes, DISK),
    (libc::SYS_mkdirat, "mkdirat", At(0, 1), Yes, CREATE),
    (libc::SYS_mknodat, "mknodat", At(0, 1), Yes, CREATE),
    (libc::SYS_fchownat, "fchownat", At(0, 1), Yes, DISK),
    (libc::SYS_fchown, "fchown", Fd(0), Yes, DISK),
    (libc::SYS_fchmodat, "fchmodat", At(0, 1), Yes, DISK),
    (libc::SYS_fchmod, "fchmod", Fd(0), Yes, DISK),
    (libc::SYS_utimensat, "utimensat", At(0, 1), Yes, DISK),
    (libc::SYS_setxattr, "setxattr", AtPath(0), Yes, CREATE),
    (libc::SYS_lsetxattr, "lsetxattr", AtPath(0), Yes, CREATE),
    (libc::SYS_fsetxattr, "fsetxattr", Fd(0), Yes, CREATE),
    (libc::SYS_removexattr, "removexattr", AtPath(0), Yes, DISK),
    (libc::SYS_lremovexattr, "lremovexattr", AtPath(0), Yes, DISK),
    (libc::SYS_fsync, "fsync", Fd(0), Yes, DISK),
    (libc::SYS_fdatasync, "fdatasync", Fd(0), Yes, DISK),
    (libc::SYS_syncfs, "syncfs", Fd(0), Yes, DISK),
    (libc::SYS_flock, "flock", Fd(0), Yes, LOCK),
    (libc::SYS_mount, "mount", AtPath(1), Yes, MOUNT),
    (libc::SYS_umount2, "umount2", AtPath(0), Yes, NONE),
    (libc::SYS_fsopen, "fsopen", AtPath(0), Yes, MOUNT_FD),
    (libc::SYS_fsconfig, "fsconfig", AtPath(2), Yes, MEMORY),
    (libc::SYS_fsmount, "fsmount", Nothing, Yes, MOUNT_FD),
    (libc::SYS_open_tree, "open_tree", At(0, 1), Yes, MOUNT_FD),
    (libc::SYS_move_mount, "move_mount", At(2, 3), Yes, MOUNT),
    (
        libc::SYS_mount_setattr,
        "mount_setattr",
        At(0, 1),
        Yes,
        MEMORY,
    ),
    (libc::SYS_pivot_root, "pivot_root", AtPath(0), Yes, MEMORY),
    (libc::SYS_quotactl, "quotactl", AtPath(1), Yes, DISK),
    (libc::SYS_clone, "clone", Nothing, Yes, CLONE),
    (libc::SYS_clone3, "clone3", Nothing, Yes, CLONE),
    (libc::SYS_execve, "execve", AtPath(0), Yes, MEMORY),
    (libc::SYS_execveat, "execveat", At(0, 1), Yes, MEMORY),
    (libc::SYS_unshare, "unshare", Nothing, Yes, MOUNT),
    (libc::SYS_setns, "setns", Fd(0), Yes, MEMORY),
    (libc::SYS_sethostname, "sethostname", Nothing, Yes, NONE),
    (libc::SYS_exit_group, "exit_group", Nothing, Yes, NONE),
    (libc::SYS_kill, "kill", Nothing, Yes, NONE),
    (
        libc::SYS_pidfd_send_signal,
        "pidfd_send_signal",
        Nothing,
        Yes,
        NONE,
    ),
    (libc::SYS_pidfd_open, "pidfd_open", Nothing, No, OPEN),
    (libc::SYS_bpf, "bpf", Nothing, Yes, MEMORY),
    (libc::SYS_seccomp, "seccomp", Nothing, Yes, MEMORY),
    (libc::SYS_ioctl, "ioctl", Fd(0), IfFile, DISK),
    (libc::SYS_bind, "bind", Fd(0), Yes, CREATE),
    (libc::SYS_listen, "listen", Fd(0), Yes, NONE),
    (libc::SYS_connect, "connect", Fd(0), Yes, SLOW),
    (libc::SYS_accept4, "accept4", Fd(0), Yes, SLOW),
    (libc::SYS_sendto, "sendto", Fd(0), Yes, SLOW),
    (libc::SYS_sendmsg, "sendmsg", Fd(0), Yes, SLOW),
    (libc::SYS_recvfrom, "recvfrom", Fd(0), No, SLOW),
    (libc::SYS_recvmsg, "recvmsg", Fd(0), No, SLOW),
    (libc::SYS_socket, "socket", Nothing, No, OPEN),
    (libc::SYS_socketpair, "socketpair", Nothing, No, OPEN),
    (libc::SYS_pipe2, "pipe2", Nothing, No, OPEN),
    (libc::SYS_eventfd2, "eventfd2", Nothing, No, OPEN),
    (libc::SYS_memfd_create, "memfd_create", Nothing, No, OPEN),
    (libc::SYS_signalfd4, "signalfd4", Nothing, No, OPEN),
    (
        libc::SYS_timerfd_create,
        "timerfd_create",
        Nothing,
        No,
        OPEN,
    ),
    (libc::SYS_inotify_init1, "inotify_init1", Nothing, No, OPEN),
    (libc::SYS_epoll_create1, "epoll_create1", Nothing, No, OPEN),
    (libc::SYS_ppoll, "ppoll", Nothing, No, SLOW),
    (libc::SYS_epoll_pwait, "epoll_pwait", Nothing, No, SLOW),
    (libc::SYS_futex, "futex", Nothing, No, SLOW),
    (libc::SYS_waitid, "waitid", Nothing, No, SLOW),
    (libc::SYS_wait4, "wait4", Nothing, No, SLOW),
    (libc::SYS_nanosleep, "nanosleep", Nothing, No, SLOW),
    (
        libc::SYS_clock_nanosleep,
        "clock_nanosleep",
        Nothing,
        No,
        SLOW,
    ),
];

/// What newer architectures have only in the form with a directory.
#[cfg(target_arch = "x86_64")]
const OLD: &[Row] = &[
    (libc::SYS_open, "open", AtPath(0), IfCreating(1), OPEN),
    (libc::SYS_creat, "creat", AtPath(0), Yes, OPEN),
    (libc::SYS_rename, "rename", AtPath(1), Yes, CREATE),
    (libc::SYS_link, "link", AtPath(1), Yes, CREATE),
    (libc::SYS_symlink, "symlink", AtPath(1), Yes, CREATE),
    (libc::SYS_unlink, "unlink", AtPath(0), Yes, DISK),
    (libc::SYS_rmdir, "rmdir", AtPath(0), Yes, DISK),
    (libc::SYS_mkdir, "mkdir", AtPath(0), Yes, CREATE),
    (libc::SYS_mknod, "mknod", AtPath(0), Yes, CREATE),
    (libc::SYS_chown, "chown", AtPath(0), Yes, DISK),
    (libc::SYS_lchown, "lchown", AtPath(0), Yes, DISK),
    (libc::SYS_chmod, "chmod", AtPath(0), Yes, DISK),
    (libc::SYS_fork, "fork", Nothing, Yes, CLONE),
    (libc::SYS_vfork, "vfork", Nothing, Yes, CLONE),
    (libc::SYS_poll, "poll", Nothing, No, SLOW),
    (libc::SYS_epoll_wait, "epoll_wait", Nothing, No, SLOW),
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[Row] = &[];

/// The calls in which a process waits for others.
const WAITING: &[&str] = &[
    "poll",
    "ppoll",
    "epoll_wait",
    "epoll_pwait",
    "recvmsg",
    "recvfrom",
];

impl Operation {
    /// Whether a process that stays in it has nothing to do.
    pub(super) fn waits(&self) -> bool {
        WAITING.contains(&self.name)
    }
}

/// The call before which a process stands; `None` if it is not in the table.
pub(super) fn decode(pid: Pid, number: i64, arguments: &[u64; 6]) -> Option<Operation> {
    let mut rows = TABLE.iter().chain(OLD);
    let &(_, name, on, changes, errors) = rows.find(|row| row.0 == number as c_long)?;
    let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let subject = match on {
        Nothing => String::new(),
        AtPath(path) => text(&process, arguments[path]),
        At(directory, path) => {
            let path = text(&process, arguments[path]);
            let directory = arguments[directory] as c_int;
            match (path.starts_with('/'), directory) {
                (true, _) | (_, libc::AT_FDCWD) => path,
                (false, fd) => {
                    let directory = descriptor(&process, fd);
                    if path.is_empty() {
                        directory
                    } else {
                        format!("{}/{path}", directory.trim_end_matches('/'))
                    }
                }
            }
        }
        Fd(fd) => descriptor(&process, arguments[fd] as c_int),
    };
    let creating = |flags: u64| {
        let flags = flags as c_int;
        flags & (libc::O_CREAT | libc::O_TRUNC) != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE
    };
    let is_file = subject.starts_with('/') && !subject.starts_with("/dev/");
    let is_loop = subject.starts_with("/dev/loop");
    let creates = match changes {
        IfCreating(flags) => creating(arguments[flags]),
        IfCreatingHow(how) => creating(word(&process, arguments[how]).unwrap_or(0)),
        _ => false,
    };
    let changes = match changes {
        Yes => true,
        No => false,
        IfCreating(_) | IfCreatingHow(_) => creates,
        IfNotStream => is_file || arguments[0] > 2 || subject.starts_with("pipe"),
        IfFile => is_file || is_loop,
    };
    // On a pipe or a socket it is waiting that can be interrupted; a disk is never full or broken there.
    let errors = match (on, errors) {
        (Fd(_), [Errno::NOSPC, ..] | [Errno::IO, ..]) if !is_file && !is_loop => {
            let streams = ["read", "write", "writev", "sendfile"];
            if streams.contains(&name) { SLOW } else { NONE }
        }
        // Who cannot come back from another namespace ends at once (`linux::namespace`): a crash, and tested as such.
        _ if name == "setns" && matches!(&*subject, "mnt" | "pid") => NONE,
        // Waking is never interrupted: only FUTEX_WAIT and FUTEX_WAIT_BITSET are.
        _ if name == "futex" && !matches!(arguments[1] & 0x7f, 0 | 9) => NONE,
        (_, OPEN) if creates => &[Errno::MFILE, Errno::NOSPC, Errno::IO],
        (_, errors) => errors,
    };
    Some(Operation {
        name,
        on: subject,
        changes,
        errors,
    })
}

/// What a process that has just become another program is in.
pub(super) fn execution() -> Operation {
    Operation {
        name: "execve",
        on: String::new(),
        changes: true,
        errors: NONE,
    }
}

/// What a descriptor is: the path of a file, else its kind.
fn descriptor(process: &Path, fd: c_int) -> String {
    // A process that was killed at this moment has none any more.
    let link = std::fs::read_link(process.join(format!("fd/{fd}"))).unwrap_or_default();
    let link = link.to_string_lossy();
    match link.split_once(":[") {
        Some((kind, _)) => kind.to_owned(),
        None => link.trim_end_matches(" (deleted)").to_owned(),
    }
}

fn memory(process: &Path, address: u64, length: usize) -> Vec<u8> {
    // Gone with its process, or no address at all (a null pointer): then there is nothing to read.
    let read = || -> std::io::Result<Vec<u8>> {
        let file = File::open(process.join("mem"))?;
        let mut bytes = vec![0; length];
        // Up to the end of the page first: the next one may not be there.
        let first = (4096 - (address % 4096) as usize).min(length);
        let mut count = file.read_at(&mut bytes[..first], address)?;
        if count == length || bytes[..count].contains(&0) {
            bytes.truncate(count);
            return Ok(bytes);
        }
        count += file.read_at(&mut bytes[first..], address + first as u64)?;
        bytes.truncate(count);
        Ok(bytes)
    };
    read().unwrap_or_default()
}

fn text(process: &Path, address: u64) -> String {
    let bytes = memory(process, address, 4096);
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(0);
    OsStr::from_bytes(&bytes[..end])
        .to_string_lossy()
        .into_owned()
}

fn word(process: &Path, address: u64) -> Option<u64> {
    let bytes = File::open(process.join("mem")).and_then(|file| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, address).map(|()| bytes)
    });
    bytes.ok().map(u64::from_ne_bytes)
}

/// Writes over memory of a process that stands still.
pub(super) fn overwrite(pid: Pid, address: u64, bytes: &[u8]) -> std::io::Result<()> {
    let path = format!("/proc/{}/mem", pid.as_raw_nonzero());
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    file.write_all_at(bytes, address)
}
