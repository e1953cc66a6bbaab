//! A process that runs beside its parent, in its memory or in a copy, until it execs.
//!
//! ```text
//! parent ── clone3 ──┬── goes on ───────────────── wait on word 0 ──┐
//!                    └── entry(&plan) on its own stack ── execve ───┴─ the kernel stores 0 in word 0 and wakes it
//! ```
//!
//! Shared memory ([`Sharing::Memory`]) is the fast way: no page table is copied, and the two signal each other through
//! the plan. What it asks of `entry` is in [`Process::spawn`]. The other way ([`Sharing::Copy`]) is for what the kernel denies a
//! process that shares its memory (joining a time namespace); there the parent sleeps until the child execs or exits.
//!
//! The words of a [`Mailbox`] are visible to both in either way.

use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::descriptor::Fd;
use crate::{futex, process, raw};

const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
const CLONE_INTO_CGROUP: u64 = 1 << 33;
const PAGE: usize = 4096;

/// A page of words that a process and its child both see, whatever else they share.
///
/// Word [`Mailbox::LIFE`] belongs to this module: [`Mailbox::UNDER_WAY`] and above while the child lives before exec, 0 after.
#[derive(Debug)]
pub struct Mailbox(ptr::NonNull<AtomicU32>);

// SAFETY: it is a page of atomics.
unsafe impl Send for Mailbox {}
// SAFETY: as above.
unsafe impl Sync for Mailbox {}

impl Mailbox {
    /// The number of words.
    pub const WORDS: usize = 64;
    /// The index of the word that the kernel clears at exec and exit.
    pub const LIFE: usize = 0;
    /// Words of this module for a successor; callers use those from 1 to 59.
    const SUCCESSOR_PID: usize = 60;
    const SUCCESSOR_PIDFD: usize = 61;
    const OWN_END: usize = 62;
    /// What that word holds from before the clone; the child may store greater values.
    pub const UNDER_WAY: u32 = 1;

    /// A mailbox of zeros.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new() -> Result<Self, Errno> {
        // SAFETY: a new anonymous mapping at an address that the kernel chooses aliases nothing.
        let page = raw::check(unsafe {
            raw::syscall(
                libc::SYS_mmap,
                [
                    0,
                    PAGE,
                    (libc::PROT_READ | libc::PROT_WRITE) as usize,
                    (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as usize,
                    usize::MAX,
                    0,
                ],
            )
        })?;
        ptr::NonNull::new(page as *mut AtomicU32)
            .map(Self)
            .ok_or(Errno::NOMEM)
    }

    /// A word.
    ///
    /// # Panics
    /// Past [`Mailbox::WORDS`]; indices are constants.
    #[must_use]
    pub fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < Self::WORDS);
        // SAFETY: inside the page, which is mapped, zeroed and aligned for as long as `self` lives.
        unsafe { self.0.add(index).as_ref() }
    }

    /// Hands over a descriptor by its number; for two processes that share a file table.
    ///
    /// # Panics
    /// As [`Mailbox::word`].
    pub fn put(&self, index: usize, fd: Fd) {
        let fd = OwnedFd::from(fd).into_raw_fd();
        let before = self.word(index).swap(fd as u32 + 1, Ordering::AcqRel);
        if before != 0 {
            // SAFETY: what was in the word came from this function and was owned by the mailbox.
            drop(Fd::from(unsafe { OwnedFd::from_raw_fd(before as i32 - 1) }));
        }
    }

    /// What [`Mailbox::put`] handed over, left where it is. Nobody may take it while it is borrowed.
    ///
    /// # Panics
    /// As [`Mailbox::word`].
    pub fn borrow(&self, index: usize) -> Option<BorrowedFd<'_>> {
        let number = self.word(index).load(Ordering::Acquire);
        // SAFETY: the descriptor of this number is owned by the mailbox until it is taken.
        (number != 0).then(|| unsafe { BorrowedFd::borrow_raw(number as i32 - 1) })
    }

    /// Takes out what [`Mailbox::put`] handed over.
    ///
    /// # Panics
    /// As [`Mailbox::word`].
    pub fn take(&self, index: usize) -> Option<Fd> {
        let number = self.word(index).swap(0, Ordering::AcqRel);
        // SAFETY: `put` gave up a descriptor of this number to the mailbox, in this file table.
        (number != 0).then(|| Fd::from(unsafe { OwnedFd::from_raw_fd(number as i32 - 1) }))
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives `self`.
        // It cannot fail for a whole mapping that exists.
        let _ = unsafe {
            raw::syscall(
                libc::SYS_munmap,
                [self.0.as_ptr() as usize, PAGE, 0, 0, 0, 0],
            )
        };
    }
}

/// A child's stack, with a page below it that may not be touched.
#[derive(Debug)]
struct Stack {
    base: usize,
    length: usize,
}

impl Stack {
    fn new(size: usize) -> Result<Self, Errno> {
        let length = size.next_multiple_of(PAGE) + PAGE;
        // SAFETY: a new anonymous mapping aliases nothing.
        let base = raw::check(unsafe {
            raw::syscall(
                libc::SYS_mmap,
                [
                    0,
                    length,
                    (libc::PROT_READ | libc::PROT_WRITE) as usize,
                    (libc::MAP_PRIVATE
                        | libc::MAP_ANONYMOUS
                        | libc::MAP_STACK
                        | libc::MAP_NORESERVE) as usize,
                    usize::MAX,
                    0,
                ],
            )
        })?;
        let stack = Self { base, length };
        // SAFETY: the first page of our own mapping.
        raw::check(unsafe { raw::syscall(libc::SYS_mprotect, [base, PAGE, 0, 0, 0, 0]) })?;
        Ok(stack)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our own mapping; `Process` sees to it that the child does not run on it any more.
        // It cannot fail for a whole mapping that exists.
        let _ = unsafe { raw::syscall(libc::SYS_munmap, [self.base, self.length, 0, 0, 0, 0]) };
    }
}

/// `struct clone_args`.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// What of the parent's memory the child has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sharing {
    /// The same memory, at the same time.
    Memory,
    /// A copy; the parent sleeps until the child has exec'd or exited.
    Copy,
}

/// What the child starts with.
#[derive(Debug)]
pub struct Birth<'a> {
    /// `CLONE_NEW*` ([`crate::namespace`]).
    pub namespaces: u64,
    /// A cgroup v2 directory to be born in (Linux 5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Memory.
    pub sharing: Sharing,
    /// Bytes of stack.
    pub stack: usize,
    /// Whether the child will hand over to a [`Succession`].
    pub successor: bool,
}

/// What runs in the child.
///
/// Both keep to the contract of [`Process::spawn`].
#[derive(Debug)]
pub struct Entry<P> {
    /// The child itself.
    pub child: fn(&P, &Succession<'_, P>) -> !,
    /// Its successor, if it asks for one.
    pub successor: fn(&P) -> !,
}

struct Payload<P> {
    plan: P,
    entry: Entry<P>,
    /// The successor's stack.
    second: Option<Stack>,
}

extern "C" fn begin<P: AsRef<Mailbox>>(payload: *const Payload<P>) -> ! {
    // SAFETY: `Process::spawn` passes a payload that lives until the child has exec'd or died.
    let payload = unsafe { &*payload };
    (payload.entry.child)(&payload.plan, &Succession { payload })
}

extern "C" fn begin_successor<P>(payload: *const Payload<P>) -> ! {
    // SAFETY: as in `begin`.
    let payload = unsafe { &*payload };
    (payload.entry.successor)(&payload.plan)
}

/// The child's way to hand over to a successor: a sibling, child of the same parent, born in namespaces that only a process
/// which has joined another user namespace can make.
pub struct Succession<'a, P> {
    payload: &'a Payload<P>,
}

impl<P: AsRef<Mailbox>> Succession<'_, P> {
    /// Starts the successor and ends the calling child with status 0. Returns only when that failed.
    pub fn succeed(&self, namespaces: u64) -> Errno {
        let mailbox = self.payload.plan.as_ref();
        let Some(stack) = &self.payload.second else {
            return Errno::INVAL;
        };
        // The life word goes to the successor; our own end is told by the wait of the parent.
        // SAFETY: a word of the mailbox, which outlives this process.
        let told = unsafe {
            raw::syscall(
                libc::SYS_set_tid_address,
                [
                    mailbox.word(Mailbox::OWN_END).as_ptr() as usize,
                    0,
                    0,
                    0,
                    0,
                    0,
                ],
            )
        };
        if let Err(error) = raw::check(told) {
            return error;
        }
        let arguments = CloneArguments {
            flags: namespaces
                | (libc::CLONE_FILES
                    | libc::CLONE_VM
                    | libc::CLONE_PIDFD
                    | libc::CLONE_PARENT
                    | libc::CLONE_PARENT_SETTID
                    | libc::CLONE_CHILD_CLEARTID) as u64,
            pidfd: mailbox.word(Mailbox::SUCCESSOR_PIDFD).as_ptr() as u64,
            child_tid: mailbox.word(Mailbox::LIFE).as_ptr() as u64,
            parent_tid: mailbox.word(Mailbox::SUCCESSOR_PID).as_ptr() as u64,
            stack: (stack.base + PAGE) as u64,
            stack_size: (stack.length - PAGE) as u64,
            ..CloneArguments::default()
        };
        // SAFETY: as in `Process::spawn`; the second stack is used by the successor alone.
        let result = raw::check(unsafe {
            clone3(
                &raw const arguments,
                begin_successor::<P> as *const c_void,
                (self.payload as *const Payload<P>).cast(),
            )
        });
        match result {
            Ok(_) => process::exit(0),
            Err(error) => {
                // The life word is ours again.
                // SAFETY: as above.
                unsafe {
                    raw::syscall(
                        libc::SYS_set_tid_address,
                        [mailbox.word(Mailbox::LIFE).as_ptr() as usize, 0, 0, 0, 0, 0],
                    )
                };
                error
            }
        }
    }
}

/// A child, with the plan that it walks.
///
/// Dropping it before the exec kills the child and waits for it; only then are plan and stack freed.
#[derive(Debug)]
pub struct Process<P: AsRef<Mailbox> + Send + Sync> {
    payload: Box<Payload<P>>,
    /// Held for its drop.
    _stack: Stack,
    pid: Pid,
    /// `None` once it is released or reaped.
    pidfd: Option<OwnedFd>,
}

impl<P: std::fmt::Debug> std::fmt::Debug for Payload<P> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.plan.fmt(formatter)
    }
}

impl<P: AsRef<Mailbox> + Send + Sync> Process<P> {
    /// Starts a child that runs `entry` over `plan`, sharing the file table, with all signals blocked and no handlers.
    ///
    /// `entry` must keep to this, which the compiler cannot check: no allocation and no deallocation, no lock, no
    /// thread-local storage (so no std I/O, whose errors live there), no panic, no return. System calls go through rustix
    /// or this crate. A plan whose interior changes does so by atomics only.
    ///
    /// # Errors
    /// As clone3(2).
    pub fn spawn(birth: &Birth<'_>, plan: P, entry: Entry<P>) -> Result<Self, Errno> {
        let stack = Stack::new(birth.stack)?;
        let second = if birth.successor {
            Some(Stack::new(birth.stack)?)
        } else {
            None
        };
        let payload = Box::new(Payload {
            plan,
            entry,
            second,
        });
        let life = payload.plan.as_ref().word(Mailbox::LIFE);
        life.store(Mailbox::UNDER_WAY, Ordering::Release);
        let mut pidfd: i32 = -1;
        let mut arguments = CloneArguments {
            flags: birth.namespaces
                | (libc::CLONE_FILES | libc::CLONE_PIDFD | libc::CLONE_CHILD_CLEARTID) as u64
                | CLONE_CLEAR_SIGHAND
                | match birth.sharing {
                    Sharing::Memory => libc::CLONE_VM as u64,
                    Sharing::Copy => libc::CLONE_VFORK as u64,
                },
            pidfd: (&raw mut pidfd) as u64,
            child_tid: (life as *const AtomicU32) as u64,
            exit_signal: libc::SIGCHLD as u64,
            stack: (stack.base + PAGE) as u64,
            stack_size: (stack.length - PAGE) as u64,
            ..CloneArguments::default()
        };
        if let Some(cgroup) = birth.cgroup {
            arguments.flags |= CLONE_INTO_CGROUP;
            arguments.cgroup = cgroup.as_raw_fd() as u64;
        }
        // A handler of the parent must not run in the child, in the parent's memory; nor may a signal for the parent's whole
        // process group end the child half-way unseen.
        let mask = process::set_signal_mask(u64::MAX);
        // SAFETY: the arguments describe a live stack and live words; the payload is boxed and kept by the `Process` below
        // until the child has exec'd or died. What `entry` may do is its contract above.
        let result = raw::check(unsafe {
            clone3(
                &raw const arguments,
                begin::<P> as *const c_void,
                (&raw const *payload).cast(),
            )
        });
        if let Ok(mask) = mask {
            // Setting a mask that was in force before cannot fail.
            let _ = process::set_signal_mask(mask);
        }
        match result {
            Err(error) => Err(error),
            Ok(pid) => {
                if birth.sharing == Sharing::Copy {
                    // The kernel clears the word only for memory that is shared; the end of the sleep says the same.
                    life.store(0, Ordering::Release);
                }
                // SAFETY: the kernel made the descriptor for us, close-on-exec.
                let pidfd = Some(unsafe { OwnedFd::from_raw_fd(pidfd) });
                // clone3 never gives a parent pid 0.
                let pid = Pid::from_raw(pid as i32).unwrap_or(Pid::INIT);
                Ok(Self {
                    payload,
                    _stack: stack,
                    pid,
                    pidfd,
                })
            }
        }
    }

    /// The plan.
    pub fn plan(&self) -> &P {
        &self.payload.plan
    }

    /// Its pid in the caller's pid namespace.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Its descriptor.
    ///
    /// # Panics
    /// Never: it is taken only by methods that consume.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        match &self.pidfd {
            Some(pidfd) => pidfd.as_fd(),
            None => unreachable!("the descriptor leaves only with the process"),
        }
    }

    fn life(&self) -> &AtomicU32 {
        self.payload.plan.as_ref().word(Mailbox::LIFE)
    }

    /// After the child has ended by [`Succession::succeed`]: makes this the successor's handle.
    ///
    /// # Errors
    /// ECHILD when the child failed instead; the mailbox says why.
    pub fn follow(&mut self) -> Result<(), Errno> {
        let Some(pidfd) = &self.pidfd else {
            return Err(Errno::CHILD);
        };
        let status = loop {
            match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
                Err(Errno::INTR) => {}
                result => break result?,
            }
        };
        if status.is_none_or(|status| status.exit_status() != Some(0)) {
            // It is reaped, so there is nothing left to kill.
            self.pidfd = None;
            return Err(Errno::CHILD);
        }
        let mailbox = self.payload.plan.as_ref();
        let pid = mailbox.word(Mailbox::SUCCESSOR_PID).load(Ordering::Acquire);
        let number = mailbox
            .word(Mailbox::SUCCESSOR_PIDFD)
            .load(Ordering::Acquire);
        self.pid = Pid::from_raw(pid as i32).ok_or(Errno::CHILD)?;
        // SAFETY: clone3 made this descriptor in the table that the child shared with us, and nobody else knows it.
        self.pidfd = Some(unsafe { OwnedFd::from_raw_fd(number as i32) });
        Ok(())
    }

    /// Waits while the life word is `value`; returns what it became. 0 is exec or death.
    pub fn wait_while(&self, value: u32) -> u32 {
        futex::wait_while(self.life(), value, None)
    }

    /// Waits until the child has exec'd or died.
    pub fn wait_until_gone(&self) {
        loop {
            let value = self.life().load(Ordering::Acquire);
            if value == 0 {
                return;
            }
            futex::wait_while(self.life(), value, None);
        }
    }

    /// After the exec: the process is a program of its own. Returns its descriptor and the plan.
    ///
    /// # Errors
    /// `self`, while the child is still under way.
    pub fn into_executed(mut self) -> Result<(Pid, OwnedFd), Self> {
        if self.life().load(Ordering::Acquire) != 0 {
            return Err(self);
        }
        match self.pidfd.take() {
            Some(pidfd) => Ok((self.pid, pidfd)),
            None => Err(self),
        }
    }

    /// Lets the child go on its own before its exec: plan and stack are never freed in this process, which is about
    /// to end.
    pub fn leak(self) -> (Pid, Option<OwnedFd>) {
        let mut process = std::mem::ManuallyDrop::new(self);
        (process.pid, process.pidfd.take())
    }
}

impl<P: AsRef<Mailbox> + Send + Sync> Drop for Process<P> {
    fn drop(&mut self) {
        let Some(pidfd) = &self.pidfd else { return };
        // It may be dead already; then there is nothing to kill.
        let _ = pidfd_send_signal(pidfd, Signal::KILL);
        // A killed child leaves the shared memory at once, whatever it was doing.
        self.wait_until_gone();
        // Reaps it. ECHILD: somebody waits for all children, or SIGCHLD is ignored; it is gone in either case.
        while let Err(Errno::INTR) = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {}
    }
}

/// clone3(2), whose child calls `entry(payload)` on the stack of the arguments.
///
/// # Safety
/// `arguments` names a live stack of its own for the child; `payload` lives until the child has exec'd or died.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(
    arguments: *const CloneArguments,
    entry: *const c_void,
    payload: *const c_void,
) -> isize {
    let result: isize;
    // SAFETY: the child starts behind the system call with its own stack pointer and the parent's other registers; it never
    // gets past the call of `entry`, which does not return. rbp is cleared to end a back trace there.
    unsafe {
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => result,
            in("rdi") arguments,
            in("rsi") size_of::<CloneArguments>(),
            in("r12") payload,
            in("r13") entry,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// clone3(2), whose child calls `entry(payload)` on the stack of the arguments.
///
/// # Safety
/// `arguments` names a live stack of its own for the child; `payload` lives until the child has exec'd or died.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(
    arguments: *const CloneArguments,
    entry: *const c_void,
    payload: *const c_void,
) -> isize {
    let result: isize;
    // SAFETY: as on x86_64.
    unsafe {
        core::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk 1",
            "2:",
            in("x8") libc::SYS_clone3 as isize,
            inlateout("x0") arguments as isize => result,
            in("x1") size_of::<CloneArguments>(),
            in("x20") payload,
            in("x21") entry,
            lateout("x30") _,
        );
    }
    result
}
