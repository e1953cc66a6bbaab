//! How the command that started a detached monitor learns whether the container runs.
//!
//! ```text
//! one JSON document on one line:
//!   {"ok":true,"pid":4711}
//!   {"ok":false,"error":"…","causes":["…"],"hint":"…","code":127}
//! end of file without a document: the monitor died before it could tell
//! ```

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::subject::BoxError;

/// Longest message that is read.
const LIMIT: u64 = 64 * 1024;

/// A start that failed, with what the starting command shows: box it in [`crate::Subject::start`].
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct StartFailure {
    /// 125 (engine), 126 (cannot be invoked) or 127 (not found).
    pub code: u8,
    /// What to do about it.
    pub hint: Option<String>,
    /// What failed. Its own chain is the chain shown.
    pub source: BoxError,
}

/// The outcome of a detached start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// The container runs.
    pub ok: bool,
    /// Its init, where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// What failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Why, from the outside in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Exit code for the command: 0, or 125 to 127.
    #[serde(default)]
    pub code: u8,
}

impl Readiness {
    pub(crate) fn started(pid: i32) -> Readiness {
        Readiness {
            ok: true,
            pid: Some(pid),
            error: String::new(),
            causes: Vec::new(),
            hint: None,
            code: 0,
        }
    }

    /// A failure with the chain of `error`. Also for errors before [`crate::supervise`] is reached.
    pub fn failed(
        error: &(dyn std::error::Error + 'static),
        code: u8,
        hint: Option<String>,
    ) -> Readiness {
        let mut causes = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        Readiness {
            ok: false,
            pid: None,
            error: error.to_string(),
            causes,
            hint,
            code,
        }
    }

    pub(crate) fn of_start_error(error: &BoxError) -> Readiness {
        match error.downcast_ref::<StartFailure>() {
            Some(failure) => {
                Readiness::failed(failure.source.as_ref(), failure.code, failure.hint.clone())
            }
            None => Readiness::failed(error.as_ref(), 125, None),
        }
    }

    /// Writes the message and closes the pipe. An error means the starting command has gone: nobody is left to tell.
    pub fn send(&self, ready: OwnedFd) -> std::io::Result<()> {
        let mut message = serde_json::to_vec(self)?;
        message.push(b'\n');
        let mut rest = &message[..];
        while !rest.is_empty() {
            match rustix::io::write(&ready, rest) {
                Ok(count) => rest = &rest[count..],
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for the message; `None` if the monitor died before it sent one.
    pub fn receive(ready: OwnedFd) -> std::io::Result<Option<Readiness>> {
        let mut message = Vec::new();
        // Not to the end of the file: the container's runtime may hold a copy of the pipe a moment longer.
        BufReader::new(std::fs::File::from(ready).take(LIMIT)).read_until(b'\n', &mut message)?;
        if message.is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&message)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through_a_pipe(message: Option<&Readiness>) -> Option<Readiness> {
        let (read, write) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
        match message {
            Some(message) => message.send(write).expect("sent"),
            None => drop(write),
        }
        Readiness::receive(read).expect("received")
    }

    #[test]
    fn outcome_arrives_as_it_was_sent() {
        let source = std::io::Error::from_raw_os_error(2);
        let failure: BoxError = Box::new(StartFailure {
            code: 127,
            hint: Some("check the image's PATH".into()),
            source: Box::new(crate::Error::Subject {
                doing: "finding the command",
                source: Box::new(source),
            }),
        });
        let told = Readiness::of_start_error(&failure);
        assert_eq!(told.code, 127);
        assert_eq!(told.causes, ["No such file or directory (os error 2)"]);
        assert_eq!(through_a_pipe(Some(&told)), Some(told));
        let started = Readiness::started(7);
        assert_eq!(through_a_pipe(Some(&started)), Some(started));
    }

    #[test]
    fn death_before_the_message_is_told_apart() {
        assert_eq!(through_a_pipe(None), None);
    }
}
