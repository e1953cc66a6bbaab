//! Health checks with Docker's meaning. [`HealthState`] is pure: times come in, a decision comes out; running the
//! probe is the loop's business.
//!
//! - The first probe runs one interval after the start; the next one an interval after the last one's end.
//! - While the status is `starting` and the start period lasts, the start interval is used and failures do not count.
//! - `retries` failures in a row make `unhealthy`; one success makes `healthy`.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Results kept in the record.
pub const RESULTS_KEPT: usize = 5;
/// Bytes of a probe's output kept.
pub const OUTPUT_KEPT: usize = 4096;

/// What a probe runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthCommand {
    /// This program with these arguments (`CMD`).
    Exec(Vec<String>),
    /// This text by the container's shell (`CMD-SHELL`).
    Shell(String),
}

/// A health check; the defaults are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What to run; exit code 0 is healthy.
    pub command: HealthCommand,
    /// Between probes; zero means the default of 30 s.
    pub interval: Duration,
    /// A probe that takes longer is killed and has failed; zero means the default of 30 s.
    pub timeout: Duration,
    /// How long failures do not count after a start.
    pub start_period: Duration,
    /// Between probes during the start period, until the first success; zero means the default of 5 s.
    pub start_interval: Duration,
    /// Failures in a row that make the container unhealthy; 0 means the default of 3.
    pub retries: u32,
}

impl HealthCheck {
    /// `command` with Docker's defaults: 30 s, 30 s, 0 s, 5 s, 3.
    pub fn new(command: HealthCommand) -> HealthCheck {
        HealthCheck {
            command,
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(30),
            start_period: Duration::ZERO,
            start_interval: Duration::from_secs(5),
            retries: 3,
        }
    }
}

/// What is known of a container's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// No verdict yet.
    Starting,
    /// The last probe that counted succeeded, or failures are still below the limit.
    Healthy,
    /// Too many failures in a row.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            HealthStatus::Starting => "starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
        }
    }
}

/// One probe's result, in the form of Docker's documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProbeResult {
    /// When the probe began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// Its exit code; −1 when it was killed for time or could not be started.
    pub exit_code: i32,
    /// At most [`OUTPUT_KEPT`] bytes of its output.
    pub output: String,
}

/// The health record after a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthUpdate {
    /// The status now.
    pub status: HealthStatus,
    /// Failures in a row that counted.
    pub failing_streak: u32,
    /// The last [`RESULTS_KEPT`] results, oldest first.
    pub log: Vec<ProbeResult>,
    /// Whether `status` differs from before this result.
    #[serde(skip)]
    pub changed: bool,
}

/// The state of one run's health.
#[derive(Debug)]
pub struct HealthState {
    check: HealthCheck,
    record: HealthUpdate,
}

impl HealthState {
    /// The state at the start of a run. Durations of zero that would make no sense become the defaults.
    pub fn new(mut check: HealthCheck) -> HealthState {
        let default = HealthCheck::new(HealthCommand::Exec(Vec::new()));
        for (given, default) in [
            (&mut check.interval, default.interval),
            (&mut check.timeout, default.timeout),
            (&mut check.start_interval, default.start_interval),
        ] {
            if given.is_zero() {
                *given = default;
            }
        }
        if check.retries == 0 {
            check.retries = default.retries;
        }
        HealthState {
            check,
            record: HealthUpdate {
                status: HealthStatus::Starting,
                failing_streak: 0,
                log: Vec::new(),
                changed: false,
            },
        }
    }

    /// What is being checked.
    pub fn check(&self) -> &HealthCheck {
        &self.check
    }

    /// The record so far.
    pub fn record(&self) -> &HealthUpdate {
        &self.record
    }

    /// How long to wait until the next probe, the run being `age` old.
    pub fn wait(&self, age: Duration) -> Duration {
        let starting = self.record.status == HealthStatus::Starting;
        if starting && age < self.check.start_period {
            self.check.start_interval
        } else {
            self.check.interval
        }
    }

    /// Takes a result of a probe that began when the run was `age` old.
    pub fn result(&mut self, result: ProbeResult, age: Duration) -> &HealthUpdate {
        let before = self.record.status;
        if result.exit_code == 0 {
            self.record.failing_streak = 0;
            self.record.status = HealthStatus::Healthy;
        } else if before != HealthStatus::Starting || age >= self.check.start_period {
            self.record.failing_streak += 1;
            if self.record.failing_streak >= self.check.retries {
                self.record.status = HealthStatus::Unhealthy;
            }
        }
        if self.record.log.len() == RESULTS_KEPT {
            self.record.log.remove(0);
        }
        self.record.log.push(result);
        self.record.changed = self.record.status != before;
        &self.record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(start_period: u64, retries: u32) -> HealthState {
        let mut check = HealthCheck::new(HealthCommand::Shell("true".into()));
        check.start_period = Duration::from_secs(start_period);
        check.retries = retries;
        HealthState::new(check)
    }

    fn result(exit_code: i32) -> ProbeResult {
        ProbeResult {
            start: Timestamp::UNIX_EPOCH,
            end: Timestamp::UNIX_EPOCH,
            exit_code,
            output: String::new(),
        }
    }

    #[test]
    fn status_follows_dockers_table() {
        use HealthStatus::{Healthy, Starting, Unhealthy};
        // (start period, retries, [(age, exit code, expected status, expected streak)])
        type Step = (u64, i32, HealthStatus, u32);
        let table: &[(u64, u32, &[Step])] = &[
            (0, 3, &[(30, 0, Healthy, 0)]),
            (
                0,
                3,
                &[
                    (30, 1, Starting, 1),
                    (60, 1, Starting, 2),
                    (90, 1, Unhealthy, 3),
                    (120, 1, Unhealthy, 4),
                    (150, 0, Healthy, 0),
                ],
            ),
            (
                0,
                2,
                &[
                    (30, 0, Healthy, 0),
                    (60, -1, Healthy, 1),
                    (90, 0, Healthy, 0),
                    (120, 127, Healthy, 1),
                    (150, 2, Unhealthy, 2),
                ],
            ),
            (
                100,
                1,
                &[
                    (5, 1, Starting, 0),
                    (99, 1, Starting, 0),
                    (100, 1, Unhealthy, 1),
                ],
            ),
            // A success ends the grace of the start period.
            (100, 1, &[(5, 0, Healthy, 0), (10, 1, Unhealthy, 1)]),
            (
                0,
                0,
                &[
                    (1, 1, Starting, 1),
                    (2, 1, Starting, 2),
                    (3, 1, Unhealthy, 3),
                ],
            ),
        ];
        for (start_period, retries, steps) in table {
            let mut state = state(*start_period, *retries);
            let mut last = Starting;
            for (age, exit_code, status, streak) in *steps {
                let update = state.result(result(*exit_code), Duration::from_secs(*age));
                assert_eq!(
                    (update.status, update.failing_streak, update.changed),
                    (*status, *streak, *status != last),
                    "start period {start_period}, retries {retries}, age {age}"
                );
                last = *status;
            }
        }
    }

    #[test]
    fn start_interval_holds_until_the_first_success_or_the_end_of_the_period() {
        let mut state = state(20, 3);
        assert_eq!(state.wait(Duration::ZERO), Duration::from_secs(5));
        assert_eq!(state.wait(Duration::from_secs(20)), Duration::from_secs(30));
        state.result(result(0), Duration::from_secs(5));
        assert_eq!(state.wait(Duration::from_secs(5)), Duration::from_secs(30));
    }

    #[test]
    fn five_results_are_kept() {
        let mut state = state(0, 3);
        for code in 0..8 {
            state.result(result(code), Duration::ZERO);
        }
        let kept: Vec<i32> = state.record().log.iter().map(|r| r.exit_code).collect();
        assert_eq!(kept, [3, 4, 5, 6, 7]);
    }
}
