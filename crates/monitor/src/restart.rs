//! Restart policies with Docker's back-off: 100 ms, doubled at each restart up to a minute, and 100 ms again after a
//! run of ten seconds. Pure: time comes in as durations.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exit::ExitStatus;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// When a container that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// After a failure, at most `max_retries` times (`None` or 0: without limit).
    OnFailure {
        /// The limit, counted over the container's life.
        max_retries: Option<u32>,
    },
    /// After every exit that no stop asked for; the engine also starts it after a reboot.
    Always,
    /// As `Always`, but also not after an exit that followed any signal sent by a user.
    UnlessStopped,
}

/// Who wanted the run to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Asked {
    /// A stop, or a kill with the stop signal or SIGKILL.
    pub(crate) stop: bool,
    /// Any other signal sent by a user.
    pub(crate) signal: bool,
}

/// What has to be remembered from one run to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartState {
    policy: RestartPolicy,
    count: u32,
    delay: Option<Duration>,
}

impl RestartState {
    /// The state before the first run; `count` restarts were already done by earlier monitors.
    pub fn new(policy: RestartPolicy, count: u32) -> RestartState {
        RestartState {
            policy,
            count,
            delay: None,
        }
    }

    /// Restarts so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Changes the policy from the next exit on.
    pub fn set_policy(&mut self, policy: RestartPolicy) {
        self.policy = policy;
    }

    /// A run that took `ran` ended: how long to wait until the next, or `None` for no next.
    pub(crate) fn after(
        &mut self,
        status: ExitStatus,
        ran: Duration,
        asked: Asked,
    ) -> Option<Duration> {
        let wanted = match self.policy {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure { max_retries } => {
                status.code() != 0 && max_retries.is_none_or(|most| most == 0 || self.count < most)
            }
            RestartPolicy::Always => true,
            RestartPolicy::UnlessStopped => !asked.signal,
        };
        if !wanted || asked.stop {
            return None;
        }
        let delay = match self.delay {
            Some(last) if ran < STABLE_AFTER => (last * 2).min(LONGEST_DELAY),
            _ => FIRST_DELAY,
        };
        self.delay = Some(delay);
        self.count += 1;
        Some(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    fn by_nobody() -> Asked {
        Asked::default()
    }

    #[test]
    fn delay_doubles_to_a_minute_and_starts_over_after_a_long_run() {
        let mut state = RestartState::new(RestartPolicy::Always, 0);
        let mut delays = Vec::new();
        for _ in 0..12 {
            let delay = state.after(ExitStatus::Code(0), SHORT, by_nobody());
            delays.push(delay.expect("always restarts").as_millis());
        }
        assert_eq!(
            delays,
            [
                100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000
            ]
        );
        let after_long = state.after(ExitStatus::Code(0), Duration::from_secs(10), by_nobody());
        assert_eq!(after_long, Some(FIRST_DELAY));
        assert_eq!(state.count(), 13);
    }

    #[test]
    fn each_policy_restarts_when_docker_does() {
        let stop = Asked {
            stop: true,
            signal: true,
        };
        let signal = Asked {
            stop: false,
            signal: true,
        };
        let failing = RestartPolicy::OnFailure { max_retries: None };
        for (policy, status, asked, restarts) in [
            (RestartPolicy::No, ExitStatus::Code(1), by_nobody(), false),
            (failing, ExitStatus::Code(1), by_nobody(), true),
            (failing, ExitStatus::Signal(9), by_nobody(), true),
            (failing, ExitStatus::Unknown, by_nobody(), true),
            (failing, ExitStatus::Code(0), by_nobody(), false),
            (failing, ExitStatus::Code(1), stop, false),
            (
                RestartPolicy::Always,
                ExitStatus::Code(0),
                by_nobody(),
                true,
            ),
            (RestartPolicy::Always, ExitStatus::Code(0), signal, true),
            (RestartPolicy::Always, ExitStatus::Code(0), stop, false),
            (
                RestartPolicy::UnlessStopped,
                ExitStatus::Code(0),
                by_nobody(),
                true,
            ),
            (
                RestartPolicy::UnlessStopped,
                ExitStatus::Code(0),
                signal,
                false,
            ),
            (
                RestartPolicy::UnlessStopped,
                ExitStatus::Code(0),
                stop,
                false,
            ),
        ] {
            let next = RestartState::new(policy, 0).after(status, SHORT, asked);
            assert_eq!(next.is_some(), restarts, "{policy:?} {status:?} {asked:?}");
        }
    }

    #[test]
    fn retries_are_limited_across_monitors() {
        let policy = RestartPolicy::OnFailure {
            max_retries: Some(3),
        };
        let mut state = RestartState::new(policy, 1);
        let mut runs = 0;
        while state
            .after(ExitStatus::Code(1), SHORT, by_nobody())
            .is_some()
        {
            runs += 1;
        }
        assert_eq!((runs, state.count()), (2, 3));
    }
}
