//! The compiler against the naive reading, for random documents.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};
use proptest::prelude::*;

use super::naive::{ALL, agree_on, near_numbers};
use super::syscalls::{ARM_PRIVATE, X32_BIT};
use super::table::ROWS;
use super::{Architecture, Error, Program};

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

/// Compares both for every number.
pub(super) fn agree(profile: &LinuxSeccomp, native: Architecture) -> Result<Program, Error> {
    agree_on(&all_numbers(), profile, native)
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
