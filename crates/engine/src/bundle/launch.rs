//! A container's first process, from the document to the moment before its exec: what `create` and `run` have in common.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use coracle_cgroup::Cgroup;
use coracle_oci::runtime::{
    LinuxIdMapping, LinuxNamespaceType, LinuxSeccompAction, MountBuilder, Spec,
};
use coracle_runtime::{
    Created, Creating, Gate, IdMapping, Map, Ownership, Root, RunAs, Running, Start, Stdio,
};
use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, open};
use rustix::io::Errno;

use super::create::CreateRequest;
use super::document::{self, Document};
use super::record::{CONFIG, OUTCOME, Record, START, Status, VERSION};
use super::{Bundles, cgroup_mount, cgroups, hooks, net_devices, sockets};
use crate::error::{Error, Result};
use crate::state::{self, Lock};
use crate::users;

/// A container that stands before its exec.
#[derive(Debug)]
pub(super) struct Made {
    pub directory: PathBuf,
    pub record: Record,
    pub created: Created,
    /// Held until the command is done with the container.
    pub lock: Lock,
}

/// A process that was started, a child of this command.
#[derive(Debug)]
pub struct Launched {
    /// The process.
    pub running: Running,
}

impl Bundles {
    /// Makes the container's directory, cgroup and process. With `gated` the process can be left waiting. On an error nothing
    /// is left.
    pub(super) fn launch(&self, request: CreateRequest, gated: bool) -> Result<Made> {
        let directory = self.directory(&request.id)?;
        let bundle = document::bundle_path(&request.bundle)?;
        let document = document::load(&bundle, &mut |warning| self.warn(warning))?;
        let terminal = document
            .spec
            .process()
            .as_ref()
            .is_some_and(|process| process.terminal().unwrap_or(false));
        match (gated || request.detached, terminal, &request.console_socket) {
            (true, true, None) => {
                return Err(Error::refused_with(
                    "the container has a terminal, and nobody would have its other end",
                    "name a socket with --console-socket, or set process.terminal to false",
                ));
            }
            (_, false, Some(_)) => {
                return Err(Error::refused_with(
                    "there is a console socket, and the container has no terminal to send there",
                    "set process.terminal, or leave --console-socket away",
                ));
            }
            _ => {}
        }
        state::make_directory(&self.config.root)?;
        match mkdirat(CWD, &directory, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                return Err(Error::refused(format!(
                    "container {:?} already exists",
                    request.id
                )));
            }
            Err(error) => return Err(Error::file("making", &directory, error)),
        }
        let mut cgroup = None;
        match self.launch_in(&directory, bundle, document, request, gated, &mut cgroup) {
            Ok(made) => Ok(made),
            Err(error) => {
                // The process is dead: dropping what there was of it has killed it.
                let cleared = cgroup.as_ref().map_or(Ok(()), cgroups::clear);
                let removed = state::delete_tree(&directory);
                for failed in [cleared, removed].into_iter().filter_map(Result::err) {
                    self.warn(format!("undoing a failed create: {failed}"));
                }
                Err(error)
            }
        }
    }

    fn launch_in(
        &self,
        directory: &Path,
        bundle: PathBuf,
        document: Document,
        request: CreateRequest,
        gated: bool,
        made: &mut Option<Cgroup>,
    ) -> Result<Made> {
        let gone = || Error::refused("the container was deleted while it was being created");
        let lock = Lock::wait(directory)?.ok_or_else(gone)?;
        let Document {
            mut spec,
            text,
            rootfs,
        } = document;
        let path = self.cgroup_path(&spec, &request.id)?;
        let mut record = Record {
            version: VERSION,
            oci_version: spec.version().clone(),
            id: request.id,
            bundle,
            rootfs: rootfs.clone(),
            created: jiff::Timestamp::now().to_string(),
            owner: rustix::process::geteuid().as_raw(),
            annotations: spec.annotations().clone().into_iter().flatten().collect(),
            cgroup: Some(path.to_string()),
            unit: None,
            pid: None,
            start_time: None,
            own_pids: has_own_pids(&spec),
            command: command_of(&spec),
            hooks: hooks::late(&spec),
        };
        record.store(directory)?;
        state::replace(&directory.join(CONFIG), &text)?;
        let gate = gated.then(|| make_gate(directory)).transpose()?;
        let cgroup = made.insert(self.make_cgroup(&spec, &path)?);
        if cgroup.is_none() {
            record.cgroup = None;
        }
        cgroup_mount::show_own(&mut spec, cgroup, self.cgroups()?)?;
        adapt(
            &mut spec,
            &request.extra_env,
            request.notify_socket.as_deref(),
        )?;
        let devices = net_devices::take(&mut spec)?;
        let ids = ids(&spec)?;
        if let Some(process) = spec.process_mut() {
            let own_users = !matches!(ids, IdMapping::Host);
            document::grant(process, own_users, &mut |warning| self.warn(warning))?;
        }
        let process = spec.process().clone().unwrap_or_default();
        let mut home =
            |root: std::os::fd::BorrowedFd<'_>| -> Result<RunAs, coracle_runtime::BoxError> {
                let user = process.user();
                let found = users::look_up(root, &user.uid().to_string(), &[])?;
                Ok(RunAs {
                    uid: user.uid(),
                    gid: user.gid(),
                    groups: user.additional_gids().clone().unwrap_or_default(),
                    env: vec![format!("HOME={}", found.home)],
                })
            };
        let has_home = |env: &Vec<String>| env.iter().any(|entry| entry.starts_with("HOME="));
        let needs_home = has_new_mounts(&spec) && !process.env().as_ref().is_some_and(has_home);
        let start = Start {
            spec: &spec,
            root: Root::Directory {
                path: rootfs,
                ownership: Ownership::Outside,
            },
            ids,
            cgroup: match cgroup.is_none() {
                true => None,
                false => Some(cgroup.entry()?),
            },
            stdio: match process.terminal().unwrap_or(false) {
                true => Stdio::Terminal,
                false => inherited()?,
            },
            preserved: request.preserved,
            init: false,
            clamp: false,
            files: Vec::new(),
            gate,
            deviations: request.deviations,
            prepare: match needs_home {
                true => Some(&mut home),
                false => None,
            },
        };
        let mut creating = Creating::begin(start)?;
        if !devices.is_empty() {
            net_devices::give(&devices, creating.network_namespace()?)?;
        }
        record.pid = Some(creating.pid().as_raw_nonzero().get());
        record.start_time = Some(creating.start_time());
        if creating.has_hooks() {
            creating.before_pivot(|pid| Ok(hooks::before_pivot(&spec, &record, pid)?))?;
        }
        let created = creating.finish()?;
        if let Some(listener) = created.listener()? {
            let pid = created.pid().as_raw_nonzero().get();
            send_listener(&spec, &record, (pid, Status::Creating), &listener)?;
        }
        record.store(directory)?;
        Ok(Made {
            directory: directory.to_owned(),
            record,
            created,
            lock,
        })
    }
}

/// A new pid namespace: with the first process all others end.
fn has_own_pids(spec: &Spec) -> bool {
    has_new(spec, LinuxNamespaceType::Pid)
}

fn has_new_mounts(spec: &Spec) -> bool {
    has_new(spec, LinuxNamespaceType::Mount)
}

fn has_new(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    let namespaces = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().as_deref())
        .unwrap_or_default();
    namespaces.iter().any(|namespace| {
        let path = namespace.path().as_deref();
        namespace.typ() == kind && path.is_none_or(|path| path.as_os_str().is_empty())
    })
}

fn command_of(spec: &Spec) -> String {
    spec.process()
        .as_ref()
        .and_then(|process| process.args().as_ref()?.first().cloned())
        .unwrap_or_default()
}

/// What the caller's environment adds: descriptors that systemd passed on, and the socket that a service says it is
/// ready on.
fn adapt(spec: &mut Spec, extra: &[String], notify: Option<&Path>) -> Result<()> {
    if let Some(socket) = notify {
        let mount = MountBuilder::default()
            .destination(socket)
            .source(socket)
            .typ("bind")
            .options([
                "bind".to_owned(),
                "nosuid".into(),
                "nodev".into(),
                "noexec".into(),
            ])
            .build()
            .map_err(|error| Error::refused(format!("NOTIFY_SOCKET cannot be mounted: {error}")))?;
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        mounts.push(mount);
        spec.set_mounts(Some(mounts));
    }
    let notify = notify.map(|socket| format!("NOTIFY_SOCKET={}", socket.display()));
    if let Some(process) = spec.process_mut().as_mut()
        && (notify.is_some() || !extra.is_empty())
    {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(extra.iter().cloned().chain(notify));
        process.set_env(Some(env));
    }
    Ok(())
}

/// The user namespace that the document asks for.
fn ids(spec: &Spec) -> Result<IdMapping> {
    let Some(linux) = spec.linux() else {
        return Ok(IdMapping::Host);
    };
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    let Some(entry) = namespaces
        .iter()
        .find(|entry| entry.typ() == LinuxNamespaceType::User)
    else {
        return Ok(IdMapping::Host);
    };
    let path = entry
        .path()
        .as_deref()
        .filter(|path| !path.as_os_str().is_empty());
    let Some(path) = path else {
        return Ok(IdMapping::Own {
            uids: maps(linux.uid_mappings()),
            gids: maps(linux.gid_mappings()),
        });
    };
    let failed = |error| Error::file("opening the user namespace", path, error);
    let namespace = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let theirs = rustix::fs::fstat(&namespace).map_err(failed)?;
    let own = rustix::fs::stat("/proc/self/ns/user").map_err(failed)?;
    if (own.st_dev, own.st_ino) == (theirs.st_dev, theirs.st_ino) {
        // One cannot join where one is.
        return Ok(IdMapping::Host);
    }
    let (uids, gids) = coracle_runtime::maps_of(&namespace)?;
    Ok(IdMapping::Join {
        namespace,
        uids,
        gids,
    })
}

fn maps(mappings: &Option<Vec<LinuxIdMapping>>) -> Vec<Map> {
    let all = mappings.iter().flatten();
    all.map(|mapping| Map {
        inside: mapping.container_id(),
        outside: mapping.host_id(),
        count: mapping.size(),
    })
    .collect()
}

/// This command's own streams; one that is closed leads nowhere.
pub(super) fn inherited() -> Result<Stdio> {
    let copy = |fd: std::os::fd::BorrowedFd<'_>| match rustix::io::fcntl_dupfd_cloexec(fd, 3) {
        Err(Errno::BADF) => open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()),
        other => other,
    };
    let failed =
        |error| Error::refused(format!("the standard streams cannot be passed on: {error}"));
    Ok(Stdio::Pipes {
        stdin: copy(rustix::stdio::stdin()).map_err(failed)?,
        stdout: copy(rustix::stdio::stdout()).map_err(failed)?,
        stderr: copy(rustix::stdio::stderr()).map_err(failed)?,
    })
}

fn make_gate(directory: &Path) -> Result<Gate> {
    let pipe = |name: &str| -> Result<OwnedFd> {
        let path = directory.join(name);
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, &path, FileType::Fifo, mode, 0)
            .and_then(|()| open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()))
            .map_err(|error| Error::file("making", &path, error))
    };
    Ok(Gate {
        start: pipe(START)?,
        outcome: pipe(OUTCOME)?,
    })
}

/// The agent gets the listener with what the specification has it told.
pub(super) fn send_listener(
    spec: &Spec,
    record: &Record,
    (pid, status): (i32, Status),
    listener: &OwnedFd,
) -> Result<()> {
    let seccomp = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref());
    let path = seccomp.and_then(|seccomp| seccomp.listener_path().as_deref());
    let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else {
        return Err(Error::refused(format!(
            "linux.seccomp.listenerPath is missing, and a rule has the action {}",
            LinuxSeccompAction::ScmpActNotify
        )));
    };
    let metadata = seccomp.and_then(|seccomp| seccomp.listener_metadata().clone());
    let mut message = serde_json::json!({
        "ociVersion": record.oci_version,
        "fds": [coracle_oci::runtime::SECCOMP_FD_NAME],
        "pid": pid,
        "state": record.document(status),
    });
    if let (Some(metadata), Some(message)) = (metadata, message.as_object_mut()) {
        message.insert("metadata".into(), metadata.into());
    }
    sockets::send(path, message.to_string().as_bytes(), listener.as_fd())
}
