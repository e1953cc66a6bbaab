//! Tracing processes by ptrace(2): for the harness of the tests, which stops the shipped binary at each system call, kills
//! it there or makes the call fail. The engine itself traces nobody.
//!
//! A tracer is one *thread*: whoever calls [`spawn`] must also call everything else, and [`wait`] hears of this thread's
//! tracees alone, so that any number of tracers live in one process. Every tracee dies with its tracer
//! (`PTRACE_O_EXITKILL`) unless it was let go of by [`detach`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{Pid, WaitOptions};

use crate::raw;

const SEIZE: usize = 0x4206;
const INTERRUPT: usize = 0x4207;
const LISTEN: usize = 0x4208;
const GET_SYSCALL_INFO: usize = 0x420e;
const EVENT_STOP: i32 = 128;
/// `__WALL` and `__WNOTHREAD`: clone children of any kind, of this thread only.
const WAIT_ALL_OF_THREAD: u32 = 0x4000_0000 | 0x2000_0000;

const OPTIONS: i32 = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_EXITKILL;

/// What a tracee did. After all but `Exited` and `Killed` it stands still until it is resumed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What {
    /// It enters or leaves a system call: [`call`] says which.
    Call,
    /// It made another process or thread, which is traced as well and stops as [`What::Stopped`].
    Born(Pid),
    /// It has become another program; what [`call`] said of its memory is void.
    Executed,
    /// It is new, or stands after [`interrupt`].
    Stopped,
    /// All its threads were stopped by a signal: [`listen`] leaves it so.
    GroupStopped,
    /// It is about to get this signal, which [`resume`] passes on.
    Signal(i32),
    /// It has ended with this code.
    Exited(i32),
    /// It has ended by this signal.
    Killed(i32),
}

/// One stop of one tracee.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Event {
    /// The thread, by its id.
    pub pid: Pid,
    /// What it did.
    pub what: What,
}

/// A system call at which a tracee stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Call {
    /// Before it.
    Entry {
        /// `SYS_*`.
        number: i64,
        /// As they stand in the registers.
        arguments: [u64; 6],
    },
    /// After it.
    Exit {
        /// What it returns; an error is negative.
        result: i64,
    },
}

fn request(request: usize, pid: Pid, address: usize, data: usize) -> Result<usize, Errno> {
    let pid = pid.as_raw_nonzero().get() as usize;
    // SAFETY: each caller below passes for `address` and `data` what its request asks for, alive over the call.
    raw::check(unsafe { raw::syscall(libc::SYS_ptrace, [request, pid, address, data, 0, 0]) })
}

/// Starts a program that is traced from its exec on, which is its first [`Event`], by the calling thread.
///
/// The child is also a child of this process; but only [`wait`] can tell of its end, since whoever waits for a tracee
/// takes its end away from all others.
///
/// # Errors
/// What [`Command::spawn`] says, and EPERM where tracing is not permitted.
pub fn spawn(mut command: Command) -> io::Result<Child> {
    let pair = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    );
    let (ours, theirs) = pair?;
    let gate: OwnedFd = theirs.try_clone()?;
    let stand = move || -> io::Result<()> {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        rustix::io::write(&gate, &own.to_ne_bytes())?;
        rustix::io::read(gate.as_fd(), &mut [0u8; 1])?;
        Ok(())
    };
    // SAFETY: between fork and exec this makes three system calls through rustix, which neither allocates nor locks.
    unsafe { command.pre_exec(stand) };
    // `spawn` returns only after the exec, which waits for us: so another thread waits for it.
    std::thread::scope(|scope| {
        let spawned = scope.spawn(move || {
            let child = command.spawn();
            // A child that could not be made says nothing: our end of the pair must see that.
            drop((command, theirs));
            child
        });
        let mut number = [0u8; 4];
        let seized = match rustix::io::read(&ours, &mut number)? {
            4 => match Pid::from_raw(i32::from_ne_bytes(number)) {
                Some(pid) => request(SEIZE, pid, 0, OPTIONS as usize),
                None => Err(Errno::SRCH),
            },
            _ => Ok(0),
        };
        if seized.is_ok() {
            // Nobody reads it where the child could not be made, which `spawn` reports.
            let _ = rustix::io::write(&ours, &[1]);
        }
        drop(ours);
        let child = spawned
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        seized?;
        child
    })
}

/// Begins to trace a process that runs already and has one thread: it stops as [`What::Stopped`].
///
/// # Errors
/// ESRCH when it is gone, EPERM when somebody traces it.
pub fn attach(pid: Pid) -> Result<(), Errno> {
    request(SEIZE, pid, 0, OPTIONS as usize)?;
    interrupt(pid)
}

/// What there is to hear of tracees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum News {
    /// One of them stopped or ended.
    Of(Event),
    /// All that live run (only where not waited).
    Quiet,
    /// There is no tracee left.
    Over,
}

/// The next event of a tracee of the calling thread; waits for it where `patient`.
///
/// # Errors
/// None known but what wait4(2) says; EINTR is waited out.
pub fn wait(patient: bool) -> Result<News, Errno> {
    let mut options = WaitOptions::from_bits_retain(WAIT_ALL_OF_THREAD);
    options.set(WaitOptions::NOHANG, !patient);
    let (pid, status) = loop {
        // Not `waitpid` without a pid: that hears of the own process group only.
        match rustix::process::wait(options) {
            Ok(Some(found)) => break found,
            Ok(None) if !patient => return Ok(News::Quiet),
            Ok(None) | Err(Errno::INTR) => {}
            Err(Errno::CHILD) => return Ok(News::Over),
            Err(error) => return Err(error),
        }
    };
    if let Some(code) = status.exit_status() {
        let what = What::Exited(code);
        return Ok(News::Of(Event { pid, what }));
    }
    if let Some(signal) = status.terminating_signal() {
        let what = What::Killed(signal);
        return Ok(News::Of(Event { pid, what }));
    }
    let event = status.as_raw() >> 16;
    let signal = status.stopping_signal().unwrap_or(0);
    let what = match event {
        0 if signal == libc::SIGTRAP | 0x80 => What::Call,
        0 => What::Signal(signal),
        libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
            // A tracee that is killed at this very moment has no message any more; its end follows.
            match message(pid).ok().and_then(Pid::from_raw) {
                Some(child) => What::Born(child),
                None => What::Stopped,
            }
        }
        libc::PTRACE_EVENT_EXEC => What::Executed,
        EVENT_STOP if signal != libc::SIGTRAP => What::GroupStopped,
        _ => What::Stopped,
    };
    Ok(News::Of(Event { pid, what }))
}

fn message(pid: Pid) -> Result<i32, Errno> {
    let mut message = 0usize;
    // The kernel writes one unsigned long.
    request(
        libc::PTRACE_GETEVENTMSG as usize,
        pid,
        0,
        (&raw mut message) as usize,
    )?;
    Ok(message as i32)
}

/// Lets a tracee go on to the next entry or exit of a system call, with `signal` (0: none).
///
/// # Errors
/// ESRCH when it does not stand still, or was killed.
pub fn resume(pid: Pid, signal: i32) -> Result<(), Errno> {
    request(libc::PTRACE_SYSCALL as usize, pid, 0, signal as usize).map(drop)
}

/// Leaves a tracee of [`What::GroupStopped`] stopped until SIGCONT.
///
/// # Errors
/// As [`resume`].
pub fn listen(pid: Pid) -> Result<(), Errno> {
    request(LISTEN, pid, 0, 0).map(drop)
}

/// Ends the tracing of a tracee that stands still; it goes on, with `signal` (0: none).
///
/// # Errors
/// As [`resume`].
pub fn detach(pid: Pid, signal: i32) -> Result<(), Errno> {
    request(libc::PTRACE_DETACH as usize, pid, 0, signal as usize).map(drop)
}

/// Makes a running tracee stop, as [`What::Stopped`] or at whatever else stops it first.
///
/// # Errors
/// ESRCH when it is gone.
pub fn interrupt(pid: Pid) -> Result<(), Errno> {
    request(INTERRUPT, pid, 0, 0).map(drop)
}

/// `struct ptrace_syscall_info`: the union as its longest member.
#[repr(C)]
#[derive(Default)]
struct Info {
    operation: u8,
    padding: [u8; 3],
    architecture: u32,
    instruction: u64,
    stack: u64,
    values: [u64; 8],
}

/// The system call at which a tracee of [`What::Call`] stands.
///
/// # Errors
/// ESRCH when it was killed meanwhile; EIO before Linux 5.3.
pub fn call(pid: Pid) -> Result<Call, Errno> {
    let mut info = Info::default();
    // The kernel writes at most as many bytes as `address` says.
    request(
        GET_SYSCALL_INFO,
        pid,
        size_of::<Info>(),
        (&raw mut info) as usize,
    )?;
    match info.operation {
        1 => {
            let [number, arguments @ .., _] = info.values;
            Ok(Call::Entry {
                number: number as i64,
                arguments,
            })
        }
        2 => Ok(Call::Exit {
            result: info.values[0] as i64,
        }),
        _ => Err(Errno::INVAL),
    }
}

type Registers = libc::user_regs_struct;

const GENERAL: usize = 1;

fn set<T>(operation: libc::c_uint, pid: Pid, kind: usize, value: &mut T) -> Result<(), Errno> {
    let mut vector = libc::iovec {
        iov_base: (&raw mut *value).cast(),
        iov_len: size_of::<T>(),
    };
    // The kernel reads or writes the value, of which the vector says the length.
    request(operation as usize, pid, kind, (&raw mut vector) as usize).map(drop)
}

fn registers(pid: Pid) -> Result<Registers, Errno> {
    // SAFETY: plain numbers, for which zero is a value.
    let mut registers: Registers = unsafe { std::mem::zeroed() };
    set(libc::PTRACE_GETREGSET, pid, GENERAL, &mut registers)?;
    Ok(registers)
}

/// Makes a tracee that enters a system call skip it; at its exit [`set_result`] says what it returns.
///
/// # Errors
/// As [`resume`].
pub fn skip(pid: Pid) -> Result<(), Errno> {
    #[cfg(target_arch = "x86_64")]
    {
        let mut registers = registers(pid)?;
        registers.orig_rax = u64::MAX;
        set(libc::PTRACE_SETREGSET, pid, GENERAL, &mut registers)
    }
    #[cfg(target_arch = "aarch64")]
    {
        const SYSTEM_CALL: usize = 0x404;
        set(libc::PTRACE_SETREGSET, pid, SYSTEM_CALL, &mut -1i32)
    }
}

/// Sets what the system call returns that a tracee is leaving; an error is negative.
///
/// # Errors
/// As [`resume`].
pub fn set_result(pid: Pid, result: i64) -> Result<(), Errno> {
    let mut registers = registers(pid)?;
    #[cfg(target_arch = "x86_64")]
    {
        registers.rax = result as u64;
    }
    #[cfg(target_arch = "aarch64")]
    {
        registers.regs[0] = result as u64;
    }
    set(libc::PTRACE_SETREGSET, pid, GENERAL, &mut registers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::Stdio;

    /// Runs a program to its end and asks `at` at each entry what its call returns instead, if anything.
    fn run(command: Command, mut at: impl FnMut(i64) -> Option<i64>) -> (Child, i32) {
        let child = spawn(command).unwrap();
        let own = Pid::from_child(&child);
        let mut code = None;
        let mut forced = None;
        while let News::Of(Event { pid, what }) = wait(true).unwrap() {
            match what {
                What::Exited(status) if pid == own => code = Some(status),
                What::Exited(_) | What::Killed(_) => continue,
                What::Call => match call(pid).unwrap() {
                    Call::Entry { number, .. } => {
                        forced = at(number);
                        if forced.is_some() {
                            skip(pid).unwrap();
                        }
                    }
                    Call::Exit { .. } => {
                        if let Some(result) = forced.take() {
                            set_result(pid, result).unwrap();
                        }
                    }
                },
                _ => {}
            }
            let signal = if let What::Signal(signal) = what {
                signal
            } else {
                0
            };
            // It may be gone.
            let _ = resume(pid, signal);
        }
        (child, code.unwrap())
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_traced_program_is_seen_with_its_children_and_ends_as_it_would() {
        let mut execs = 0;
        let (_, code) = run(shell("/bin/true; exit 7"), |number| {
            execs += usize::from(number == libc::SYS_execve);
            None
        });
        assert_eq!((code, execs), (7, 1));
    }

    #[test]
    fn a_call_that_is_skipped_returns_what_is_said_and_does_nothing() {
        let mut command = shell("cd / && pwd");
        command.stdout(Stdio::piped());
        let error = -i64::from(libc::ENOTDIR);
        let (child, code) = run(command, |number| {
            (number == libc::SYS_chdir).then_some(error)
        });
        let mut text = String::new();
        child.stdout.unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((code, text.as_str()), (2, ""));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let error = spawn(Command::new("/nowhere/at/all")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(wait(true).unwrap(), News::Over);
    }
}
