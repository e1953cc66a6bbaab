//! `conform`: one enforcement test a column of the table of operating-system-level virtualization.
//!
//! Each test drives an engine through its own command line, so that others can be measured by the same rule. A program
//! inside the container ([`inside`], this binary again) pushes against a limit, and what the kernel did is the evidence.
//! No test asks for versions or reads what an engine says of itself where the effect can be observed.
//!
//! Invariants: what a test makes is removed when it ends, however it ends ([`subject::Subject`] does it when dropped); a
//! test that cannot be made on this host is skipped with the reason, and never counts as passed.

mod copy_on_write;
mod cpu;
mod files;
mod image;
pub(crate) mod inside;
mod io;
mod memory;
mod root;
mod subject;

use serde_json::{Value, json};

pub(crate) use subject::{INSIDE, Subject};

/// What became of one check or one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It holds, as observed.
    Yes,
    /// It does not.
    No,
    /// It cannot be tested here.
    Skip,
}

impl Outcome {
    /// The word in the table.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Outcome::Yes => "Yes",
            Outcome::No => "No",
            Outcome::Skip => "Skip",
        }
    }
}

/// One observation.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    /// What ought to hold.
    pub(crate) what: &'static str,
    /// Whether it does.
    pub(crate) outcome: Outcome,
    /// What was seen.
    pub(crate) evidence: String,
}

/// The observations of one column.
#[derive(Debug, Default)]
pub(crate) struct Checks(Vec<Check>);

impl Checks {
    /// Adds what holds if `holds`.
    pub(crate) fn add(&mut self, what: &'static str, holds: bool, evidence: impl Into<String>) {
        let outcome = if holds { Outcome::Yes } else { Outcome::No };
        self.0.push(Check {
            what,
            outcome,
            evidence: evidence.into(),
        });
    }

    /// Adds what an attempt gave; one that could not be made does not hold.
    pub(crate) fn attempt(&mut self, what: &'static str, attempt: Result<(bool, String), String>) {
        match attempt {
            Ok((holds, evidence)) => self.add(what, holds, evidence),
            Err(problem) => self.add(what, false, problem),
        }
    }

    /// Adds what this host cannot show.
    pub(crate) fn skip(&mut self, what: &'static str, reason: impl Into<String>) {
        self.0.push(Check {
            what,
            outcome: Outcome::Skip,
            evidence: reason.into(),
        });
    }

    fn outcome(&self) -> Outcome {
        let any = |outcome| self.0.iter().any(|check| check.outcome == outcome);
        match (any(Outcome::No), any(Outcome::Skip) || self.0.is_empty()) {
            (true, _) => Outcome::No,
            (false, true) => Outcome::Skip,
            (false, false) => Outcome::Yes,
        }
    }
}

/// A column of the table.
pub(crate) struct Column {
    /// Its number there.
    pub(crate) number: u8,
    /// Its heading there.
    pub(crate) feature: &'static str,
    /// Its test; `None`: this engine does not have the feature yet.
    test: Option<fn(&Subject, &mut Checks)>,
}

/// The ten columns.
pub(crate) const COLUMNS: [Column; 10] = [
    Column {
        number: 1,
        feature: "file system isolation",
        test: Some(files::test),
    },
    Column {
        number: 2,
        feature: "copy on write",
        test: Some(copy_on_write::test),
    },
    Column {
        number: 3,
        feature: "disk quotas",
        test: None,
    },
    Column {
        number: 4,
        feature: "I/O rate limiting",
        test: Some(io::test),
    },
    Column {
        number: 5,
        feature: "memory limits",
        test: Some(memory::test),
    },
    Column {
        number: 6,
        feature: "CPU quotas",
        test: Some(cpu::test),
    },
    Column {
        number: 7,
        feature: "network isolation",
        test: None,
    },
    Column {
        number: 8,
        feature: "nested virtualization",
        test: None,
    },
    Column {
        number: 9,
        feature: "checkpointing and live migration",
        test: None,
    },
    Column {
        number: 10,
        feature: "root privilege isolation",
        test: Some(root::test),
    },
];

/// The result of one column for one engine.
#[derive(Debug)]
pub(crate) struct Finding {
    /// The engine's name.
    pub(crate) engine: String,
    /// Number of the column.
    pub(crate) column: u8,
    /// Its heading.
    pub(crate) feature: &'static str,
    /// Whether there is a test.
    pub(crate) tested: bool,
    /// The verdict.
    pub(crate) outcome: Outcome,
    /// All observations.
    pub(crate) checks: Vec<Check>,
}

impl Column {
    /// Tests one engine.
    pub(crate) fn try_on(&self, subject: &Subject) -> Finding {
        let mut checks = Checks::default();
        if let Some(test) = self.test {
            test(subject, &mut checks);
        }
        let outcome = if self.test.is_some() {
            checks.outcome()
        } else {
            Outcome::No
        };
        Finding {
            engine: subject.name().to_owned(),
            column: self.number,
            feature: self.feature,
            tested: self.test.is_some(),
            outcome,
            checks: checks.0,
        }
    }
}

impl Finding {
    /// The evidence on one line: what failed, else what was skipped, else all that was seen.
    pub(crate) fn summary(&self) -> String {
        if !self.tested {
            return "not built yet".into();
        }
        let told: Vec<_> = self
            .checks
            .iter()
            .filter(|check| check.outcome == self.outcome)
            .map(|check| {
                format!(
                    "{}: {}",
                    check.what,
                    check.evidence.replace(['\n', '\t'], " ")
                )
            })
            .collect();
        told.join("; ")
    }

    /// The finding as a document.
    pub(crate) fn document(&self) -> Value {
        let checks: Vec<_> = self
            .checks
            .iter()
            .map(|check| json!({"what": check.what, "answer": check.outcome.as_str(), "evidence": check.evidence}))
            .collect();
        json!({
            "engine": self.engine,
            "column": self.column,
            "feature": self.feature,
            "tested": self.tested,
            "answer": self.outcome.as_str(),
            "checks": checks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_is_never_a_pass_and_a_failure_outweighs_it() {
        let mut checks = Checks::default();
        assert_eq!(checks.outcome(), Outcome::Skip);
        checks.add("a", true, "");
        assert_eq!(checks.outcome(), Outcome::Yes);
        checks.skip("b", "");
        assert_eq!(checks.outcome(), Outcome::Skip);
        checks.attempt("c", Err("it broke".into()));
        assert_eq!(checks.outcome(), Outcome::No);
    }

    #[test]
    fn the_columns_are_the_tables() {
        for (index, column) in COLUMNS.iter().enumerate() {
            assert_eq!(usize::from(column.number), index + 1);
        }
    }
}
