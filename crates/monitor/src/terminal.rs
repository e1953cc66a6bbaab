//! A user's terminal: its size, and raw mode that is always undone.

use std::os::fd::{AsFd, OwnedFd};

use rustix::termios::{
    OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::error::{Result, system};

/// Rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

impl WindowSize {
    /// The size of `terminal`; `None` if it is not one or knows no size.
    pub fn of(terminal: impl AsFd) -> Option<WindowSize> {
        let size = tcgetwinsize(terminal).ok()?;
        (size.ws_row != 0 || size.ws_col != 0).then_some(WindowSize {
            rows: size.ws_row,
            columns: size.ws_col,
        })
    }

    /// Gives `terminal` (a pty's master) this size; the kernel sends SIGWINCH to whoever is in its foreground.
    pub fn apply(self, terminal: impl AsFd) -> Result<()> {
        tcsetwinsize(
            terminal,
            Winsize {
                ws_row: self.rows,
                ws_col: self.columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            },
        )
        .map_err(system("setting the terminal's size"))
    }
}

/// Raw mode: every byte goes to the container, which has its own line discipline. Dropping it restores what was there.
///
/// Signals end a process without dropping anything: whoever holds this must take the signals that would (as
/// [`crate::attach::pump`] and [`crate::supervise`] do, through a signalfd) and drop it before it ends.
#[derive(Debug)]
pub struct RawMode {
    terminal: OwnedFd,
    saved: Termios,
}

impl RawMode {
    /// Enters raw mode on `terminal`; `None` if it is no terminal.
    pub fn enter(terminal: impl AsFd) -> Result<Option<RawMode>> {
        let Ok(saved) = tcgetattr(&terminal) else {
            return Ok(None);
        };
        let terminal = rustix::io::fcntl_dupfd_cloexec(&terminal, 3)
            .map_err(system("duplicating the terminal"))?;
        let mode = RawMode { terminal, saved };
        mode.again()?;
        Ok(Some(mode))
    }

    /// Back to what was there, for the time that the process is stopped.
    pub fn suspend(&self) -> Result<()> {
        tcsetattr(&self.terminal, OptionalActions::Drain, &self.saved)
            .map_err(system("restoring the terminal"))
    }

    /// Raw again.
    pub fn again(&self) -> Result<()> {
        let mut raw = self.saved.clone();
        raw.make_raw();
        tcsetattr(&self.terminal, OptionalActions::Drain, &raw)
            .map_err(system("making the terminal raw"))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that has gone (EIO) has nothing to restore, and a drop has nobody to tell.
        let _ = self.suspend();
    }
}
