//! How a container is to be supervised: from the record to the monitor's options.

use std::os::fd::OwnedFd;
use std::time::Duration;

use coracle_monitor::health::{HealthCheck, HealthCommand};
use coracle_monitor::log::JsonFile;
use coracle_monitor::{
    LocalClient, LogDriver, Owner, RestartPolicy, StdinMode, StopRule, Streams, Supervision,
};

use super::subject::Subject;
use crate::Engine;
use crate::error::{Error, Result};
use crate::request::{Health, Restart};
use crate::state::Record;

/// Docker's default for `stop`.
const STOP_TIMEOUT: u32 = 10;

impl Engine {
    pub(super) fn supervision(
        &self,
        record: &Record,
        subject: &mut Subject<'_>,
        local: Option<LocalClient>,
        client: Option<OwnedFd>,
    ) -> Result<Supervision> {
        let spec = &record.spec;
        let (uid, gid) = subject.root_outside()?;
        let foreground = local.is_some();
        Ok(Supervision {
            streams: match (spec.tty, foreground) {
                (true, _) => Streams::Terminal,
                // FIFOs outlive a monitor; the foreground command's pipes break with it, as in any pipeline.
                (false, false) => Streams::Pipes {
                    fifos: Some(self.paths.run_of(&record.id)),
                },
                (false, true) => Streams::Pipes { fifos: None },
            },
            stdin: match (spec.interactive, foreground || client.is_some()) {
                (false, _) => StdinMode::Closed,
                (true, true) => StdinMode::Once,
                (true, false) => StdinMode::Open,
            },
            owner: Some(Owner { uid, gid }),
            log: self.log_driver(record)?,
            restart: policy(spec.restart),
            restart_count: 0,
            health: record.process.health.as_ref().map(health_check),
            attach: Some(self.paths.attach(&record.id)),
            local,
            stop: stop_rule(record)?,
            ready: None,
            first_client: client,
            size: None,
            adopt: None,
        })
    }

    fn log_driver(&self, record: &Record) -> Result<LogDriver> {
        let log = &record.spec.log;
        match log.driver.as_str() {
            "none" => Ok(LogDriver::None),
            "json-file" | "local" => {
                let option = |name: &str| log.options.get(name).map(String::as_str);
                Ok(LogDriver::JsonFile(JsonFile {
                    path: self.paths.log(&record.id),
                    max_size: option("max-size").map(size).transpose()?,
                    max_files: match option("max-file") {
                        None => 1,
                        Some(count) => count.parse().map_err(|_| {
                            Error::refused(format!("log option max-file={count:?} is not a number"))
                        })?,
                    },
                }))
            }
            other => Err(Error::refused_with(
                format!("unknown log driver {other:?}"),
                "json-file and none are there; any other reader can follow the json-file",
            )),
        }
    }
}

/// `10m`, `512k`, `1g` or bytes, as Docker's log options write it.
fn size(text: &str) -> Result<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1u64 << 30,
        _ => 0,
    };
    let bytes = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| {
        Error::refused_with(
            format!("log option max-size={text:?} is not a size"),
            "write it as 10m, 512k or 1g",
        )
    })
}

/// What the monitor understands by it.
pub(crate) fn policy(restart: Restart) -> RestartPolicy {
    match restart {
        Restart::No => RestartPolicy::No,
        Restart::OnFailure(0) => RestartPolicy::OnFailure { max_retries: None },
        Restart::OnFailure(most) => RestartPolicy::OnFailure {
            max_retries: Some(most),
        },
        Restart::Always => RestartPolicy::Always,
        Restart::UnlessStopped => RestartPolicy::UnlessStopped,
    }
}

fn stop_rule(record: &Record) -> Result<StopRule> {
    let signal = record
        .process
        .stop_signal
        .parse()
        .map_err(|error: coracle_oci::SignalError| Error::refused(error.to_string()))?;
    let seconds = record.spec.stop_timeout.unwrap_or(STOP_TIMEOUT);
    Ok(StopRule {
        signal,
        timeout: Some(Duration::from_secs(seconds.into())),
    })
}

fn health_check(health: &Health) -> HealthCheck {
    let command = match health.test.split_first() {
        Some((kind, rest)) if kind == "CMD-SHELL" => HealthCommand::Shell(rest.join(" ")),
        Some((kind, rest)) if kind == "CMD" => HealthCommand::Exec(rest.to_vec()),
        _ => HealthCommand::Exec(health.test.clone()),
    };
    let mut check = HealthCheck::new(command);
    let set = |target: &mut Duration, nanoseconds: u64| {
        if nanoseconds > 0 {
            *target = Duration::from_nanos(nanoseconds);
        }
    };
    set(&mut check.interval, health.interval);
    set(&mut check.timeout, health.timeout);
    set(&mut check.start_period, health.start_period);
    set(&mut check.start_interval, health.start_interval);
    if health.retries > 0 {
        check.retries = health.retries;
    }
    check
}

/// Copies of this process's standard streams.
pub(super) fn own_streams() -> Result<(OwnedFd, OwnedFd, OwnedFd)> {
    let copy = |fd: rustix::fd::BorrowedFd<'_>| {
        rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(|error| {
            Error::refused(format!(
                "standard input, output or error of this command is closed ({error})"
            ))
        })
    };
    Ok((
        copy(rustix::stdio::stdin())?,
        copy(rustix::stdio::stdout())?,
        copy(rustix::stdio::stderr())?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_sizes_are_read_as_docker_writes_them() {
        for (text, bytes) in [
            ("1", 1),
            ("10k", 10 << 10),
            ("10m", 10 << 20),
            ("1G", 1 << 30),
            ("7kb", 7 << 10),
        ] {
            assert_eq!(size(text).unwrap(), bytes, "{text}");
        }
        for bad in ["", "m", "10x", "-1", "0", "99999999999999g"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
