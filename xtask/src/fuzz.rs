//! `cargo xtask fuzz`: every target of fuzz/ for a share of the time, each from its seeds and what earlier runs found.
//!
//! The targets have cargo-fuzz's layout (`cargo fuzz run NAME` works for who has it), but are built here by themselves: the
//! coverage that libFuzzer needs is two flags of the compiler, on any toolchain, and the parsers are safe code, for which
//! a sanitizer finds nothing that the checks of the profile `fuzz` do not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::steps;
use crate::workspace;

/// As cargo-fuzz has them, without a sanitizer.
const RUSTFLAGS: &str = "--cfg fuzzing -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
     -C llvm-args=-sanitizer-coverage-trace-compares -C llvm-args=-sanitizer-coverage-inline-8bit-counters \
     -C llvm-args=-sanitizer-coverage-pc-table";

/// What one input may hold of memory and take of time.
const LIMITS: [&str; 3] = ["-rss_limit_mb=768", "-malloc_limit_mb=256", "-timeout=10"];

/// What was asked for.
pub(crate) struct Options {
    minutes: f64,
    only: Vec<String>,
}

impl Options {
    /// Reads `[--minutes N] [TARGET…]`.
    pub(crate) fn parse(words: &[&str]) -> Result<Options, String> {
        let mut options = Options {
            minutes: 10.0,
            only: Vec::new(),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--minutes" => {
                    let number = words.next().and_then(|number| number.parse().ok());
                    options.minutes = number
                        .filter(|minutes| (0.01..10_000.0).contains(minutes))
                        .ok_or("--minutes needs a number of minutes")?;
                }
                option if option.starts_with('-') => return Err(format!("fuzz has no {option}")),
                target => options.only.push(target.to_owned()),
            }
        }
        Ok(options)
    }
}

/// Builds the targets and runs each; gives whether none found anything.
pub(crate) fn run(options: &Options) -> bool {
    let all = match targets() {
        Ok(all) => all,
        Err(reason) => {
            eprintln!("error: {reason}");
            return false;
        }
    };
    if let Some(unknown) = options.only.iter().find(|name| !all.contains(name)) {
        eprintln!(
            "error: there is no target {unknown}; there are {}",
            all.join(", ")
        );
        return false;
    }
    if !build() {
        eprintln!("hint: libFuzzer is C++: install a compiler for it (Debian: g++)");
        return false;
    }
    let chosen: Vec<&String> = all
        .iter()
        .filter(|name| options.only.is_empty() || options.only.contains(name))
        .collect();
    let share = Duration::from_secs_f64(options.minutes * 60.0 / chosen.len() as f64);
    let mut broken = Vec::new();
    for name in chosen {
        match fuzz(name, share) {
            Ok(found) if found.is_empty() => {}
            Ok(found) => broken.extend(found),
            Err(reason) => broken.push(format!("{name}: {reason}")),
        }
    }
    for input in &broken {
        println!("FAILED: {input}");
    }
    println!(
        "{} targets, {} inputs that break something",
        all.len(),
        broken.len()
    );
    broken.is_empty()
}

fn targets() -> Result<Vec<String>, String> {
    let folder = workspace().join("fuzz/fuzz_targets");
    let entries =
        fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        names.push(name.into_owned());
    }
    names.sort();
    Ok(names)
}

/// Apart from the ordinary builds, whose flags are others.
fn build_folder() -> PathBuf {
    workspace().join("fuzz/target")
}

fn build() -> bool {
    eprintln!("==> building the fuzz targets");
    let features = ["--features", "libfuzzer", "--bins"];
    steps::cargo(&["build", "--profile", "fuzz", "--package", "coracle-fuzz"])
        .args(features)
        .arg("--target-dir")
        .arg(build_folder())
        .env("RUSTFLAGS", RUSTFLAGS)
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs one target; gives the inputs that it found.
fn fuzz(name: &str, share: Duration) -> Result<Vec<String>, String> {
    let fuzz = workspace().join("fuzz");
    let corpus = fuzz.join("corpus").join(name);
    let found = fuzz.join("artifacts").join(name);
    for folder in [&corpus, &found] {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let before = files(&found)?;
    let program = program(name)?;
    // Many targets make files; in memory they are quick to come and go.
    let scratch = tempfile::Builder::new()
        .prefix("coracle-fuzz-")
        .tempdir_in(if Path::new("/dev/shm").is_dir() {
            "/dev/shm"
        } else {
            "/var/tmp"
        })
        .map_err(|error| format!("no scratch folder: {error}"))?;
    let seconds = share.as_secs().max(1);
    eprintln!("==> {name}, {seconds} s");
    let log = fs::File::create(scratch.path().join("log")).map_err(|error| error.to_string())?;
    let status = Command::new(program)
        .args(LIMITS)
        .arg(format!("-max_total_time={seconds}"))
        .args([
            "-max_len=16384",
            "-print_final_stats=1",
            "-use_value_profile=1",
        ])
        .arg(format!("-dict={}", fuzz.join("dictionary").display()))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .arg(&corpus)
        .arg(fuzz.join("seeds").join(name))
        .current_dir(scratch.path())
        .env("TMPDIR", scratch.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .status()
        .map_err(|error| format!("it cannot be started: {error}"))?;
    let text = fs::read(scratch.path().join("log")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    for line in text.lines().filter(|line| line.starts_with("stat::")) {
        if line.contains("executed_units") || line.contains("peak_rss") {
            eprintln!("    {}", line.trim_start_matches("stat::"));
        }
    }
    let new: Vec<String> = files(&found)?
        .into_iter()
        .filter(|path| !before.contains(path))
        .map(|path| path.display().to_string())
        .collect();
    if !status.success() {
        let end = text.lines().filter(|line| !line.starts_with('#'));
        let end: Vec<&str> = end.take(40).collect();
        eprintln!("{}", end.join("\n"));
        if new.is_empty() {
            return Err(format!("it ended with {status}, and left no input"));
        }
    }
    Ok(new)
}

fn program(name: &str) -> Result<PathBuf, String> {
    let folder = build_folder();
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    [folder.join(triple).join("fuzz"), folder.join("fuzz")]
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| format!("{} has no {name}", folder.display()))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    entries
        .map(|entry| {
            entry
                .map(|entry| entry.path())
                .map_err(|error| error.to_string())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_targets_are_read() {
        let options =
            Options::parse(&["--minutes", "0.5", "names"]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((options.minutes, options.only.len()), (0.5, 1));
        for wrong in [
            &["--minutes"][..],
            &["--minutes", "x"],
            &["--minutes", "0"],
            &["-j"],
        ] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn targets_are_those_of_the_folder() {
        assert!(
            targets()
                .unwrap_or_default()
                .contains(&"archive_ingest".to_owned())
        );
    }
}
