//! `exec`: one more process in a container that is there.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use coracle_cgroup::CgroupPath;
use coracle_linux::procfs::Proc;
use coracle_oci::runtime::{Capability, Process, Spec};
use coracle_runtime::{Stdio, Target};
use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use super::create::hand_over;
use super::document::{self, shares_host_ids};
use super::launch::{Launched, inherited, send_listener};
use super::record::{CONFIG, Record, Status};
use super::verbs::not_running;
use super::{Bundles, parse};
use crate::error::{Error, Result};
use crate::users;

/// What `exec` is asked for.
#[derive(Debug)]
pub struct ExecRequest {
    /// The container's id.
    pub id: String,
    /// What to run.
    pub source: ExecSource,
    /// Where the terminal's master is sent.
    pub console_socket: Option<PathBuf>,
    /// Gets the process's pid.
    pub pid_file: Option<PathBuf>,
    /// Nobody of this command waits for it, so that a terminal needs a socket.
    pub detach: bool,
    /// Become 3, 4, … inside.
    pub preserved: Vec<OwnedFd>,
    /// A cgroup below the container's own.
    pub cgroup: Option<String>,
    /// Runs in a paused container too, and so waits there.
    pub ignore_paused: bool,
}

/// What to run.
#[derive(Debug)]
pub enum ExecSource {
    /// A whole process document.
    Document(Box<Process>),
    /// The container's own process with these changes.
    Changes(ExecCommand),
}

/// Changes to the container's own process.
#[derive(Debug, Default)]
pub struct ExecCommand {
    /// The command.
    pub args: Vec<String>,
    /// Working directory.
    pub cwd: Option<PathBuf>,
    /// Added to the environment.
    pub env: Vec<String>,
    /// With a terminal.
    pub tty: bool,
    /// User and, if it is given, group.
    pub user: Option<(u32, Option<u32>)>,
    /// Supplementary groups in place of the container's.
    pub additional_gids: Vec<u32>,
    /// Added to all five sets.
    pub capabilities: Vec<Capability>,
    /// `noNewPrivileges` on.
    pub no_new_privileges: bool,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// SELinux label.
    pub process_label: Option<String>,
}

impl Bundles {
    /// Starts a process in a created or running container. It is a child of this command.
    ///
    /// # Errors
    /// When the container is not running, or paused; 126 and 127 by [`Error::exit_code`].
    pub fn exec(&self, request: ExecRequest) -> Result<Launched> {
        let (directory, record) = self.existing(&request.id)?;
        let status = self.status(&directory, &record, false)?;
        match status {
            Status::Created | Status::Running => {}
            Status::Paused if request.ignore_paused => {}
            Status::Paused => {
                return Err(Error::refused_with(
                    "cannot exec in a paused container",
                    "resume it first, or use --ignore-paused",
                ));
            }
            Status::Stopped | Status::Creating => return Err(not_running()),
        }
        let (Some(pid), Some(start_time)) = (record.pid, record.start_time) else {
            return Err(not_running());
        };
        let text = document::read(&directory.join(CONFIG))?;
        let spec = parse(&text, &mut |_| {})?;
        let mut process = match request.source {
            ExecSource::Document(process) => *process,
            ExecSource::Changes(changes) => changed(&spec, changes)?,
        };
        let terminal = process.terminal().unwrap_or(false);
        if terminal && request.detach && request.console_socket.is_none() {
            return Err(Error::refused_with(
                "a detached process has a terminal, and nobody would have its other end",
                "name a socket with --console-socket",
            ));
        }
        document::grant(&mut process, !shares_host_ids(&spec), &mut |warning| {
            self.warn(warning)
        })?;
        add_home(&mut process, pid)?;
        let entry = self.entry(&record, pid, request.cgroup.as_deref())?;
        let asked = coracle_runtime::Exec {
            target: Target { pid, start_time },
            process: &process,
            seccomp: spec
                .linux()
                .as_ref()
                .and_then(|linux| linux.seccomp().as_ref()),
            cgroup: entry,
            stdio: match terminal {
                true => Stdio::Terminal,
                false => inherited()?,
            },
            preserved: request.preserved,
            clamp: false,
        };
        let mut hand = |pid: Pid, listener: OwnedFd| {
            let told = (pid.as_raw_nonzero().get(), status);
            Ok(send_listener(&spec, &record, told, &listener)?)
        };
        let running = coracle_runtime::exec_listening(asked, &mut hand)?;
        let number = running.pid.as_raw_nonzero().get();
        let console = request.console_socket.as_deref();
        let handed = hand_over(
            running.terminal.as_ref(),
            console,
            request.pid_file.as_deref(),
            number,
        );
        if let Err(error) = handed {
            // It is ours alone, and nobody was told of it.
            let _ = coracle_linux::signal::send(&running.pidfd, 9);
            let _ = running.wait();
            return Err(error);
        }
        Ok(Launched { running })
    }

    fn entry(
        &self,
        record: &Record,
        pid: i32,
        below: Option<&str>,
    ) -> Result<Option<coracle_cgroup::Entry>> {
        let Some(cgroup) = self.cgroup_of(record)? else {
            return match below {
                None => Ok(None),
                Some(_) => Err(Error::refused("the container has no cgroup to be below")),
            };
        };
        if let Some(below) = below
            .map(|path| path.trim_matches('/'))
            .filter(|path| !path.is_empty())
        {
            let path = CgroupPath::new(&format!("{}/{below}", cgroup.path()))?;
            return Ok(Some(self.cgroups()?.open_existing(&path)?.entry()?));
        }
        let init = Pid::from_raw(pid).ok_or_else(not_running)?;
        Ok(Some(cgroup.entry_beside(init)?))
    }
}

/// The container's own process with changes.
fn changed(spec: &Spec, changes: ExecCommand) -> Result<Process> {
    let Some(mut process) = spec.process().clone() else {
        return Err(Error::refused("the container's document has no process"));
    };
    process.set_args(Some(changes.args));
    process.set_terminal(Some(changes.tty));
    process.set_console_size(None);
    if let Some(cwd) = changes.cwd {
        process.set_cwd(cwd);
    }
    let mut env = process.env().clone().unwrap_or_default();
    for entry in changes.env {
        let key = entry.split('=').next().unwrap_or_default().to_owned();
        env.retain(|other| other.split('=').next() != Some(&key));
        env.push(entry);
    }
    process.set_env(Some(env));
    let mut user = process.user().clone();
    if let Some((uid, gid)) = changes.user {
        user.set_uid(uid);
        if let Some(gid) = gid {
            user.set_gid(gid);
        }
    }
    if !changes.additional_gids.is_empty() {
        user.set_additional_gids(Some(changes.additional_gids));
    }
    process.set_user(user);
    if !changes.capabilities.is_empty() {
        let mut sets = process.capabilities().clone().unwrap_or_default();
        let with = |set: &Option<coracle_oci::runtime::Capabilities>| {
            let mut set = set.clone().unwrap_or_default();
            set.extend(changes.capabilities.iter().copied());
            Some(set)
        };
        sets.set_bounding(with(sets.bounding()));
        sets.set_effective(with(sets.effective()));
        sets.set_permitted(with(sets.permitted()));
        sets.set_inheritable(with(sets.inheritable()));
        sets.set_ambient(with(sets.ambient()));
        process.set_capabilities(Some(sets));
    }
    if changes.no_new_privileges {
        process.set_no_new_privileges(Some(true));
    }
    if changes.apparmor.is_some() {
        process.set_apparmor_profile(changes.apparmor);
    }
    if changes.process_label.is_some() {
        process.set_selinux_label(changes.process_label);
    }
    Ok(process)
}

/// HOME as the container's own passwd file has it, when nothing else says it.
fn add_home(process: &mut Process, pid: i32) -> Result<()> {
    let mut env = process.env().clone().unwrap_or_default();
    if env.iter().any(|entry| entry.starts_with("HOME=")) {
        return Ok(());
    }
    let path = PathBuf::from(format!("/proc/{pid}/root"));
    let failed = |error| Error::file("opening", &path, error);
    let directory = Proc::host()
        .and_then(|proc| proc.open(&pid.to_string(), OFlags::PATH | OFlags::DIRECTORY))
        .map_err(failed)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(&directory, "root", flags, Mode::empty()).map_err(failed)?;
    use std::os::fd::AsFd as _;
    let found = users::look_up(root.as_fd(), &process.user().uid().to_string(), &[])?;
    env.push(format!("HOME={}", found.home));
    process.set_env(Some(env));
    Ok(())
}
