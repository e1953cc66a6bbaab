//! `bpf(2)` for one purpose: programs that decide which devices a cgroup (v2) may use.
//!
//! Nothing here knows what a program means; `cgroup` writes it. A program stays attached without its descriptor for as
//! long as its cgroup lives, and goes with it.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;

const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;

/// One eBPF instruction, `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Registers: destination in the low four bits, source in the high ones (on little-endian machines).
    pub registers: u8,
    /// Jump distance or memory offset.
    pub offset: i16,
    /// Constant.
    pub immediate: i32,
}

impl Instruction {
    /// Puts an instruction together.
    pub const fn new(
        code: u8,
        destination: u8,
        source: u8,
        offset: i16,
        immediate: i32,
    ) -> Instruction {
        let registers = if cfg!(target_endian = "little") {
            destination | source << 4
        } else {
            destination << 4 | source
        };
        Instruction {
            code,
            registers,
            offset,
            immediate,
        }
    }

    /// The destination register.
    pub const fn destination(self) -> u8 {
        if cfg!(target_endian = "little") {
            self.registers & 15
        } else {
            self.registers >> 4
        }
    }

    /// The source register.
    pub const fn source(self) -> u8 {
        if cfg!(target_endian = "little") {
            self.registers >> 4
        } else {
            self.registers & 15
        }
    }
}

/// Why a program could not be loaded, attached or looked up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused to load it for want of permission or support.
    #[error("loading a device program failed")]
    Load(#[source] Errno),
    /// The verifier found fault with it.
    #[error("the kernel's verifier refused the device program ({log})")]
    Verifier {
        /// The verifier's last line.
        log: String,
        /// The errno that went with it.
        #[source]
        source: Errno,
    },
    /// It was loaded, but the cgroup did not take it.
    #[error("attaching the device program failed")]
    Attach(#[source] Errno),
    /// It could not be taken off.
    #[error("detaching the device program failed")]
    Detach(#[source] Errno),
    /// The programs of a cgroup could not be listed or opened.
    #[error("looking up a cgroup's device programs failed")]
    Query(#[source] Errno),
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Load(Errno::PERM) => Some(
                "device programs need CAP_BPF and CAP_NET_ADMIN or CAP_SYS_ADMIN in the initial user namespace (before Linux 5.11 also RLIMIT_MEMLOCK above 1 MiB); in a user namespace devices are out of reach anyway, so no rule is needed".into(),
            ),
            Error::Load(Errno::INVAL | Errno::NOSYS) => {
                Some("the kernel must be built with CONFIG_CGROUP_BPF and CONFIG_BPF_SYSCALL, 4.15 or newer".into())
            }
            Error::Attach(Errno::PERM) => Some(
                "a program attached further up without BPF_F_ALLOW_MULTI lets nobody below it attach one; see: bpftool cgroup tree".into(),
            ),
            _ => None,
        }
    }
}

/// `union bpf_attr` for BPF_PROG_LOAD, the part up to the name.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// `union bpf_attr` for BPF_PROG_ATTACH and BPF_PROG_DETACH.
#[repr(C)]
#[derive(Default)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced: u32,
}

/// `union bpf_attr` for BPF_PROG_QUERY, the part up to the count.
#[repr(C)]
#[derive(Default)]
struct QueryAttributes {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    program_count: u32,
    padding: u32,
}

/// `union bpf_attr` for BPF_PROG_GET_FD_BY_ID.
#[repr(C)]
#[derive(Default)]
struct IdAttributes {
    id: u32,
    next: u32,
    flags: u32,
}

/// Calls `bpf(2)`. Every pointer within `attributes` must be valid for the command, for its whole length.
///
/// # Safety
/// `T` is the layout of `union bpf_attr` for `command`, and the addresses in it point to memory that lives and is large
/// enough (and writable where the command writes) until the call returns.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> Result<libc::c_long, Errno> {
    // SAFETY: the pointer and size are those of a live, exclusively borrowed value; the rest is the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        let errno = std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO);
        return Err(Errno::from_raw_os_error(errno));
    }
    Ok(result)
}

/// Loads a device program: context in, 0 (refuse) or 1 (allow) out.
///
/// # Errors
/// [`Error::Load`], or [`Error::Verifier`] with the verifier's last line.
pub fn load_device_program(instructions: &[Instruction]) -> Result<OwnedFd, Error> {
    let errno = match load(instructions, &mut []) {
        Ok(program) => return Ok(program),
        Err(errno) => errno,
    };
    if !matches!(errno, Errno::ACCESS | Errno::INVAL) {
        return Err(Error::Load(errno));
    }
    // Loaded once more, now with a log: making it always would cost each start what only a fault needs.
    let mut log = vec![0; 256 << 10];
    match load(instructions, &mut log) {
        Ok(program) => Ok(program),
        Err(source) => {
            let length = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            let text = String::from_utf8_lossy(&log[..length]);
            let last = text
                .lines()
                .rfind(|line| !line.is_empty() && !line.starts_with("processed "));
            match last {
                Some(line) => Err(Error::Verifier {
                    log: line.to_owned(),
                    source,
                }),
                None => Err(Error::Load(source)),
            }
        }
    }
}

fn load(instructions: &[Instruction], log: &mut [u8]) -> Result<OwnedFd, Errno> {
    let mut attributes = LoadAttributes {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(instructions.len()).map_err(|_| Errno::TOOBIG)?,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log_buffer: if log.is_empty() {
            0
        } else {
            log.as_mut_ptr() as u64
        },
        name: *b"coracle_devices\0",
        ..LoadAttributes::default()
    };
    // SAFETY: the layout is that of BPF_PROG_LOAD; instructions, licence and log outlive the call and have the lengths given.
    let result = unsafe { bpf(BPF_PROG_LOAD, &mut attributes)? };
    // SAFETY: on success the kernel returns a new descriptor (CLOEXEC) that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
}

/// Attaches a device program to a cgroup (v2), beside those of its ancestors (all of which must allow a request); with
/// `replaced`, in place of that program without a moment between (Linux 5.6).
///
/// # Errors
/// [`Error::Attach`].
pub fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<(), Error> {
    let mut attributes = AttachAttributes {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI | if replaced.is_some() { BPF_F_REPLACE } else { 0 },
        replaced: replaced.map_or(0, |replaced| replaced.as_fd().as_raw_fd() as u32),
    };
    // SAFETY: the layout is that of BPF_PROG_ATTACH; it has no pointers, and the descriptors are borrowed for the call.
    unsafe { bpf(BPF_PROG_ATTACH, &mut attributes) }
        .map(drop)
        .map_err(Error::Attach)
}

/// Takes a device program off a cgroup.
///
/// # Errors
/// [`Error::Detach`].
pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Error> {
    let mut attributes = AttachAttributes {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        ..AttachAttributes::default()
    };
    // SAFETY: the layout is that of BPF_PROG_DETACH; it has no pointers, and the descriptors are borrowed for the call.
    unsafe { bpf(BPF_PROG_DETACH, &mut attributes) }
        .map(drop)
        .map_err(Error::Detach)
}

/// The device programs attached to a cgroup itself, not to its ancestors.
///
/// # Errors
/// [`Error::Query`].
pub fn attached_device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, Error> {
    // The kernel allows 64 programs a cgroup and kind (BPF_CGROUP_MAX_PROGS).
    let mut ids = [0u32; 64];
    let mut attributes = QueryAttributes {
        target: cgroup.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        program_ids: ids.as_mut_ptr() as u64,
        program_count: ids.len() as u32,
        ..QueryAttributes::default()
    };
    // SAFETY: the layout is that of BPF_PROG_QUERY; `ids` outlives the call and has room for the count given.
    unsafe { bpf(BPF_PROG_QUERY, &mut attributes) }.map_err(Error::Query)?;
    ids.iter()
        .take(attributes.program_count as usize)
        .map(|id| open_program(*id))
        .collect()
}

fn open_program(id: u32) -> Result<OwnedFd, Error> {
    let mut attributes = IdAttributes {
        id,
        ..IdAttributes::default()
    };
    // SAFETY: the layout is that of BPF_PROG_GET_FD_BY_ID; it has no pointers.
    let result = unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attributes) }.map_err(Error::Query)?;
    // SAFETY: on success the kernel returns a new descriptor (CLOEXEC) that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_faulty_program_is_refused_with_the_verifiers_words() {
        // "exit" without a value in r0.
        let error = load_device_program(&[Instruction::new(0x95, 0, 0, 0, 0)]).unwrap_err();
        match error {
            Error::Verifier { log, .. } => assert!(log.contains("R0"), "{log}"),
            Error::Load(errno) => eprintln!(
                "SKIP: a_faulty_program_is_refused_with_the_verifiers_words: bpf(2): {errno}"
            ),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn registers_are_packed_and_unpacked() {
        let instruction = Instruction::new(0xbf, 3, 9, -1, 7);
        assert_eq!((instruction.destination(), instruction.source()), (3, 9));
        assert_eq!(size_of::<Instruction>(), 8);
    }
}
