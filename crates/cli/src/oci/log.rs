//! Errors and warnings as the callers of an OCI runtime read them: a line each, on standard error and in `--log`'s file.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use super::globals::Globals;
use crate::units;

/// Where lines go, and their form.
#[derive(Debug, Default)]
pub(super) struct Log {
    file: Option<PathBuf>,
    json: bool,
    quiet: bool,
}

impl Log {
    pub(super) fn new(globals: &Globals) -> Log {
        Log {
            file: globals.log.clone(),
            json: globals.json,
            quiet: globals.quiet,
        }
    }

    /// What made the command fail: to both, since some callers read the one and some the other.
    pub(super) fn error(&self, message: &str) {
        let line = self.line("error", message);
        match self.append(&line) {
            Some(true) => to_standard_error(&format!("{message}\n")),
            // Without a file standard error is the log.
            _ => to_standard_error(&line),
        }
    }

    /// What did not.
    pub(super) fn warn(&self, message: &str) {
        if self.quiet {
            return;
        }
        let line = self.line("warning", message);
        if self.append(&line) != Some(true) {
            to_standard_error(&line);
        }
    }

    fn line(&self, level: &str, message: &str) -> String {
        let time = units::rfc3339(units::now());
        if self.json {
            let line = serde_json::json!({ "level": level, "msg": message, "time": time });
            return format!("{line}\n");
        }
        format!("time=\"{time}\" level={level} msg={message:?}\n")
    }

    /// Whether it is in the file now; `None` without one.
    fn append(&self, line: &str) -> Option<bool> {
        let path = self.file.as_ref()?;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o644)
            .open(path);
        Some(
            file.and_then(|mut file| file.write_all(line.as_bytes()))
                .is_ok(),
        )
    }
}

fn to_standard_error(text: &str) {
    // Nobody is left to tell when standard error is closed.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
