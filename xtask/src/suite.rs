//! `lint`, `test` and `check`: the order of the steps, and the one line at the end.

use crate::leaks::Snapshot;
use crate::tally::{Tally, is_strict};
use crate::{bench, layers, needs, steps};

/// How much of the test suite runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it.
    Full,
    /// Without the benchmark smoke.
    Quick,
    /// All of it, and where tests take a sample (crashes, faults), everything: hours.
    Complete,
}

/// Layers, formatting, clippy.
pub(crate) fn lint() -> bool {
    let mut tally = Tally::default();
    layers_and_format(&mut tally);
    clippy(&mut tally);
    let allowed = tally.allowed_skips();
    tally.finish(&allowed, is_strict())
}

/// What CI runs: lint, then the full test, whatever lint said; one report of both at the end.
pub(crate) fn check() -> bool {
    let mut tally = Tally::default();
    needs::install();
    layers_and_format(&mut tally);
    clippy(&mut tally);
    build_and_test(tally, Extent::Full)
}

/// Everything that proves the tree: installs what is missing, runs all tests, and compares the host before and after.
pub(crate) fn test(extent: Extent) -> bool {
    let mut tally = Tally::default();
    needs::install();
    layers_and_format(&mut tally);
    build_and_test(tally, extent)
}

fn layers_and_format(tally: &mut Tally) {
    tally.step("layers", layers::run());
    if steps::has("fmt") {
        tally.step("rustfmt", steps::passes(&["fmt", "--all", "--", "--check"]));
    } else {
        tally.skip("rustfmt", "not installed: rustup component add rustfmt");
    }
}

fn clippy(tally: &mut Tally) {
    if !steps::has("clippy") {
        return tally.skip("clippy", "not installed: rustup component add clippy");
    }
    let all = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    tally.step("clippy", steps::passes(&all));
}

fn build_and_test(mut tally: Tally, extent: Extent) -> bool {
    let built = steps::passes(&["build", "--release", "--bin", "coracle"]);
    tally.step("cargo build --release", built);
    // Without the binary the black-box tests can only repeat that failure.
    if built {
        match tempfile::tempdir() {
            Ok(dir) => run_tests(&mut tally, &dir.path().join("skips"), extent),
            Err(error) => tally.step(&format!("a temporary folder: {error}"), false),
        }
    }
    let allowed = tally.allowed_skips();
    tally.finish(&allowed, is_strict())
}

fn run_tests(tally: &mut Tally, skip_log: &std::path::Path, extent: Extent) {
    let before = Snapshot::take();
    // What a test printed that passed is shown for the reasons of those that skip; but xtask's own tests print what a test
    // run does, and would be counted.
    let complete = extent == Extent::Complete;
    let none = std::path::Path::new("/dev/null");
    let own = steps::test(&["--package", "xtask"], skip_log, complete);
    tally.add_cargo_test(&own, none);
    let unit = [
        "--workspace",
        "--exclude",
        "coracle-tests",
        "--exclude",
        "xtask",
        "--",
        "--show-output",
    ];
    let unit = steps::test(&unit, skip_log, complete);
    tally.add_cargo_test(&unit, none);
    let black_box = steps::test(&["--package", "coracle-tests"], skip_log, complete);
    tally.add_cargo_test(&black_box, skip_log);
    if extent != Extent::Quick {
        eprintln!("==> benchmark smoke");
        bench::smoke(tally);
    }
    let leaks = before.leaks_until_quiet();
    for leak in &leaks {
        eprintln!("left behind: {leak}");
    }
    tally.step("leak check", leaks.is_empty());
}
