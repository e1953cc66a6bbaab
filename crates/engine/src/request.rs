//! What a door asks of the engine: plain values, already free of environment, terminal and home directory.
//!
//! [`ContainerSpec`] is what a container was asked to be. It is written once, at `create`, as a fact
//! (docs/format/state.md) and never rewritten by anything but `update` and `rename`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything that `create` and `run` may ask of one container. `Default` is the isolated default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContainerSpec {
    /// The name asked for; the engine makes one up where there is none.
    pub name: Option<String>,
    /// The image as typed: `@host`, a reference, an id prefix, `oci:DIR[:TAG]`, `docker-archive:FILE`, …
    /// Empty when `rootfs` is given.
    pub image: String,
    /// A directory on the host that is the root, instead of an image. Changes go to the container's own
    /// upper directory, never to this one.
    pub rootfs: Option<PathBuf>,
    /// Replaces the image's entrypoint; `Some(vec![])` clears it.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command when not empty.
    pub command: Vec<String>,
    /// `KEY=VALUE`, in order; `KEY` alone removes the image's value.
    pub env: Vec<String>,
    /// Working directory inside; made if missing.
    pub workdir: Option<String>,
    /// `user[:group]`, names or numbers, resolved in the image's passwd and group.
    pub user: Option<String>,
    /// Supplementary groups, names or numbers of the image.
    pub groups: Vec<String>,
    /// Host name inside; default: the short id.
    pub hostname: Option<String>,
    /// NIS domain name inside.
    pub domainname: Option<String>,
    /// Allocate a pseudo terminal.
    pub tty: bool,
    /// Keep standard input open (`-i`).
    pub interactive: bool,
    /// Run a small init as PID 1 that reaps and forwards signals.
    pub init: bool,
    /// The root is read-only.
    pub read_only: bool,
    /// Mounts of all kinds, in order.
    pub mounts: Vec<Mount>,
    /// Devices of the host that appear inside.
    pub devices: Vec<Device>,
    /// Extra cgroup device rules, as `c 10:200 rwm`.
    pub device_cgroup_rules: Vec<String>,
    /// Capabilities added to the default set (`ALL` allowed), with or without `CAP_`.
    pub cap_add: Vec<String>,
    /// Capabilities dropped from the default set (`ALL` allowed).
    pub cap_drop: Vec<String>,
    /// All capabilities, all devices, no seccomp, no masks, no user namespace unless asked.
    pub privileged: bool,
    /// Security choices.
    pub security: Security,
    /// User namespace.
    pub userns: UserNamespace,
    /// PID namespace.
    pub pid: NamespaceMode,
    /// IPC namespace.
    pub ipc: NamespaceMode,
    /// UTS namespace.
    pub uts: NamespaceMode,
    /// Cgroup namespace.
    pub cgroupns: NamespaceMode,
    /// Network namespace and network.
    pub network: NetworkMode,
    /// Published ports, as typed (`[ip:]host[:container][/proto]`).
    pub publish: Vec<String>,
    /// Exposed ports (`80/tcp`).
    pub expose: Vec<String>,
    /// Extra `/etc/hosts` lines: (name, address).
    pub extra_hosts: Vec<(String, String)>,
    /// DNS servers, search domains and options in place of the host's.
    pub dns: Vec<String>,
    /// DNS search domains.
    pub dns_search: Vec<String>,
    /// DNS options.
    pub dns_options: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations, handed to the OCI document.
    pub annotations: BTreeMap<String, String>,
    /// Limits and scheduling.
    pub resources: Resources,
    /// Size of /dev/shm in bytes; default 64 MiB.
    pub shm_size: Option<u64>,
    /// Resource limits: (name without `RLIMIT_`, lower case; soft; hard). `u64::MAX` is unlimited.
    pub ulimits: Vec<(String, u64, u64)>,
    /// Sysctls of the container's own namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Signal that `stop` sends, as typed; default: the image's, else SIGTERM.
    pub stop_signal: Option<String>,
    /// Seconds that `stop` waits before SIGKILL; default 10.
    pub stop_timeout: Option<u32>,
    /// Restart policy.
    pub restart: Restart,
    /// Health check; `None` takes the image's.
    pub health: Option<Health>,
    /// Remove the container, with its anonymous volumes, when it ends.
    pub auto_remove: bool,
    /// Log driver and rotation.
    pub log: Log,
    /// Take the volumes of these containers (`name[:ro|rw]`).
    pub volumes_from: Vec<String>,
}

impl ContainerSpec {
    /// Whether the container's root has the host's ids: then the engine must be sealed ([`crate::seal`]) before it
    /// starts anything in it (CVE-2019-5736).
    pub fn shares_host_ids(&self) -> bool {
        match self.userns {
            UserNamespace::Auto => self.privileged,
            UserNamespace::Host => true,
            UserNamespace::Map { .. } | UserNamespace::Container(_) => false,
        }
    }
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Absolute path inside.
    pub target: String,
    /// Read-only.
    #[serde(default)]
    pub read_only: bool,
}

/// What a [`Mount`] shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountKind {
    /// A path of the host.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Make the source as a directory when missing (`-v` does, `--mount` does not).
        create: bool,
        /// `private`, `rprivate`, `slave`, `rslave`, `shared`, `rshared`; default `rprivate`.
        propagation: Option<String>,
        /// Bind the mounts below the source too.
        recursive: bool,
        /// Ids inside are the same numbers on the host's files (idmapped mount). Off: the files of the
        /// host's root belong to nobody inside.
        idmap: bool,
    },
    /// A named volume, or an anonymous one.
    Volume {
        /// Name; `None` makes an anonymous volume.
        name: Option<String>,
        /// Do not copy what the image has at the target into an empty volume.
        nocopy: bool,
    },
    /// A tmpfs.
    Tmpfs {
        /// Bytes; default: half of memory, as the kernel does.
        size: Option<u64>,
        /// Octal mode; default 1777.
        mode: Option<u32>,
        /// Further mount options as typed (`noexec`, `uid=…`).
        options: Vec<String>,
    },
}

/// A device of the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Path on the host.
    pub host: PathBuf,
    /// Path inside.
    pub container: String,
    /// Any of `rwm`.
    pub access: String,
}

/// Security choices beyond capabilities.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// Seccomp filter.
    pub seccomp: Seccomp,
    /// `Some(false)` lets setuid programs inside gain privileges; the default is that they do not… as
    /// Docker's `no-new-privileges=false`.
    pub no_new_privileges: Option<bool>,
    /// Further paths to mask.
    pub mask: Vec<String>,
    /// Paths not to mask nor make read-only; `ALL` for all of them.
    pub unmask: Vec<String>,
    /// SELinux label options (`label=…`), AppArmor profile: refused where the host has them not active.
    pub label: Vec<String>,
    /// AppArmor profile.
    pub apparmor: Option<String>,
}

/// Which seccomp filter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seccomp {
    /// The engine's default profile.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// The text of a profile (OCI or Docker form).
    Profile(String),
}

/// Which user namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserNamespace {
    /// An own one with a range of ids that no other running container has.
    #[default]
    Auto,
    /// The caller's.
    Host,
    /// An own one with this mapping: (inside, outside, count).
    Map {
        /// User ids.
        uids: Vec<(u32, u32, u32)>,
        /// Group ids.
        gids: Vec<(u32, u32, u32)>,
    },
    /// That of another container.
    Container(String),
}

/// Which PID, IPC, UTS or cgroup namespace.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamespaceMode {
    /// An own one.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of another container (name or id).
    Container(String),
}

/// Which network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// What the host offers by default: today an own stack with a loopback only.
    #[default]
    Default,
    /// An own stack with a loopback only.
    None,
    /// The host's stack.
    Host,
    /// The stack of another container.
    Container(String),
    /// A network by name.
    Named(String),
}

/// Limits. `None` leaves as it is (in `update`) or unlimited (in `create`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Bytes.
    pub memory: Option<u64>,
    /// Soft limit, bytes.
    pub memory_reservation: Option<u64>,
    /// Memory plus swap, bytes; -1: unlimited swap.
    pub memory_swap: Option<i64>,
    /// 0–100.
    pub memory_swappiness: Option<u64>,
    /// Do not kill on OOM (v1 only).
    pub oom_kill_disable: bool,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// CPU quota in microseconds a period; -1: none. `--cpus 0.5` is 50,000 of 100,000.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Relative weight, 1,024 is the default.
    pub cpu_shares: Option<u64>,
    /// CPU list (`0-3,5`).
    pub cpuset_cpus: Option<String>,
    /// NUMA node list.
    pub cpuset_mems: Option<String>,
    /// Number of tasks; 0 or less: unlimited.
    pub pids: Option<i64>,
    /// 10–1000.
    pub blkio_weight: Option<u16>,
    /// (device path on the host, bytes or operations a second).
    pub device_read_bps: Vec<(PathBuf, u64)>,
    /// As `device_read_bps`.
    pub device_write_bps: Vec<(PathBuf, u64)>,
    /// As `device_read_bps`, operations.
    pub device_read_iops: Vec<(PathBuf, u64)>,
    /// As `device_read_bps`, operations.
    pub device_write_iops: Vec<(PathBuf, u64)>,
    /// Parent cgroup, below the engine's.
    pub cgroup_parent: Option<String>,
}

/// Restart policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// When the exit code is not 0, at most so often (0: without end).
    OnFailure(u32),
    /// Always.
    Always,
    /// Always, unless it was stopped by a command.
    UnlessStopped,
}

/// Health check. Durations in nanoseconds, as in Docker's documents; 0: the default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", "…"]`; empty: the image's.
    pub test: Vec<String>,
    /// Between checks; 30 s.
    pub interval: u64,
    /// Of one check; 30 s.
    pub timeout: u64,
    /// Failures do not count at first; 0 s.
    pub start_period: u64,
    /// Between checks in the start period; 5 s.
    pub start_interval: u64,
    /// Failures in a row until unhealthy; 3.
    pub retries: u32,
}

/// Log driver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// `json-file` or `none`.
    pub driver: String,
    /// `max-size`, `max-file`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            driver: "json-file".into(),
            options: BTreeMap::new(),
        }
    }
}

/// When to fetch an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pull {
    /// When it is not in the store.
    #[default]
    Missing,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// A command in a running container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Added to the container's environment.
    pub env: Vec<String>,
    /// `user[:group]`; default: the container's.
    pub user: Option<String>,
    /// Working directory; default: the container's.
    pub workdir: Option<String>,
    /// Allocate a pseudo terminal.
    pub tty: bool,
    /// Keep standard input open.
    pub interactive: bool,
    /// All capabilities and no filter.
    pub privileged: bool,
}

/// Which containers `list` gives; Docker's `--filter` as (key, value) pairs, ORed within a key.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    /// Stopped ones too.
    pub all: bool,
    /// `id`, `name`, `label`, `status`, `ancestor`, `exited`, `before`, `since`, `volume`, `network`, `health`.
    pub filters: Vec<(String, String)>,
    /// The newest so many.
    pub last: Option<usize>,
    /// Count the size of the writable layer (slow).
    pub size: bool,
}

/// Which log lines.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Go on until the container ends.
    pub follow: bool,
    /// Only later ones (Unix time in nanoseconds).
    pub since: Option<i128>,
    /// Only earlier ones (Unix time in nanoseconds).
    pub until: Option<i128>,
    /// Only the last so many.
    pub tail: Option<usize>,
}

/// What `commit` changes.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// Name of the new image.
    pub reference: Option<String>,
    /// Author.
    pub author: Option<String>,
    /// Message.
    pub message: Option<String>,
    /// Dockerfile instructions (`CMD …`, `ENV …`).
    pub changes: Vec<String>,
    /// Freeze the container meanwhile.
    pub pause: bool,
}

/// What `rm` does beyond removing a stopped container.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Kill it first.
    pub force: bool,
    /// Remove its anonymous volumes.
    pub volumes: bool,
}
