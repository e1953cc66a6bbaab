//! `logs`: what the container wrote, from its log file; with `follow` until it ends.

use std::os::fd::OwnedFd;

use coracle_monitor::log::{LogQuery, LogReader, Wake};
use coracle_oci::ContainerId;
use jiff::Timestamp;
use rustix::fd::AsFd;

use crate::Engine;
use crate::error::{Error, Result};
use crate::request::LogOptions;

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, and all of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line, or a part of a long one, with its line feed if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Unix time in nanoseconds.
    pub time: i128,
    /// Where it came from.
    pub stream: Stream,
    /// As it was written.
    pub bytes: Vec<u8>,
}

/// Lines in order; ends when there are no more and the container does not run, or it was not asked to follow.
#[derive(Debug)]
pub struct LogLines {
    reader: LogReader,
    follow: bool,
    /// Readable once the container has ended.
    process: Option<OwnedFd>,
    ended: bool,
}

impl Engine {
    /// The container's log.
    ///
    /// # Errors
    /// [`Error::Refused`] when it keeps none.
    pub fn logs(&self, id: &ContainerId, options: &LogOptions) -> Result<LogLines> {
        let record = self.existing(id)?;
        if record.spec.log.driver == "none" {
            return Err(Error::refused_with(
                format!("container {} keeps no log (--log-driver none)", record.name),
                "`coracle attach` shows what it writes from now on",
            ));
        }
        let time = |time: Option<i128>| -> Result<Option<Timestamp>> {
            let parsed = time.map(Timestamp::from_nanosecond).transpose();
            parsed.map_err(|error| Error::refused(format!("not a time: {error}")))
        };
        let query = LogQuery {
            follow: options.follow,
            since: time(options.since)?,
            until: time(options.until)?,
            tail: options.tail.map(|lines| lines as u64),
            stdout: true,
            stderr: true,
        };
        let observed = self.observe(&record)?;
        let process = match observed.running() {
            Some(run) if options.follow => coracle_runtime::process::open(run.pid, run.start_time)
                .map_err(|error| {
                    Error::file("opening the process of", &self.paths.run_of(id), error)
                })?,
            _ => None,
        };
        let reader = LogReader::open(&self.paths.log(id), query)?;
        Ok(LogLines {
            reader,
            follow: options.follow,
            process,
            ended: false,
        })
    }
}

impl LogLines {
    fn next_line(&mut self) -> Result<Option<LogLine>> {
        loop {
            if let Some(entry) = self.reader.next_entry()? {
                let stream = match entry.stream {
                    coracle_monitor::log::Stream::Stdout => Stream::Stdout,
                    coracle_monitor::log::Stream::Stderr => Stream::Stderr,
                };
                return Ok(Some(LogLine {
                    time: entry.time.as_nanosecond(),
                    stream,
                    bytes: entry.text.into_bytes(),
                }));
            }
            if !self.follow || self.ended {
                return Ok(None);
            }
            match &self.process {
                None => self.ended = true,
                // What was written just before the end is still to be read: one more round.
                Some(process) => {
                    self.ended = self.reader.wait(Some(process.as_fd()))? == Wake::Ended
                }
            }
        }
    }
}

impl Iterator for LogLines {
    type Item = Result<LogLine>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_line().transpose()
    }
}
