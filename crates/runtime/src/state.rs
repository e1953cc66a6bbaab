//! The life of a container's first process, as types: [`Creating`] → [`Created`] → [`Running`].
//!
//! Before it runs, dropping a state kills the process and reaps it. A process that runs is nobody's property: dropping
//! [`Running`] leaves it alone.
//!
//! The thread that begins a start must live until the process runs: the kernel kills the process when that thread ends.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use coracle_linux::clone::Process;
use coracle_linux::process::Undumpable;
use coracle_linux::{futex, namespace, pidfd};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdGetfdFlags, WaitId, WaitIdOptions, WaitIdStatus, pidfd_getfd, waitid,
};

use crate::error::describe;
use crate::parent::{self, OomScore};
use crate::plan::{Place, Plan, life, word};
use crate::request::{BoxError, Exec, IdMapping, Start};
use crate::resolve::ExecWork;
use crate::step::Step;
use crate::{Error, process, resolve, seal};

/// A limit that was lowered to what the host permits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Clamp {
    /// Which: `RLIMIT_NOFILE`, `oom_score_adj`, `CAP_SYS_RESOURCE`.
    pub what: String,
    /// What was asked for; -1 for no limit.
    pub asked: i64,
    /// What was set; -1 for no limit.
    pub given: i64,
}

/// A process before its exec, with what has to be undone after it.
struct Child {
    process: Process<Plan>,
    /// `None` when the process is not in shared memory.
    _undumpable: Option<Undumpable>,
    oom_score: Option<OomScore>,
    start_time: u64,
}

impl Child {
    fn life(&self) -> u32 {
        self.process
            .plan()
            .mailbox
            .word(word::LIFE)
            .load(Ordering::Acquire)
    }

    /// Waits until the life word is at least `value`, which is not reached by a process that fails.
    fn wait_for(&self, value: u32) -> Result<(), Error> {
        loop {
            match self.life() {
                0 => return Err(self.failure()),
                now if now >= value => return Ok(()),
                now => {
                    self.process.wait_while(now);
                }
            }
        }
    }

    fn failure(&self) -> Error {
        describe(self.process.plan())
    }

    fn listener(&self) -> Result<Option<OwnedFd>, Error> {
        let mailbox = &self.process.plan().mailbox;
        let number = mailbox.word(word::LISTENER).load(Ordering::Acquire);
        if number == 0 {
            return Ok(None);
        }
        let flags = PidfdGetfdFlags::empty();
        pidfd_getfd(self.process.pidfd(), number as i32 - 1, flags)
            .map(Some)
            .map_err(|source| Error::host("taking", "the seccomp listener", source))
    }

    /// Waits for the exec.
    fn run(self) -> Result<Running, Error> {
        futex::set(self.process.plan().mailbox.word(word::START), 1);
        self.process.wait_until_gone();
        let plan = self.process.plan();
        let read = |index| plan.mailbox.word(index).load(Ordering::Acquire);
        // Gone without an error, and not at the exec: something else killed it.
        if read(word::ERRNO) != 0 || Step::from_word(read(word::STEP)) != Step::Executing {
            return Err(self.failure());
        }
        let terminal = plan.mailbox.take(word::TERMINAL).map(OwnedFd::from);
        let start_time = self.start_time;
        drop(self.oom_score);
        match self.process.into_executed() {
            Ok((pid, pidfd)) => Ok(Running {
                pid,
                pidfd,
                start_time,
                terminal,
            }),
            Err(process) => Err(describe(process.plan())),
        }
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Child")
            .field("pid", &self.process.pid())
            .field("life", &self.life())
            .finish()
    }
}

/// The process exists and makes its mounts, beside the caller.
#[derive(Debug)]
pub struct Creating {
    child: Child,
    clamped: Vec<Clamp>,
    network: OnceLock<OwnedFd>,
    /// Hooks that come before the pivot have not run yet.
    hooks: bool,
}

impl Creating {
    /// Resolves the request, clones the process, and does all that it waits for.
    ///
    /// # Errors
    /// [`Error`]; nothing is left behind.
    pub fn begin(start: Start<'_>) -> Result<Self, Error> {
        if matches!(start.ids, IdMapping::Host) {
            seal::check()?;
        }
        let (plan, mut work) = resolve::start(start)?;
        // As soon as the process is in sight of others, which is at once in a pid namespace that exists. An ordinary user
        // could not write the id maps of a process that is not dumpable.
        let early = work.host.initial && work.host.has("CAP_DAC_OVERRIDE");
        let guard = || {
            Undumpable::begin()
                .map_err(|source| Error::host("protecting", "our own memory", source))
        };
        let mut undumpable = if early { Some(guard()?) } else { None };
        let process = parent::spawn(plan, &mut work)?;
        let mut child = Child {
            process,
            _undumpable: None,
            oom_score: None,
            start_time: 0,
        };
        let mut clamped = std::mem::take(&mut work.clamped);
        if undumpable.is_none() {
            parent::write_ids(&child.process, &mut work)?;
            undumpable = Some(guard()?);
        }
        child._undumpable = undumpable;
        parent::serve(&mut child.process, &mut work).map_err(|error| child.first_failure(error))?;
        let pid = child.process.pid().as_raw_nonzero().get();
        if let Some(asked) = work.oom_score_adj {
            child.oom_score = OomScore::set(pid, asked, work.clamp, &mut clamped)?;
        }
        child.start_time =
            process::start_time(pid).map_err(|source| child.first_failure(gone(pid, source)))?;
        let hooks =
            matches!(&child.process.plan().place, Place::Container(container) if container.hooks);
        Ok(Self {
            child,
            clamped,
            network: OnceLock::new(),
            hooks,
        })
    }

    /// The pid in the caller's pid namespace.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.child.process.pid()
    }

    /// The container's network namespace, to attach it while the process makes its mounts.
    ///
    /// # Errors
    /// The process failed already, or the kernel did not give it.
    pub fn network_namespace(&self) -> Result<BorrowedFd<'_>, Error> {
        if let Some(known) = self.network.get() {
            return Ok(known.as_fd());
        }
        self.child.wait_for(life::IN_NAMESPACES)?;
        let fail = |source| Error::host("opening", "the container's network namespace", source);
        let fd = match pidfd::namespace(self.child.process.pidfd(), namespace::NETWORK) {
            // Before Linux 6.11.
            Err(Errno::NOTTY | Errno::INVAL) => coracle_linux::procfs::Proc::host()
                .and_then(|proc| proc.namespace(self.pid().as_raw_nonzero().get(), "net"))
                .map_err(fail)?,
            result => result.map_err(fail)?,
        };
        Ok(self.network.get_or_init(|| fd).as_fd())
    }

    /// Its start time, as [`process::start_time`] reads it.
    #[must_use]
    pub fn start_time(&self) -> u64 {
        self.child.start_time
    }

    /// What was lowered to what the host permits ([`Start::clamp`]).
    #[must_use]
    pub fn clamped(&self) -> &[Clamp] {
        &self.clamped
    }

    /// Whether the document has hooks that run before the container leaves the host's root, so that
    /// [`Creating::before_pivot`] has to be called.
    #[must_use]
    pub fn has_hooks(&self) -> bool {
        self.hooks
    }

    /// Waits until all mounts are made and the process still has the host's root, calls `run` with its pid, and lets it go on.
    ///
    /// # Errors
    /// What failed on its way, and what `run` says, as [`Error::Hook`].
    pub fn before_pivot(
        &mut self,
        run: impl FnOnce(Pid) -> Result<(), BoxError>,
    ) -> Result<(), Error> {
        self.child.wait_for(life::BEFORE_PIVOT)?;
        run(self.pid()).map_err(Error::Hook)?;
        self.hooks = false;
        futex::set(self.child.process.plan().mailbox.word(word::HOOKS), 1);
        Ok(())
    }

    fn hooks_have_run(&self) -> Result<(), Error> {
        match self.hooks {
            false => Ok(()),
            true => Err(Error::invalid(
                "hooks",
                "whoever starts the container has to run them",
            )),
        }
    }

    /// Waits until the process stands before its exec, complete in all else.
    ///
    /// # Errors
    /// What failed on its way.
    pub fn finish(self) -> Result<Created, Error> {
        self.hooks_have_run()?;
        self.child.wait_for(life::CREATED)?;
        Ok(Created { child: self.child })
    }

    /// `finish` and `start` in one, without a stop of the process in between.
    ///
    /// # Errors
    /// As both.
    pub fn run(self) -> Result<Running, Error> {
        self.hooks_have_run()?;
        if self.child.process.plan().command.notifies() {
            return Err(Error::invalid(
                "linux.seccomp",
                "its listener has to be taken from the created process before it runs",
            ));
        }
        self.child.run()
    }
}

fn gone(pid: i32, source: Errno) -> Error {
    Error::host(
        "reading the start time of",
        format!("process {pid}"),
        source,
    )
}

impl Child {
    /// An error of the parent's work may only follow from the child's own failure, which says more.
    fn first_failure(&self, error: Error) -> Error {
        let errno = self
            .process
            .plan()
            .mailbox
            .word(word::ERRNO)
            .load(Ordering::Acquire);
        if errno != 0 { self.failure() } else { error }
    }
}

/// The process has its root and its credentials, and stands before its exec.
#[derive(Debug)]
pub struct Created {
    child: Child,
}

impl Created {
    /// The pid in the caller's pid namespace.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.child.process.pid()
    }

    /// Its start time, as [`process::start_time`] reads it.
    #[must_use]
    pub fn start_time(&self) -> u64 {
        self.child.start_time
    }

    /// The listener of its seccomp filter, if that notifies one; whoever holds it decides what the process may do.
    ///
    /// # Errors
    /// [`Error::Host`] when it cannot be taken out of the process.
    pub fn listener(&self) -> Result<Option<OwnedFd>, Error> {
        self.child.listener()
    }

    /// Lets it execute the command.
    ///
    /// # Errors
    /// [`Error::Command`] and [`Error::Interpreter`] when the command cannot be executed.
    pub fn start(self) -> Result<Running, Error> {
        self.child.run()
    }

    /// Leaves it waiting for its gate ([`Start::gate`]). The memory that it stands in is given up for the life of the calling
    /// process, which is expected to end soon.
    ///
    /// # Errors
    /// [`Error::Invalid`] without a gate: nothing could ever start it.
    pub fn release(self) -> Result<Running, Error> {
        let plan = self.child.process.plan();
        if plan.command.gate.is_none() {
            return Err(Error::invalid(
                "release",
                "the process has no gate that could start it",
            ));
        }
        // Until it says so, it dies with us.
        futex::set(plan.mailbox.word(word::START), 1);
        self.child.wait_for(life::RELEASED)?;
        let plan = self.child.process.plan();
        let terminal = plan.mailbox.take(word::TERMINAL).map(OwnedFd::from);
        plan.command.close_streams();
        let Child {
            process,
            _undumpable,
            oom_score,
            start_time,
        } = self.child;
        // Setting our own back would set the process's as well while it shares our memory; we are about to end.
        std::mem::forget((oom_score, _undumpable));
        match process.leak() {
            (pid, Some(pidfd)) => Ok(Running {
                pid,
                pidfd,
                start_time,
                terminal,
            }),
            (_, None) => Err(Error::Killed {
                during: Step::WaitingForStart,
            }),
        }
    }
}

/// The command runs, or has run already.
#[derive(Debug)]
pub struct Running {
    /// Its pid in the caller's pid namespace.
    pub pid: Pid,
    /// The process.
    pub pidfd: OwnedFd,
    /// Its start time, as [`process::start_time`] reads it.
    pub start_time: u64,
    /// The other end of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

impl Running {
    /// Waits for its end and reaps it.
    ///
    /// # Errors
    /// ECHILD when it was reaped elsewhere.
    pub fn wait(&self) -> Result<WaitIdStatus, Errno> {
        loop {
            match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Err(Errno::INTR) | Ok(None) => {}
                Ok(Some(status)) => return Ok(status),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Runs one more process in a running container.
///
/// # Errors
/// [`Error::Gone`] when the container is not running; else as [`Created::start`].
pub fn exec(request: Exec<'_>) -> Result<Running, Error> {
    exec_listening(request, &mut |_, _| {
        Err("its listener has to be taken by whoever starts the process".into())
    })
}

/// Called with the process and the listener of its seccomp filter, before it runs.
pub type OnListener<'a> = dyn FnMut(Pid, OwnedFd) -> Result<(), BoxError> + Send + 'a;

/// As [`exec`], with a filter that may notify a listener: `on_listener` gets it.
///
/// # Errors
/// As [`exec`]; [`Error::Listener`] with what `on_listener` says.
pub fn exec_listening(
    request: Exec<'_>,
    on_listener: &mut OnListener<'_>,
) -> Result<Running, Error> {
    let target = request.target;
    let pid = Pid::from_raw(target.pid).ok_or(Error::Gone { pid: target.pid })?;
    let pidfd = match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH | Errno::INVAL) => return Err(Error::Gone { pid: target.pid }),
        Err(source) => {
            return Err(Error::host(
                "opening",
                format!("process {}", target.pid),
                source,
            ));
        }
    };
    // After the descriptor was opened: now it is that process, and will not be another.
    match process::is_alive(target.pid, target.start_time) {
        Ok(true) => {}
        Ok(false) => return Err(Error::Gone { pid: target.pid }),
        Err(source) => return Err(gone(target.pid, source)),
    }
    let (plan, work) = resolve::exec(request, pidfd)?;
    if work.may_return || work.pid_namespace.is_none() {
        return execute(plan, &work, on_listener);
    }
    // The thread that enters the pid namespace cannot come back; all that it has to do comes first.
    coracle_linux::process::in_thread(|| execute(plan, &work, on_listener))
        .map_err(|source| Error::host("starting a thread of", "this command", source))?
}

/// Clones the process of an exec and lets it run.
fn execute(
    plan: Plan,
    work: &ExecWork,
    on_listener: &mut OnListener<'_>,
) -> Result<Running, Error> {
    let notifies = plan.command.notifies();
    if notifies && work.own_memory {
        return Err(Error::invalid(
            "linux.seccomp",
            "a filter that notifies a listener cannot be given to one more process of a container with a time namespace",
        ));
    }
    let undumpable = Undumpable::begin()
        .map_err(|source| Error::host("protecting", "our own memory", source))?;
    if work.own_memory {
        // Its parent sleeps until the exec, so that it cannot be told to go on later.
        plan.mailbox.word(word::START).store(1, Ordering::Release);
    }
    let spawned = parent::spawn_into(plan, work)?;
    let mut child = Child {
        process: spawned,
        _undumpable: Some(undumpable),
        oom_score: None,
        start_time: 0,
    };
    let pid = child.process.pid().as_raw_nonzero().get();
    if let Some(asked) = work.oom_score_adj {
        child.oom_score = OomScore::set(pid, asked, work.clamp, &mut Vec::new())?;
    }
    child.start_time = match process::start_time(pid) {
        Ok(start_time) => start_time,
        Err(source) => return Err(child.first_failure(gone(pid, source))),
    };
    if notifies {
        child.wait_for(life::CREATED)?;
        if let Some(listener) = child.listener()? {
            on_listener(child.process.pid(), listener).map_err(Error::Listener)?;
        }
    }
    child.run()
}
