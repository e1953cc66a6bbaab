//! From what was asked and what the image says to the OCI runtime document (config.json of the runtime-spec 1.2).
//!
//! Here is the isolated default: own namespaces, a user namespace with ids of its own, eleven capabilities, a seccomp
//! filter, no new privileges, masked and read-only paths. Each opening is one flag in the request and one line here.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use coracle_oci::runtime::{
    Capabilities, Capability, Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxIdMapping,
    LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxSeccomp,
    Mount, MountBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder,
    RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use coracle_runtime::seccomp::{Context, default_profile, load_profile};

use crate::error::{Error, Result};
use crate::request::{
    ContainerSpec, MountKind, NamespaceMode, NetworkMode, Seccomp, UserNamespace,
};
use crate::state::Record;

/// What the document needs to know beyond the record.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// User and group id mappings of an own user namespace; none: the caller's namespace.
    pub mappings: Option<(Vec<LinuxIdMapping>, Vec<LinuxIdMapping>)>,
    /// Namespaces to join, by type, as /proc/PID/ns/… paths.
    pub joined: Vec<(LinuxNamespaceType, PathBuf)>,
    /// Directories of its volumes, in the order of the volume mounts of the request and then the image's.
    pub volumes: Vec<(PathBuf, String, bool)>,
    /// What is mounted before all else, to complete the root.
    pub parts: Vec<Mount>,
    /// The cgroup, as seen from the hierarchy's root.
    pub cgroup: Option<String>,
    /// The caller is in a user namespace of an ordinary user.
    pub rootless: bool,
    /// The seccomp document, already read and resolved.
    pub seccomp: Option<LinuxSeccomp>,
}

/// Capabilities of root inside, as the field's rootless-minded engines give them: Docker's set without MKNOD,
/// NET_RAW (spoofing) and AUDIT_WRITE.
pub(crate) const DEFAULT_CAPABILITIES: [Capability; 11] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::NetBindService,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// Paths that an empty file or directory hides.
const MASKED: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/debug",
    "/sys/kernel/security",
];

/// Paths that can be read only.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The default environment's PATH.
pub(crate) const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes the document.
pub(crate) fn document(record: &Record, around: &Surroundings) -> Result<Spec> {
    let spec = &record.spec;
    let root = RootBuilder::default()
        .path("rootfs")
        .readonly(spec.read_only)
        .build()
        .map_err(unsound)?;
    let mut document = SpecBuilder::default()
        .version("1.2.1")
        .root(root)
        .process(process(record)?)
        .mounts(mounts(record, around)?)
        .linux(linux(spec, around)?)
        .build()
        .map_err(unsound)?;
    // The builder's own defaults are an example's.
    let own_name = spec.uts == NamespaceMode::Private;
    document.set_hostname(own_name.then(|| hostname(record)));
    document.set_domainname(spec.domainname.clone().filter(|_| own_name));
    if !spec.annotations.is_empty() {
        document.set_annotations(Some(spec.annotations.clone().into_iter().collect()));
    }
    Ok(document)
}

/// A document that oci-spec's builder refuses.
pub(crate) fn unsound(error: impl std::fmt::Display) -> Error {
    Error::refused(format!("the request makes no sound OCI document: {error}"))
}

/// What the container is called inside, where it has a name of its own.
pub(crate) fn hostname(record: &Record) -> String {
    let asked = record.spec.hostname.clone();
    asked.unwrap_or_else(|| record.id.short().to_owned())
}

/// The environment of a process, as Docker completes it.
pub(crate) fn environment(record: &Record) -> Vec<String> {
    let mut env = record.process.env.clone();
    if record.spec.uts == NamespaceMode::Private
        && !env.iter().any(|entry| entry.starts_with("HOSTNAME="))
    {
        env.push(format!("HOSTNAME={}", hostname(record)));
    }
    env
}

fn process(record: &Record) -> Result<Process> {
    let spec = &record.spec;
    let user = UserBuilder::default()
        .uid(0u32)
        .gid(0u32)
        .build()
        .map_err(unsound)?;
    let capabilities = capabilities(spec)?;
    let set = LinuxCapabilitiesBuilder::default()
        .bounding(capabilities.clone())
        .effective(capabilities.clone())
        .permitted(capabilities)
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()
        .map_err(unsound)?;
    let mut process = ProcessBuilder::default()
        .terminal(spec.tty)
        .user(user)
        .args(record.process.args.clone())
        .env(environment(record))
        .cwd(PathBuf::from(&record.process.workdir))
        .capabilities(set)
        .no_new_privileges(spec.security.no_new_privileges.unwrap_or(!spec.privileged))
        .rlimits(rlimits(&spec.ulimits)?)
        .build()
        .map_err(unsound)?;
    process.set_oom_score_adj(spec.resources.oom_score_adj);
    Ok(process)
}

/// The capabilities asked for: the default set or all, less what is dropped, plus what is added.
pub(crate) fn capabilities(spec: &ContainerSpec) -> Result<Capabilities> {
    let all = || {
        coracle_runtime::all_capabilities()
            .into_iter()
            .collect::<HashSet<_>>()
    };
    let named = |name: &str| -> Result<Capability> {
        let upper = name.to_ascii_uppercase();
        upper
            .strip_prefix("CAP_")
            .unwrap_or(&upper)
            .parse()
            .map_err(|_| {
                Error::refused_with(
                    format!("unknown capability {name:?}"),
                    "names are those of capabilities(7), with or without CAP_, or ALL",
                )
            })
    };
    let is_all =
        |name: &String| name.eq_ignore_ascii_case("all") || name.eq_ignore_ascii_case("cap_all");
    let mut set: HashSet<Capability> = match spec.privileged {
        true => all(),
        false => DEFAULT_CAPABILITIES.into_iter().collect(),
    };
    // Docker's order: with `drop ALL`, only what is added remains; with `add ALL`, all but what is dropped.
    if spec.cap_drop.iter().any(is_all) {
        set.clear();
    }
    if spec.cap_add.iter().any(is_all) {
        set = all();
    }
    for name in spec.cap_drop.iter().filter(|name| !is_all(name)) {
        set.remove(&named(name)?);
    }
    for name in spec.cap_add.iter().filter(|name| !is_all(name)) {
        set.insert(named(name)?);
    }
    Ok(set)
}

pub(crate) fn rlimits(ulimits: &[(String, u64, u64)]) -> Result<Vec<PosixRlimit>> {
    let mut limits = Vec::new();
    for (name, soft, hard) in ulimits {
        let kind = format!("RLIMIT_{}", name.to_ascii_uppercase());
        let kind: PosixRlimitType = serde_json::from_value(kind.into()).map_err(|_| {
            Error::refused_with(
                format!("unknown ulimit {name:?}"),
                "names are those of setrlimit(2), as nofile or nproc",
            )
        })?;
        if soft > hard {
            return Err(Error::refused(format!(
                "ulimit {name}: the soft limit {soft} is above the hard limit {hard}"
            )));
        }
        limits.push(
            PosixRlimitBuilder::default()
                .typ(kind)
                .soft(*soft)
                .hard(*hard)
                .build()
                .map_err(unsound)?,
        );
    }
    Ok(limits)
}

fn linux(spec: &ContainerSpec, around: &Surroundings) -> Result<Linux> {
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(spec, around)?)
        .masked_paths(hidden(spec, &MASKED, true))
        .readonly_paths(hidden(spec, &READ_ONLY, false))
        .sysctl(sysctls(spec))
        .build()
        .map_err(unsound)?;
    if let Some((uids, gids)) = &around.mappings {
        linux.set_uid_mappings(Some(uids.clone()));
        linux.set_gid_mappings(Some(gids.clone()));
    }
    linux.set_seccomp(around.seccomp.clone());
    linux.set_cgroups_path(around.cgroup.as_ref().map(PathBuf::from));
    Ok(linux)
}

/// A private network stack lets every group open ICMP echo sockets, so that ping needs no NET_RAW; and low ports need
/// no privilege there.
fn sysctls(spec: &ContainerSpec) -> HashMap<String, String> {
    let mut sysctls: HashMap<String, String> = spec.sysctls.clone().into_iter().collect();
    let own_stack = !matches!(spec.network, NetworkMode::Host | NetworkMode::Container(_));
    // Set through a procfs of the container's own PID namespace, which only an own one has.
    if own_stack && spec.pid == NamespaceMode::Private && !spec.privileged {
        sysctls
            .entry("net.ipv4.ip_unprivileged_port_start".into())
            .or_insert_with(|| "0".into());
    }
    sysctls
}

fn hidden(spec: &ContainerSpec, default: &[&str], mask: bool) -> Vec<String> {
    let unmask = &spec.security.unmask;
    let all = spec.privileged || unmask.iter().any(|path| path.eq_ignore_ascii_case("all"));
    let kept = default
        .iter()
        .filter(|path| !all && !unmask.iter().any(|open| open == *path))
        .map(|path| path.to_string());
    let more = spec.security.mask.iter().filter(|_| mask).cloned();
    kept.chain(more).collect()
}

fn namespaces(spec: &ContainerSpec, around: &Surroundings) -> Result<Vec<LinuxNamespace>> {
    let mut own = vec![LinuxNamespaceType::Mount];
    let joins_users = around
        .joined
        .iter()
        .any(|(kind, _)| *kind == LinuxNamespaceType::User);
    if around.mappings.is_some() && !joins_users {
        own.push(LinuxNamespaceType::User);
    }
    for (mode, kind) in [
        (&spec.pid, LinuxNamespaceType::Pid),
        (&spec.ipc, LinuxNamespaceType::Ipc),
        (&spec.uts, LinuxNamespaceType::Uts),
        (&spec.cgroupns, LinuxNamespaceType::Cgroup),
    ] {
        if *mode == NamespaceMode::Private {
            own.push(kind);
        }
    }
    if !matches!(spec.network, NetworkMode::Host | NetworkMode::Container(_)) {
        own.push(LinuxNamespaceType::Network);
    }
    // Its clocks are the host's until a checkpoint is restored elsewhere, which sets them apart.
    if coracle_linux::kernel::enters_time_namespace_at_exec() {
        own.push(LinuxNamespaceType::Time);
    }
    let make = |kind: LinuxNamespaceType, path: Option<&PathBuf>| -> Result<LinuxNamespace> {
        let mut namespace = LinuxNamespaceBuilder::default()
            .typ(kind)
            .build()
            .map_err(unsound)?;
        namespace.set_path(path.cloned());
        Ok(namespace)
    };
    let mut all = Vec::new();
    for kind in own {
        all.push(make(kind, None)?);
    }
    for (kind, path) in &around.joined {
        all.push(make(*kind, Some(path))?);
    }
    Ok(all)
}

/// One mount of the document.
pub(crate) fn mount(
    target: &str,
    kind: &str,
    source: impl Into<PathBuf>,
    options: &[&str],
) -> Result<Mount> {
    MountBuilder::default()
        .destination(target)
        .typ(kind)
        .source(source.into())
        .options(
            options
                .iter()
                .map(|option| option.to_string())
                .collect::<Vec<_>>(),
        )
        .build()
        .map_err(unsound)
}

fn mounts(record: &Record, around: &Surroundings) -> Result<Vec<Mount>> {
    let spec = &record.spec;
    let own_users = around.mappings.is_some();
    let mut all = around.parts.clone();
    // A procfs or sysfs can only be mounted by the user namespace that owns the PID or network namespace it shows:
    // with the host's, the host's mount itself is bound.
    if spec.pid == NamespaceMode::Host && own_users {
        all.push(mount(
            "/proc",
            "bind",
            "/proc",
            &["rbind", "nosuid", "noexec", "nodev"],
        )?);
    } else {
        all.push(mount(
            "/proc",
            "proc",
            "proc",
            &["nosuid", "noexec", "nodev"],
        )?);
    }
    all.push(mount(
        "/dev",
        "tmpfs",
        "tmpfs",
        &["nosuid", "strictatime", "mode=755", "size=65536k"],
    )?);
    let mut pts = vec![
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
    ];
    if maps_group(around, 5) {
        pts.push("gid=5");
    }
    all.push(mount("/dev/pts", "devpts", "devpts", &pts)?);
    let sys = if spec.privileged { "rw" } else { "ro" };
    if spec.network == NetworkMode::Host && own_users {
        all.push(mount(
            "/sys",
            "bind",
            "/sys",
            &["bind", "nosuid", "noexec", "nodev", "ro"],
        )?);
    } else {
        all.push(mount(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", sys],
        )?);
    }
    all.push(mount(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["nosuid", "noexec", "nodev", sys],
    )?);
    if spec.ipc == NamespaceMode::Host {
        all.push(mount(
            "/dev/shm",
            "bind",
            "/dev/shm",
            &["bind", "nosuid", "noexec", "nodev"],
        )?);
        if Path::new("/dev/mqueue").exists() {
            all.push(mount(
                "/dev/mqueue",
                "bind",
                "/dev/mqueue",
                &["bind", "nosuid", "noexec", "nodev"],
            )?);
        }
    } else {
        let size = format!("size={}", spec.shm_size.unwrap_or(64 << 20));
        all.push(mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", &size],
        )?);
        all.push(mount(
            "/dev/mqueue",
            "mqueue",
            "mqueue",
            &["nosuid", "noexec", "nodev"],
        )?);
    }
    let idmap = if own_users && !around.rootless {
        "idmap"
    } else {
        "rw"
    };
    for device in &spec.devices {
        let access = if device.access.contains('w') {
            "rw"
        } else {
            "ro"
        };
        let options = ["bind", "rprivate", "nosuid", "noexec", access];
        all.push(mount(&device.container, "bind", &device.host, &options)?);
    }
    let mut asked = Vec::new();
    for request in &spec.mounts {
        if let Some(made) = requested(request, own_users && !around.rootless)? {
            asked.push(made);
        }
    }
    for (source, target, read_only) in &around.volumes {
        let access = if *read_only { "ro" } else { "rw" };
        asked.push(mount(
            target,
            "bind",
            source,
            &["rbind", "rprivate", "nosuid", "nodev", access, idmap],
        )?);
    }
    // Parents before what is mounted inside them, whatever order they were asked in.
    asked.sort_by_key(|mount| mount.destination().components().count());
    all.extend(asked);
    Ok(all)
}

fn maps_group(around: &Surroundings, group: u32) -> bool {
    match &around.mappings {
        None => true,
        Some((_, gids)) => gids.iter().any(|map| {
            group
                .checked_sub(map.container_id())
                .is_some_and(|offset| offset < map.size())
        }),
    }
}

fn requested(request: &crate::request::Mount, may_idmap: bool) -> Result<Option<Mount>> {
    let access = if request.read_only { "ro" } else { "rw" };
    Ok(Some(match &request.kind {
        MountKind::Bind {
            source,
            propagation,
            recursive,
            idmap,
            ..
        } => {
            let bind = if *recursive { "rbind" } else { "bind" };
            let propagation = propagation.as_deref().unwrap_or("rprivate");
            let mut options = vec![bind, propagation, access];
            if *idmap && may_idmap {
                options.push(if *recursive { "ridmap" } else { "idmap" });
            }
            mount(&request.target, "bind", source, &options)?
        }
        MountKind::Tmpfs {
            size,
            mode,
            options,
        } => {
            let mut all = vec!["nosuid".to_owned(), "nodev".into(), access.into()];
            if !options.iter().any(|option| option == "exec") {
                all.push("noexec".into());
            }
            all.push(format!("mode={:o}", mode.unwrap_or(0o1777)));
            all.extend(size.map(|size| format!("size={size}")));
            all.extend(options.iter().filter(|option| *option != "exec").cloned());
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            mount(&request.target, "tmpfs", "tmpfs", &all)?
        }
        // Their directories are in `Surroundings::volumes`.
        MountKind::Volume { .. } => return Ok(None),
    }))
}

/// One mapping.
pub(crate) fn mapping(inside: u32, outside: u32, count: u32) -> Result<LinuxIdMapping> {
    LinuxIdMappingBuilder::default()
        .container_id(inside)
        .host_id(outside)
        .size(count)
        .build()
        .map_err(unsound)
}

/// Whether the container gets a user namespace of its own.
pub(crate) fn own_users(spec: &ContainerSpec) -> bool {
    match spec.userns {
        UserNamespace::Auto => !spec.privileged,
        UserNamespace::Map { .. } => true,
        UserNamespace::Host | UserNamespace::Container(_) => false,
    }
}

/// The seccomp document: the default one depends on the capabilities.
pub(crate) fn seccomp(spec: &ContainerSpec) -> Result<Option<LinuxSeccomp>> {
    let capabilities = capabilities(spec)?;
    let context = Context::host(&capabilities).map_err(|error| {
        Error::refused_with(
            format!("{error}"),
            "--security-opt seccomp=unconfined runs without a filter",
        )
    })?;
    match &spec.security.seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default if spec.privileged => Ok(None),
        Seccomp::Default => Ok(Some(default_profile(&context))),
        Seccomp::Profile(text) => {
            let profile = load_profile(text.as_bytes(), &context).map_err(|error| {
                Error::refused(format!("the seccomp profile is not sound: {error}"))
            })?;
            Ok(Some(profile))
        }
    }
}
