//! One run of the binary: with a time limit, both outputs read to their end, and assertions on what came back.

use std::ffi::OsString;
use std::fmt;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::patience;

/// The binary under test: `CORACLE_BIN`, else the release build of this workspace.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("CORACLE_BIN") {
        return PathBuf::from(path);
    }
    let target = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target"));
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let path = target.join(triple).join("release/coracle");
    path.canonicalize().unwrap_or_else(|error| {
        panic!(
            "{}: {error}: run `cargo build --release` first, or set CORACLE_BIN",
            path.display()
        )
    })
}

/// A command that has not run yet.
pub struct Invocation {
    command: Command,
    line: String,
    stdin: Option<Vec<u8>>,
    limit: Duration,
}

/// What a command did.
#[derive(Clone)]
pub struct Outcome {
    line: String,
    /// The exit code; 128 + n after a signal, as a shell says it.
    pub code: i32,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

/// A command that is running.
pub struct Session {
    child: Child,
    line: String,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
    started: Instant,
    limit: Duration,
    seen: Vec<u8>,
}

impl Invocation {
    pub(crate) fn new(program: &[OsString], args: &[OsString]) -> Invocation {
        let mut command = Command::new(&program[0]);
        command.args(&program[1..]).args(args);
        let line = args
            .iter()
            .map(|arg| arg.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ");
        Invocation {
            command,
            line,
            stdin: None,
            limit: Duration::from_secs(60),
        }
    }

    /// Sets one environment variable of the command itself (not of a container).
    pub fn env(mut self, key: &str, value: &str) -> Invocation {
        self.command.env(key, value);
        self
    }

    /// What standard input holds; without it, it is /dev/null.
    pub fn stdin(mut self, bytes: &[u8]) -> Invocation {
        self.stdin = Some(bytes.to_vec());
        self
    }

    /// Changes the limit of 60 seconds.
    pub fn limit(mut self, limit: Duration) -> Invocation {
        self.limit = limit;
        self
    }

    /// What was typed after the program's name.
    pub(crate) fn line(&self) -> &str {
        &self.line
    }

    /// The command as the standard library has it, for a test that wants its own descriptors.
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Runs it to its end. Panics when the time limit passes, after killing it, or when some descendant keeps its
    /// output open.
    pub fn run(self) -> Outcome {
        let input = self.stdin.clone();
        let mut session = self.spawn();
        let mut stdin = session.take_stdin();
        if let Some(bytes) = input {
            // The command may end without reading all of it; its exit code tells what it thought of that.
            let _ = stdin.write_all(&bytes);
        }
        drop(stdin);
        session.wait()
    }

    /// Starts it with pipes for all three streams.
    pub fn spawn(mut self) -> Session {
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.line));
        let stdout = reader(child.stdout.take().expect("piped"));
        let stderr = reader(child.stderr.take().expect("piped"));
        let (line, limit) = (self.line, patience(self.limit));
        Session {
            child,
            line,
            stdout,
            stderr,
            started,
            limit,
            seen: Vec::new(),
        }
    }
}

pub(crate) fn reader(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Session {
    /// The pid of the command.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The writing end of its standard input; dropping it is the end of file. Can be taken once.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.child
            .stdin
            .take()
            .expect("standard input was taken already")
    }

    /// Sends `signal` to the command's process.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(self.pid() as i32).expect("a pid is not 0"),
            signal,
        )
        .unwrap_or_else(|error| panic!("{}: cannot be signalled: {error}", self.line));
    }

    /// Waits until standard output contains `text` and gives all of it so far; panics after `limit`.
    pub fn expect(&mut self, text: &str, limit: Duration) -> String {
        let end = Instant::now() + patience(limit);
        loop {
            let seen = String::from_utf8_lossy(&self.seen).into_owned();
            if seen.contains(text) {
                return seen;
            }
            match self
                .stdout
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(bytes) => self.seen.extend(bytes),
                Err(error) => {
                    // Kills only the child that this session started; it may be gone already.
                    let _ = self.child.kill();
                    let stderr: Vec<u8> = self.stderr.try_iter().flatten().collect();
                    panic!(
                        "{}: {text:?} did not come ({error}); stdout {seen:?}, stderr {:?}",
                        self.line,
                        String::from_utf8_lossy(&stderr)
                    )
                }
            }
        }
    }

    /// Whether the command still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Outcome {
        use std::os::unix::process::ExitStatusExt;
        drop(self.child.stdin.take());
        let end = self.started + self.limit;
        let mut stdout = std::mem::take(&mut self.seen);
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break status;
            }
            if Instant::now() > end {
                self.child.kill().expect("a child can be killed");
                self.child.wait().expect("a killed child ends");
                stdout.extend(self.stdout.try_iter().flatten());
                let stderr: Vec<u8> = self.stderr.try_iter().flatten().collect();
                panic!(
                    "{}: still running after {:?}; stdout {:?}, stderr {:?}",
                    self.line,
                    self.limit,
                    String::from_utf8_lossy(&stdout),
                    String::from_utf8_lossy(&stderr)
                );
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let took = self.started.elapsed();
        drain(&self.line, "stdout", &self.stdout, &mut stdout);
        let mut stderr = Vec::new();
        drain(&self.line, "stderr", &self.stderr, &mut stderr);
        Outcome {
            line: self.line.clone(),
            code: status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            took,
        }
    }
}

/// After the command's end the pipe must end too: one that stays open has leaked into a monitor or a container.
fn drain(line: &str, name: &str, from: &Receiver<Vec<u8>>, into: &mut Vec<u8>) {
    assert!(
        ended_within(from, into, patience(Duration::from_secs(10))),
        "{line}: ended, but something still holds its {name} open"
    );
}

/// Reads a pipe to its end; whether that came in time.
pub(crate) fn ended_within(from: &Receiver<Vec<u8>>, into: &mut Vec<u8>, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        match from.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(bytes) => into.extend(bytes),
            Err(error) => return error == RecvTimeoutError::Disconnected,
        }
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`coracle {}` ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.line, self.code, self.stdout, self.stderr
        )
    }
}

impl Outcome {
    pub(crate) fn of(
        line: String,
        code: i32,
        stdout: String,
        stderr: String,
        took: Duration,
    ) -> Outcome {
        Outcome {
            line,
            code,
            stdout,
            stderr,
            took,
        }
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn code(self, code: i32) -> Outcome {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// Asserts exit code 0.
    #[track_caller]
    pub fn success(self) -> Outcome {
        self.code(0)
    }

    /// Asserts that standard output contains `text`.
    #[track_caller]
    pub fn out(self, text: &str) -> Outcome {
        assert!(
            self.stdout.contains(text),
            "no {text:?} in the output of {self:?}"
        );
        self
    }

    /// Asserts that standard output does not contain `text`.
    #[track_caller]
    pub fn not_out(self, text: &str) -> Outcome {
        assert!(
            !self.stdout.contains(text),
            "{text:?} in the output of {self:?}"
        );
        self
    }

    /// Asserts that standard error contains `text`.
    #[track_caller]
    pub fn err(self, text: &str) -> Outcome {
        assert!(
            self.stderr.contains(text),
            "no {text:?} in the errors of {self:?}"
        );
        self
    }

    /// Asserts the engine's form of an error: a line `error: …`, any `caused by: …` lines after it, a `hint: …` line
    /// where `hint` asks for one, and that no cause repeats the line before it.
    #[track_caller]
    pub fn error_form(self, hint: bool) -> Outcome {
        let lines: Vec<&str> = self.stderr.lines().collect();
        let first = lines
            .iter()
            .position(|line| line.starts_with("error: "))
            .unwrap_or_else(|| panic!("no line starts with `error: `: {self:?}"));
        let mut before = &lines[first]["error: ".len()..];
        let mut hinted = false;
        for line in &lines[first + 1..] {
            if let Some(cause) = line.strip_prefix("caused by: ") {
                assert!(!hinted, "a cause after the hint: {self:?}");
                assert_ne!(cause, before, "a cause repeats what it causes: {self:?}");
                before = cause;
            } else if line.starts_with("hint: ") {
                assert!(!hinted, "two hints: {self:?}");
                hinted = true;
            }
        }
        assert!(hinted || !hint, "no line starts with `hint: `: {self:?}");
        self
    }

    /// Standard output without blanks at its ends.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }
}
