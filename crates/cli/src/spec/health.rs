//! Health check options.

use coracle_engine::request::Health;

use crate::error::Error;
use crate::units;

/// A health check as typed.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Health")]
pub(crate) struct HealthArguments {
    /// Command that checks, run by the container's shell
    #[arg(long, value_name = "COMMAND")]
    pub(crate) health_cmd: Option<String>,
    /// Time between checks (default: 30s)
    #[arg(long, value_name = "DURATION")]
    pub(crate) health_interval: Option<String>,
    /// Time that a check may take (default: 30s)
    #[arg(long, value_name = "DURATION")]
    pub(crate) health_timeout: Option<String>,
    /// Failures in a row that make it unhealthy (default: 3)
    #[arg(long, value_name = "NUMBER")]
    pub(crate) health_retries: Option<String>,
    /// Time after the start in which failures do not count (default: 0s)
    #[arg(long, value_name = "DURATION")]
    pub(crate) health_start_period: Option<String>,
    /// Time between checks in the start period (default: 5s)
    #[arg(long, value_name = "DURATION")]
    pub(crate) health_start_interval: Option<String>,
    /// Disable the image's health check
    #[arg(long)]
    pub(crate) no_healthcheck: bool,
}

impl HealthArguments {
    /// `None` when no option was given: the image's check stands.
    pub(crate) fn resolve(self) -> Result<Option<Health>, Error> {
        let any = self.health_cmd.is_some()
            || self.health_interval.is_some()
            || self.health_timeout.is_some()
            || self.health_retries.is_some()
            || self.health_start_period.is_some()
            || self.health_start_interval.is_some();
        if self.no_healthcheck {
            if any {
                return Err(Error::usage(
                    "--no-healthcheck and --health-… contradict each other",
                    "leave one of them out",
                ));
            }
            return Ok(Some(Health {
                test: vec!["NONE".into()],
                ..Health::default()
            }));
        }
        if !any {
            return Ok(None);
        }
        let duration = |option: &str, text: Option<String>| {
            let nanos = text
                .as_deref()
                .map(units::parse_duration)
                .transpose()
                .map_err(Error::value(option))?;
            match nanos {
                Some(1..1_000_000) => Err(Error::Value {
                    option: option.into(),
                    problem: "it is less than a millisecond".into(),
                }),
                nanos => Ok(nanos.unwrap_or(0)),
            }
        };
        let retries = self.health_retries.map(|text| {
            text.parse().map_err(|_| Error::Value {
                option: "--health-retries".into(),
                problem: format!("{text:?} is not a whole number"),
            })
        });
        Ok(Some(Health {
            test: match self.health_cmd {
                Some(command) => vec!["CMD-SHELL".into(), command],
                None => Vec::new(),
            },
            interval: duration("--health-interval", self.health_interval)?,
            timeout: duration("--health-timeout", self.health_timeout)?,
            start_period: duration("--health-start-period", self.health_start_period)?,
            start_interval: duration("--health-start-interval", self.health_start_interval)?,
            retries: retries.transpose()?.unwrap_or(0),
        }))
    }
}
