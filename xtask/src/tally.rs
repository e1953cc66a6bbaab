//! What passed, failed and was skipped, over all steps; prints the run's last line.

use std::fs;
use std::path::Path;

use crate::workspace;

/// Counts over a whole run.
#[derive(Default)]
pub(crate) struct Tally {
    /// Tests and steps that held.
    pub(crate) passed: usize,
    /// What failed, by name.
    pub(crate) failures: Vec<String>,
    /// Each skip as `name: reason`.
    pub(crate) skips: Vec<String>,
}

impl Tally {
    /// Counts one step.
    pub(crate) fn step(&mut self, name: &str, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failures.push(name.to_owned());
        }
    }

    /// Counts a step that cannot run here.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        eprintln!("SKIP: {name}: {reason}");
        self.skips.push(format!("{name}: {reason}"));
    }

    /// Adds what one run of `cargo test` printed, of which the tests in the skip log passed only in name.
    pub(crate) fn add_cargo_test(&mut self, output: &CargoTest, skip_log: &Path) {
        let log = fs::read_to_string(skip_log).unwrap_or_default();
        let logged = log.lines().filter_map(|line| line.strip_prefix("SKIP: "));
        let printed = output.skips.iter().map(String::as_str);
        let skips: Vec<String> = logged.chain(printed).map(str::to_owned).collect();
        self.add(output.passed, output.failed.clone(), skips);
    }

    /// Adds the results of a test program, in whose `passed` the tests that skipped are counted.
    pub(crate) fn add(&mut self, passed: usize, failed: Vec<String>, skips: Vec<String>) {
        // A test may skip more than one thing; it is one test that did not prove what its name says.
        let mut tests: Vec<&str> = skips
            .iter()
            .map(|skip| skip.split(": ").next().unwrap_or(skip))
            .collect();
        tests.sort_unstable();
        tests.dedup();
        self.passed += passed.saturating_sub(tests.len());
        self.failures.extend(failed);
        self.skips.extend(skips);
    }

    /// Reads `.ci/allowed-skips`; a list that cannot be read allows nothing, and is a failure.
    pub(crate) fn allowed_skips(&mut self) -> Vec<Allowed> {
        let path = workspace().join(".ci/allowed-skips");
        let allowed = fs::read_to_string(&path)
            .map_err(|error| format!("{}: {error}", path.display()))
            .and_then(|text| Allowed::parse(&text));
        allowed.unwrap_or_else(|reason| {
            self.step(&reason, false);
            Vec::new()
        })
    }

    /// Prints every failure and skip, then the last line; a skip that `allowed` does not list is a failure when
    /// `strict`. Gives whether all is well.
    pub(crate) fn finish(mut self, allowed: &[Allowed], strict: bool) -> bool {
        if strict {
            let surprising = self
                .skips
                .iter()
                .filter(|skip| !allowed.iter().any(|a| a.covers(skip)));
            let surprising: Vec<String> = surprising
                .map(|skip| format!("skipped, but .ci/allowed-skips does not list it: {skip}"))
                .collect();
            self.failures.extend(surprising);
        }
        println!();
        for failure in &self.failures {
            println!("FAILED: {failure}");
        }
        for skip in &self.skips {
            println!("SKIPPED: {skip}");
        }
        println!(
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failures.len(),
            self.skips.len()
        );
        self.failures.is_empty()
    }
}

/// Whether a skip that is not allowed is a failure, as it is in CI.
pub(crate) fn is_strict() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true" || value == "1")
}

/// One line of .ci/allowed-skips: `<test or file::*>: <text that the reason contains>`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    name: String,
    reason: String,
}

impl Allowed {
    /// Reads the list; `#` begins a comment, blank lines do not count.
    pub(crate) fn parse(text: &str) -> Result<Vec<Allowed>, String> {
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                let (name, reason) = line
                    .split_once(": ")
                    .ok_or_else(|| format!("no `name: reason` in {line:?}"))?;
                Ok(Allowed {
                    name: name.to_owned(),
                    reason: reason.to_owned(),
                })
            })
            .collect()
    }

    fn covers(&self, skip: &str) -> bool {
        let (name, reason) = skip.split_once(": ").unwrap_or((skip, ""));
        let named = match self.name.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == self.name,
        };
        named && reason.contains(&self.reason)
    }
}

/// What `cargo test` printed, counted.
#[derive(Default, Debug, PartialEq, Eq)]
pub(crate) struct CargoTest {
    /// Tests that passed, over all test programs.
    pub(crate) passed: usize,
    /// Names of the tests that failed, and a line for anything else that went wrong.
    pub(crate) failed: Vec<String>,
    /// What tests printed as `SKIP: test: reason`.
    pub(crate) skips: Vec<String>,
}

impl CargoTest {
    /// Takes one line of the output in.
    pub(crate) fn line(&mut self, line: &str) {
        if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix("FAILED"))
            .and_then(|rest| rest.trim_end().strip_suffix("..."))
        {
            self.failed.push(name.trim_end().to_owned());
        }
        if let Some(skip) = line.strip_prefix("SKIP: ") {
            self.skips.push(skip.to_owned());
        }
        if let Some(rest) = line.strip_prefix("test result: ") {
            let passed = rest
                .split_once(". ")
                .and_then(|(_, counts)| counts.split_once(" passed"))
                .and_then(|(count, _)| count.parse::<usize>().ok());
            match passed {
                Some(count) => self.passed += count,
                None => self.failed.push(format!("cannot read {line:?}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_programs_are_added() {
        let mut seen = CargoTest::default();
        for line in [
            "running 3 tests",
            "test a::works ... ok",
            "test a::breaks ... FAILED",
            "SKIP: a::needs_more: not root",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s",
        ] {
            seen.line(line);
        }
        assert_eq!(
            seen,
            CargoTest {
                passed: 8,
                failed: vec!["a::breaks".to_owned()],
                skips: vec!["a::needs_more: not root".to_owned()],
            }
        );
    }

    #[test]
    fn skipped_tests_do_not_count_as_passed() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let log = dir.path().join("log");
        fs::write(
            &log,
            "SKIP: limits::a: needs root\nSKIP: limits::a: no cc\nSKIP: user::b: no uidmap\n",
        )
        .expect("it is ours");
        let mut tally = Tally::default();
        tally.add_cargo_test(
            &CargoTest {
                passed: 6,
                failed: Vec::new(),
                skips: vec!["c: no kernel".to_owned()],
            },
            &log,
        );
        assert_eq!((tally.passed, tally.skips.len()), (3, 4));
    }

    #[test]
    fn only_listed_skips_are_allowed_when_strict() {
        let allowed = Allowed::parse("# why\n\nbench: not installed\nrootless::*: delegat\n")
            .expect("parses");
        assert!(
            allowed
                .iter()
                .any(|a| a.covers("bench: peers are not installed"))
        );
        assert!(
            allowed
                .iter()
                .any(|a| a.covers("rootless::memory: no delegation"))
        );
        assert!(
            !allowed
                .iter()
                .any(|a| a.covers("rootless::memory: no userns"))
        );
        let skipped = || Tally {
            skips: vec!["limits::cpu: slow".to_owned()],
            ..Tally::default()
        };
        assert!(!skipped().finish(&allowed, true));
        assert!(skipped().finish(&allowed, false));
        assert!(Allowed::parse("no reason").is_err());
    }
}
