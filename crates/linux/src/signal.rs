//! Signals as events: a blocked set that is read from a descriptor, and sending any signal number through a pidfd.
//!
//! rustix has neither signalfd(2), sigprocmask(2) nor real-time signals. Numbers are plain `i32` here: which of
//! them have names is the caller's business.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// Some signals, blocked in the calling thread until this is dropped, then as they were.
///
/// A child inherits the mask: who clones while this lives must reset it in the child. Not `Send`: the mask is a
/// thread's.
#[derive(Debug)]
pub struct Blocked {
    set: libc::sigset_t,
    before: libc::sigset_t,
    not_send: PhantomData<*const ()>,
}

impl Blocked {
    /// Blocks `signals` (numbers 1 to 64; KILL and STOP cannot be).
    pub fn new(signals: &[i32]) -> Result<Blocked, Errno> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset writes a whole sigset_t into the pointer that this function owns.
        let mut set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            set.assume_init()
        };
        for signal in signals {
            // SAFETY: `set` was initialised above; an invalid number is refused by the call, not undefined.
            if unsafe { libc::sigaddset(&mut set, *signal) } != 0 {
                return Err(Errno::INVAL);
            }
        }
        let mut before = MaybeUninit::uninit();
        // SAFETY: both pointers are valid for the call, and on success `before` is written.
        let before = unsafe {
            match libc::pthread_sigmask(libc::SIG_BLOCK, &set, before.as_mut_ptr()) {
                0 => before.assume_init(),
                error => return Err(Errno::from_raw_os_error(error)),
            }
        };
        Ok(Blocked {
            set,
            before,
            not_send: PhantomData,
        })
    }

    /// A non-blocking descriptor on which the blocked signals arrive.
    pub fn descriptor(&self) -> Result<SignalFd, Errno> {
        // SAFETY: `set` is initialised; −1 asks for a new descriptor, which nobody else owns yet.
        unsafe {
            let fd = libc::signalfd(-1, &self.set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(last_error());
            }
            Ok(SignalFd(OwnedFd::from_raw_fd(fd)))
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: `before` was filled by pthread_sigmask. It cannot fail for a valid `how`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

/// Runs `work` with no signal blocked in this thread, then restores the mask: for starting a program with
/// [`std::process::Command`], which hands its own mask down. Signals that arrive meanwhile, or waited blocked, act as
/// they would have without [`Blocked`].
pub fn unblocked<T>(work: impl FnOnce() -> T) -> T {
    struct Restore(libc::sigset_t);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: the set was filled by pthread_sigmask. It cannot fail for a valid `how`.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
        }
    }
    let mut none = MaybeUninit::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: sigemptyset writes a whole set, and pthread_sigmask, which cannot fail for a valid `how`, the other one.
    let _restore = unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), before.as_mut_ptr());
        Restore(before.assume_init())
    };
    work()
}

/// Signals to be read.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// The next signal's number, if one has arrived.
    pub fn next(&self) -> Result<Option<i32>, Errno> {
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.0, &mut info) {
            // `ssi_signo`, a u32, is the first member.
            Ok(length) if length == info.len() => {
                let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
                Ok(i32::try_from(number).ok())
            }
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends `signal` (0 only checks) to the process of `pidfd`, real-time signals too.
pub fn send(pidfd: impl AsFd, signal: i32) -> Result<(), Errno> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed for the call, the siginfo pointer is null, which the kernel allows.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd,
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0_u32,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(last_error())
    }
}

fn last_error() -> Errno {
    // SAFETY: errno is this thread's own and always readable.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_pidfd() -> OwnedFd {
        let own = rustix::process::getpid();
        rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty()).expect("a pidfd")
    }

    #[test]
    fn blocked_signals_arrive_in_the_descriptor() {
        // A process-directed signal may go to any thread that does not block it, and the test harness has others:
        // SIGURG and SIGWINCH are ignored there by default, so that only this thread can queue them.
        let blocked = Blocked::new(&[libc::SIGURG]).expect("blocked");
        let descriptor = blocked.descriptor().expect("a signalfd");
        assert_eq!(descriptor.next(), Ok(None));
        // SAFETY: raise sends to the calling thread and touches no memory.
        assert_eq!(unsafe { libc::raise(libc::SIGURG) }, 0);
        assert_eq!(descriptor.next(), Ok(Some(libc::SIGURG)));
        assert_eq!(descriptor.next(), Ok(None));
    }

    #[test]
    fn mask_is_restored() {
        let mask = || {
            std::fs::read_to_string("/proc/thread-self/status")
                .expect("procfs")
                .lines()
                .find_map(|line| line.strip_prefix("SigBlk:\t").map(str::to_owned))
                .expect("SigBlk")
        };
        let before = mask();
        let blocked = Blocked::new(&[libc::SIGUSR2, 35]).expect("blocked");
        let during = mask();
        assert_ne!(during, before);
        assert_eq!(unblocked(mask), "0000000000000000");
        assert_eq!(mask(), during);
        drop(blocked);
        assert_eq!(mask(), before);
    }

    #[test]
    fn number_out_of_range_is_refused() {
        assert!(matches!(Blocked::new(&[65]), Err(Errno::INVAL)));
        assert_eq!(send(own_pidfd(), 65), Err(Errno::INVAL));
        assert_eq!(send(own_pidfd(), 0), Ok(()));
    }
}
