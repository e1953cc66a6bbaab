//! What the engine answers: plain values that a door renders. JSON documents that Docker's users know
//! (`inspect`) are made here once, in Docker's shape.

use std::collections::BTreeMap;

use coracle_oci::ContainerId;
use serde::{Deserialize, Serialize};

/// What a container does at this moment, derived from the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made, never started.
    Created,
    /// Its first process lives.
    Running,
    /// Running and frozen.
    Paused,
    /// Between two starts by its restart policy.
    Restarting,
    /// It ran and ended.
    Exited,
    /// A removal began and did not end; the next command finishes it.
    Removing,
}

impl Status {
    /// The word that `ps` and `inspect` show.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Exited => "exited",
            Status::Removing => "removing",
        }
    }
}

/// One line of `ps`. Times are Unix time in nanoseconds.
#[derive(Debug, Clone, Serialize)]
pub struct ContainerSummary {
    /// Whole id.
    pub id: ContainerId,
    /// Name.
    pub name: String,
    /// Image as typed.
    pub image: String,
    /// Command line that runs.
    pub command: Vec<String>,
    /// Made at.
    pub created: i128,
    /// Status.
    pub status: Status,
    /// Exit code of the last run.
    pub exit_code: Option<i32>,
    /// Started at, last.
    pub started: Option<i128>,
    /// Ended at, last.
    pub finished: Option<i128>,
    /// `starting`, `healthy`, `unhealthy`.
    pub health: Option<String>,
    /// Published ports as shown by `ps`.
    pub ports: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Sources of mounts (volume names, host paths).
    pub mounts: Vec<String>,
    /// Network names.
    pub networks: Vec<String>,
    /// (writable layer, all with image) in bytes, when asked for.
    pub size: Option<(u64, u64)>,
}

/// One process of `top`.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessInfo {
    /// Owner outside.
    pub uid: u32,
    /// Id outside.
    pub pid: i32,
    /// Parent's id outside.
    pub ppid: i32,
    /// Clock ticks used (1/100 s).
    pub ticks: u64,
    /// Start, Unix time in nanoseconds.
    pub started: i128,
    /// Controlling terminal, `?` for none.
    pub tty: String,
    /// Command line.
    pub command: String,
    /// Percentage of a CPU over its life.
    pub cpu_percent: f64,
}

/// One line of `stats`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Stats {
    /// CPU time used, nanoseconds.
    pub cpu_nanos: u64,
    /// When read, monotonic nanoseconds.
    pub read_at: u64,
    /// CPUs that it may use.
    pub cpus: f64,
    /// Memory used without inactive page cache, bytes.
    pub memory: u64,
    /// Its limit, or the host's memory.
    pub memory_limit: u64,
    /// Block I/O read, bytes.
    pub block_read: u64,
    /// Block I/O written, bytes.
    pub block_write: u64,
    /// Network received, bytes.
    pub net_rx: u64,
    /// Network sent, bytes.
    pub net_tx: u64,
    /// Tasks.
    pub pids: u64,
}

/// One event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// Unix time in nanoseconds.
    pub time: i128,
    /// `container`, `image`, `volume`, `network`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `create`, `start`, `die`, `oom`, …
    pub action: String,
    /// Id or name of what it is about.
    pub id: String,
    /// Attributes (name, image, exitCode, labels).
    pub attributes: BTreeMap<String, String>,
}

/// A volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Volume {
    /// Name.
    pub name: String,
    /// Where its files are on the host.
    pub mountpoint: String,
    /// Made at, Unix time in nanoseconds.
    pub created: i128,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Made for one container without a name.
    pub anonymous: bool,
}

/// One row of `system df`.
#[derive(Debug, Clone, Serialize)]
pub struct DiskUse {
    /// `Images`, `Containers`, `Local Volumes`.
    pub kind: String,
    /// How many.
    pub total: u64,
    /// How many in use.
    pub active: u64,
    /// Bytes.
    pub size: u64,
    /// Bytes that `prune` would give back.
    pub reclaimable: u64,
}
