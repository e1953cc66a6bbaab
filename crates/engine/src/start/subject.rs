//! The container as its monitor sees it: how a run is started, what is written down when it ends, what is given back.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use coracle_cgroup::{Cgroup, DeviceAccess, DeviceKind, DeviceRule, DeviceRules};
use coracle_monitor::health::{HealthCommand, HealthUpdate};
use coracle_monitor::{
    Adopt, BoxError, Exit, ProbeProcess, ProbeSkipped, Process, StartFailure, StdioRequest,
};
use coracle_runtime::{Creating, IdMapping, RunAs, Start, Stdio};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::answer::Status;
use crate::error::{Error, Result};
use crate::events::Happening;
use crate::request::{ExecSpec, Resources};
use crate::root::Ids;
use crate::spec::{self, Surroundings};
use crate::state::{self, LastRun, Lock, Record, Run};
use crate::status::KILL_WITHIN;
use crate::{Engine, etc, leases, users};

/// One container under supervision.
pub(crate) struct Subject<'e> {
    engine: &'e Engine,
    record: Record,
    run: Run,
    cgroup: Option<Cgroup>,
    /// Held as long as this process looks after the container.
    lock: Option<Lock>,
    /// The container's own lock, while it starts.
    starting: Option<Lock>,
    oom_kills: u64,
    /// The last run is over and everything was given back.
    finished: bool,
    /// The cgroup of the last run is still there.
    unreleased: bool,
    /// It ran before this process looked after it, and nothing of it has ended since.
    adopting: bool,
}

impl<'e> Subject<'e> {
    pub(super) fn new(engine: &'e Engine, record: Record, run: Run, lock: Lock) -> Box<Self> {
        Box::new(Subject {
            engine,
            record,
            run,
            cgroup: None,
            lock: Some(lock),
            starting: None,
            oom_kills: 0,
            finished: false,
            unreleased: false,
            adopting: false,
        })
    }

    /// What is needed to go on with a run that another monitor began.
    pub(super) fn adopt(&mut self) -> Result<Option<Adopt>> {
        let failed = |error: rustix::io::Errno| {
            Error::file(
                "opening the process of",
                &self.engine.paths.run_of(&self.record.id),
                error,
            )
        };
        let process =
            coracle_runtime::process::open(self.run.pid, self.run.start_time).map_err(failed)?;
        let (Some(pidfd), Some(pid)) = (process, rustix::process::Pid::from_raw(self.run.pid))
        else {
            return Err(Error::refused(
                "the container ended before it could be taken over",
            ));
        };
        let cgroup = self.engine.cgroup_of(&self.run)?;
        let oom_event = if cgroup.is_none() {
            None
        } else {
            cgroup.oom_event()?
        };
        self.oom_kills = if cgroup.is_none() {
            0
        } else {
            cgroup.oom_kills()?
        };
        self.cgroup = Some(cgroup);
        self.store_run()?;
        self.adopting = true;
        let started_at = jiff::Timestamp::from_nanosecond(self.run.started).unwrap_or_default();
        Ok(Some(Adopt {
            pid,
            pidfd,
            started_at,
            oom_event,
        }))
    }

    /// Keeps other commands away from the container until its first process runs and is written down.
    pub(super) fn hold_until_started(&mut self, lock: Lock) {
        self.starting = Some(lock);
    }

    /// Restarts that earlier monitors counted.
    pub(super) fn restarts(&self) -> u32 {
        self.run.restarts
    }

    /// What root inside is outside, which owns the container's ends of its pipes.
    pub(super) fn root_outside(&mut self) -> Result<(u32, u32)> {
        if self.run.started == 0 {
            self.prepare_run()?;
        }
        Ok(self
            .engine
            .maps(&self.record, self.run.ids)?
            .map_or((0, 0), |maps| maps.root()))
    }

    /// Runs the supervision; what a failed first start took is given back.
    pub(super) fn supervised<T>(
        mut self: Box<Self>,
        supervise: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let result = supervise(&mut self).map_err(own_error);
        // A container that was to be taken over runs on as it was.
        if !self.finished && !self.adopting {
            // The directory stays where something could not be given back: the next look tries again.
            let released = self
                .engine
                .release_run(&self.record.id, &self.run)
                .and_then(|()| state::delete_tree(&self.engine.paths.run_of(&self.record.id)));
            // The failure that led here is what is reported; this is what repair would do anyway.
            if result.is_ok() {
                released?;
            }
            if let Err(error) = &result {
                self.record_failed_start(error)?;
            }
        }
        result
    }

    fn record_failed_start(&self, error: &Error) -> Result<()> {
        if self.record.spec.auto_remove {
            self.engine.remove_anonymous_volumes(&self.record)?;
            return self.engine.delete_container(&self.record);
        }
        let now = state::now();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        let last = LastRun {
            version: state::VERSION,
            started: now,
            finished: now,
            exit_code: i32::from(error.exit_code()),
            error: text,
            restarts: self.run.restarts,
            ..LastRun::default()
        };
        state::store(&self.engine.paths.last(&self.record.id), &last)
    }

    /// Takes what this run needs of the engine's own. It is found again by the container's id, so it need not be
    /// written down first.
    fn prepare_run(&mut self) -> Result<()> {
        self.run.started = state::now();
        let automatic = spec::own_users(&self.record.spec)
            && self.record.spec.userns == crate::request::UserNamespace::Auto
            && !self.engine.config.rootless;
        if automatic && self.run.ids.is_none() {
            self.run.ids = Some(leases::take(&self.engine.paths, &self.record.id)?);
        }
        Ok(())
    }

    fn store_run(&self) -> Result<()> {
        state::store(&self.engine.paths.run_file(&self.record.id), &self.run)
    }

    /// Apart from what is on the stack as long as the container runs.
    #[inline(never)]
    fn start_process(
        &mut self,
        stdio: StdioRequest,
        meanwhile: &mut dyn FnMut() -> std::result::Result<(), coracle_monitor::Error>,
    ) -> Result<Process> {
        let engine = self.engine;
        if self.run.restarts > 0 {
            self.prepare_run()?;
        }
        let limits = super::limits(&self.record.spec.resources, true)?;
        let devices = engine.device_rules(&self.record)?;
        let cgroup = engine.make_cgroup(&self.record, &self.run, &limits, &devices)?;
        let entry = cgroup.entry()?;
        let maps = engine.maps(&self.record, self.run.ids)?;
        let document = spec::document(
            &self.record,
            &Surroundings {
                mappings: maps.as_ref().map(|maps| maps.document()).transpose()?,
                joined: engine.joined(&self.record)?,
                volumes: engine.volume_mounts(&self.record)?,
                parts: engine.host_parts(&self.record)?,
                cgroup: Some(self.run.cgroup.clone()),
                rootless: engine.config.rootless,
                seccomp: spec::seccomp(&self.record.spec)?,
            },
        )?;
        let ids = match (&maps, &self.record.spec.userns) {
            (_, crate::request::UserNamespace::Container(name)) => engine.joined_users(name)?,
            (Some(maps), _) => maps.own(),
            (None, _) => IdMapping::Host,
        };
        let stdio = match stdio {
            StdioRequest::Pipes {
                stdin,
                stdout,
                stderr,
            } => Stdio::Pipes {
                stdin,
                stdout,
                stderr,
            },
            StdioRequest::Terminal { .. } => Stdio::Terminal,
        };
        // The overlay already shows owners as they are outside.
        let ids_outside = Ids::new(maps.clone().unwrap_or_default());
        let mut prepare = |root: BorrowedFd<'_>| -> std::result::Result<RunAs, BoxError> {
            engine.fill_volumes(&self.record, root, &ids_outside)?;
            let who = users::look_up(root, &self.record.process.user, &self.record.spec.groups)?;
            let has_home = self
                .record
                .process
                .env
                .iter()
                .any(|entry| entry.starts_with("HOME="));
            let env = if has_home {
                vec![]
            } else {
                vec![format!("HOME={}", who.home)]
            };
            Ok(RunAs {
                uid: who.uid,
                gid: who.gid,
                groups: who.groups,
                env,
            })
        };
        let start = Start {
            spec: &document,
            root: engine.root_of(&self.record)?,
            ids,
            cgroup: Some(entry),
            stdio,
            preserved: Vec::new(),
            init: self.record.spec.init,
            clamp: true,
            files: etc::files(&self.record)?,
            gate: None,
            deviations: Default::default(),
            prepare: Some(&mut prepare),
        };
        let creating = Creating::begin(start)?;
        // The process mounts meanwhile, and waits before its command for what follows. A network attaches here: its
        // namespace exists.
        if !cgroup.is_none() {
            cgroup.confine(&limits, &devices)?;
        }
        meanwhile()?;
        let running = creating.run()?;
        self.run.pid = running.pid.as_raw_nonzero().get();
        self.run.start_time = running.start_time;
        self.store_run()?;
        if !self.record.spec.auto_remove {
            // Until its end is written down: what is true if nobody is left to see it (the host goes down).
            let begun = LastRun::unseen(
                &self.run,
                "its end was not seen: the host went down, or its monitor was killed",
            );
            state::store(&engine.paths.last(&self.record.id), &begun)?;
        }
        self.starting = None;
        self.oom_kills = 0;
        let oom_event = cgroup.oom_event()?;
        self.cgroup = Some(cgroup);
        engine.happened(Happening::container("start", &self.record))?;
        Ok(Process {
            pid: running.pid,
            pidfd: running.pidfd,
            terminal: running.terminal,
            oom_event,
        })
    }

    fn end_of_run(&mut self, exit: &Exit) -> Result<()> {
        self.adopting = false;
        let engine = self.engine;
        let mut first = Ok(());
        if let Some(cgroup) = self.cgroup.take() {
            first = first.and(end_cgroup(&cgroup));
            self.unreleased = first.is_err();
        }
        let auto_remove = self.record.spec.auto_remove && exit.restart_in.is_none();
        if !auto_remove {
            let last = LastRun {
                version: state::VERSION,
                started: self.run.started,
                finished: state::now(),
                exit_code: exit.status.code(),
                oom_killed: exit.oom,
                error: exit.error.clone().unwrap_or_default(),
                restarts: exit.restart_count,
            };
            first = first.and(state::store(&engine.paths.last(&self.record.id), &last));
        }
        let died = Happening::container("die", &self.record)
            .with("exitCode", exit.status.code().to_string());
        first = first.and(engine.happened(died));
        self.run.pid = 0;
        self.run.restarts =
            exit.restart_count.max(self.run.restarts) + u32::from(exit.restart_in.is_some());
        if exit.restart_in.is_some() {
            first = first.and(self.store_run());
        }
        first
    }

    fn end_of_supervision(&mut self) -> Result<()> {
        let engine = self.engine;
        let mut first = Ok(());
        if let Some(range) = self.run.ids {
            first = first.and(leases::give_back(&engine.paths, range, &self.record.id));
        }
        if self.unreleased {
            first = first.and(engine.release_run(&self.record.id, &self.run));
        }
        self.finished = true;
        if first.is_err() {
            // What could not be given back is found by the directory of the run: the next look tries again.
            self.lock = None;
            return first;
        }
        first = state::delete_tree(&engine.paths.run_of(&self.record.id));
        self.lock = None;
        if self.record.spec.auto_remove {
            first = first.and(engine.delete_container(&self.record));
            first = first.and(engine.remove_anonymous_volumes(&self.record));
            first = first.and(engine.happened(Happening::container("destroy", &self.record)));
        }
        first
    }

    fn start_probe(&self, command: &HealthCommand) -> Result<ProbeProcess, BoxError> {
        let engine = self.engine;
        let observed = engine.observe(&self.record)?;
        if observed.status == Status::Paused {
            return Err(Box::new(ProbeSkipped("the container is paused".into())));
        }
        let command = match command {
            HealthCommand::Exec(command) => command.clone(),
            HealthCommand::Shell(line) => vec!["/bin/sh".into(), "-c".into(), line.clone()],
        };
        let asked = ExecSpec {
            command,
            ..ExecSpec::default()
        };
        let (output, write) = pipe_with(PipeFlags::CLOEXEC)?;
        let null = rustix::fs::open(
            "/dev/null",
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        let stdio = Stdio::Pipes {
            stdin: null,
            stdout: rustix::io::fcntl_dupfd_cloexec(&write, 3)?,
            stderr: write,
        };
        let running = engine.exec_in(&self.record, &self.run, &asked, stdio)?;
        Ok(ProbeProcess {
            pid: running.pid,
            pidfd: running.pidfd,
            output,
        })
    }
}

impl coracle_monitor::Subject for Subject<'_> {
    fn start(
        &mut self,
        stdio: StdioRequest,
        meanwhile: &mut dyn FnMut() -> std::result::Result<(), coracle_monitor::Error>,
    ) -> Result<Process, BoxError> {
        self.start_process(stdio, meanwhile).map_err(|error| {
            // What this start took is released here, so that a failed restart leaves nothing and the next can try.
            if let Err(second) = self.engine.release_run(
                &self.record.id,
                &Run {
                    ids: None,
                    ..self.run.clone()
                },
            ) {
                self.warn(&format!("cleaning up after a failed start: {second}"));
            }
            let failure = StartFailure {
                code: error.exit_code(),
                hint: error.hint(),
                source: Box::new(error),
            };
            Box::new(failure) as BoxError
        })
    }

    fn exited(&mut self, exit: &Exit) -> Result<(), BoxError> {
        Ok(self.end_of_run(exit)?)
    }

    fn oom(&mut self) -> Result<bool, BoxError> {
        let Some(cgroup) = &self.cgroup else {
            return Ok(false);
        };
        let kills = cgroup.oom_kills()?;
        let killed = kills > self.oom_kills;
        if killed {
            self.oom_kills = kills;
            self.engine
                .happened(Happening::container("oom", &self.record))?;
        }
        Ok(kills > 0)
    }

    fn health(&mut self, update: &HealthUpdate) -> Result<(), BoxError> {
        state::store(&self.engine.paths.health(&self.record.id), update)?;
        if update.changed {
            let action = format!("health_status: {}", update.status.as_str());
            self.engine
                .happened(Happening::container(&action, &self.record))?;
        }
        Ok(())
    }

    fn probe(&mut self, command: &HealthCommand) -> Result<ProbeProcess, BoxError> {
        self.start_probe(command)
    }

    fn finished(&mut self) -> Result<(), BoxError> {
        Ok(self.end_of_supervision()?)
    }

    fn warn(&mut self, warning: &str) {
        let happening = Happening::container("warning", &self.record).with("warning", warning);
        // The events are the only place there is to tell; when they cannot be written, nothing is left to do.
        let _ = self.engine.happened(happening);
    }
}

impl Engine {
    fn make_cgroup(
        &self,
        record: &Record,
        run: &Run,
        limits: &coracle_cgroup::Limits,
        devices: &DeviceRules,
    ) -> Result<Cgroup> {
        let path = coracle_cgroup::CgroupPath::new(&run.cgroup)?;
        let manager = self.cgroups()?;
        // Where no cgroup can be made, only what was asked for by name is refused, never a default.
        if let coracle_cgroup::Layout::Unavailable { .. } = manager.layout()
            && record.spec.resources == Resources::default()
        {
            return Ok(manager.make(&path, &coracle_cgroup::Limits::default(), devices)?);
        }
        match manager.make(&path, limits, devices) {
            // It bears this container's id, and this run's directory is new and ours: a run that nobody knows of any
            // more (the directory of runs was emptied) left it.
            Err(coracle_cgroup::Error::Exists { .. }) => {
                let left = manager.open_existing(&path)?;
                left.kill(KILL_WITHIN)?;
                left.remove()?;
                Ok(manager.make(&path, limits, devices)?)
            }
            made => Ok(made?),
        }
    }

    /// An ordinary user's containers are restricted by the user namespace: no device node can be made there.
    fn device_rules(&self, record: &Record) -> Result<DeviceRules> {
        match record.spec.privileged || !self.cgroups()?.can_restrict_devices() {
            true => Ok(DeviceRules::unrestricted()),
            false => device_rules(record),
        }
    }

    fn joined_users(&self, name: &str) -> Result<IdMapping> {
        let (record, run) = self.other(name)?;
        let path = Path::new("/proc").join(run.pid.to_string()).join("ns/user");
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        let namespace: OwnedFd = rustix::fs::open(&path, flags, rustix::fs::Mode::empty())
            .map_err(|error| Error::file("opening", &path, error))?;
        match self.maps(&record, run.ids)? {
            Some(maps) => Ok(IdMapping::Join {
                namespace,
                uids: maps.uids,
                gids: maps.gids,
            }),
            None => Ok(IdMapping::Host),
        }
    }
}

fn device_rules(record: &Record) -> Result<DeviceRules> {
    let mut rules = DeviceRules::docker_default();
    for device in &record.spec.devices {
        rules.push(device_rule(&device.host, &device.access)?);
    }
    for text in &record.spec.device_cgroup_rules {
        rules.push(typed_rule(text)?);
    }
    Ok(rules)
}

fn device_rule(node: &Path, access: &str) -> Result<DeviceRule> {
    let metadata = std::fs::metadata(node)
        .map_err(|source| Error::file("looking at the device", node, source))?;
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => DeviceKind::Char,
        kind if kind.is_block_device() => DeviceKind::Block,
        _ => {
            return Err(Error::refused(format!(
                "{} is not a device",
                node.display()
            )));
        }
    };
    let access = DeviceAccess::parse(access).ok_or_else(|| {
        Error::refused(format!(
            "device access {access:?} is not made of r, w and m"
        ))
    })?;
    let (major, minor) = (
        rustix::fs::major(metadata.rdev()),
        rustix::fs::minor(metadata.rdev()),
    );
    Ok(DeviceRule {
        allow: true,
        kind,
        major: Some(major),
        minor: Some(minor),
        access,
    })
}

/// A rule as typed: `c 10:200 rwm`, with `*` for any number.
fn typed_rule(text: &str) -> Result<DeviceRule> {
    let wrong = || {
        Error::refused_with(
            format!("{text:?} is no device rule"),
            "write it as \"c 10:200 rwm\"; a number may be *",
        )
    };
    let mut words = text.split_whitespace();
    let kind = match words.next() {
        Some("c") => DeviceKind::Char,
        Some("b") => DeviceKind::Block,
        Some("a") => DeviceKind::All,
        _ => return Err(wrong()),
    };
    let (major, minor) = words
        .next()
        .and_then(|numbers| numbers.split_once(':'))
        .ok_or_else(wrong)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        digits => digits.parse().map(Some).map_err(|_| wrong()),
    };
    let access = words
        .next()
        .and_then(DeviceAccess::parse)
        .ok_or_else(wrong)?;
    match words.next() {
        None => Ok(DeviceRule {
            allow: true,
            kind,
            major: number(major)?,
            minor: number(minor)?,
            access,
        }),
        Some(_) => Err(wrong()),
    }
}

/// An error of ours that went through the monitor comes back as itself.
fn own_error(error: Error) -> Error {
    let Error::Monitor(coracle_monitor::Error::Start(source)) = error else {
        return error;
    };
    match source.downcast::<StartFailure>() {
        Ok(failure) => match failure.source.downcast::<Error>() {
            Ok(own) => *own,
            Err(source) => Error::Monitor(coracle_monitor::Error::Start(source)),
        },
        Err(source) => Error::Monitor(coracle_monitor::Error::Start(source)),
    }
}

/// What remains after the first process is killed and the directory goes.
fn end_cgroup(cgroup: &Cgroup) -> Result<()> {
    if !cgroup.is_none() && !cgroup.processes()?.is_empty() {
        cgroup.kill(KILL_WITHIN)?;
    }
    Ok(cgroup.remove()?)
}
