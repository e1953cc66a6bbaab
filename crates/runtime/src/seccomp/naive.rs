//! A naive reading of documents, and the comparison of the compiler with it: every number, interesting arguments, every
//! architecture. Used by the tests and by fuzzing only; panics where the two differ.

use std::collections::{BTreeSet, HashSet};

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Operator,
    LinuxSyscall,
};

use super::compile::{BAD_ARCHITECTURE, NOT_IMPLEMENTED, selected};
use super::interpreter::{Data, check, run_checked};
use super::rules::is_fixed;
use super::syscalls::{ARM_PRIVATE, X32_BIT};
use super::{Architecture, Error, Program, compile, lookup};

/// Every architecture that there is a table for.
pub(super) const ALL: [Architecture; 6] = [
    Architecture::X86_64,
    Architecture::X86,
    Architecture::X32,
    Architecture::Aarch64,
    Architecture::Arm,
    Architecture::Riscv64,
];

/// A document, read naively: for each architecture in it, its rules from top to bottom, once for each number.
struct Reading<'a> {
    profile: &'a LinuxSeccomp,
    rules: Vec<(Architecture, Vec<(u32, &'a LinuxSyscall)>)>,
}

impl<'a> Reading<'a> {
    fn new(profile: &'a LinuxSeccomp, native: Architecture) -> Self {
        let read = |architecture: Architecture| {
            let rules = profile.syscalls().iter().flatten();
            let named = rules.flat_map(|rule| rule.names().iter().map(move |name| (name, rule)));
            let numbered =
                named.filter_map(|(name, rule)| Some((lookup(name)?.on(architecture)?, rule)));
            (architecture, numbered.collect())
        };
        Self {
            profile,
            rules: selected(profile, native).into_iter().map(read).collect(),
        }
    }

    /// What the document says about a call.
    fn answer(&self, data: &Data) -> u32 {
        let default = self
            .profile
            .default_action()
            .as_u32(self.profile.default_errno_ret());
        let beyond = match self.profile.default_action() {
            Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace => default,
            _ => NOT_IMPLEMENTED,
        };
        let has = |architecture| self.rules.iter().any(|&(known, _)| known == architecture);
        let is_x86_64 = data.architecture == Architecture::X86_64.audit();
        if is_x86_64
            && data.number == u32::MAX
            && has(Architecture::X86_64)
            && !has(Architecture::X32)
        {
            return beyond;
        }
        let is_x32 = is_x86_64 && data.number >= X32_BIT;
        let Some((architecture, rules)) = self.rules.iter().find(|(architecture, _)| {
            architecture.audit() == data.architecture
                && is_x32 == (*architecture == Architecture::X32)
        }) else {
            return BAD_ARCHITECTURE;
        };
        if let Some((_, rule)) = rules
            .iter()
            .find(|(number, rule)| *number == data.number && matches(rule, *architecture, data))
        {
            return rule.action().as_u32(rule.errno_ret());
        }
        let ordinary = rules
            .iter()
            .map(|&(number, _)| number)
            .filter(|&number| !is_fixed(*architecture, number));
        match ordinary.max() {
            Some(largest) if data.number > largest && !is_fixed(*architecture, data.number) => {
                beyond
            }
            _ => default,
        }
    }
}

fn matches(rule: &LinuxSyscall, architecture: Architecture, data: &Data) -> bool {
    let mask = match architecture {
        Architecture::X86 | Architecture::X32 | Architecture::Arm => u64::from(u32::MAX),
        _ => u64::MAX,
    };
    let holds = |argument: &LinuxSeccompArg| {
        let (actual, value) = (
            data.arguments[argument.index()] & mask,
            argument.value() & mask,
        );
        match argument.op() {
            Operator::ScmpCmpNe => actual != value,
            Operator::ScmpCmpLt => actual < value,
            Operator::ScmpCmpLe => actual <= value,
            Operator::ScmpCmpEq => actual == value,
            Operator::ScmpCmpGe => actual >= value,
            Operator::ScmpCmpGt => actual > value,
            Operator::ScmpCmpMaskedEq => actual & value == argument.value_two().unwrap_or(0) & mask,
        }
    };
    let arguments = rule.args().as_deref().unwrap_or_default();
    let different: BTreeSet<_> = arguments.iter().map(LinuxSeccompArg::index).collect();
    if different.len() < arguments.len() {
        arguments.iter().any(holds)
    } else {
        arguments.iter().all(holds)
    }
}

/// The numbers that the document names, their neighbours, and the edges.
pub(super) fn near_numbers(profile: &LinuxSeccomp) -> Vec<u32> {
    let edges = [
        0,
        547,
        X32_BIT,
        X32_BIT + 511,
        X32_BIT + 547,
        ARM_PRIVATE,
        ARM_PRIVATE + 0xffff,
        0x8000_0000,
        !0,
    ];
    let rules = profile.syscalls().iter().flatten();
    let named = rules
        .flat_map(|rule| rule.names())
        .filter_map(|name| lookup(name));
    let named = named.flat_map(|numbers| {
        ALL.into_iter()
            .filter_map(move |architecture| numbers.on(architecture))
    });
    let around = |number: u32| [number.wrapping_sub(1), number, number.wrapping_add(1)];
    let numbers: BTreeSet<u32> = edges.into_iter().chain(named).flat_map(around).collect();
    numbers.into_iter().collect()
}

/// Argument values at and around every value that the document compares with.
fn values(profile: &LinuxSeccomp) -> Vec<u64> {
    let mut values = BTreeSet::from([
        0,
        1,
        0xffff_ffff,
        0x1_0000_0000,
        0x8000_0000_0000_0000,
        u64::MAX,
    ]);
    for argument in profile
        .syscalls()
        .iter()
        .flatten()
        .flat_map(|rule| rule.args().iter().flatten())
    {
        for value in [argument.value(), argument.value_two().unwrap_or(0)] {
            for near in [value, value.wrapping_add(1), value.wrapping_sub(1), !value] {
                values.extend([near, near ^ 1 << 32, near & 0xffff_ffff, near << 32]);
            }
        }
    }
    values.into_iter().collect()
}

/// Compares both for `numbers`, and for those with conditions every value in every argument.
pub(super) fn agree_on(
    numbers: &[u32],
    profile: &LinuxSeccomp,
    native: Architecture,
) -> Result<Program, Error> {
    let program = compile(profile, native)?;
    check(&program.instructions).expect("the kernel takes the program");
    let reading = Reading::new(profile, native);
    let values = values(profile);
    let conditional: HashSet<&str> = profile
        .syscalls()
        .iter()
        .flatten()
        .filter(|rule| rule.args().is_some())
        .flat_map(|rule| rule.names().iter().map(String::as_str))
        .collect();
    for architecture in ALL {
        let with_conditions: HashSet<u32> = conditional
            .iter()
            .filter_map(|name| lookup(name)?.on(architecture))
            .collect();
        let same = |number: u32, arguments: [u64; 6]| {
            let data = Data {
                number,
                architecture: architecture.audit(),
                instruction_pointer: !0,
                arguments,
            };
            let expected = reading.answer(&data);
            let actual = run_checked(&program.instructions, &data).expect("runs to a return");
            assert_eq!(
                actual, expected,
                "native {native:?}, {architecture:?}, {data:x?}\n{profile:?}"
            );
        };
        for &number in numbers {
            if !with_conditions.contains(&number) {
                same(number, [0; 6]);
                continue;
            }
            for (at, &value) in values.iter().enumerate() {
                // All the same, each alone, and each beside different others.
                same(number, [value; 6]);
                for index in 0..6 {
                    let mut arguments = [0; 6];
                    arguments[index] = value;
                    same(number, arguments);
                    arguments =
                        std::array::from_fn(|other| values[(at + other * 7) % values.len()]);
                    arguments[index] = value;
                    same(number, arguments);
                }
            }
        }
    }
    let foreign = Data {
        number: 0,
        architecture: 0xdead_beef,
        instruction_pointer: 0,
        arguments: [0; 6],
    };
    assert_eq!(
        run_checked(&program.instructions, &foreign),
        Ok(BAD_ARCHITECTURE)
    );
    Ok(program)
}
