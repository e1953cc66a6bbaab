//! `lint`, `test` and `check`: the order of the steps, and the one line at the end.

use std::fs;

use crate::leaks::Snapshot;
use crate::tally::{Allowed, Tally};
use crate::{bench, layers, needs, steps, workspace};

/// How much of the test suite runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it.
    Full,
    /// Without the benchmark smoke.
    Quick,
}

/// Layers, formatting, clippy.
pub(crate) fn lint() -> bool {
    let layers = layers::run();
    let format = steps::passes(&["fmt", "--all", "--", "--check"]);
    let clippy = steps::passes(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    layers && format && clippy
}

/// Lint, then the full test; the test's count is the last line either way.
pub(crate) fn check() -> bool {
    let lint = lint();
    if !lint {
        eprintln!("error: lint failed; the tests follow");
    }
    test(Extent::Full) && lint
}

/// Everything that proves the tree: installs what is missing, runs all tests, and compares the host before and after.
pub(crate) fn test(extent: Extent) -> bool {
    let mut tally = Tally::default();
    needs::install();
    tally.step("layers", layers::run());
    if steps::has("fmt") {
        tally.step("rustfmt", steps::passes(&["fmt", "--all", "--", "--check"]));
    } else {
        tally.skip("rustfmt", "not installed: rustup component add rustfmt");
    }
    let built = steps::passes(&["build", "--release", "--bin", "coracle"]);
    tally.step("cargo build --release", built);
    // Without the binary the black-box tests can only repeat that failure.
    if built {
        match tempfile::tempdir() {
            Ok(dir) => run_tests(&mut tally, &dir.path().join("skips"), extent),
            Err(error) => tally.step(&format!("a temporary folder: {error}"), false),
        }
    }
    let allowed = workspace().join(".ci/allowed-skips");
    let allowed = fs::read_to_string(&allowed)
        .map_err(|error| format!("{}: {error}", allowed.display()))
        .and_then(|text| Allowed::parse(&text));
    let allowed = allowed.unwrap_or_else(|reason| {
        tally.step(&reason, false);
        Vec::new()
    });
    let strict = std::env::var_os("CI").is_some_and(|value| value == "true" || value == "1");
    tally.finish(&allowed, strict)
}

fn run_tests(tally: &mut Tally, skip_log: &std::path::Path, extent: Extent) {
    let before = Snapshot::take();
    let unit = ["--workspace", "--exclude", "coracle-tests"];
    let unit = steps::test(&unit, skip_log);
    let black_box = steps::test(&["--package", "coracle-tests"], skip_log);
    tally.add_cargo_test(&unit, std::path::Path::new("/dev/null"));
    tally.failures.extend(black_box.failed.iter().cloned());
    tally.add_cargo_test(
        &crate::tally::CargoTest {
            passed: black_box.passed,
            failed: Vec::new(),
        },
        skip_log,
    );
    if extent == Extent::Full {
        eprintln!("==> benchmark smoke");
        bench::smoke(tally);
    }
    let leaks = before.leaks_until_quiet();
    for leak in &leaks {
        eprintln!("left behind: {leak}");
    }
    tally.step("leak check", leaks.is_empty());
}
