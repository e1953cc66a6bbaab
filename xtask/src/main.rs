//! `cargo xtask <command>`: what a contributor, and the CI, run.
//!
//! Invariants: every command works in a clean clone with nothing but Rust and a C linker; what it needs beyond that it
//! installs (as root, through apt) or names; a failure is exit code 1 with its reason, a mistyped command 2.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod bench;
mod fuzz;
mod layers;
mod leaks;
mod needs;
mod soak;
mod steps;
mod suite;
mod tally;
mod unsafe_code;
mod vm;

const USAGE: &str = "\
usage: cargo xtask <command>

  layers                     the crates' edges, unsafe code and tokio are where docs and DESIGN say
  lint                       layers, rustfmt, clippy
  test [--quick|--complete]  installs what is missing; layers, rustfmt, unit and black-box tests, benchmark smoke,
                             leak check; ends with `N passed, N failed, N skipped`
                             (--quick leaves out the benchmark smoke; --complete breaks every verb at every
                             system call, not at a sample of them, which takes hours)
  check                      lint, then test
  bench [--quick] [--json F] [--no-peers] [ID…]
                             measures the contracts of SPECIFICATION.md; with ids, only those
  vm [--kernel 6.1|6.12|newest|all] [--root|--user] [--refresh] [TEST…]
                             the test suite and `coracle conform` on Debian's kernels, in QEMU without KVM; a TEST is
                             a PROGRAM of tests/, PACKAGE/PROGRAM, or either with ::NAME (`limits`, `runtime/exec::late`)
  fuzz [--minutes N] [TARGET…]
                             runs the fuzz targets, 10 minutes in all if nothing else is said
  soak [--cycles N] [--workers N]
                             10,000 cycles of run, exec and rm, 8 at once; fails on what grows with them
";

fn main() -> ExitCode {
    if let Some(code) = vm::guest::run_if_inside() {
        return code;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let passed = match words.split_first() {
        Some((&"layers", [])) => layers::run(),
        Some((&"lint", [])) => suite::lint(),
        Some((&"test", [])) => suite::test(suite::Extent::Full),
        Some((&"test", ["--quick"])) => suite::test(suite::Extent::Quick),
        Some((&"test", ["--complete"])) => suite::test(suite::Extent::Complete),
        Some((&"check", [])) => suite::check(),
        Some((&"bench", rest)) => match bench::Options::parse(rest) {
            Ok(options) => bench::run(&options),
            Err(reason) => return usage(&reason),
        },
        Some((&"fuzz", rest)) => match fuzz::Options::parse(rest) {
            Ok(options) => fuzz::run(&options),
            Err(reason) => return usage(&reason),
        },
        Some((&"vm", rest)) => match vm::Options::parse(rest) {
            Ok(options) => vm::run(&options),
            Err(reason) => return usage(&reason),
        },
        Some((&"soak", rest)) => match soak::parse(rest) {
            Ok(plan) => soak::run(plan),
            Err(reason) => return usage(&reason),
        },
        Some((&("help" | "--help" | "-h"), _)) => {
            print!("{USAGE}");
            true
        }
        Some((command, rest)) => return usage(&format!("cannot {command} {rest:?}")),
        None => return usage("a command is missing"),
    };
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn usage(reason: &str) -> ExitCode {
    eprint!("error: {reason}\n\n{USAGE}");
    ExitCode::from(2)
}

/// The workspace's folder.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is in the workspace")
        .to_owned()
}
