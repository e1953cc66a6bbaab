//! System call filters: from a seccomp document to a classic BPF program, without libseccomp.
//!
//! ```text
//! profile JSON ── load_profile ──┐
//!                                ├─► LinuxSeccomp ── compile ──► Program ── linux::seccomp::install
//! default_profile (caps, arch) ──┘
//! ```
//!
//! All of it is pure computation that runs before the clone; only the finished [`Program`] crosses into the child.
//! What a document means is written down once, at [`compile`]. A BPF interpreter and a naive reader of documents hold
//! the compiler to it in the tests, over every number, every architecture and random documents.
//!
//! There is no cache of compiled programs: making the default profile and compiling it for three architectures takes
//! 0.1 ms cold and 0.04 ms warm, about what a cache's key and file cost (see `examples/seccomp.rs`).

mod arguments;
mod compile;
mod default_profile;
mod emit;
pub mod interpreter;
#[cfg(any(test, feature = "fuzzing"))]
mod naive;
mod profile;
mod rules;
mod syscalls;
mod table;

#[cfg(test)]
mod differential;
#[cfg(test)]
mod live;
#[cfg(test)]
mod tests;

pub use compile::{MAX_INSTRUCTIONS, compile, unknown_names};
pub use coracle_linux::seccomp::SockFilter as Instruction;
pub use default_profile::default_profile;
pub use profile::{Context, KernelVersion, load_profile};
pub use syscalls::{Numbers, lookup};

use coracle_linux::seccomp::FLAG_NEW_LISTENER;
use oci_spec::runtime::{Arch, LinuxSeccompAction};

/// A filter as the kernel takes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Program {
    /// Classic BPF over `struct seccomp_data`, at most [`MAX_INSTRUCTIONS`].
    pub instructions: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*` for seccomp(2).
    pub flags: u32,
}

/// Compiles `profile` and compares the program with a naive reading of the document, around everything that it names:
/// for fuzzing.
///
/// # Errors
/// As [`compile`].
///
/// # Panics
/// Where the program does not do what the document says.
#[cfg(feature = "fuzzing")]
pub fn compare(
    profile: &oci_spec::runtime::LinuxSeccomp,
    native: Architecture,
) -> Result<Program, Error> {
    naive::agree_on(&naive::near_numbers(profile), profile, native)
}

impl Program {
    /// Whether installing returns a descriptor that somebody must answer notifications on.
    #[must_use]
    pub fn needs_listener(&self) -> bool {
        self.flags & FLAG_NEW_LISTENER != 0
    }
}

/// An architecture that filters can be compiled for; also a column of the table of system calls.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Architecture {
    /// 64-bit x86 (`SCMP_ARCH_X86_64`).
    X86_64,
    /// 32-bit x86 (`SCMP_ARCH_X86`).
    X86,
    /// 32-bit pointers on 64-bit x86 (`SCMP_ARCH_X32`); the kernel's word for it is x86_64's, with bit 30 in the number.
    X32,
    /// 64-bit arm (`SCMP_ARCH_AARCH64`).
    Aarch64,
    /// 32-bit arm, EABI (`SCMP_ARCH_ARM`).
    Arm,
    /// 64-bit RISC-V (`SCMP_ARCH_RISCV64`).
    Riscv64,
}

impl Architecture {
    /// The architecture of this binary.
    ///
    /// # Errors
    /// [`Error::NativeArchitecture`] where there is no table of system calls for it.
    pub fn native() -> Result<Self, Error> {
        match std::env::consts::ARCH {
            "x86_64" if cfg!(target_pointer_width = "32") => Ok(Self::X32),
            "x86_64" => Ok(Self::X86_64),
            "x86" => Ok(Self::X86),
            "aarch64" => Ok(Self::Aarch64),
            "arm" => Ok(Self::Arm),
            "riscv64" => Ok(Self::Riscv64),
            name => Err(Error::NativeArchitecture { name }),
        }
    }

    /// `AUDIT_ARCH_*` of `<linux/audit.h>`, as `seccomp_data.arch` shows it.
    #[must_use]
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
        }
    }

    /// Whether arguments are compared as 32 bits, as libseccomp does: there the upper half is not the program's.
    fn is_32_bit(self) -> bool {
        matches!(self, Self::X86 | Self::X32 | Self::Arm)
    }

    /// Those that a kernel which runs `self` may run as well, `self` among them.
    fn family(self) -> &'static [Self] {
        match self {
            Self::X86_64 | Self::X86 | Self::X32 => &[Self::X86_64, Self::X86, Self::X32],
            Self::Aarch64 | Self::Arm => &[Self::Aarch64, Self::Arm],
            Self::Riscv64 => &[Self::Riscv64],
        }
    }

    /// The document's word for it.
    fn document(self) -> Arch {
        match self {
            Self::X86_64 => Arch::ScmpArchX86_64,
            Self::X86 => Arch::ScmpArchX86,
            Self::X32 => Arch::ScmpArchX32,
            Self::Aarch64 => Arch::ScmpArchAarch64,
            Self::Arm => Arch::ScmpArchArm,
            Self::Riscv64 => Arch::ScmpArchRiscv64,
        }
    }

    /// Docker's word for it in `includes` and `excludes`.
    fn docker(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::X86 => "x86",
            Self::X32 => "x32",
            Self::Aarch64 => "arm64",
            Self::Arm => "arm",
            Self::Riscv64 => "riscv64",
        }
    }
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This binary runs on an architecture without a table.
    #[error("seccomp filters cannot be compiled for {name}")]
    NativeArchitecture {
        /// Rust's name of the architecture.
        name: &'static str,
    },
    /// A condition on an argument that no system call has.
    #[error("the seccomp rule for {syscall} compares argument {index}; the last one is 5")]
    ArgumentIndex {
        /// First name of the rule.
        syscall: String,
        /// The index in the document.
        index: usize,
    },
    /// A rule without a name, or with an empty one.
    #[error("the seccomp rule number {rule} (counted from 0) names no system call")]
    NoName {
        /// Position in `syscalls`.
        rule: usize,
    },
    /// `errnoRet` or `defaultErrnoRet` beside an action that returns no number.
    #[error("the seccomp action {action} of {subject} takes no errno value")]
    ErrnoNotTaken {
        /// Which rule, or the default.
        subject: String,
        /// The action.
        action: LinuxSeccompAction,
    },
    /// A number that the kernel would cut.
    #[error("the errno value {value} of the seccomp action {action} of {subject} is above {max}")]
    ErrnoRange {
        /// Which rule, or the default.
        subject: String,
        /// The action.
        action: LinuxSeccompAction,
        /// The number in the document.
        value: u32,
        /// The largest that is passed on whole.
        max: u32,
    },
    /// `SCMP_ACT_NOTIFY` where the container could never start.
    #[error(
        "SCMP_ACT_NOTIFY cannot be used for {subject}: the runtime needs it before an agent can answer"
    )]
    NotifyImpossible {
        /// Which rule, or the default.
        subject: String,
    },
    /// More than the kernel loads.
    #[error(
        "the seccomp profile compiles to {count} instructions; the kernel takes {MAX_INSTRUCTIONS}"
    )]
    TooLong {
        /// Length of the program.
        count: usize,
    },
    /// Not JSON, or not of either form.
    #[error("the seccomp profile cannot be read")]
    Parse(#[source] serde_json::Error),
    /// Two fields that exclude each other.
    #[error("the seccomp profile has both {first:?} and {second:?}")]
    Both {
        /// One field.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// A field of Docker's form with a value that cannot be taken.
    #[error("{field} of the seccomp profile is {value:?}: expected {expected}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What could stand there.
        expected: &'static str,
    },
    /// uname(2) shows a release that no version can be read from.
    #[error("the kernel release {release:?} does not begin with MAJOR.MINOR")]
    KernelRelease {
        /// As uname(2) shows it.
        release: String,
    },
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NativeArchitecture { .. } => "run without a filter: --security-opt seccomp=unconfined".into(),
            Self::ErrnoNotTaken { .. } => {
                "errnoRet goes with SCMP_ACT_ERRNO and SCMP_ACT_TRACE only; remove it from the profile".into()
            }
            Self::NotifyImpossible { .. } => "use SCMP_ACT_ERRNO or SCMP_ACT_TRACE there".into(),
            Self::TooLong { .. } => {
                "list fewer architectures, or fewer rules with conditions on arguments, in the profile".into()
            }
            Self::Parse(_) => "the profile is JSON in the form of the OCI runtime specification or of Docker".into(),
            Self::Both { first, second } => format!("keep either {first:?} or {second:?}"),
            _ => return None,
        })
    }
}
