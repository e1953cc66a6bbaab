//! A classic BPF interpreter for seccomp programs: the kernel's checks and meaning, in safe code.
//!
//! It exists to hold the compiler to account (differential tests, fuzzing), and answers "what would this filter do"
//! without installing anything. It refuses what the kernel's `bpf_check_classic` and `seccomp_check_filter` refuse, of
//! the operations that this crate writes.

use super::emit::{AND, IF_ABOVE, IF_AT_LEAST, IF_EQUAL, JUMP, LOAD, RETURN};
use super::{Instruction, MAX_INSTRUCTIONS};

/// `struct seccomp_data`: what a filter sees of a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Data {
    /// `nr`.
    pub number: u32,
    /// `arch`, an `AUDIT_ARCH_*`.
    pub architecture: u32,
    /// `instruction_pointer`.
    pub instruction_pointer: u64,
    /// `args`.
    pub arguments: [u64; 6],
}

impl Data {
    /// The word at a byte offset, little endian, as all supported architectures are.
    fn word(&self, offset: u32) -> Option<u32> {
        let half = |value: u64, upper: bool| {
            if upper {
                (value >> 32) as u32
            } else {
                value as u32
            }
        };
        if !offset.is_multiple_of(4) {
            return None;
        }
        match offset / 4 {
            0 => Some(self.number),
            1 => Some(self.architecture),
            word @ 2..=3 => Some(half(self.instruction_pointer, word % 2 == 1)),
            word @ 4..=15 => Some(half(self.arguments[(word as usize - 4) / 2], word % 2 == 1)),
            _ => None,
        }
    }
}

/// Why a program is not one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// Empty, or longer than the kernel takes.
    #[error("a program of {0} instructions")]
    Length(usize),
    /// An operation that is not allowed, or not one that is written here.
    #[error("instruction {0} is no operation of a seccomp filter")]
    Operation(usize),
    /// A load outside of `seccomp_data`, or not of a whole word.
    #[error("instruction {0} loads from outside seccomp_data")]
    Load(usize),
    /// A jump past the end, or a last instruction that does not return.
    #[error("instruction {0} leads past the end")]
    PastEnd(usize),
}

/// Checks `program` as the kernel does before it takes one.
///
/// # Errors
/// [`Invalid`], with the index of the first bad instruction.
pub fn check(program: &[Instruction]) -> Result<(), Invalid> {
    let length = program.len();
    if length == 0 || length > MAX_INSTRUCTIONS {
        return Err(Invalid::Length(length));
    }
    for (index, instruction) in program.iter().enumerate() {
        let rest = length - index - 1;
        let reaches = |skipped: u64| {
            if skipped < rest as u64 {
                Ok(())
            } else {
                Err(Invalid::PastEnd(index))
            }
        };
        match instruction.code {
            LOAD if !instruction.k.is_multiple_of(4) || instruction.k >= 64 => {
                return Err(Invalid::Load(index));
            }
            LOAD | AND => reaches(0)?,
            JUMP => reaches(u64::from(instruction.k))?,
            IF_EQUAL | IF_ABOVE | IF_AT_LEAST => {
                reaches(u64::from(instruction.jt))?;
                reaches(u64::from(instruction.jf))?;
            }
            RETURN => {}
            _ => return Err(Invalid::Operation(index)),
        }
    }
    Ok(())
}

/// The `SECCOMP_RET_*` value that `program` gives for `data`.
///
/// # Errors
/// [`Invalid`] if [`check`] refuses the program.
pub fn run(program: &[Instruction], data: &Data) -> Result<u32, Invalid> {
    check(program)?;
    run_checked(program, data)
}

/// [`run`] without checking all of the program first: only what is executed is checked.
///
/// # Errors
/// [`Invalid`] where execution meets something that [`check`] would have refused.
pub fn run_checked(program: &[Instruction], data: &Data) -> Result<u32, Invalid> {
    let mut accumulator = 0_u32;
    let mut at = 0_usize;
    loop {
        let Some(instruction) = program.get(at) else {
            return Err(Invalid::PastEnd(at.saturating_sub(1)));
        };
        let k = instruction.k;
        let conditional = |holds: bool| {
            usize::from(if holds {
                instruction.jt
            } else {
                instruction.jf
            })
        };
        // Jumps only go forwards, so this ends.
        at += 1 + match instruction.code {
            LOAD => {
                accumulator = data.word(k).ok_or(Invalid::Load(at))?;
                0
            }
            AND => {
                accumulator &= k;
                0
            }
            JUMP => k as usize,
            IF_EQUAL => conditional(accumulator == k),
            IF_ABOVE => conditional(accumulator > k),
            IF_AT_LEAST => conditional(accumulator >= k),
            RETURN => return Ok(k),
            _ => return Err(Invalid::Operation(at)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
        Instruction { code, jt, jf, k }
    }

    #[test]
    fn malformed_programs_are_refused() {
        let end = instruction(RETURN, 0, 0, 0);
        for (program, expected) in [
            (vec![], Invalid::Length(0)),
            (
                vec![end; MAX_INSTRUCTIONS + 1],
                Invalid::Length(MAX_INSTRUCTIONS + 1),
            ),
            (vec![instruction(LOAD, 0, 0, 0)], Invalid::PastEnd(0)),
            (vec![instruction(LOAD, 0, 0, 64), end], Invalid::Load(0)),
            (vec![instruction(LOAD, 0, 0, 2), end], Invalid::Load(0)),
            (vec![instruction(JUMP, 0, 0, 1), end], Invalid::PastEnd(0)),
            (
                vec![instruction(JUMP, 0, 0, u32::MAX), end],
                Invalid::PastEnd(0),
            ),
            (
                vec![instruction(IF_EQUAL, 1, 0, 0), end],
                Invalid::PastEnd(0),
            ),
            (
                vec![instruction(IF_EQUAL, 0, 1, 0), end],
                Invalid::PastEnd(0),
            ),
            (vec![instruction(0x87, 0, 0, 0), end], Invalid::Operation(0)),
        ] {
            assert_eq!(check(&program), Err(expected));
        }
    }

    #[test]
    fn each_word_of_the_data_is_seen() {
        let data = Data {
            number: 1,
            architecture: 2,
            instruction_pointer: 0x4_0000_0003,
            arguments: [
                0x6_0000_0005,
                0x8_0000_0007,
                0xa_0000_0009,
                0xc_0000_000b,
                0xe_0000_000d,
                0x10_0000_000f,
            ],
        };
        for word in 0..16 {
            let program = [
                instruction(LOAD, 0, 0, word * 4),
                instruction(IF_EQUAL, 0, 1, word + 1),
                instruction(RETURN, 0, 0, 1),
                instruction(RETURN, 0, 0, 0),
            ];
            assert_eq!(run(&program, &data), Ok(1), "word {word}");
        }
    }
}
