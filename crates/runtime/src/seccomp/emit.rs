//! Writing classic BPF from the end to the start.
//!
//! Classic BPF jumps only forwards, and a conditional jump skips at most 255 instructions. Written backwards, every
//! jump's target exists when the jump is written, so its distance is known at once: nothing is patched, nothing is
//! laid out twice. A target too far away is brought near by writing, right here, a copy of it (a return) or a long
//! jump to it (anything else).
//!
//! ```text
//! written first                                      written last
//! position 0      1      2      3      …      n-1
//!          RET k  RET j  JEQ →0,→1  LD …     LD arch     (the kernel runs from n-1 down to 0)
//! ```
//!
//! Invariants: control never falls from one instruction into the next but after a load or an `AND`, which is written
//! only when its successor is the last one written. Only operations that the kernel's own constant-action analysis
//! (`seccomp_is_const_allow`, Linux 5.11) understands are used outside argument tests, so that always-allowed calls
//! skip the filter altogether.

use super::Instruction;

/// `BPF_LD | BPF_W | BPF_ABS`: a word of `seccomp_data` into the accumulator.
pub(super) const LOAD: u16 = 0x20;
/// `BPF_ALU | BPF_AND | BPF_K`.
pub(super) const AND: u16 = 0x54;
/// `BPF_JMP | BPF_JA`.
pub(super) const JUMP: u16 = 0x05;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
pub(super) const IF_EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGT | BPF_K`.
pub(super) const IF_ABOVE: u16 = 0x25;
/// `BPF_JMP | BPF_JGE | BPF_K`.
pub(super) const IF_AT_LEAST: u16 = 0x35;
/// `BPF_RET | BPF_K`.
pub(super) const RETURN: u16 = 0x06;

/// Where control goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Target {
    /// Ends the program with this `SECCOMP_RET_*` value.
    Return(u32),
    /// An instruction already written, by its position from the end.
    At(usize),
}

/// The program so far, last instruction first.
#[derive(Default)]
pub(super) struct Emitter {
    written: Vec<Instruction>,
    /// The nearest return of each value.
    returns: Vec<(u32, usize)>,
}

impl Emitter {
    pub(super) fn with_capacity(instructions: usize) -> Self {
        Self {
            written: Vec::with_capacity(instructions),
            returns: Vec::with_capacity(8),
        }
    }

    fn write(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> usize {
        self.written.push(Instruction { code, jt, jf, k });
        self.written.len() - 1
    }

    fn write_return(&mut self, value: u32) -> usize {
        let position = self.write(RETURN, 0, 0, value);
        match self.returns.iter_mut().find(|(known, _)| *known == value) {
            Some(entry) => entry.1 = position,
            None => self.returns.push((value, position)),
        }
        position
    }

    /// A position of `target` that a conditional jump can still reach after `more` further instructions.
    fn near(&mut self, target: Target, more: usize) -> usize {
        let furthest = (self.written.len() + more).saturating_sub(1 + usize::from(u8::MAX));
        match target {
            Target::At(position) if position >= furthest => position,
            Target::At(position) => {
                let skipped = self.written.len() - position - 1;
                self.write(JUMP, 0, 0, skipped as u32)
            }
            Target::Return(value) => match self.returns.iter().find(|(known, _)| *known == value) {
                Some(&(_, position)) if position >= furthest => position,
                _ => self.write_return(value),
            },
        }
    }

    /// `if accumulator OPERATION k { yes } else { no }`.
    pub(super) fn branch(&mut self, operation: u16, k: u32, yes: Target, no: Target) -> Target {
        if yes == no {
            return yes;
        }
        // Bringing `no` near may write one instruction, which must not push `yes` out of reach.
        let yes = self.near(yes, 1);
        let no = self.near(no, 0);
        let here = self.written.len();
        // A cut distance would be another filter: that must never go on quietly.
        let skipped = |to: usize| {
            u8::try_from(here - to - 1).expect("near() keeps what it returns within reach")
        };
        Target::At(self.write(operation, skipped(yes), skipped(no), k))
    }

    /// `accumulator = seccomp_data[offset]`, then `next`.
    pub(super) fn load(&mut self, offset: u32, next: Target) -> Target {
        self.straight(LOAD, offset, next)
    }

    /// `accumulator &= mask`, then `next`.
    pub(super) fn and(&mut self, mask: u32, next: Target) -> Target {
        self.straight(AND, mask, next)
    }

    fn straight(&mut self, code: u16, k: u32, next: Target) -> Target {
        match next {
            // What a return does not look at need not be computed.
            Target::Return(_) => return next,
            Target::At(position) if position + 1 == self.written.len() => {}
            Target::At(position) => {
                let skipped = self.written.len() - position - 1;
                self.write(JUMP, 0, 0, skipped as u32);
            }
        }
        Target::At(self.write(code, 0, 0, k))
    }

    /// The program in the kernel's order, beginning at `entry`.
    pub(super) fn finish(mut self, entry: Target) -> Vec<Instruction> {
        let start = match entry {
            Target::Return(value) => self.write_return(value),
            Target::At(position) => position,
        };
        self.written.truncate(start + 1);
        self.written.reverse();
        self.written
    }
}

/// A search tree over `segments`, each an inclusive start and where to go from there up to the next start; the
/// first segment begins at 0. The accumulator holds the value sought. `place` writes a segment's own code when needed.
pub(super) fn search<S>(
    emitter: &mut Emitter,
    segments: &[(u32, S)],
    place: &mut impl FnMut(&mut Emitter, &S) -> Target,
) -> Target {
    if let [(_, only)] = segments {
        return place(emitter, only);
    }
    let (low, high) = segments.split_at(segments.len() / 2);
    let from = high[0].0;
    let at_least = search(emitter, high, place);
    let below = search(emitter, low, place);
    emitter.branch(IF_AT_LEAST, from, at_least, below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::interpreter::{Data, run};

    /// Runs with `number` as the call's number.
    fn result(program: &[Instruction], number: u32) -> u32 {
        run(
            program,
            &Data {
                number,
                architecture: 0,
                instruction_pointer: 0,
                arguments: [0; 6],
            },
        )
        .expect("valid program")
    }

    #[test]
    fn search_finds_each_of_many_segments_across_long_jumps() {
        for count in [1_u32, 2, 3, 100, 1500] {
            let segments: Vec<_> = (0..count).map(|n| (n * 10, n)).collect();
            let mut emitter = Emitter::default();
            let tree = search(&mut emitter, &segments, &mut |_, &n| Target::Return(n));
            let entry = emitter.load(0, tree);
            let program = emitter.finish(entry);
            for n in 0..count {
                assert_eq!(result(&program, n * 10), n);
                assert_eq!(result(&program, n * 10 + 9), n);
            }
            assert_eq!(result(&program, u32::MAX), count - 1);
        }
    }

    #[test]
    fn branches_reach_both_sides_at_every_distance() {
        // `filler` unrelated instructions between the branch and its targets, around the limit of 255.
        for filler in 245..265 {
            let mut emitter = Emitter::default();
            let near_one = emitter.branch(IF_EQUAL, 77, Target::Return(1), Target::Return(2));
            let near_two = emitter.branch(IF_EQUAL, 78, Target::Return(3), Target::Return(4));
            for n in 0..filler {
                emitter.branch(IF_EQUAL, n, near_one, near_two);
            }
            let branch = emitter.branch(IF_AT_LEAST, 78, near_two, near_one);
            let entry = emitter.load(0, branch);
            let program = emitter.finish(entry);
            assert_eq!(
                [76, 77, 78, 79].map(|number| result(&program, number)),
                [2, 1, 3, 4],
                "filler {filler}"
            );
        }
    }
}
