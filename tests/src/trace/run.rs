//! One traced run: follows every process, names each call, does what is asked at it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use coracle_linux::trace::{self as kernel, Call, Event, News, What};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::calls::{self, Operation};
use super::{Deed, Moment, Point, Role, Traced, Whom, name};
use crate::invocation::{Invocation, Outcome, ended_within, reader};
use crate::{Engine, host};

/// How long a verb may take under the tracer.
const LIMIT: Duration = Duration::from_secs(40);

/// How long nothing may happen after the command's end before the rest is let go of.
const QUIET: Duration = Duration::from_millis(30);

/// One thread that is traced.
struct Thread {
    /// Its process.
    process: Pid,
    role: Role,
    /// The call that it is in.
    inside: Option<Operation>,
    /// The point of that call, if it is one.
    point: Option<Point>,
    /// What the call shall return.
    forced: Option<i64>,
}

type Strike<'a> = dyn FnMut(&Point, Moment) -> Deed + Send + 'a;

struct Tracer<'a> {
    folders: Vec<(&'a Path, &'a str)>,
    run_root: PathBuf,
    command: Pid,
    threads: HashMap<Pid, Thread>,
    /// For the watchdog: whom it may kill.
    alive: Arc<Mutex<HashSet<Pid>>>,
    counts: HashMap<(Role, &'static str, String), u32>,
    points: Vec<Point>,
    ids: BTreeSet<String>,
    struck: usize,
    status: Option<i32>,
    strike: &'a mut Strike<'a>,
}

/// Runs a command of `engine`, with its monitors that run already, and asks `strike` at each point.
///
/// Traces on until the command has ended and its monitors have nothing more to do.
pub fn trace(
    engine: &Engine,
    invocation: Invocation,
    mut strike: impl FnMut(&Point, Moment) -> Deed + Send,
) -> Traced {
    // A tracer is a thread: one of its own hears of no other child of the test.
    std::thread::scope(|scope| {
        let traced = scope.spawn(|| trace_here(engine, invocation, &mut strike));
        traced
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[expect(
    clippy::zombie_processes,
    reason = "its tracer hears of its end, and nobody else can"
)]
fn trace_here(engine: &Engine, invocation: Invocation, strike: &mut Strike<'_>) -> Traced {
    let started = Instant::now();
    let alive = Arc::new(Mutex::new(HashSet::new()));
    let mut threads = HashMap::new();
    for monitor in engine.processes() {
        let pid = Pid::from_raw(monitor as i32).expect("a pid is not 0");
        // One that ends just now is not there to be traced.
        if kernel::attach(pid).is_ok() {
            locked(&alive).insert(pid);
            threads.insert(pid, Thread::new(pid, Role::Monitor));
        }
    }
    let line = invocation.line().to_owned();
    let mut command = invocation.into_command();
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = kernel::spawn(command).unwrap_or_else(|error| panic!("{line}: {error}"));
    let stdout = reader(child.stdout.take().expect("piped"));
    let stderr = reader(child.stderr.take().expect("piped"));
    let pid = Pid::from_child(&child);
    locked(&alive).insert(pid);
    threads.insert(pid, Thread::new(pid, Role::Command));
    let (over, watched) = channel::<()>();
    let watchdog = {
        let alive = Arc::clone(&alive);
        std::thread::spawn(move || {
            let hung = watched.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout);
            if hung {
                locked(&alive).iter().for_each(|pid| kill(*pid));
            }
            hung
        })
    };
    let mut tracer = Tracer {
        folders: vec![
            (engine.root(), "ROOT"),
            (engine.run_root(), "RUN"),
            (engine.dir(), "DIR"),
        ],
        run_root: engine.run_root().to_owned(),
        command: pid,
        threads,
        alive,
        counts: HashMap::new(),
        points: Vec::new(),
        ids: BTreeSet::new(),
        struck: 0,
        status: None,
        strike,
    };
    tracer.follow();
    drop(over);
    let hung = watchdog.join().expect("the watchdog does not panic");
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let closed = ended_within(&stdout, &mut out, Duration::from_secs(5))
        & ended_within(&stderr, &mut errors, Duration::from_secs(5));
    let mut errors = String::from_utf8_lossy(&errors).into_owned();
    if !closed {
        errors.push_str("(something still holds this pipe open)");
    }
    let code = match (hung || !closed, tracer.status) {
        (true, _) | (_, None) => Traced::HUNG,
        (false, Some(code)) => code,
    };
    let out = String::from_utf8_lossy(&out).into_owned();
    Traced {
        outcome: Outcome::of(line, code, out, errors, started.elapsed()),
        points: tracer.points,
        ids: tracer.ids,
        struck: tracer.struck,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills a process that is traced: its number is not given to another before its end was waited for.
fn kill(pid: Pid) {
    // It may be dead already.
    let _ = kill_process(pid, Signal::KILL);
}

impl Thread {
    fn new(process: Pid, role: Role) -> Thread {
        Thread {
            process,
            role,
            inside: None,
            point: None,
            forced: None,
        }
    }

    /// Whether it stands in a call that waits for others.
    fn is_idle(&self) -> bool {
        self.inside.as_ref().is_some_and(Operation::waits)
    }
}

impl Tracer<'_> {
    fn follow(&mut self) {
        let mut last = Instant::now();
        loop {
            let ended = self.status.is_some();
            match kernel::wait(!ended).expect("waiting for tracees works") {
                News::Over => return,
                News::Of(event) => {
                    last = Instant::now();
                    self.hear(event);
                }
                News::Quiet => {
                    let idle = self.threads.values().all(Thread::is_idle);
                    if idle && last.elapsed() > QUIET {
                        self.let_go();
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }

    /// Ends the tracing of all that live.
    fn let_go(&mut self) {
        // What is gone by now cannot be interrupted, and its end is heard below.
        self.threads
            .retain(|pid, _| kernel::interrupt(*pid).is_ok());
        while !self.threads.is_empty() {
            let News::Of(Event { pid, what }) = kernel::wait(true).expect("waiting works") else {
                return;
            };
            let signal = match what {
                What::Signal(signal) => signal,
                What::Born(child) => {
                    self.threads
                        .entry(child)
                        .or_insert_with(|| Thread::new(child, Role::Child));
                    0
                }
                _ => 0,
            };
            // Dead, or killed at this moment: gone as well.
            let _ = kernel::detach(pid, signal);
            self.threads.remove(&pid);
            locked(&self.alive).remove(&pid);
        }
    }

    fn hear(&mut self, Event { pid, what }: Event) {
        if let What::Exited(_) | What::Killed(_) = what {
            self.threads.remove(&pid);
            locked(&self.alive).remove(&pid);
            if pid == self.command {
                self.status = Some(match what {
                    What::Exited(code) => code,
                    What::Killed(signal) => 128 + signal,
                    _ => unreachable!("matched above"),
                });
            }
            return;
        }
        if !self.threads.contains_key(&pid) {
            self.meet(pid);
        }
        // ESRCH below: it was killed while it stood still, and its end is the next event.
        let resumed = match what {
            What::Call => {
                self.at_call(pid);
                kernel::resume(pid, 0)
            }
            What::Signal(signal) => kernel::resume(pid, signal),
            What::GroupStopped => kernel::listen(pid),
            What::Executed if !self.is_ours(pid) => {
                self.threads.remove(&pid);
                locked(&self.alive).remove(&pid);
                kernel::detach(pid, 0)
            }
            What::Executed => {
                self.executed(pid);
                kernel::resume(pid, 0)
            }
            _ => kernel::resume(pid, 0),
        };
        assert!(
            matches!(resumed, Ok(()) | Err(Errno::SRCH)),
            "{pid:?} cannot be resumed: {resumed:?}"
        );
    }

    /// A process or thread that is seen for the first time.
    fn meet(&mut self, pid: Pid) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
        // One that is dead already has no group any more, and does nothing more either.
        let process = status
            .unwrap_or_default()
            .lines()
            .find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
            .and_then(Pid::from_raw)
            .unwrap_or(pid);
        let role = self
            .threads
            .get(&process)
            .map_or(Role::Child, |leader| leader.role);
        locked(&self.alive).insert(pid);
        self.threads.insert(pid, Thread::new(process, role));
    }

    /// Whether what a process has become is still the engine, not a container's program.
    fn is_ours(&self, pid: Pid) -> bool {
        let number = pid.as_raw_nonzero();
        let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/pid")).ok();
        pid == self.command
            || (namespace(&number.to_string()) == namespace("self")
                && host::command_line(number.get() as u32)
                    .contains(&*self.run_root.to_string_lossy()))
    }

    fn executed(&mut self, pid: Pid) {
        let role = if pid == self.command {
            Role::Command
        } else {
            Role::Monitor
        };
        // Only the one that called it is left of its threads, under the number of the process.
        let gone: Vec<Pid> = self
            .threads
            .iter()
            .filter(|(_, thread)| thread.process == pid)
            .map(|(pid, _)| *pid)
            .collect();
        for thread in gone {
            self.threads.remove(&thread);
            locked(&self.alive).remove(&thread);
        }
        let inside = calls::execution();
        let thread = Thread {
            inside: Some(inside),
            ..Thread::new(pid, role)
        };
        locked(&self.alive).insert(pid);
        self.threads.insert(pid, thread);
    }

    fn at_call(&mut self, pid: Pid) {
        // ESRCH: killed.
        match kernel::call(pid) {
            Ok(Call::Entry { number, arguments }) => self.enters(pid, number, &arguments),
            Ok(Call::Exit { .. }) => self.leaves(pid),
            Err(_) => {}
        }
    }

    fn enters(&mut self, pid: Pid, number: i64, arguments: &[u64; 6]) {
        let operation = calls::decode(pid, number, arguments);
        let Some(thread) = self.threads.get_mut(&pid) else {
            return;
        };
        thread.inside = operation.clone();
        thread.point = None;
        let Some(operation) = operation else { return };
        name::ids(&operation.on, &mut self.ids);
        let on = name::normalize(&operation.on, &self.folders);
        let role = thread.role;
        let n = self
            .counts
            .entry((role, operation.name, on.clone()))
            .or_default();
        *n += 1;
        let point = Point {
            role,
            call: operation.name,
            on,
            n: *n,
            changes: operation.changes,
            errors: operation
                .errors
                .iter()
                .map(|error| error.raw_os_error())
                .collect(),
        };
        thread.point = Some(point.clone());
        let deed = (self.strike)(&point, Moment::Before);
        self.points.push(point);
        self.act(pid, deed, arguments);
    }

    fn leaves(&mut self, pid: Pid) {
        let Some(thread) = self.threads.get_mut(&pid) else {
            return;
        };
        thread.inside = None;
        if let Some(result) = thread.forced.take() {
            // Killed while it stood.
            let _ = kernel::set_result(pid, result);
        }
        if let Some(point) = thread.point.take() {
            let deed = (self.strike)(&point, Moment::After);
            self.act(pid, deed, &[0; 6]);
        }
    }

    fn act(&mut self, pid: Pid, deed: Deed, arguments: &[u64; 6]) {
        let forced = match deed {
            Deed::Pass => return,
            Deed::Kill(whom) => {
                let victims = self.victims(pid, whom);
                self.struck += usize::from(!victims.is_empty());
                victims.into_iter().for_each(kill);
                return;
            }
            Deed::Overwrite(places) => {
                for (argument, offset, bytes) in places {
                    calls::overwrite(pid, arguments[argument] + offset, &bytes)
                        .expect("the memory of a tracee can be written");
                }
                self.struck += 1;
                return;
            }
            Deed::Fail(error) => -i64::from(error.raw_os_error()),
            Deed::Pretend(result) => result,
        };
        kernel::skip(pid).expect("a tracee's call can be skipped");
        if let Some(thread) = self.threads.get_mut(&pid) {
            thread.forced = Some(forced);
        }
        self.struck += 1;
    }

    /// The processes that are killed.
    fn victims(&self, pid: Pid, whom: Whom) -> HashSet<Pid> {
        let Some(caller) = self.threads.get(&pid) else {
            return HashSet::new();
        };
        let is_victim = |thread: &&Thread| match whom {
            Whom::Caller => thread.process == caller.process,
            Whom::Tree => true,
            Whom::Other if caller.role == Role::Monitor => thread.role == Role::Command,
            Whom::Other => thread.role == Role::Monitor,
        };
        let victims = self.threads.values().filter(is_victim);
        victims.map(|thread| thread.process).collect()
    }
}
