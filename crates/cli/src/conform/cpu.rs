//! Column 6: CPU time, weights, sets and numbers of tasks are limited.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Checks;
use super::subject::Subject;

/// How often a test is made again on a host that was too busy for it.
const ATTEMPTS: u32 = 3;

/// Makes all observations.
pub(super) fn test(subject: &Subject, checks: &mut Checks) {
    let contention = Contention::begin();
    patiently(
        subject,
        checks,
        &contention,
        "--cpus 0.25 gives 25 % ± 3 over 10 s under contention",
        || quota(subject),
    );
    patiently(
        subject,
        checks,
        &contention,
        "an update to 0.5 works live",
        || update(subject),
    );
    drop(contention);
    checks.attempt("shares of 1 to 4 divide a CPU so", shares(subject));
    checks.attempt("a CPU set holds", set(subject));
    checks.attempt("the number of tasks is limited", tasks(subject));
}

/// What a container got of what it may have.
struct Share {
    /// Within its bounds.
    holds: bool,
    /// Less than its lower bound, which others on the host may be the cause of.
    short: bool,
    /// Percent of a CPU that the test wants at its most.
    wanted: f64,
    evidence: String,
}

/// A limit is an upper bound: that a container gets all of it needs a host with as much to give. Where a thread of the
/// host, or a container without any limit, did not get it either, the test is made again, and says nothing in the end. (All
/// containers may share the weight of one thread of the host, so that the thread alone does not tell.)
fn patiently(
    subject: &Subject,
    checks: &mut Checks,
    contention: &Contention,
    what: &'static str,
    measure: impl Fn() -> Result<Share, String>,
) {
    let mut busy = String::new();
    for _ in 0..ATTEMPTS {
        let before = contention.used();
        let share = match measure() {
            Ok(share) => share,
            Err(problem) => return checks.add(what, false, problem),
        };
        let thread = contention.percent_since(before);
        let enough = |percent: f64| percent > share.wanted * 1.15;
        if share.holds || !share.short {
            return checks.add(what, share.holds, share.evidence);
        }
        let container = match spun(subject, &[], "3") {
            Ok(percent) => percent,
            Err(problem) => return checks.add(what, false, problem),
        };
        if enough(thread) && enough(container) {
            return checks.add(what, false, share.evidence);
        }
        busy = format!(
            "{}; the host is too busy: without a limit a thread got {thread:.1} %, a container {container:.1} %",
            share.evidence
        );
    }
    checks.skip(what, busy);
}

/// Threads of this process that keep every CPU busy, and know how much they got.
struct Contention {
    over: Arc<AtomicBool>,
    used: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Contention {
    fn begin() -> Self {
        let (over, used) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let count = std::thread::available_parallelism().map_or(1, |count| count.get());
        let threads = (0..count).map(|_| {
            let (over, used) = (Arc::clone(&over), Arc::clone(&used));
            std::thread::spawn(move || {
                let mut told = thread_time();
                while !over.load(Ordering::Relaxed) {
                    std::hint::black_box(
                        (0..1_000_000u64).fold(0, |sum, n| std::hint::black_box(sum ^ n)),
                    );
                    let now = thread_time();
                    used.fetch_add(now - told, Ordering::Relaxed);
                    told = now;
                }
            })
        });
        let threads = threads.collect();
        Self {
            over,
            used,
            threads,
        }
    }

    /// A point in time, and the CPU time of all threads up to it in nanoseconds.
    fn used(&self) -> (Instant, u64) {
        (Instant::now(), self.used.load(Ordering::Relaxed))
    }

    /// Percent of a CPU that each thread got since then, on average.
    fn percent_since(&self, (start, used): (Instant, u64)) -> f64 {
        let each = (self.used().1 - used) as f64 / self.threads.len().max(1) as f64;
        each / start.elapsed().as_nanos() as f64 * 100.0
    }
}

impl Drop for Contention {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that only counts does not panic.
            let _ = thread.join();
        }
    }
}

/// CPU time of the calling thread, nanoseconds.
fn thread_time() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
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

/// Percent of one CPU that a container with these options got in so many seconds.
fn spun(subject: &Subject, options: &[&str], seconds: &str) -> Result<f64, String> {
    let text = subject.run(options, &["spin", seconds, "1"])?.output()?;
    let first = percentages(&text)?.first().copied();
    first.ok_or_else(|| "the program inside said nothing".to_owned())
}

fn quota(subject: &Subject) -> Result<Share, String> {
    let percent = spun(subject, &["--cpus", "0.25"], "10")?;
    let evidence = format!("{percent:.1} %");
    Ok(Share {
        holds: (22.0..=28.0).contains(&percent),
        short: percent < 22.0,
        wanted: 25.0,
        evidence,
    })
}

/// Starts with a tenth, and is given a half before the second round begins.
fn update(subject: &Subject) -> Result<Share, String> {
    let name = subject.start(&["--cpus", "0.1"], &["spin", "5", "2"])?;
    let rounds = |wanted: usize| {
        for _ in 0..600 {
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
        Ok(Share {
            holds: (7.0..=13.0).contains(&first) && (44.0..=53.0).contains(&second),
            short: first <= 13.0 && second <= 53.0,
            wanted: 50.0,
            evidence: format!("{first:.1} %, then {second:.1} %"),
        })
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
