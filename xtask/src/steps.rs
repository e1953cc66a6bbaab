//! Running cargo, with its output passed on line by line while it is counted.

use std::io::{BufRead, BufReader, IsTerminal};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::tally::CargoTest;
use crate::workspace;

/// A cargo command in the workspace.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(workspace());
    command
}

/// Runs a cargo command; its output is the user's.
pub(crate) fn passes(args: &[&str]) -> bool {
    eprintln!("==> cargo {}", args.join(" "));
    match cargo(args).status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("error: cargo: {error}");
            false
        }
    }
}

/// Whether a cargo subcommand such as `fmt` is installed.
pub(crate) fn has(subcommand: &str) -> bool {
    cargo(&[subcommand, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A test that hangs must not take the run's time for the others: how long nothing may be printed.
const SILENCE: Duration = Duration::from_secs(300);

/// Runs `cargo test` with `args`, passes its output on and counts it. A run that fails without a failed test (it does
/// not compile, a test program died) is a failure of its own, and so is one that says nothing for [`SILENCE`], which
/// ends it with everything that it started. `complete` asks the tests that take a sample for all of it.
pub(crate) fn test(args: &[&str], skip_log: &Path, complete: bool) -> CargoTest {
    let mut seen = CargoTest::default();
    let color = if std::io::stdout().is_terminal() {
        "always"
    } else {
        "never"
    };
    let line = format!("cargo test {}", args.join(" "));
    eprintln!("==> {line}");
    let child = cargo(&["test", "--no-fail-fast", "--color", color])
        .args(args)
        .env("CORACLE_SKIP_LOG", skip_log)
        .envs(complete.then_some(("CORACLE_TEST_COMPLETE", "1")))
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            seen.failed.push(format!("{line}: {error}"));
            return seen;
        }
    };
    let stdout = child.stdout.take().expect("it is piped");
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for bytes in BufReader::new(stdout).split(b'\n') {
            let Ok(bytes) = bytes else { return };
            if sender.send(bytes).is_err() {
                return;
            }
        }
    });
    let mut last = String::new();
    loop {
        match lines.recv_timeout(SILENCE) {
            Ok(bytes) => {
                last = String::from_utf8_lossy(&bytes).into_owned();
                println!("{last}");
                seen.line(&last);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let minutes = SILENCE.as_secs() / 60;
                seen.failed.push(format!(
                    "{line}: nothing for {minutes} minutes after {last:?}; ended"
                ));
                let group = Pid::from_raw(child.id() as i32).expect("a pid is not 0");
                // The group is this command's own; it may have ended just now.
                let _ = kill_process_group(group, Signal::KILL);
                break;
            }
        }
    }
    match child.wait() {
        Ok(status) if !status.success() && seen.failed.is_empty() => {
            seen.failed.push(format!("{line}: {status}"));
        }
        Ok(_) => {}
        Err(error) => seen.failed.push(format!("{line}: {error}")),
    }
    seen
}
