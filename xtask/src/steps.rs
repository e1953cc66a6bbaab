//! Running cargo, with its output passed on line by line while it is counted.

use std::io::{BufRead, BufReader, IsTerminal};
use std::path::Path;
use std::process::{Command, Stdio};

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

/// Runs `cargo test` with `args`, passes its output on and counts it. A run that fails without a failed test (it does
/// not compile, a test program died) is a failure of its own.
pub(crate) fn test(args: &[&str], skip_log: &Path) -> CargoTest {
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
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            seen.failed.push(format!("{line}: {error}"));
            return seen;
        }
    };
    let stdout = child.stdout.take().expect("it is piped");
    for bytes in BufReader::new(stdout).split(b'\n') {
        let Ok(bytes) = bytes else { break };
        let text = String::from_utf8_lossy(&bytes);
        println!("{text}");
        seen.line(&text);
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
