//! From a seccomp document to a [`Program`].
//!
//! ```text
//! LD arch ─┬─ native ──► LD nr ─► search tree over numbers ─┬─► RET ALLOW | RET default | RET ENOSYS
//!          ├─ other  ──► LD nr ─► …                         └─► LD argument ─► tests ─► RET …
//!          └─ none of them ─► RET KILL_PROCESS
//! ```
//! Neighbouring numbers with the same answer are one segment, so a profile of 400 calls is a tree of about 80
//! segments, 7 compares deep. x86_64 and x32 are one tree: x32's numbers are x86_64's with bit 30.
//! A call whose rules all compare the same argument becomes a tree over that argument's values in the same way.
//!
//! `cargo run --release -p coracle-runtime --example seccomp` measures it; the numbers are in that example's header,
//! with the reason for there being no cache of compiled programs.

use coracle_linux::seccomp::{
    FLAG_LOG, FLAG_NEW_LISTENER, FLAG_SPEC_ALLOW, FLAG_WAIT_KILLABLE_RECV,
};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompFilterFlag as Flag,
};

use super::emit::{Emitter, IF_EQUAL, Target, search};
use super::rules::{Rules, action_value, fixed_range, is_fixed};
use super::syscalls::{X32_BIT, lookup};
use super::{Architecture, Error, Program};

/// The longest program that the kernel takes (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// `SECCOMP_RET_KILL_PROCESS`: for architectures that the profile does not list.
pub(super) const BAD_ARCHITECTURE: u32 = 0x8000_0000;
/// `SECCOMP_RET_ERRNO | ENOSYS`: for calls newer than the profile.
pub(super) const NOT_IMPLEMENTED: u32 = 0x0005_0000 | 38;

const NUMBER_OFFSET: u32 = 0;
const ARCHITECTURE_OFFSET: u32 = 4;

/// Compiles `profile` for a kernel whose own architecture is `native`.
///
/// What a document means, after runc and libseccomp:
/// - **Architectures**: the native one always, besides it those listed that such a kernel can run; what it cannot run
///   is passed over. A call by an architecture that is not among them kills the process; so does an x32 number where
///   `SCMP_ARCH_X32` is not listed.
/// - **Rules** of a call are tried in the order of the document and the first that matches decides; if none does, the
///   default action. (libseccomp lets a rule without conditions win over an earlier one with conditions, and runc
///   leaves out rules whose action is the default. Here the document's order is the meaning: the two differ only where
///   rules of one call contradict each other.)
/// - **Conditions** of one rule must all hold. If several of them are about the same argument, each is a rule of its own,
///   as in runc and crun, because Docker's older profiles were written for that.
/// - **Comparisons** are unsigned, over 64 bits; over the lower 32 where registers have 32 bits (x86, x32, arm).
///   `SCMP_CMP_MASKED_EQ` is `(argument & value) == valueTwo`.
/// - **Names** that an architecture does not have are passed over there; see [`unknown_names`].
/// - **Newer calls**: where the default action refuses, a number above the largest that the profile names in any rule
///   returns ENOSYS, so that C libraries fall back to the older call instead of reporting EPERM. The two ranges of
///   numbers that were fixed long ago lie above and do not count: x32's own 512–547 and arm's private calls.
/// - **No companions**: a rule for `socket` does not open `socketcall` on 32-bit x86 (libseccomp's does, and so lets
///   any address family through); a profile that wants multiplexers names them.
/// - `SCMP_ACT_KILL` is `KILL_THREAD`; `errnoRet` is EPERM if absent; flags absent mean `SPEC_ALLOW`; `TSYNC` asks for
///   nothing, as the child has one thread when the filter is installed.
///
/// # Errors
/// Every [`Error`] about a document's content, and [`Error::TooLong`].
pub fn compile(profile: &LinuxSeccomp, native: Architecture) -> Result<Program, Error> {
    let default = action_value(
        profile.default_action(),
        profile.default_errno_ret(),
        || "the default".into(),
    )?;
    if profile.default_action() == Action::ScmpActNotify {
        return Err(Error::NotifyImpossible {
            subject: "the default".into(),
        });
    }
    let architectures = selected(profile, native);
    let rules = Rules::read(profile, &architectures)?;
    let beyond = match profile.default_action() {
        // These three already let a newer call reach whoever decides.
        Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace => default,
        _ => NOT_IMPLEMENTED,
    };
    let answers = Answers { default, beyond };

    let mut emitter = Emitter::with_capacity(1024);
    let mut trees = Vec::with_capacity(architectures.len());
    // The native architecture comes last here, and so first and nearest in the program.
    for &architecture in architectures.iter().rev() {
        let audit = architecture.audit();
        if trees.iter().any(|&(known, _)| known == audit) {
            continue;
        }
        let segments = number_segments(&rules, &architectures, audit, answers);
        let tree = search(
            &mut emitter,
            &segments,
            &mut |emitter, outcome| match *outcome {
                Outcome::Return(value) => Target::Return(value),
                Outcome::Decide { keys, architecture } => {
                    rules.decide(emitter, keys, architecture, default)
                }
            },
        );
        trees.push((audit, emitter.load(NUMBER_OFFSET, tree)));
    }
    let chain = trees.iter().fold(
        Target::Return(BAD_ARCHITECTURE),
        |otherwise, &(audit, tree)| emitter.branch(IF_EQUAL, audit, tree, otherwise),
    );
    let entry = emitter.load(ARCHITECTURE_OFFSET, chain);
    let instructions = emitter.finish(entry);
    if instructions.len() > MAX_INSTRUCTIONS {
        return Err(Error::TooLong {
            count: instructions.len(),
        });
    }
    Ok(Program {
        instructions,
        flags: flags(profile, rules.notifies),
    })
}

/// The names in `profile` that no architecture of the table has: typing errors, or calls newer than this binary.
/// They are no error, but somebody may want to be told, most of all under a default action that allows.
#[must_use]
pub fn unknown_names(profile: &LinuxSeccomp) -> Vec<&str> {
    let rules = profile.syscalls().iter().flatten();
    rules
        .flat_map(|rule| rule.names())
        .map(String::as_str)
        .filter(|name| lookup(name).is_none())
        .collect()
}

/// The native architecture first, then the listed ones of its family, each once.
pub(super) fn selected(profile: &LinuxSeccomp, native: Architecture) -> Vec<Architecture> {
    let listed = profile.architectures().as_deref().unwrap_or_default();
    let others = native.family().iter().copied();
    let others = others.filter(|&other| other != native && listed.contains(&other.document()));
    std::iter::once(native).chain(others).collect()
}

fn flags(profile: &LinuxSeccomp, notifies: bool) -> u32 {
    let listener = if notifies { FLAG_NEW_LISTENER } else { 0 };
    let Some(listed) = profile.flags() else {
        return FLAG_SPEC_ALLOW | listener;
    };
    listed.iter().fold(listener, |flags, flag| match flag {
        Flag::SeccompFilterFlagLog => flags | FLAG_LOG,
        Flag::SeccompFilterFlagSpecAllow => flags | FLAG_SPEC_ALLOW,
        // The kernel refuses it without a listener, where nothing waits either.
        Flag::SeccompFilterFlagWaitKillableRecv if notifies => flags | FLAG_WAIT_KILLABLE_RECV,
        Flag::SeccompFilterFlagWaitKillableRecv | Flag::SeccompFilterFlagTsync => flags,
    })
}

/// What is answered where no rule says anything.
#[derive(Clone, Copy)]
struct Answers {
    default: u32,
    beyond: u32,
}

/// What a segment of numbers leads to.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Outcome {
    Return(u32),
    /// A range of `architecture`'s keys.
    Decide {
        keys: (usize, usize),
        architecture: Architecture,
    },
}

/// The answers over all numbers under one `AUDIT_ARCH_*`.
fn number_segments(
    rules: &Rules,
    selected: &[Architecture],
    audit: u32,
    answers: Answers,
) -> Vec<(u32, Outcome)> {
    let mut segments = Vec::with_capacity(256);
    if audit != Architecture::X86_64.audit() {
        for architecture in selected
            .iter()
            .copied()
            .filter(|architecture| architecture.audit() == audit)
        {
            architecture_segments(&mut segments, rules, architecture, 0..=u32::MAX, answers);
        }
        return segments;
    }
    for (architecture, numbers) in [
        (Architecture::X86_64, 0..=X32_BIT - 1),
        (Architecture::X32, X32_BIT..=u32::MAX),
    ] {
        if selected.contains(&architecture) {
            architecture_segments(&mut segments, rules, architecture, numbers, answers);
        } else {
            let first = *numbers.start();
            segments.push((first, Outcome::Return(BAD_ARCHITECTURE)));
            if first == X32_BIT {
                // −1 has the bit too, but is no x32 call: tracers skip a call with it.
                segments.push((u32::MAX, Outcome::Return(answers.beyond)));
            }
        }
    }
    segments
}

fn architecture_segments(
    segments: &mut Vec<(u32, Outcome)>,
    rules: &Rules,
    architecture: Architecture,
    numbers: std::ops::RangeInclusive<u32>,
    answers: Answers,
) {
    let keys = &rules.keys[architecture as usize];
    let largest = rules.largest[architecture as usize];
    let unnamed = |number| match largest {
        Some(largest) if number > largest && !is_fixed(architecture, number) => answers.beyond,
        _ => answers.default,
    };
    // Where the answer for numbers without a rule changes between two rules; after the largest one a gap begins anyhow.
    let (fixed, end) = fixed_range(architecture).unzip();
    let changes = [fixed, end];
    let mut push = |start: u32, outcome: Outcome| {
        if segments.last().is_none_or(|&(_, last)| last != outcome) {
            segments.push((start, outcome));
        }
    };
    let unnamed_from = |push: &mut dyn FnMut(u32, Outcome), from: u32, to: u32| {
        if from > to {
            return;
        }
        push(from, Outcome::Return(unnamed(from)));
        for change in changes
            .iter()
            .copied()
            .flatten()
            .filter(|change| (from + 1..=to).contains(change))
        {
            push(change, Outcome::Return(unnamed(change)));
        }
    };
    let mut next = *numbers.start();
    let mut at = 0;
    while at < keys.len() {
        let number = (keys[at] >> 32) as u32;
        let count = keys[at..]
            .iter()
            .take_while(|&&key| (key >> 32) as u32 == number)
            .count();
        if number > next {
            unnamed_from(&mut push, next, number - 1);
        }
        // What follows a rule without conditions is never reached.
        let unconditional = (at..at + count).find(|&index| rules.rule(keys[index]).0.is_empty());
        let outcome = match unconditional {
            Some(index) if index == at => Outcome::Return(rules.rule(keys[at]).1),
            Some(index) => Outcome::Decide {
                keys: (at, index + 1),
                architecture,
            },
            None => Outcome::Decide {
                keys: (at, at + count),
                architecture,
            },
        };
        push(number, outcome);
        next = number + 1;
        at += count;
    }
    unnamed_from(&mut push, next, *numbers.end());
}
