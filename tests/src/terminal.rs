//! A terminal in a test's hands: the command believes that a person sits at it.

use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use crate::{Invocation, patience};

/// The controlling side of a pseudo-terminal, with a command on the other.
pub struct Terminal {
    controller: OwnedFd,
    terminal: OwnedFd,
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts `invocation` with a terminal of 24 rows and 80 columns as its controlling terminal and three streams.
    pub fn spawn(invocation: Invocation) -> Terminal {
        Terminal::of(&invocation.into_command())
    }

    /// Starts the program and arguments of `command` likewise: a shell, say, from which the binary is then started.
    pub fn of(command: &std::process::Command) -> Terminal {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a pseudo-terminal can be had");
        grantpt(&controller).expect("grantpt");
        unlockpt(&controller).expect("unlockpt");
        let name = ptsname(&controller, Vec::new()).expect("ptsname");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = rustix::fs::open(&name, flags, Mode::empty()).expect("it was unlocked");
        set_size(&controller, 24, 80);
        // `setsid --ctty` makes the session and takes the terminal, which would need unsafe code here.
        let mut outer = std::process::Command::new("setsid");
        outer
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args());
        let stream = || Stdio::from(terminal.try_clone().expect("a descriptor can be copied"));
        let child = outer
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .spawn()
            .expect("setsid (util-linux) is there");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (sink, source) = (seen.clone(), controller.try_clone().expect("a descriptor"));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO says that the other side is closed.
            while let Ok(count @ 1..) = rustix::io::read(&source, &mut buffer) {
                sink.lock()
                    .expect("no reader panics")
                    .extend_from_slice(&buffer[..count]);
            }
        });
        Terminal {
            controller,
            terminal,
            child,
            seen,
        }
    }

    /// Types `text`.
    pub fn send(&self, text: &str) {
        let mut bytes = text.as_bytes();
        while !bytes.is_empty() {
            let count = rustix::io::write(&self.controller, bytes).expect("the terminal is open");
            bytes = &bytes[count..];
        }
    }

    /// Everything that the terminal has shown.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("no reader panics")).into_owned()
    }

    /// Waits until the terminal has shown `text`.
    #[track_caller]
    pub fn expect(&self, text: &str) {
        let end = Instant::now() + patience(Duration::from_secs(20));
        while !self.screen().contains(text) {
            assert!(
                Instant::now() < end,
                "{text:?} is not on the screen: {:?}",
                self.screen()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Gives the terminal another size; the kernel tells the command.
    pub fn resize(&self, rows: u16, columns: u16) {
        set_size(&self.controller, rows, columns);
    }

    /// Whether the terminal is in canonical mode with echo, as a shell leaves and wants it.
    pub fn is_cooked(&self) -> bool {
        use rustix::termios::LocalModes;
        let modes = tcgetattr(&self.terminal)
            .expect("it is a terminal")
            .local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Waits for the command's end; gives its exit code.
    #[track_caller]
    pub fn wait(mut self) -> i32 {
        let end = Instant::now() + patience(Duration::from_secs(20));
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status.code().unwrap_or(-1);
            }
            if Instant::now() > end {
                self.child.kill().expect("a child can be killed");
                self.child.wait().expect("a killed child ends");
                panic!("the command did not end; screen: {:?}", self.screen());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn set_size(terminal: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).expect("it is a terminal");
}
