//! The code that looks at arguments.
//!
//! Rules with conditions are a chain of tests, each condition over the argument's two 32-bit halves, as that is what
//! classic BPF loads. Where all rules of a call compare one argument without masks, as for the address families of
//! `socket`, they are a search tree over its values instead.

use oci_spec::runtime::LinuxSeccompOperator as Operator;

use super::Architecture;
use super::emit::{AND, Emitter, IF_ABOVE, IF_AT_LEAST, IF_EQUAL, Target, search};
use super::rules::{Condition, Rules};

/// Where `seccomp_data.args` begins.
const ARGUMENTS_OFFSET: u32 = 16;

impl Rules {
    /// The code for one call whose rules (`keys` of `architecture`) have conditions.
    pub(super) fn decide(
        &self,
        emitter: &mut Emitter,
        keys: (usize, usize),
        architecture: Architecture,
        default: u32,
    ) -> Target {
        let keys = &self.keys[architecture as usize][keys.0..keys.1];
        let narrow = architecture.is_32_bit();
        if let Some((argument, segments)) = self.value_segments(keys, narrow, default) {
            return search_value(emitter, argument, &segments, narrow);
        }
        keys.iter()
            .rev()
            .fold(Target::Return(default), |otherwise, &key| {
                let (conditions, action) = self.rule(key);
                conditions
                    .iter()
                    .rev()
                    .fold(Target::Return(action), |holds, condition| {
                        test(emitter, condition, narrow, holds, otherwise)
                    })
            })
    }

    /// Where all of the rules compare one and the same argument without a mask: the argument, and its values' answers.
    fn value_segments(
        &self,
        keys: &[u64],
        narrow: bool,
        default: u32,
    ) -> Option<(u32, Vec<(u64, u32)>)> {
        let argument = self.rule(*keys.first()?).0.first()?.argument;
        let mut starts = vec![0];
        for &key in keys {
            match self.rule(key).0 {
                [] => {}
                [only]
                    if only.argument == argument && only.operator != Operator::ScmpCmpMaskedEq =>
                {
                    let value = cut(only.value, narrow);
                    starts.push(value);
                    starts.extend(
                        value
                            .checked_add(1)
                            .filter(|&next| next == cut(next, narrow)),
                    );
                }
                _ => return None,
            }
        }
        starts.sort_unstable();
        starts.dedup();
        let mut segments: Vec<(u64, u32)> = Vec::with_capacity(starts.len());
        for start in starts {
            let matching = keys
                .iter()
                .map(|&key| self.rule(key))
                .find(|(conditions, _)| {
                    conditions
                        .iter()
                        .all(|only| compares(only.operator, start, cut(only.value, narrow)))
                });
            let answer = matching.map_or(default, |(_, action)| action);
            if segments.last().is_none_or(|last| last.1 != answer) {
                segments.push((start, answer));
            }
        }
        Some((argument, segments))
    }
}

fn cut(value: u64, narrow: bool) -> u64 {
    if narrow {
        value & u64::from(u32::MAX)
    } else {
        value
    }
}

fn compares(operator: Operator, argument: u64, value: u64) -> bool {
    match operator {
        Operator::ScmpCmpNe => argument != value,
        Operator::ScmpCmpLt => argument < value,
        Operator::ScmpCmpLe => argument <= value,
        Operator::ScmpCmpEq => argument == value,
        Operator::ScmpCmpGe => argument >= value,
        Operator::ScmpCmpGt => argument > value,
        Operator::ScmpCmpMaskedEq => {
            unreachable!("a masked comparison has no ranges and is not asked for here")
        }
    }
}
/// `if condition { yes } else { no }` on an argument.
fn test(
    emitter: &mut Emitter,
    condition: &Condition,
    narrow: bool,
    yes: Target,
    no: Target,
) -> Target {
    let lower = ARGUMENTS_OFFSET + 8 * condition.argument;
    let upper = lower + 4;
    let low = condition.value as u32;
    let high = (condition.value >> 32) as u32;
    let (compare, yes, no) = match condition.operator {
        Operator::ScmpCmpEq => (IF_EQUAL, yes, no),
        Operator::ScmpCmpNe => (IF_EQUAL, no, yes),
        Operator::ScmpCmpGt => (IF_ABOVE, yes, no),
        Operator::ScmpCmpLe => (IF_ABOVE, no, yes),
        Operator::ScmpCmpGe => (IF_AT_LEAST, yes, no),
        Operator::ScmpCmpLt => (IF_AT_LEAST, no, yes),
        Operator::ScmpCmpMaskedEq => (AND, yes, no),
    };
    if compare == AND {
        let two = condition.value_two;
        let low = masked(emitter, lower, low, two as u32, yes, no);
        return if narrow {
            low
        } else {
            masked(emitter, upper, high, (two >> 32) as u32, low, no)
        };
    }
    let low = emitter.branch(compare, low, yes, no);
    let low = emitter.load(lower, low);
    if narrow {
        return low;
    }
    let equal = emitter.branch(IF_EQUAL, high, low, no);
    let decided = if compare == IF_EQUAL {
        equal
    } else {
        emitter.branch(IF_ABOVE, high, yes, equal)
    };
    emitter.load(upper, decided)
}

/// `if word & mask == value { yes } else { no }`, for one half of an argument.
fn masked(
    emitter: &mut Emitter,
    offset: u32,
    mask: u32,
    value: u32,
    yes: Target,
    no: Target,
) -> Target {
    if value & !mask != 0 {
        return no;
    }
    if mask == 0 {
        return yes;
    }
    let compared = emitter.branch(IF_EQUAL, value, yes, no);
    let compared = if mask == u32::MAX {
        compared
    } else {
        emitter.and(mask, compared)
    };
    emitter.load(offset, compared)
}

/// A search tree over an argument's values: first over the upper half, where that decides over the lower.
fn search_value(
    emitter: &mut Emitter,
    argument: u32,
    segments: &[(u64, u32)],
    narrow: bool,
) -> Target {
    let lower = ARGUMENTS_OFFSET + 8 * argument;
    let search_low = |emitter: &mut Emitter, segments: &[(u32, u32)]| {
        let tree = search(emitter, segments, &mut |_, &action| Target::Return(action));
        emitter.load(lower, tree)
    };
    if narrow {
        let segments: Vec<_> = segments
            .iter()
            .map(|&(start, action)| (start as u32, action))
            .collect();
        return search_low(emitter, &segments);
    }
    let mut halves: Vec<(u32, Vec<(u32, u32)>)> = vec![];
    let mut before = segments[0].1;
    for group in segments.chunk_by(|one, other| one.0 >> 32 == other.0 >> 32) {
        let high = (group[0].0 >> 32) as u32;
        // Between two groups, and after the last, one answer holds for all of the upper half's values.
        if let Some(gap) = halves
            .last()
            .map(|last| last.0 + 1)
            .filter(|&gap| gap < high)
        {
            halves.push((gap, vec![(0, before)]));
        }
        let mut low = Vec::with_capacity(group.len() + 1);
        if group[0].0 as u32 != 0 {
            low.push((0, before));
        }
        low.extend(group.iter().map(|&(start, action)| (start as u32, action)));
        before = group[group.len() - 1].1;
        halves.push((high, low));
    }
    if let Some(after) = halves.last().and_then(|last| last.0.checked_add(1)) {
        halves.push((after, vec![(0, before)]));
    }
    halves.dedup_by(|next, kept| next.1.len() == 1 && kept.1 == next.1);
    let tree = search(emitter, &halves, &mut |emitter, low| match low[..] {
        [(_, action)] => Target::Return(action),
        _ => search_low(emitter, low),
    });
    emitter.load(lower + 4, tree)
}
