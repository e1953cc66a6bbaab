//! Many cycles of run, exec and rm, some at once, with what they cost measured between: what grows with the cycles is a leak.
//!
//! ```text
//! residents   containers that stay all the time, with monitors that must not grow
//! cycle       run -d, exec, rm -f; every 8th also an exec in a resident, every 64th its log and an update
//! point       after each tenth of the cycles all workers have ended: only the residents are left, and are measured
//! ```
//!
//! A figure leaks when the least of the last points exceeds the least of the first points by more than is allowed for the
//! cycles between: the least, because other programs on the host take and give at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::{BUSYBOX, Engine, eventually, host};

/// How often the figures are taken, beside once at the beginning.
const POINTS: usize = 10;
const RESIDENTS: usize = 4;

/// What is done.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Cycles in all.
    pub cycles: usize,
    /// Workers at once.
    pub workers: usize,
}

/// What was there after so many cycles.
#[derive(Clone, Debug, Default)]
pub struct Point {
    /// Cycles done.
    pub cycles: usize,
    /// Milliseconds of CPU that the commands of one cycle took, mean since the point before: not of the clock, which
    /// other programs on the host move.
    pub cycle_ms: f64,
    /// Figures by name.
    pub figures: BTreeMap<&'static str, f64>,
}

/// A figure's name, what it may grow by at all, and by each cycle.
type Bound = (&'static str, f64, f64);

/// What only this engine has: nothing else moves it.
const OWN: &[Bound] = &[
    ("monitors, private kB", 64.0, 0.0),
    ("monitors, descriptors", 0.0, 0.0),
    ("processes", 0.0, 0.0),
    ("mounts", 0.0, 0.0),
    ("cgroups of ended containers", 0.0, 0.0),
    ("state, files", 2.0, 0.0),
    ("state, kB", 64.0, 0.0),
    // Kept, and rotated at 4 MiB.
    ("events, kB", 9000.0, 0.0),
    ("run-time state, files", 1.0, 0.0),
    ("run-time state, kB", 64.0, 0.0),
];

/// What the whole host has, so that others move it too. Each leak of one object a cycle is far above.
const HOST: &[Bound] = &[
    ("slab that stays, kB", 16_000.0, 0.5),
    ("per-CPU memory, kB", 4000.0, 0.05),
    ("cgroups alive or dying", 200.0, 0.02),
    ("mnt_cache", 1000.0, 0.05),
    ("net_namespace", 100.0, 0.02),
    ("pid_namespace", 100.0, 0.02),
    ("user_namespace", 100.0, 0.02),
    ("uts_namespace", 100.0, 0.02),
    ("task_struct", 300.0, 0.02),
    ("mm_struct", 300.0, 0.02),
    ("network devices", 8.0, 0.0),
    ("loop devices in use", 2.0, 0.0),
];

/// Caches of /proc/slabinfo, where it can be read: active objects.
const CACHES: [&str; 7] = [
    "mnt_cache",
    "net_namespace",
    "pid_namespace",
    "user_namespace",
    "uts_namespace",
    "task_struct",
    "mm_struct",
];

/// Runs the plan in `engine`, which has busybox; `between` is called with each point as soon as it is there.
///
/// # Panics
/// When a command fails that must not.
pub fn soak(engine: &Engine, plan: Plan, mut between: impl FnMut(&Point)) -> Vec<Point> {
    let residents: Vec<String> = (0..RESIDENTS).map(|n| format!("resident-{n}")).collect();
    for name in &residents {
        let options = format!("--network none --memory 64m --name {name}");
        // Lines now and then, so that the log and the pipes are used.
        engine.detached(&options, "while sleep 5; do echo tick; done");
    }
    let ended = Mutex::new(BTreeSet::new());
    let mut points = vec![measure(engine, 0, 0.0, &ended)];
    between(&points[0]);
    for part in 0..POINTS {
        let first = plan.cycles * part / POINTS;
        let last = plan.cycles * (part + 1) / POINTS;
        let next = AtomicUsize::new(first);
        let before = cpu_ms();
        std::thread::scope(|scope| {
            for _ in 0..plan.workers {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= last {
                            return;
                        }
                        let id = cycle(engine, number, &residents[number % RESIDENTS]);
                        ended.lock().expect("no worker panicked").insert(id);
                    }
                });
            }
        });
        let each = (cpu_ms() - before) / (last - first).max(1) as f64;
        let point = measure(engine, last, each, &ended);
        between(&point);
        points.push(point);
    }
    points
}

/// One cycle; gives the id of the container that lived in it.
fn cycle(engine: &Engine, number: usize, resident: &str) -> String {
    let name = format!("soak-{number}");
    let line = format!("run -d --network none --memory 64m --name {name} {BUSYBOX} sleep 3600");
    let id = engine.ok(&line);
    engine.ok(&format!("exec {name} true"));
    if number.is_multiple_of(8) {
        engine.ok(&format!("exec {resident} true"));
    }
    if number.is_multiple_of(64) {
        engine.ok(&format!("logs --tail 1 {resident}"));
        engine.ok(&format!("update --memory 65m --memory-swap -1 {resident}"));
    }
    engine.ok(&format!("rm -f {name}"));
    id
}

fn measure(
    engine: &Engine,
    cycles: usize,
    cycle_ms: f64,
    ended: &Mutex<BTreeSet<String>>,
) -> Point {
    // A monitor ends a moment after its container.
    eventually(
        "only the residents' monitors are left",
        Duration::from_secs(30),
        || engine.processes().len() == RESIDENTS,
    );
    let keepers = engine.processes();
    let mut figures = BTreeMap::new();
    let private: u64 = keepers.iter().map(|pid| private_kb(*pid)).sum();
    figures.insert("monitors, private kB", private as f64);
    let descriptors: usize = keepers
        .iter()
        .map(|pid| count(Path::new(&format!("/proc/{pid}/fd"))))
        .sum();
    figures.insert("monitors, descriptors", descriptors as f64);
    figures.insert("processes", keepers.len() as f64);
    let places = [engine.dir(), engine.root(), engine.run_root()];
    let mounts: BTreeSet<_> = places.into_iter().flat_map(host::mounts_under).collect();
    figures.insert("mounts", mounts.len() as f64);
    let ended = ended.lock().expect("no worker panicked");
    figures.insert("cgroups of ended containers", cgroups_of(&ended) as f64);
    for (root, [files, kb]) in [
        (engine.root(), ["state, files", "state, kB"]),
        (
            engine.run_root(),
            ["run-time state, files", "run-time state, kB"],
        ),
    ] {
        let mut sum = (0, 0);
        usage(root, &mut sum);
        if root == engine.root() {
            let events = ["events.log", "events.log.1"].map(|name| root.join(name));
            let bytes: u64 = events.iter().filter_map(|file| size(file)).sum();
            figures.insert("events, kB", bytes as f64 / 1024.0);
            sum.1 -= bytes;
            sum.0 -= u64::from(events[1].exists());
        }
        figures.insert(files, sum.0 as f64);
        figures.insert(kb, sum.1 as f64 / 1024.0);
    }
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    for (field, name) in [
        ("SUnreclaim:", "slab that stays, kB"),
        ("Percpu:", "per-CPU memory, kB"),
    ] {
        figures.extend(field_of(&memory, field, 1).map(|value| (name, value)));
    }
    let groups = fs::read_to_string("/proc/cgroups").unwrap_or_default();
    let mut all: f64 = groups
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().nth(2)?.parse::<f64>().ok())
        .sum();
    let unified = fs::read_to_string("/sys/fs/cgroup/cgroup.stat").unwrap_or_default();
    all += field_of(&unified, "nr_dying_descendants", 1).unwrap_or(0.0);
    figures.insert("cgroups alive or dying", all);
    // Only root may read it.
    let slabs = fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    for cache in CACHES {
        figures.extend(field_of(&slabs, cache, 1).map(|value| (cache, value)));
    }
    figures.insert("network devices", count(Path::new("/sys/class/net")) as f64);
    figures.insert("loop devices in use", loops() as f64);
    Point {
        cycles,
        cycle_ms,
        figures,
    }
}

/// The `at`th word of the line whose first word is `name`.
fn field_of(text: &str, name: &str, at: usize) -> Option<f64> {
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words.first() == Some(&name))
        .and_then(|words| words.get(at)?.parse().ok())
}

/// CPU time of all commands that were waited for: fields 16 and 17 of proc_pid_stat(5).
fn cpu_ms() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").expect("/proc is mounted");
    let fields = text.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(13).take(2);
    ticks
        .filter_map(|word| word.parse::<f64>().ok())
        .sum::<f64>()
        * 10.0
}

/// Bytes that a file takes on the disk.
fn size(file: &Path) -> Option<u64> {
    Some(file.symlink_metadata().ok()?.blocks() * 512)
}

fn private_kb(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    ["Private_Clean:", "Private_Dirty:"]
        .iter()
        .filter_map(|field| field_of(&text, field, 1))
        .sum::<f64>() as u64
}

fn count(directory: &Path) -> usize {
    fs::read_dir(directory).map_or(0, |entries| entries.count())
}

fn loops() -> usize {
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    devices
        .filter(|device| device.path().join("loop/backing_file").exists())
        .count()
}

/// Cgroups named by the id of a container that has ended, in any hierarchy.
fn cgroups_of(ended: &BTreeSet<String>) -> usize {
    let hierarchies = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    let parents = hierarchies.map(|entry| entry.path().join("coracle"));
    parents
        .chain(["/sys/fs/cgroup/coracle".into()])
        .flat_map(|parent| fs::read_dir(parent).into_iter().flatten().flatten())
        .filter(|entry| {
            let name = entry.file_name();
            ended.contains(name.to_string_lossy().as_ref())
        })
        .count()
}

/// Adds files and bytes on the disk below `directory`; what goes meanwhile is not there.
fn usage(directory: &Path, sum: &mut (u64, u64)) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.path().symlink_metadata() else {
            continue;
        };
        sum.0 += 1;
        sum.1 += metadata.blocks() * 512;
        if metadata.is_dir() {
            usage(&entry.path(), sum);
        }
    }
}

/// The figures that grew by more than they may, as sentences; none is what must be.
pub fn leaks(points: &[Point]) -> Vec<String> {
    // The first point is before anything was warm.
    let warm = &points[1.min(points.len())..];
    let third = (warm.len() / 3).max(1);
    if warm.len() < 2 * third {
        return vec![format!("{} points say nothing", points.len())];
    }
    let (first, last) = (&warm[..third], &warm[warm.len() - third..]);
    let cycles = (last[0].cycles - first[0].cycles) as f64;
    let least = |points: &[Point], name| {
        points
            .iter()
            .filter_map(|point| point.figures.get(name).copied())
            .reduce(f64::min)
    };
    let mut found: Vec<String> = OWN
        .iter()
        .chain(HOST)
        .filter_map(|(name, floor, each)| {
            let (before, after) = (least(first, name)?, least(last, name)?);
            let allowed = floor + each * cycles;
            (after - before > allowed).then(|| {
                format!(
                    "{name}: from {before} to {after} in {cycles} cycles; {allowed} more are allowed"
                )
            })
        })
        .collect();
    let fastest = |points: &[Point]| {
        let times = points.iter().map(|point| point.cycle_ms);
        times.reduce(f64::min).unwrap_or_default()
    };
    let (before, after) = (fastest(first), fastest(last));
    if after > before * 1.5 {
        found.push(format!("a cycle: from {before:.1} ms to {after:.1} ms"));
    }
    found
}

/// The points as a table: a row for each figure.
pub fn table(points: &[Point]) -> String {
    let mut out = format!("{:<30}", "cycles");
    for point in points {
        out += &format!("{:>9}", point.cycles);
    }
    out += &format!("\n{:<30}", "one cycle, ms of CPU");
    for point in points {
        out += &format!("{:>9.1}", point.cycle_ms);
    }
    for (name, ..) in OWN.iter().chain(HOST) {
        out += &format!("\n{name:<30}");
        for point in points {
            match point.figures.get(name) {
                Some(value) => out += &format!("{value:>9.0}"),
                None => out += &format!("{:>9}", "-"),
            }
        }
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten points of a thousand cycles each, `each` a cycle of the figure, and noise of others that comes and goes.
    fn points(name: &'static str, each: f64, noise: f64) -> Vec<Point> {
        (0..=POINTS)
            .map(|at| Point {
                cycles: at * 1000,
                cycle_ms: 30.0,
                figures: BTreeMap::from([(
                    name,
                    100_000.0 + each * (at * 1000) as f64 + noise * f64::from(at % 2 == 1),
                )]),
            })
            .collect()
    }

    #[test]
    fn one_of_anything_a_cycle_is_a_leak() {
        for (name, ..) in OWN.iter().chain(HOST) {
            // Of what is counted in kB, a page a cycle.
            let found = leaks(&points(name, 4.0, 0.0));
            assert_eq!(found.len(), 1, "{name}: {found:?}");
            assert!(found[0].starts_with(name), "{found:?}");
        }
    }

    #[test]
    fn what_others_take_and_give_back_is_none() {
        for (name, ..) in HOST {
            assert_eq!(leaks(&points(name, 0.0, 500_000.0)), Vec::<String>::new());
        }
    }

    #[test]
    fn a_monitor_that_keeps_a_descriptor_is_found_in_two_hundred_cycles() {
        let mut all = points("monitors, descriptors", 0.0, 0.0);
        for (at, point) in all.iter_mut().enumerate() {
            point.cycles = at * 20;
            point
                .figures
                .insert("monitors, descriptors", 40.0 + at as f64);
        }
        assert_eq!(leaks(&all).len(), 1);
    }

    #[test]
    fn cycles_that_get_slower_are_found() {
        let mut all = points("mounts", 0.0, 0.0);
        for (at, point) in all.iter_mut().enumerate() {
            point.cycle_ms += at as f64 * 5.0;
        }
        assert_eq!(leaks(&all).len(), 1);
    }

    #[test]
    fn too_few_points_are_no_pass() {
        assert_eq!(leaks(&[]).len(), 1);
        assert_eq!(leaks(&points("mounts", 0.0, 0.0)[..2]).len(), 1);
    }
}
