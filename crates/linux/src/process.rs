//! What a process does to itself between clone and exec, and what rustix lacks of it.
//!
//! Nothing here allocates after the values are made, and nothing touches thread-local storage.

use std::ffi::{CStr, CString, NulError, c_char};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;

use crate::descriptor::Fd;
use crate::raw;

/// The null-terminated array of strings that execve(2) takes.
#[derive(Debug)]
pub struct StringArray {
    /// Owns what `pointers` points to; a CString's bytes do not move with it.
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers lead to the heap bytes of `strings`, which are owned, immutable and outlive them.
unsafe impl Send for StringArray {}
// SAFETY: as above; all access is reading.
unsafe impl Sync for StringArray {}

impl StringArray {
    /// From the strings in order.
    ///
    /// # Errors
    /// A string that has a null byte in it.
    pub fn new<S: AsRef<str>>(strings: impl IntoIterator<Item = S>) -> Result<Self, NulError> {
        let strings: Vec<CString> = strings
            .into_iter()
            .map(|string| CString::new(string.as_ref()))
            .collect::<Result<_, _>>()?;
        let mut pointers: Vec<*const c_char> =
            strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(ptr::null());
        Ok(Self { strings, pointers })
    }

    /// The strings.
    #[must_use]
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }
}

/// Becomes another program. Returns only when that failed.
#[must_use]
pub fn execve(path: &CStr, arguments: &StringArray, environment: &StringArray) -> Errno {
    // SAFETY: a C string and two null-terminated arrays of C strings, all alive over the call.
    let result = unsafe {
        raw::syscall(
            libc::SYS_execve,
            [
                path.as_ptr() as usize,
                arguments.pointers.as_ptr() as usize,
                environment.pointers.as_ptr() as usize,
                0,
                0,
                0,
            ],
        )
    };
    raw::check(result).err().unwrap_or(Errno::NOEXEC)
}

/// As [`execve`], of the file behind a descriptor (`O_PATH` will do).
#[must_use]
pub fn execve_fd(
    file: BorrowedFd<'_>,
    arguments: &StringArray,
    environment: &StringArray,
) -> Errno {
    // SAFETY: as for `execve`.
    let result = unsafe {
        raw::syscall(
            libc::SYS_execveat,
            [
                file.as_raw_fd() as usize,
                c"".as_ptr() as usize,
                arguments.pointers.as_ptr() as usize,
                environment.pointers.as_ptr() as usize,
                libc::AT_EMPTY_PATH as usize,
                0,
            ],
        )
    };
    raw::check(result).err().unwrap_or(Errno::NOEXEC)
}

/// Runs `work` in a thread that ends with it: for what a thread does not come back from, such as entering a namespace.
/// A panic in it goes on in the caller.
///
/// # Errors
/// EAGAIN or ENOMEM when there can be no more threads.
pub fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Errno> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .spawn_scoped(scope, work)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        Ok(thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Ends the process at once.
pub fn exit(status: i32) -> ! {
    loop {
        // SAFETY: takes no memory and does not return.
        unsafe { raw::syscall(libc::SYS_exit_group, [status as usize, 0, 0, 0, 0, 0]) };
    }
}

/// Closes every descriptor from `first` on.
///
/// Only for a process that alone uses its file table (after `namespace::unshare(CLONE_FILES)`) and then execs.
///
/// # Errors
/// ENOSYS before Linux 5.9.
pub fn close_from(first: u32) -> Result<(), Errno> {
    // SAFETY: no memory; the caller upholds that nobody uses these descriptors any more.
    raw::check(unsafe {
        raw::syscall(
            libc::SYS_close_range,
            [first as usize, u32::MAX as usize, 0, 0, 0, 0],
        )
    })
    .map(drop)
}

/// Makes `to` another name of `fd`, kept over exec or closed by it.
///
/// Only for a process that alone uses its file table: whatever `to` was is closed.
///
/// # Errors
/// As dup3(2), and EINVAL when the two are the same.
pub fn duplicate_to(fd: BorrowedFd<'_>, to: u32, close_on_exec: bool) -> Result<(), Errno> {
    let flags = if close_on_exec {
        libc::O_CLOEXEC as usize
    } else {
        0
    };
    // SAFETY: no memory; see above for the descriptor that is replaced.
    raw::check(unsafe {
        raw::syscall(
            libc::SYS_dup3,
            [fd.as_raw_fd() as usize, to as usize, flags, 0, 0, 0],
        )
    })
    .map(drop)
}

/// Takes charge of descriptor number `number`, in a process that alone uses its file table and put it there itself by
/// [`duplicate_to`].
#[must_use]
pub fn adopt(number: u32) -> Fd {
    // SAFETY: the caller has made the number and, alone in its table, owns what is behind it.
    Fd::from(unsafe { OwnedFd::from_raw_fd(number as i32) })
}

/// Duplicates `fd` to the lowest free number from `floor` on, close-on-exec.
///
/// # Errors
/// As fcntl(2).
pub fn duplicate_above(fd: BorrowedFd<'_>, floor: u32) -> Result<Fd, Errno> {
    // SAFETY: F_DUPFD_CLOEXEC takes no memory.
    let copy = raw::check(unsafe {
        raw::syscall(
            libc::SYS_fcntl,
            [
                fd.as_raw_fd() as usize,
                libc::F_DUPFD_CLOEXEC as usize,
                floor as usize,
                0,
                0,
                0,
            ],
        )
    })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(Fd::from(unsafe { OwnedFd::from_raw_fd(copy as i32) }))
}

/// Sets every signal to its default action.
///
/// # Errors
/// None known.
pub fn default_signal_actions() -> Result<(), Errno> {
    // The kernel's sigaction, all zero: SIG_DFL, no flags, no restorer, empty mask.
    let action = [0usize; 4];
    for signal in 1..=64usize {
        if signal == libc::SIGKILL as usize || signal == libc::SIGSTOP as usize {
            continue;
        }
        // SAFETY: reads one kernel sigaction (at most 32 bytes) which lives over the call; 8 is the size of its mask.
        raw::check(unsafe {
            raw::syscall(
                libc::SYS_rt_sigaction,
                [signal, action.as_ptr() as usize, 0, 8, 0, 0],
            )
        })?;
    }
    Ok(())
}

/// Sets the mask of blocked signals of the calling thread, and returns the one before.
///
/// # Errors
/// None known.
pub fn set_signal_mask(mask: u64) -> Result<u64, Errno> {
    let mut before = 0u64;
    // SAFETY: reads and writes one 64-bit mask each, both alive over the call.
    raw::check(unsafe {
        raw::syscall(
            libc::SYS_rt_sigprocmask,
            [
                libc::SIG_SETMASK as usize,
                (&raw const mask) as usize,
                (&raw mut before) as usize,
                8,
                0,
                0,
            ],
        )
    })?;
    Ok(before)
}

/// Sets the ids with which the calling thread alone is measured by file systems. Becoming something else than 0
/// takes capabilities over files out of the effective set; see capabilities(7).
///
/// # Errors
/// EPERM when an id was not taken.
pub fn set_file_system_ids(uid: u32, gid: u32) -> Result<(), Errno> {
    for (number, id) in [(libc::SYS_setfsgid, gid), (libc::SYS_setfsuid, uid)] {
        // SAFETY: no memory.
        unsafe { raw::syscall(number, [id as usize, 0, 0, 0, 0, 0]) };
        // These calls return the id before, whether they worked or not; an id that cannot be asks without changing.
        // SAFETY: no memory.
        let now = raw::check(unsafe { raw::syscall(number, [u32::MAX as usize, 0, 0, 0, 0, 0]) })?;
        if now != id as usize {
            return Err(Errno::PERM);
        }
    }
    Ok(())
}

/// Whether the current directory lies below the current root: getcwd(2) says "(unreachable)" otherwise (CVE-2024-21626).
///
/// # Errors
/// As getcwd(2): ENOENT when it was removed.
pub fn is_directory_reachable() -> Result<bool, Errno> {
    let mut buffer = [0u8; 4096];
    // SAFETY: writes at most the length of the buffer.
    raw::check(unsafe {
        raw::syscall(
            libc::SYS_getcwd,
            [buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0, 0],
        )
    })?;
    Ok(buffer[0] == b'/')
}

/// Sets the execution domain (personality(2)).
///
/// # Errors
/// EINVAL.
pub fn set_personality(persona: u32) -> Result<(), Errno> {
    // SAFETY: no memory.
    raw::check(unsafe { raw::syscall(libc::SYS_personality, [persona as usize, 0, 0, 0, 0, 0]) })
        .map(drop)
}

/// Sets class and level of I/O priority of the calling thread (ioprio_set(2)).
///
/// # Errors
/// EPERM, EINVAL.
pub fn set_io_priority(class: u16, level: u16) -> Result<(), Errno> {
    const WHO_PROCESS: usize = 1;
    let value = usize::from(class) << 13 | usize::from(level);
    // SAFETY: no memory.
    raw::check(unsafe { raw::syscall(libc::SYS_ioprio_set, [WHO_PROCESS, 0, value, 0, 0, 0]) })
        .map(drop)
}

/// `struct sched_attr` of sched_setattr(2), its first version.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(C)]
pub struct Scheduling {
    size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For the ordinary policies.
    pub nice: i32,
    /// For FIFO and RR.
    pub priority: u32,
    /// For DEADLINE, in ns.
    pub runtime: u64,
    /// For DEADLINE, in ns.
    pub deadline: u64,
    /// For DEADLINE, in ns.
    pub period: u64,
}

/// Sets the scheduling of the calling thread.
///
/// # Errors
/// As sched_setattr(2).
pub fn set_scheduling(scheduling: Scheduling) -> Result<(), Errno> {
    let scheduling = Scheduling {
        size: size_of::<Scheduling>() as u32,
        ..scheduling
    };
    // SAFETY: reads one sched_attr of the size that it carries, alive over the call.
    raw::check(unsafe {
        raw::syscall(
            libc::SYS_sched_setattr,
            [0, (&raw const scheduling) as usize, 0, 0, 0, 0],
        )
    })
    .map(drop)
}

/// While one of these lives, the program cannot be inspected (`PR_SET_DUMPABLE` 0): nobody but who has CAP_SYS_PTRACE over the
/// user namespace that it was started in may read its memory, or open its executable or descriptors through /proc.
///
/// For the time in which a child that shares our memory is inside of a container (CVE-2016-9962, CVE-2019-5736).
#[derive(Debug)]
pub struct Undumpable(());

static UNDUMPABLE: std::sync::Mutex<(usize, bool)> = std::sync::Mutex::new((0, false));

impl Undumpable {
    /// Begins. Nests, also over threads.
    ///
    /// # Errors
    /// None known.
    pub fn begin() -> Result<Self, Errno> {
        // A panic while it is held is not possible; the state is two plain values.
        let mut state = UNDUMPABLE
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if state.0 == 0 {
            state.1 = dumpable(libc::PR_GET_DUMPABLE, 0)? == 1;
            dumpable(libc::PR_SET_DUMPABLE, 0)?;
        }
        state.0 += 1;
        Ok(Self(()))
    }
}

impl Drop for Undumpable {
    fn drop(&mut self) {
        let mut state = UNDUMPABLE
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        state.0 -= 1;
        if state.0 == 0 && state.1 {
            // Setting what was set before cannot fail.
            let _ = dumpable(libc::PR_SET_DUMPABLE, 1);
        }
    }
}

fn dumpable(operation: i32, value: usize) -> Result<usize, Errno> {
    // SAFETY: these operations take no memory.
    raw::check(unsafe { raw::syscall(libc::SYS_prctl, [operation as usize, value, 0, 0, 0, 0]) })
}

/// Makes the calling thread root of its user namespace: all user and group ids 0, no supplementary groups where the
/// namespace lets groups be dropped. For a process that has just joined or made the namespace.
///
/// # Errors
/// As setresuid(2) and setresgid(2).
pub fn become_root() -> Result<(), Errno> {
    let (root, wheel) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    // EPERM: /proc/self/setgroups says deny, as it must for a single-id map (user_namespaces(7)).
    match rustix::thread::set_thread_groups(&[]) {
        Ok(()) | Err(Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    rustix::thread::set_thread_res_gid(wheel, wheel, wheel)?;
    rustix::thread::set_thread_res_uid(root, root, root)
}

/// Waits for any signal, all of which the caller has blocked ([`set_signal_mask`]), and takes it. Returns its number.
///
/// # Errors
/// EINTR.
pub fn wait_for_signal() -> Result<i32, Errno> {
    let all = u64::MAX;
    // SAFETY: reads one 64-bit mask, alive over the call; no information and no timeout are asked for.
    raw::check(unsafe {
        raw::syscall(
            libc::SYS_rt_sigtimedwait,
            [(&raw const all) as usize, 0, 0, 8, 0, 0],
        )
    })
    .map(|signal| signal as i32)
}

/// The most memory nodes that a kernel can have (`MAX_NUMNODES` of the largest configuration).
pub const MEMORY_NODES: usize = 1024;

/// Where the memory of the calling process comes from: set_mempolicy(2), with `mode` including its flags. No nodes are no
/// mask.
///
/// # Errors
/// As set_mempolicy(2): EINVAL for a node that is not there, ENOSYS without NUMA.
pub fn set_memory_policy(mode: u32, nodes: Option<&[u64; MEMORY_NODES / 64]>) -> Result<(), Errno> {
    let (mask, count) = match nodes {
        // The kernel counts one bit more than it reads.
        Some(nodes) => (nodes.as_ptr() as usize, MEMORY_NODES + 1),
        None => (0, 0),
    };
    // SAFETY: the kernel reads `MEMORY_NODES` bits, all of which the array has, or nothing.
    raw::check(unsafe {
        raw::syscall(
            libc::SYS_set_mempolicy,
            [mode as usize, mask, count, 0, 0, 0],
        )
    })
    .map(drop)
}

/// Starts a program with `mask` as its blocked signals, rather than the caller's.
///
/// # Errors
/// As `Command::spawn`.
pub fn spawn_with_mask(
    command: &mut std::process::Command,
    mask: u64,
) -> std::io::Result<std::process::Child> {
    use std::os::unix::process::CommandExt;
    // SAFETY: the closure makes one system call and allocates nothing, as is asked between fork and exec.
    unsafe {
        command.pre_exec(move || {
            set_signal_mask(mask)?;
            Ok(())
        })
    }
    .spawn()
}
