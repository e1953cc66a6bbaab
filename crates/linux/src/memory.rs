//! Giving back memory that a process needed once, so that one that idles for days costs little.

#![allow(unsafe_code)]

use rustix::mm::{Advice, madvise};

/// Stack below the current frame that is left alone: the red zone, and room for the calls made here.
const MARGIN: usize = 8 * 1024;

/// Returns free heap pages to the kernel, and the pages of this thread's stack below the caller's frames if the
/// thread is the process's first. They read as zero when they are used again.
pub fn trim() {
    if rustix::thread::gettid() == rustix::process::getpid() {
        trim_stack();
    }
    // The heap comes second: finding the stack needed some of it.
    // SAFETY: malloc_trim only touches the allocator's own state, under its own locks.
    unsafe { libc::malloc_trim(0) };
}

/// The main thread's stack grows down; everything below the stack pointer is the rest of calls that have returned.
#[inline(never)]
fn trim_stack() {
    let marker = 0_u8;
    let here = std::hint::black_box(&raw const marker).addr();
    let Some(bottom) = stack_bottom(here) else {
        return;
    };
    let page = rustix::param::page_size();
    let end = (here - MARGIN) & !(page - 1);
    if end <= bottom {
        return;
    }
    // SAFETY: [bottom, end) is a part of this thread's own stack mapping, as the kernel's list says, and lies at
    // least MARGIN below a live local of the innermost frame. No frame lives there, this thread runs no signal handler
    // on it that outlives the call, and no reference can point to it. Dropped pages are zero-filled on demand.
    // Advice that is refused (a locked stack) costs memory, nothing else.
    let _ = unsafe {
        madvise(
            std::ptr::with_exposed_provenance_mut(bottom),
            end - bottom,
            Advice::LinuxDontNeed,
        )
    };
}

/// Lowest address of the mapping that holds `address`, from /proc/self/maps; `None` without procfs.
fn stack_bottom(address: usize) -> Option<usize> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let (low, rest) = line.split_once('-')?;
        let (high, _) = rest.split_once(' ')?;
        let low = usize::from_str_radix(low, 16).ok()?;
        let high = usize::from_str_radix(high, 16).ok()?;
        (low <= address && address < high).then_some(low)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn use_stack(depth: usize) -> usize {
        let block = std::hint::black_box([depth as u8; 4096]);
        if depth == 0 {
            usize::from(block[0])
        } else {
            use_stack(depth - 1) + usize::from(block[4095])
        }
    }

    #[test]
    fn frames_survive_trimming_the_stack_below_them() {
        let before = std::hint::black_box([7_u8; 1024]);
        let sum = use_stack(40);
        trim_stack();
        trim();
        assert!(before.iter().all(|byte| *byte == 7));
        assert_eq!(use_stack(40), sum);
    }

    #[test]
    fn own_stack_is_found() {
        let local = 0_u8;
        let here = (&raw const local).addr();
        let bottom = stack_bottom(here).expect("procfs");
        assert!(bottom <= here);
    }
}
