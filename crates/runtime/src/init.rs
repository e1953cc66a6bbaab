//! The built-in init: starts one command, passes signals on to it, reaps orphans, ends with the command.
//!
//! Bound at /dev/init by [`crate::Start::init`]. Runs inside of the container, so that nothing here is trusted by the host.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

use coracle_linux::process::{set_signal_mask, wait_for_signal};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

/// Whether the program was called as init: the name it was started by is `init`.
#[must_use]
pub fn is_init(name: &str) -> bool {
    name.rsplit('/').next() == Some("init")
}

/// Runs `arguments` (`init [--] COMMAND [ARGUMENT…]`) as init and ends with the command's status: its exit code, 128 and the
/// signal that killed it, 127 when it is not there, 126 when it cannot be executed.
pub fn init_main(arguments: &[String]) -> ! {
    let rest = arguments.get(1..).unwrap_or_default();
    let rest = if rest.first().is_some_and(|first| first == "--") {
        &rest[1..]
    } else {
        rest
    };
    let Some((command, arguments)) = rest.split_first() else {
        eprintln!("init: there is no command");
        std::process::exit(127)
    };
    // Blocked, signals wait for us to fetch them, those for the command among them.
    let mask = match set_signal_mask(u64::MAX) {
        Ok(mask) => mask,
        Err(error) => fail(command, error.into()),
    };
    let mut start = Command::new(command);
    start.args(arguments);
    // A process group of its own that has the terminal: ^C is for the command.
    start.process_group(0);
    let child = match coracle_linux::process::spawn_with_mask(&mut start, mask) {
        Ok(child) => Pid::from_child(&child),
        Err(error) => fail(command, error),
    };
    // Without a terminal there is nothing to give.
    let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), child);
    loop {
        let signal = match wait_for_signal() {
            Ok(signal) => signal,
            Err(Errno::INTR) => continue,
            Err(error) => fail(command, error.into()),
        };
        if signal != Signal::CHILD.as_raw() {
            // It may have ended just now.
            let _ = Signal::from_named_raw(signal).map(|signal| kill_process(child, signal));
            continue;
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == child {
                let status = std::process::ExitStatus::from_raw(status.as_raw());
                std::process::exit(
                    status
                        .code()
                        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
                )
            }
        }
    }
}

fn fail(command: &str, error: std::io::Error) -> ! {
    let code = if error.kind() == std::io::ErrorKind::NotFound {
        127
    } else {
        126
    };
    eprintln!("init: {command}: {error}");
    std::process::exit(code)
}
