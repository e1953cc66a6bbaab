//! System calls without libc: no `errno`, so no thread-local storage.
//!
//! A child made with CLONE_VM shares its parent's thread-local storage as well; two processes that write one `errno`
//! at once would read each other's. Everything the child calls goes through here or through rustix, whose Linux backend
//! does the same.

use rustix::io::Errno;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("coracle-linux knows the system call convention of x86_64 and aarch64 only");

/// Issues system call `number`.
///
/// # Safety
/// As the system call: pointers among the arguments must be valid for what the kernel does with them.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) unsafe fn syscall(number: libc::c_long, arguments: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the x86_64 convention clobbers rcx and r11 and returns in rax; the caller answers for the arguments.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            in("r9") arguments[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Issues system call `number`.
///
/// # Safety
/// As the system call: pointers among the arguments must be valid for what the kernel does with them.
#[cfg(target_arch = "aarch64")]
#[inline]
pub(crate) unsafe fn syscall(number: libc::c_long, arguments: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the aarch64 convention keeps every register but x0; the caller answers for the arguments.
    unsafe {
        core::arch::asm!(
            "svc 0",
            in("x8") number as isize,
            inlateout("x0") arguments[0] as isize => result,
            in("x1") arguments[1],
            in("x2") arguments[2],
            in("x3") arguments[3],
            in("x4") arguments[4],
            in("x5") arguments[5],
            options(nostack),
        );
    }
    result
}

/// What the kernel returned, as a result.
#[inline]
pub(crate) fn check(result: isize) -> Result<usize, Errno> {
    if (-4095..0).contains(&result) {
        Err(Errno::from_raw_os_error(-(result as i32)))
    } else {
        Ok(result as usize)
    }
}
