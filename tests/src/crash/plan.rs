//! What is done to a scenario: a list made from its points, whole or as a sample.
//!
//! The sample is the same in every run; `CORACLE_TEST_SEED` moves it. `CORACLE_TEST_COMPLETE=1` is everything.

use std::collections::BTreeSet;
use std::fmt;

use rustix::io::Errno;

use crate::trace::{Moment, Point, Role, Whom};

/// How much is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Extent {
    /// Every point.
    Complete,
    /// This many strokes a scenario, those at renames, links and removals first.
    Sample {
        /// How many.
        strokes: usize,
        /// Where it begins.
        seed: usize,
    },
}

impl Extent {
    /// From the environment; `strokes` is the size of a sample.
    pub fn wanted(strokes: usize) -> Extent {
        if std::env::var_os("CORACLE_TEST_COMPLETE").is_some_and(|value| value == "1") {
            return Extent::Complete;
        }
        let seed = match std::env::var("CORACLE_TEST_SEED") {
            Ok(text) => text.parse().expect("CORACLE_TEST_SEED is a number"),
            Err(_) => 0,
        };
        Extent::Sample { strokes, seed }
    }
}

/// One thing done at one point.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Stroke {
    /// `monitor/rename(…)#1`.
    pub point: String,
    /// What.
    pub what: What,
}

/// What is done at a point.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum What {
    /// The caller dies before the call.
    KillCallerBefore,
    /// The caller dies after the call.
    KillCallerAfter,
    /// Whoever else there is dies before the call.
    KillOther,
    /// All die before the call.
    KillTree,
    /// All die before the call, and the container with them, and what a reboot empties is empty.
    Reboot,
    /// The call fails with this error, as a raw number.
    Fail(i32),
}

impl What {
    pub(super) fn kill(self) -> Option<(Whom, Moment)> {
        match self {
            What::KillCallerBefore => Some((Whom::Caller, Moment::Before)),
            What::KillCallerAfter => Some((Whom::Caller, Moment::After)),
            What::KillOther => Some((Whom::Other, Moment::Before)),
            What::KillTree | What::Reboot => Some((Whom::Tree, Moment::Before)),
            What::Fail(_) => None,
        }
    }
}

impl fmt::Display for Stroke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::Fail(number) => {
                write!(
                    f,
                    "{} fails with {:?}",
                    self.point,
                    Errno::from_raw_os_error(number)
                )
            }
            kill => write!(f, "{kill:?} {}", self.point),
        }
    }
}

/// The calls that decide what is there: taken first into a sample.
const DECISIVE: &[&str] = &[
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "unlink",
    "unlinkat",
    "rmdir",
];

/// The kills for these points.
pub fn crashes(points: &[Point], extent: Extent) -> Vec<Stroke> {
    let of = |point: &Point, what| Stroke {
        point: point.to_string(),
        what,
    };
    // Before a monitor has done anything there is nobody else.
    let first = points.iter().position(|point| point.role == Role::Monitor);
    let alone = first.unwrap_or(points.len());
    let changing = points.iter().enumerate().filter(|(_, point)| point.changes);
    let kinds = |(n, point): &(usize, &Point)| {
        let mut kinds = vec![What::KillCallerBefore];
        if point.call != "exit_group" {
            kinds.push(What::KillCallerAfter);
        }
        if *n >= alone {
            kinds.push(What::KillOther);
        }
        if *n >= alone || point.role == Role::Child {
            kinds.push(What::KillTree);
        }
        kinds.push(What::Reboot);
        kinds
    };
    match extent {
        Extent::Complete => changing
            .flat_map(|one| kinds(&one).into_iter().map(move |kind| of(one.1, kind)))
            .collect(),
        Extent::Sample { strokes, seed } => {
            let all: Vec<(usize, &Point)> = changing.collect();
            let (decisive, rest): (Vec<_>, Vec<_>) = all
                .iter()
                .partition(|(_, point)| DECISIVE.contains(&point.call));
            let first = spread(&decisive, strokes.div_ceil(2), seed);
            let others = spread(&rest, strokes - first.len(), seed);
            let both = first.into_iter().chain(others).enumerate();
            both.map(|(n, one)| {
                let kinds = kinds(one);
                of(one.1, kinds[(n + seed) % kinds.len()])
            })
            .collect()
        }
    }
}

/// The forced errors for these points.
pub fn faults(points: &[Point], extent: Extent) -> Vec<Stroke> {
    let all: Vec<Stroke> = points
        .iter()
        .flat_map(|point| {
            point.errors.iter().map(|error| Stroke {
                point: point.to_string(),
                what: What::Fail(*error),
            })
        })
        .collect();
    match extent {
        Extent::Complete => all,
        Extent::Sample { strokes, seed } => {
            // Of each error its share, so that the many opens do not leave the others out.
            let errors: BTreeSet<What> = all.iter().map(|stroke| stroke.what).collect();
            let share = strokes.div_ceil(errors.len().max(1));
            errors
                .into_iter()
                .flat_map(|error| {
                    let same: Vec<&Stroke> = all.iter().filter(|one| one.what == error).collect();
                    spread(&same, share, seed)
                })
                .cloned()
                .collect()
        }
    }
}

/// `count` of them at equal distances.
fn spread<'a, T>(all: &[&'a T], count: usize, seed: usize) -> Vec<&'a T> {
    let count = count.min(all.len());
    (0..count)
        .map(|n| all[(n * all.len() / count + seed) % all.len()])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points() -> Vec<Point> {
        let point = |call, n| Point {
            role: Role::Command,
            call,
            on: "ROOT".into(),
            n,
            changes: true,
            errors: vec![5],
        };
        let mut points: Vec<Point> = (1..=10).map(|n| point("write", n)).collect();
        points.push(point("rename", 1));
        points
    }

    #[test]
    fn complete_plan_has_every_point_and_a_sample_the_renames() {
        assert_eq!(crashes(&points(), Extent::Complete).len(), 33);
        let sample = Extent::Sample {
            strokes: 4,
            seed: 3,
        };
        let sample = crashes(&points(), sample);
        assert_eq!(sample.len(), 4);
        assert!(sample.iter().any(|stroke| stroke.point.contains("rename")));
        assert_eq!(faults(&points(), Extent::Complete).len(), 11);
    }

    #[test]
    fn sample_is_the_same_twice_and_moves_with_the_seed() {
        let of = |seed| crashes(&points(), Extent::Sample { strokes: 3, seed });
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
