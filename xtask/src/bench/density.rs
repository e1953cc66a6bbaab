//! What the shipped file weighs, and what many containers cost: memory and CPU of the idle, `ps` over a crowd, the last
//! `create` against the first.

use std::fs;
use std::time::Duration;

use coracle_tests::{BUSYBOX, Engine};

use super::fresh;
use super::measure::{median_ms, time};
use super::peers::Peers;
use super::{Figures, Scale};

/// The binary's size in MiB.
pub(super) fn binary(figures: &mut Figures, _: &Scale, _: Option<&mut Peers>) {
    let size = fs::metadata(coracle_tests::binary())
        .expect("it was just built")
        .len();
    figures
        .contracts
        .insert("binary-mib".into(), size as f64 / (1 << 20) as f64);
}

/// `create` of the first and the last of a crowd, and `ps` over all of it.
pub(super) fn crowd(figures: &mut Figures, scale: &Scale, _: Option<&mut Peers>) {
    let (_fresh, engine) = fresh::engine();
    let create = || {
        let args = ["create", "--network", "none", BUSYBOX, "true"];
        time(&mut engine.command(args).into_command())
    };
    create();
    let times: Vec<Duration> = (0..scale.crowd).map(|_| create()).collect();
    let some = scale.crowd / 10;
    let first = median_ms(&times[..some]);
    let last = median_ms(&times[times.len() - some..]);
    figures
        .behind
        .insert("create, first tenth, ms".into(), first);
    figures.behind.insert("create, last tenth, ms".into(), last);
    figures
        .contracts
        .insert("create-last-to-first".into(), last / first);
    let ps: Vec<Duration> = (0..scale.rounds.max(5))
        .map(|_| time(&mut engine.command(["ps", "-a"]).into_command()))
        .collect();
    figures
        .contracts
        .insert("ps-crowd-ms".into(), median_ms(&ps));
}

/// Private memory and CPU time of the processes that keep idle detached containers.
pub(super) fn idle(figures: &mut Figures, scale: &Scale, _: Option<&mut Peers>) {
    let engine = Engine::new();
    for _ in 0..scale.idle {
        let args = ["run", "-d", "--network", "none", BUSYBOX, "sleep", "3600"];
        time(&mut engine.command(args).into_command());
    }
    let keepers = engine.processes();
    assert!(
        keepers.len() >= scale.idle,
        "{} monitors keep {} containers",
        keepers.len(),
        scale.idle
    );
    let private: u64 = keepers.iter().map(|pid| private_kb(*pid)).sum();
    figures
        .contracts
        .insert("idle-memory-kb".into(), private as f64 / scale.idle as f64);
    let ticks = || keepers.iter().map(|pid| cpu_ticks(*pid)).sum::<u64>();
    let before = ticks();
    std::thread::sleep(Duration::from_secs(5));
    figures
        .contracts
        .insert("idle-cpu-ticks".into(), (ticks() - before) as f64);
}

fn private_kb(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let fields = ["Private_Clean:", "Private_Dirty:", "Private_Hugetlb:"];
    text.lines()
        .filter(|line| fields.iter().any(|field| line.starts_with(field)))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}

/// User and system time, fields 14 and 15; the name in parentheses may hold blanks.
fn cpu_ticks(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let after = text.rsplit(") ").next().unwrap_or_default();
    after
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum()
}
