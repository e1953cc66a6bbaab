//! `cargo xtask soak`: thousands of cycles of run, exec and rm, measured at ten points (tests/src/soak.rs says what).

use std::panic::catch_unwind;
use std::time::Instant;

use coracle_tests::Engine;
use coracle_tests::soak::{Plan, leaks, soak, table};

use crate::steps;

/// Reads `[--cycles N] [--workers N]`.
pub(crate) fn parse(words: &[&str]) -> Result<Plan, String> {
    let mut plan = Plan {
        cycles: 10_000,
        workers: 8,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let place = match *word {
            "--cycles" => &mut plan.cycles,
            "--workers" => &mut plan.workers,
            other => return Err(format!("soak has no {other}")),
        };
        let number = words.next().and_then(|number| number.parse().ok());
        *place = number
            .filter(|number| *number > 0)
            .ok_or_else(|| format!("{word} needs a number above 0"))?;
    }
    if plan.cycles < 10 {
        return Err("--cycles needs 10 or more, one for each point".to_owned());
    }
    Ok(plan)
}

/// Builds the binary (unless `CORACLE_BIN` names one), runs the plan and prints the table; fails on a leak.
pub(crate) fn run(plan: Plan) -> bool {
    let given = std::env::var_os("CORACLE_BIN").is_some();
    if !given && !steps::passes(&["build", "--release", "--bin", "coracle"]) {
        return false;
    }
    let begun = Instant::now();
    // The harness reports by panicking, as in a test.
    let ended = catch_unwind(|| {
        let engine = Engine::new();
        soak(&engine, plan, |point| {
            eprintln!(
                "{} cycles, {:.1} ms of CPU each, {:.0} s",
                point.cycles,
                point.cycle_ms,
                begun.elapsed().as_secs_f64()
            );
        })
    });
    let Ok(points) = ended else { return false };
    print!("{}", table(&points));
    let found = leaks(&points);
    for leak in &found {
        println!("FAILED: {leak}");
    }
    println!("{} cycles, {} leaks", plan.cycles, found.len());
    found.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_and_workers_are_read() {
        let plan = parse(&["--cycles", "50"]).unwrap_or_else(|reason| panic!("{reason}"));
        assert_eq!((plan.cycles, plan.workers), (50, 8));
        for wrong in [
            &["--cycles"][..],
            &["--cycles", "0"],
            &["--cycles", "3"],
            &["-x"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
