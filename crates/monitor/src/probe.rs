//! A run's health check at work: when the next probe is due, and the probe that runs.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::io::Errno;

use crate::exit::ExitStatus;
use crate::health::{HealthCheck, HealthState, HealthUpdate, OUTPUT_KEPT, ProbeResult};
use crate::run::reap;
use crate::stdio::set_nonblocking;
use crate::subject::{ProbeProcess, ProbeSkipped, Subject};

/// The health check of one run.
#[derive(Debug)]
pub(crate) struct Health {
    state: HealthState,
    started: Instant,
    /// When the next probe begins; `None` while one runs.
    next: Option<Instant>,
    probe: Option<Probe>,
    /// The run is over: results no longer count.
    abandoned: bool,
}

#[derive(Debug)]
struct Probe {
    process: ProbeProcess,
    began: Instant,
    began_at: Timestamp,
    deadline: Option<Instant>,
    output: Vec<u8>,
    output_open: bool,
}

impl Health {
    pub(crate) fn new(check: HealthCheck, started: Instant) -> Health {
        let state = HealthState::new(check);
        let next = Some(started + state.wait(Duration::ZERO));
        Health {
            state,
            started,
            next,
            probe: None,
            abandoned: false,
        }
    }

    /// When [`Health::tick`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.probe {
            Some(probe) => probe.deadline,
            None => self.next,
        }
    }

    /// The running probe's process and output, to be polled.
    pub(crate) fn process(&self) -> Option<BorrowedFd<'_>> {
        self.probe.as_ref().map(|probe| probe.process.pidfd.as_fd())
    }

    pub(crate) fn output(&self) -> Option<BorrowedFd<'_>> {
        let probe = self.probe.as_ref().filter(|probe| probe.output_open)?;
        Some(probe.process.output.as_fd())
    }

    /// Begins the probe that is due, or kills the one whose time is over.
    pub(crate) fn tick(
        &mut self,
        now: Instant,
        subject: &mut dyn Subject,
    ) -> Option<&HealthUpdate> {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return None;
        }
        if let Some(probe) = &mut self.probe {
            probe.deadline = None;
            probe.kill();
            return None;
        }
        self.next = None;
        let began_at = Timestamp::now();
        let started = subject
            .probe(&self.state.check().command)
            .and_then(|process| {
                set_nonblocking(&process.output)?;
                Ok(process)
            });
        match started {
            Ok(process) => {
                self.probe = Some(Probe {
                    process,
                    began: now,
                    began_at,
                    deadline: Some(now + self.state.check().timeout),
                    output: Vec::new(),
                    output_open: true,
                });
                None
            }
            Err(error) if error.is::<ProbeSkipped>() => {
                self.next = Some(now + self.state.wait(now - self.started));
                None
            }
            Err(error) => Some(self.result(now, began_at, -1, chain(error.as_ref()))),
        }
    }

    /// The probe's output has something.
    pub(crate) fn read(&mut self) {
        if let Some(probe) = &mut self.probe {
            probe.read();
        }
    }

    /// The probe's process has ended.
    pub(crate) fn ended(&mut self) -> Option<&HealthUpdate> {
        let probe = self.probe.as_ref()?;
        let status = match reap(&probe.process.pidfd) {
            Ok(None) => return None,
            Ok(Some(status)) => status,
            // Reaped by somebody else: it ended, and nothing says well.
            Err(_) => ExitStatus::Unknown,
        };
        let mut probe = self.probe.take()?;
        if self.abandoned {
            return None;
        }
        probe.read();
        let output = String::from_utf8_lossy(&probe.output);
        let (code, output) = match probe.deadline {
            Some(_) => (status.code(), output.into_owned()),
            None => {
                let timeout = self.state.check().timeout;
                let said = format!("Health check exceeded timeout ({timeout:?})");
                let separator = if output.is_empty() { "" } else { ": " };
                (-1, format!("{said}{separator}{output}"))
            }
        };
        Some(self.result(probe.began, probe.began_at, code, output))
    }

    /// The run is over: a probe that still runs is killed, its result is not recorded.
    pub(crate) fn abandon(&mut self) {
        self.abandoned = true;
        self.next = None;
        if let Some(probe) = &mut self.probe {
            probe.deadline = None;
            probe.kill();
        }
    }

    /// Whether a probe still has to be reaped.
    pub(crate) fn is_probing(&self) -> bool {
        self.probe.is_some()
    }

    fn result(
        &mut self,
        began: Instant,
        began_at: Timestamp,
        exit_code: i32,
        mut output: String,
    ) -> &HealthUpdate {
        let mut end = output.len().min(OUTPUT_KEPT);
        while !output.is_char_boundary(end) {
            end -= 1;
        }
        output.truncate(end);
        let result = ProbeResult {
            start: began_at,
            end: Timestamp::now(),
            exit_code,
            output,
        };
        self.state.result(result, began - self.started);
        let now = Instant::now();
        self.next = Some(now + self.state.wait(now - self.started));
        self.state.record()
    }
}

impl Probe {
    fn kill(&self) {
        // One that ended by itself meanwhile (ESRCH) is what was wanted.
        let _ =
            coracle_linux::signal::send(&self.process.pidfd, coracle_oci::Signal::KILL.number());
    }

    fn read(&mut self) {
        let mut chunk = [0; 1024];
        while self.output_open {
            match rustix::io::read(&self.process.output, &mut chunk) {
                Ok(count) if count > 0 => {
                    let room = OUTPUT_KEPT.saturating_sub(self.output.len());
                    self.output.extend_from_slice(&chunk[..count.min(room)]);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Ok(_) | Err(_) => self.output_open = false,
            }
        }
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
