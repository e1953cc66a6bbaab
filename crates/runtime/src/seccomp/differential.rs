//! The compiler against a naive reading of documents: every number, interesting arguments, every architecture; and
//! random documents.

use std::collections::{BTreeSet, HashSet};

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};
use proptest::prelude::*;

use super::compile::{BAD_ARCHITECTURE, NOT_IMPLEMENTED, selected};
use super::interpreter::{Data, check, run_checked};
use super::rules::is_fixed;
use super::syscalls::{ARM_PRIVATE, X32_BIT};
use super::table::ROWS;
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

/// Every number that a table could hold, and the surroundings of every boundary.
fn all_numbers() -> Vec<u32> {
    let bases = [
        0,
        X32_BIT,
        ARM_PRIVATE,
        ARM_PRIVATE + 0xfda8,
        X32_BIT + ARM_PRIVATE,
        0x8000_0000,
        0xffff_fda8,
    ];
    bases
        .into_iter()
        .flat_map(|base| (0..600).map(move |number| base + number))
        .collect()
}

/// The numbers that the document names, their neighbours, and the edges.
fn near_numbers(profile: &LinuxSeccomp) -> Vec<u32> {
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

/// Compares both for every number.
pub(super) fn agree(profile: &LinuxSeccomp, native: Architecture) -> Result<Program, Error> {
    agree_on(&all_numbers(), profile, native)
}

/// Compares both for `numbers`, and for those with conditions every value in every argument.
fn agree_on(
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

pub(super) fn condition(index: usize, operator: Operator, value: u64, two: u64) -> LinuxSeccompArg {
    let argument = LinuxSeccompArgBuilder::default()
        .index(index)
        .op(operator)
        .value(value)
        .value_two(two);
    argument.build().expect("every field has a default")
}

fn values_to_compare() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..4_u64,
        Just(u64::MAX),
        Just(u64::from(u32::MAX)),
        (0..3_u64).prop_map(|n| (1 << 32) + n),
        (0..3_u64).prop_map(|n| u64::MAX - n),
        any::<u64>()
    ]
}

prop_compose! {
    fn arguments()(index in 0..6_usize, operator in 0..7_usize, value in values_to_compare(), two in values_to_compare())
        -> LinuxSeccompArg {
        let operator = [
            Operator::ScmpCmpNe, Operator::ScmpCmpLt, Operator::ScmpCmpLe, Operator::ScmpCmpEq,
            Operator::ScmpCmpGe, Operator::ScmpCmpGt, Operator::ScmpCmpMaskedEq,
        ][operator];
        condition(index, operator, value, two)
    }
}

fn actions() -> impl Strategy<Value = (Action, Option<u32>)> {
    prop_oneof![
        Just((Action::ScmpActAllow, None)),
        Just((Action::ScmpActErrno, None)),
        (0..4095_u32).prop_map(|errno| (Action::ScmpActErrno, Some(errno))),
        Just((Action::ScmpActTrap, None)),
        Just((Action::ScmpActKill, None)),
        Just((Action::ScmpActKillProcess, None)),
        Just((Action::ScmpActLog, None)),
        Just((Action::ScmpActTrace, Some(7))),
    ]
}

prop_compose! {
    fn rules(few: bool)(
        names in prop::collection::vec(if few { 40..48_usize } else { 0..ROWS.len() }, 1..if few { 3 } else { 40 }),
        action in actions(),
        arguments in prop::option::weighted(0.6, prop::collection::vec(arguments(), 0..4)),
        same_argument in any::<bool>(),
    ) -> LinuxSyscall {
        let mut rule = LinuxSyscall::default();
        rule.set_names(names.into_iter().map(|row| ROWS[row].0.to_owned()).collect());
        rule.set_action(action.0);
        rule.set_errno_ret(action.1);
        rule.set_args(arguments.map(|mut arguments| {
            if same_argument {
                arguments.truncate(1);
                for argument in &mut arguments {
                    *argument = condition(1, argument.op(), argument.value(), argument.value_two().unwrap_or(0));
                }
            }
            arguments
        }));
        rule
    }
}

prop_compose! {
    fn profiles()(
        default in actions(),
        rules in prop_oneof![
            prop::collection::vec(rules(true), 0..12),
            prop::collection::vec(rules(false), 0..12),
        ],
        listed in prop::collection::vec(0..8_usize, 0..5),
    ) -> LinuxSeccomp {
        let mut profile = LinuxSeccomp::default();
        profile.set_default_action(default.0);
        profile.set_default_errno_ret(default.1);
        profile.set_architectures(Some(listed.into_iter().map(|index| match index {
            6 => Arch::ScmpArchS390x,
            7 => Arch::ScmpArchNative,
            known => ALL[known].document(),
        }).collect()));
        profile.set_syscalls(Some(rules));
        profile
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_documents_compile_to_what_they_say(profile in profiles(), native in 0..ALL.len()) {
        match agree_on(&near_numbers(&profile), &profile, ALL[native]) {
            Ok(_) => {}
            Err(Error::TooLong { count }) => prop_assert!(count > super::MAX_INSTRUCTIONS),
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}
