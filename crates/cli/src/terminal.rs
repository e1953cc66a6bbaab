//! This command's terminal, connected to a container through its monitor or to a process that `exec` started.

use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd, BorrowedFd};

use coracle_engine::monitor::attach::{Client, Ended, PumpOptions, Wants, pump};
use coracle_engine::monitor::{DetachKeys, RawMode, WindowSize};
use coracle_engine::{Exec, oci};
use coracle_linux::signal::Blocked;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::error::Error;

/// `--detach-keys`; ctrl-p,ctrl-q when not given.
pub(crate) fn detach_keys(text: Option<&str>) -> Result<DetachKeys, Error> {
    match text {
        None => Ok(DetachKeys::default()),
        Some(text) => text.parse().map_err(|problem| Error::Value {
            option: "--detach-keys".into(),
            problem: format!("{problem}"),
        }),
    }
}

/// Refuses `-it` where there is no keyboard, as Docker does: what is piped in would be typed into a terminal.
pub(crate) fn need_keyboard(interactive: bool, tty: bool) -> Result<(), Error> {
    if interactive && tty && !io::stdin().is_terminal() {
        return Err(Error::usage(
            "standard input is not a terminal",
            "leave out -t when input comes from a file or a pipe",
        ));
    }
    Ok(())
}

/// The size of this command's terminal; 24 by 80 where there is none.
pub(crate) fn size() -> (u16, u16) {
    let size = WindowSize::of(io::stdout()).or_else(|| WindowSize::of(io::stdin()));
    size.map_or((24, 80), |size| (size.rows, size.columns))
}

/// What a client of a monitor asks for: all output, and input where it is wanted.
pub(crate) fn wants(stdin: bool) -> Wants {
    Wants {
        stdin,
        stdout: true,
        stderr: true,
    }
}

/// The size that a container's terminal begins with.
pub(crate) fn window(terminal: bool) -> Option<WindowSize> {
    let (rows, columns) = size();
    terminal.then_some(WindowSize { rows, columns })
}

/// Carries a container's streams until it ends or the user leaves; gives the exit code of this command.
pub(crate) fn carry(
    client: &Client,
    stdin: bool,
    detach_keys: DetachKeys,
    sig_proxy: bool,
) -> Result<u8, Error> {
    let (input, output, errors) = (io::stdin(), io::stdout(), io::stderr());
    let options = PumpOptions {
        stdin: stdin.then(|| input.as_fd()),
        stdout: Some(output.as_fd()),
        stderr: Some(errors.as_fd()),
        detach_keys,
        sig_proxy,
    };
    Ok(
        match pump(client, &options).map_err(coracle_engine::Error::from)? {
            Ended::Exited { status, .. } => code(status.code()),
            Ended::Detached => 0,
            Ended::Signalled(signal) => code(128 + signal),
        },
    )
}

/// A container's exit code as this command's own.
pub(crate) fn code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}

const WINCH: i32 = 28;

/// The signals that would end this command: they are the program's instead, and the terminal is put back afterwards.
const PASSED_ON: [&str; 4] = ["HUP", "INT", "QUIT", "TERM"];

/// Carries the terminal of a process that `exec` started, until the process ends; gives its exit code.
///
/// What it wrote last is shown. A process that it leaves behind with the terminal open does not hold this command up.
pub(crate) fn converse(exec: Exec, interactive: bool) -> Result<i32, Error> {
    let failed = |source: Errno| Error::Terminal {
        action: "carry the terminal",
        source: source.into(),
    };
    {
        let numbers = PASSED_ON
            .iter()
            .filter_map(|name| name.parse::<oci::Signal>().ok())
            .map(oci::Signal::number);
        let signals: Vec<i32> = numbers.chain([WINCH]).collect();
        let blocked = Blocked::new(&signals).map_err(failed)?;
        let arrived = blocked.descriptor().map_err(failed)?;
        let input = io::stdin();
        // Raw is left before the signals are taken back: dropped in reverse order.
        let _raw = match interactive {
            true => RawMode::enter(&input).map_err(coracle_engine::Error::from)?,
            false => None,
        };
        let Some(terminal) = exec.terminal() else {
            return Ok(exec.wait()?);
        };
        let mut stdin = interactive.then(|| input.as_fd());
        loop {
            let mut watched = vec![
                PollFd::new(&terminal, PollFlags::IN),
                PollFd::from_borrowed_fd(exec.process(), PollFlags::IN),
                PollFd::new(&arrived, PollFlags::IN),
            ];
            watched.extend(stdin.map(|stdin| PollFd::from_borrowed_fd(stdin, PollFlags::IN)));
            match poll(&mut watched, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(failed(error)),
            }
            let ready: Vec<bool> = watched.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready[2] {
                while let Some(signal) = arrived.next().map_err(failed)? {
                    match signal {
                        WINCH => resize(terminal)?,
                        // The process may have ended this instant: the next poll says so.
                        other => match coracle_linux::signal::send(exec.process(), other) {
                            Ok(()) | Err(Errno::SRCH) => {}
                            Err(error) => return Err(failed(error)),
                        },
                    }
                }
            }
            if ready.get(3) == Some(&true) && !pass(input.as_fd(), terminal).map_err(failed)? {
                stdin = None;
            }
            let open = !ready[0] || pass(terminal, io::stdout().as_fd()).map_err(failed)?;
            if ready[1] {
                drain(terminal).map_err(failed)?;
                break;
            }
            if !open {
                // The terminal is closed inside, and only the end is still to come.
                break;
            }
        }
    }
    Ok(exec.wait()?)
}

fn resize(terminal: BorrowedFd<'_>) -> Result<(), Error> {
    match WindowSize::of(io::stdout()) {
        Some(size) => Ok(size.apply(terminal).map_err(coracle_engine::Error::from)?),
        None => Ok(()),
    }
}

/// Passes on what is there; whether there may be more. A terminal that nobody holds any more reads as EIO.
fn pass(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut buffer = [0u8; 16 * 1024];
    let count = match rustix::io::read(from, &mut buffer) {
        Ok(0) | Err(Errno::IO) => return Ok(false),
        Ok(count) => count,
        Err(Errno::INTR | Errno::AGAIN) => return Ok(true),
        Err(error) => return Err(error),
    };
    let mut rest = &buffer[..count];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(Errno::IO | Errno::PIPE) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Shows what is in the terminal now.
fn drain(terminal: BorrowedFd<'_>) -> Result<(), Errno> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    loop {
        let mut watched = [PollFd::new(&terminal, PollFlags::IN)];
        match poll(&mut watched, Some(&now)) {
            Ok(1) if watched[0].revents().contains(PollFlags::IN) => {}
            Err(Errno::INTR) => continue,
            _ => return Ok(()),
        }
        if !pass(terminal, io::stdout().as_fd())? {
            return Ok(());
        }
    }
}
