//! Column 6: CPU time, weights, sets and numbers of tasks are limited.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Checks;
use super::subject::Subject;

/// Makes all observations.
pub(super) fn test(subject: &Subject, checks: &mut Checks) {
    let contention = Contention::begin();
    checks.attempt(
        "--cpus 0.25 gives 25 % ± 3 over 10 s under contention",
        quota(subject),
    );
    checks.attempt("an update to 0.5 works live", update(subject));
    drop(contention);
    checks.attempt("shares of 1 to 4 divide a CPU so", shares(subject));
    checks.attempt("a CPU set holds", set(subject));
    checks.attempt("the number of tasks is limited", tasks(subject));
}

/// Threads of this process that keep every CPU busy.
struct Contention(std::sync::Arc<AtomicBool>, Vec<std::thread::JoinHandle<()>>);

impl Contention {
    fn begin() -> Self {
        let over = std::sync::Arc::new(AtomicBool::new(false));
        let count = std::thread::available_parallelism().map_or(1, |count| count.get());
        let threads = (0..count).map(|_| {
            let over = std::sync::Arc::clone(&over);
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::black_box((0..10_000u64).sum::<u64>());
                }
            })
        });
        let threads = threads.collect();
        Self(over, threads)
    }
}

impl Drop for Contention {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        for thread in self.1.drain(..) {
            // A thread that only counts does not panic.
            let _ = thread.join();
        }
    }
}

/// Percentage of one CPU in each round that `spin` printed.
fn percentages(text: &str) -> Result<Vec<f64>, String> {
    let one = |line: &str| {
        let (cpu, wall) = line.split_once(' ')?;
        Some(cpu.parse::<f64>().ok()? / wall.parse::<f64>().ok()? * 100.0)
    };
    text.lines()
        .map(|line| one(line).ok_or_else(|| format!("the program inside said {line:?}")))
        .collect()
}

fn quota(subject: &Subject) -> Result<(bool, String), String> {
    let text = subject
        .run(&["--cpus", "0.25"], &["spin", "10", "1"])?
        .output()?;
    let percent = *percentages(&text)?
        .first()
        .ok_or("the program inside said nothing")?;
    Ok(((22.0..=28.0).contains(&percent), format!("{percent:.1} %")))
}

/// Starts with a tenth, and is given a half before the second round begins.
fn update(subject: &Subject) -> Result<(bool, String), String> {
    let name = subject.start(&["--cpus", "0.1"], &["spin", "5", "2"])?;
    let rounds = |wanted: usize| {
        for _ in 0..400 {
            let text = subject.call(&["logs", &name])?.output()?;
            let seen = percentages(&text)?;
            if seen.len() >= wanted {
                return Ok(seen);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err("the program inside did not end its rounds".to_owned())
    };
    let result = rounds(1).and_then(|_| {
        subject
            .call(&["update", "--cpus", "0.5", &name])?
            .output()?;
        let seen = rounds(2)?;
        let (first, second) = (seen[0], seen[1]);
        Ok((
            (7.0..=13.0).contains(&first) && (44.0..=54.0).contains(&second),
            format!("{first:.1} %, then {second:.1} %"),
        ))
    });
    subject.remove(&name);
    result
}

/// Two containers on one CPU; what else runs there takes from both alike.
fn shares(subject: &Subject) -> Result<(bool, String), String> {
    let light = subject.start(
        &["--cpuset-cpus", "0", "--cpu-shares", "256"],
        &["spin", "6", "1"],
    )?;
    let heavy = subject.start(
        &["--cpuset-cpus", "0", "--cpu-shares", "1024"],
        &["spin", "6", "1"],
    )?;
    let ended = |name: &str| {
        subject.call(&["wait", name])?.output()?;
        let text = subject.call(&["logs", name])?.output()?;
        percentages(&text)?
            .first()
            .copied()
            .ok_or_else(|| "the program inside said nothing".to_owned())
    };
    let result = ended(&light).and_then(|light| Ok((light, ended(&heavy)?)));
    subject.remove(&light);
    subject.remove(&heavy);
    let (light, heavy) = result?;
    let ratio = heavy / light;
    // The two do not begin and end in the same instant.
    Ok((
        (3.0..=5.0).contains(&ratio),
        format!("{light:.1} % and {heavy:.1} %: 1 to {ratio:.1}"),
    ))
}

fn set(subject: &Subject) -> Result<(bool, String), String> {
    let cpus = subject
        .run(&["--cpuset-cpus", "0"], &["affinity"])?
        .output()?;
    Ok((
        cpus.trim() == "0",
        format!("the program inside may use {}", cpus.trim()),
    ))
}

fn tasks(subject: &Subject) -> Result<(bool, String), String> {
    let text = subject
        .run(&["--pids-limit", "16"], &["tasks", "64"])?
        .output()?;
    let count: u64 = text
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or("the program inside said nothing")?;
    Ok((
        (2..=16).contains(&count),
        format!("of 64 tasks with a limit of 16: {}", text.trim()),
    ))
}
