//! `cargo xtask bench`: measures every contract of SPECIFICATION.md, side by side with the peers where they are.
//!
//! Invariants: a ratio compares runs that alternate within one process of this program, so that both saw the same host;
//! a figure that could not be taken is a visible skip and never a pass; the contracts live in SPECIFICATION.md alone.

mod contracts;
mod density;
mod fresh;
mod images;
mod latency;
mod measure;
mod oci;
mod peers;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use contracts::Contract;
use peers::Peers;
use serde_json::json;

use crate::tally::Tally;
use crate::{steps, workspace};

/// What the command line asks for.
pub(crate) struct Options {
    quick: bool,
    peers: bool,
    json: Option<PathBuf>,
    only: Vec<String>,
}

impl Options {
    /// Reads `[--quick] [--json F] [--no-peers] [ID…]`.
    pub(crate) fn parse(args: &[&str]) -> Result<Options, String> {
        let mut options = Options {
            quick: false,
            peers: true,
            json: None,
            only: Vec::new(),
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--quick" => options.quick = true,
                "--no-peers" => options.peers = false,
                "--json" => {
                    let file = args.next().ok_or("--json needs a file")?;
                    options.json = Some(PathBuf::from(file));
                }
                id if !id.starts_with('-') => options.only.push(id.to_owned()),
                other => return Err(format!("bench does not know {other}")),
            }
        }
        Ok(options)
    }
}

/// What the benchmarks found.
#[derive(Default)]
struct Figures {
    /// By contract id.
    contracts: BTreeMap<String, f64>,
    /// The medians behind them, by a name that says whose and what, in the unit that the name ends with.
    behind: BTreeMap<String, f64>,
    /// What could not be measured, `name: reason`.
    skips: Vec<(String, String)>,
    /// Benchmarks that broke.
    broken: Vec<String>,
}

impl Figures {
    fn skip(&mut self, name: &str, reason: &str) {
        self.skips.push((name.to_owned(), reason.to_owned()));
    }
}

/// How often things are done.
struct Scale {
    /// Rounds of alternating runs.
    rounds: usize,
    /// Runs back to back in a round.
    batch: usize,
    /// Started at once.
    burst: usize,
    /// Containers for `ps` and `create`.
    crowd: usize,
    /// Idle detached containers.
    idle: usize,
}

const FULL: Scale = Scale {
    rounds: 15,
    batch: 10,
    burst: 100,
    crowd: 1000,
    idle: 100,
};
const QUICK: Scale = Scale {
    rounds: 4,
    batch: 5,
    burst: 20,
    crowd: 200,
    idle: 20,
};

/// Builds the binary (unless `CORACLE_BIN` names one), measures and prints; fails on a missed contract.
pub(crate) fn run(options: &Options) -> bool {
    let given = std::env::var_os("CORACLE_BIN").is_some();
    if !given && !steps::passes(&["build", "--release", "--bin", "coracle"]) {
        return false;
    }
    let table = match contracts::load(&workspace().join("SPECIFICATION.md")) {
        Ok(table) => table,
        Err(reason) => {
            eprintln!("error: {reason}");
            return false;
        }
    };
    let figures = measure_all(options);
    let passed = report(&table, &figures, options.quick);
    for (name, reason) in &figures.skips {
        println!("SKIP: {name}: {reason}");
    }
    if let Some(file) = &options.json {
        let document = json!({"contracts": figures.contracts, "medians": figures.behind});
        if let Err(error) = std::fs::write(file, format!("{document:#}\n")) {
            eprintln!("error: {}: {error}", file.display());
            return false;
        }
    }
    passed
}

/// The quick form as a step of the test run: no peers, each contract a step, missed only by more than half.
pub(crate) fn smoke(tally: &mut Tally) {
    let table = match contracts::load(&workspace().join("SPECIFICATION.md")) {
        Ok(table) => table,
        Err(reason) => return tally.step(&reason, false),
    };
    let options = Options {
        quick: true,
        peers: false,
        json: None,
        only: Vec::new(),
    };
    let figures = measure_all(&options);
    let passed = report(&table, &figures, true);
    tally.step("benchmark smoke", passed);
    for (name, reason) in &figures.skips {
        tally.skip(&format!("bench {name}"), reason);
    }
}

fn measure_all(options: &Options) -> Figures {
    let scale = if options.quick { &QUICK } else { &FULL };
    let mut figures = Figures::default();
    let peers = if options.peers {
        Peers::find()
    } else {
        Err("the smoke run leaves the peers out; `cargo xtask bench` compares".to_owned())
    };
    let mut peers = match peers {
        Ok(peers) => Some(peers),
        Err(reason) => {
            figures.skip("peers", &reason);
            None
        }
    };
    type Benchmark = fn(&mut Figures, &Scale, Option<&mut Peers>);
    let all: [(&str, Benchmark); 7] = [
        ("binary", density::binary),
        ("run", latency::run),
        ("exec", latency::exec),
        ("oci", oci::run),
        ("burst", latency::burst),
        ("crowd", density::crowd),
        ("idle", density::idle),
    ];
    for (name, benchmark) in all.into_iter().chain([("load", images::load as Benchmark)]) {
        if !options.only.is_empty() && !options.only.iter().any(|only| name == only) {
            continue;
        }
        eprintln!("measuring: {name}");
        // The harness reports by panicking, as in a test; the other figures are still wanted.
        let ended = catch_unwind(AssertUnwindSafe(|| {
            benchmark(&mut figures, scale, peers.as_mut())
        }));
        if ended.is_err() {
            figures.broken.push(name.to_owned());
        }
    }
    figures
}

/// Prints the table and the medians. A contract is missed when its figure is above the limit, in the quick form above
/// one and a half times the limit, or of what was last measured where the contract is open.
fn report(table: &[Contract], figures: &Figures, quick: bool) -> bool {
    let slack = if quick { 1.5 } else { 1.0 };
    let mut passed = figures.broken.is_empty();
    for name in &figures.broken {
        println!("benchmark {name} broke, see above");
    }
    println!(
        "{:<22} {:>12} {:>10}  {:<9} what",
        "contract", "measured", "at most", ""
    );
    for contract in table {
        let Some(value) = figures.contracts.get(&contract.id) else {
            println!(
                "{:<22} {:>12} {:>10}  {:<9} {}",
                contract.id, "-", contract.limit, "", contract.what
            );
            continue;
        };
        // The full form holds an open contract to its limit like any other.
        let bound = contract.open.filter(|_| quick).unwrap_or(contract.limit);
        let verdict = if *value <= contract.limit {
            "holds"
        } else if *value <= bound * slack {
            "missed"
        } else {
            passed = false;
            "MISSED"
        };
        println!(
            "{:<22} {value:>12.3} {:>10}  {verdict:<9} {}",
            contract.id, contract.limit, contract.what
        );
    }
    for id in figures
        .contracts
        .keys()
        .filter(|id| table.iter().all(|row| row.id != **id))
    {
        println!("{id} is measured, but SPECIFICATION.md has no such contract");
        passed = false;
    }
    for (name, value) in &figures.behind {
        println!("  {name:<40} {value:>10.2}");
    }
    passed
}
