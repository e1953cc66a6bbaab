//! `cargo xtask vm`: the test suite on other kernels than the host's, in machines of QEMU without KVM.
//!
//! What it is for, how it is built and what it costs: docs/design/0002-kernels-in-virtual-machines.md.
//!
//! Invariants: nothing is installed and nothing of the host is changed but the cache folder; a result from inside counts
//! exactly as one of the host's would, under the name `KERNEL/USER/…`; a machine that stops early is a failure.

mod apt;
mod cache;
pub(crate) mod guest;
mod initramfs;
mod jobs;
mod kernel;
mod machine;
mod protocol;
mod userland;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::tally::{CargoTest, Tally, is_strict};
use crate::{needs, steps};
use cache::Cache;
use jobs::{Payload, Selection};
use kernel::{CHOICES, Choice, Kernel};
use machine::{Machine, Parts};
use protocol::{Event, Job, Who};
use userland::Userland;

/// A failure says what failed, on what, and why.
type Result<T> = std::result::Result<T, String>;

/// Puts what was tried before the reason why it failed.
trait Problem<T> {
    fn problem(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: std::fmt::Display> Problem<T> for std::result::Result<T, E> {
    fn problem(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| format!("{}: {error}", what()))
    }
}

/// Runs a command whose output is the user's.
fn passes(mut command: impl std::borrow::BorrowMut<Command>) -> Result<()> {
    let command = command.borrow_mut();
    let status = command.status();
    let line = || format!("{command:?}");
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{}: {status}", line())),
        Err(error) => Err(format!("{}: {error}", line())),
    }
}

/// What a command prints.
fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => Err(format!("{command:?}: {}", output.status)),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// What the command line asks for.
pub(crate) struct Options {
    kernels: Vec<Choice>,
    users: Vec<Who>,
    refresh: bool,
    tests: Vec<String>,
}

impl Options {
    /// Reads `[--kernel NAME|all] [--root|--user] [--refresh] [TEST…]`.
    pub(crate) fn parse(args: &[&str]) -> Result<Options> {
        let mut options = Options {
            kernels: vec![CHOICES[0]],
            users: vec![Who::Root, Who::User],
            refresh: false,
            tests: Vec::new(),
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--kernel" => {
                    let name = *args.next().ok_or("--kernel needs a name")?;
                    options.kernels = CHOICES
                        .into_iter()
                        .filter(|choice| name == "all" || name == choice.name)
                        .collect();
                    if options.kernels.is_empty() {
                        let names = CHOICES.map(|choice| choice.name).join(", ");
                        return Err(format!("no kernel {name}; there are {names} and all"));
                    }
                }
                "--root" => options.users = vec![Who::Root],
                "--user" => options.users = vec![Who::User],
                "--refresh" => options.refresh = true,
                test if !test.starts_with('-') => options.tests.push(test.to_owned()),
                other => return Err(format!("vm does not know {other}")),
            }
        }
        Ok(options)
    }
}

/// Runs the suite in machines; gives whether all is well.
pub(crate) fn run(options: &Options) -> bool {
    let mut tally = Tally::default();
    needs::install();
    if let Some(reason) = missing() {
        tally.skip("vm", &reason);
    } else if let Err(reason) = run_all(options, &mut tally) {
        tally.step(&format!("vm: {reason}"), false);
    }
    let allowed = tally.allowed_skips();
    tally.finish(&allowed, is_strict())
}

/// Why there can be no machine here.
fn missing() -> Option<String> {
    if std::env::consts::ARCH != "x86_64" {
        return Some("the machines are x86-64's, and this host is not".to_owned());
    }
    if !needs::is_installed("qemu-system-x86_64") {
        return Some("qemu-system-x86_64 is not installed".to_owned());
    }
    apt::missing()
}

fn run_all(options: &Options, tally: &mut Tally) -> Result<()> {
    let cache = Cache::open()?;
    if options.refresh {
        cache.clear()?;
    }
    let coracle = binary()?;
    let userland = Userland::prepare(&cache)?;
    let tools = userland.tools();
    let mut kernels = Vec::new();
    for choice in &options.kernels {
        kernels.push((*choice, Kernel::prepare(*choice, &cache, &tools)?));
    }
    let dir = tempfile::Builder::new()
        .prefix("coracle-vm-")
        .tempdir_in("/var/tmp")
        .problem(|| "cannot make a folder in /var/tmp".to_owned())?;
    let selection = Selection(&options.tests);
    let payload = Payload::make(dir.path(), &coracle, &selection, &options.users, &tools)?;
    for (choice, kernel) in &kernels {
        if let Err(reason) = run_one(*choice, kernel, &userland, &payload, dir.path(), tally) {
            tally.step(&format!("{}: {reason}", choice.name), false);
        }
    }
    Ok(())
}

/// The binary under test: the one that `CORACLE_BIN` names, as for the black-box suite, else a fresh release build.
fn binary() -> Result<std::path::PathBuf> {
    let named = std::env::var_os("CORACLE_BIN").is_some();
    if !named && !steps::passes(&["build", "--release", "--bin", "coracle"]) {
        return Err("cargo build --release failed".to_owned());
    }
    Ok(coracle_tests::binary())
}

fn run_one(
    choice: Choice,
    kernel: &Kernel,
    userland: &Userland,
    payload: &Payload,
    dir: &Path,
    tally: &mut Tally,
) -> Result<()> {
    let initramfs = dir.join("initramfs");
    let own = std::env::current_exe().problem(|| "cannot find this program".to_owned())?;
    initramfs::write(&own, &kernel.early(), &initramfs)?;
    let version = kernel.version()?;
    eprintln!("==> kernel {version}: {} jobs", payload.jobs.len());
    let parts = Parts {
        kernel,
        userland,
        initramfs: &initramfs,
        payload: &payload.image,
        dir,
    };
    let mut machine = Machine::start(&parts)?;
    let mut results = Results::new(choice.name, &payload.jobs);
    let followed = machine.follow(|age, line| {
        if Event::from_line(line) == Some(Event::Ready) {
            eprintln!(
                "==> kernel {version}: first test {:.1} s after power-on",
                age.as_secs_f64()
            );
        }
        results.line(line);
    });
    results.finish(tally);
    followed
}

/// Whether a job is `coracle conform`.
fn is_conform(job: &Job) -> bool {
    job.name == "conform"
}

/// A line of the table that `coracle conform` prints: feature, answer, evidence, in columns two blanks apart.
fn column(line: &str) -> Option<(&str, &str, &str)> {
    let (engine, rest) = line.split_once("  ")?;
    let (number, rest) = rest.trim_start().split_once("  ")?;
    let (feature, rest) = rest.trim_start().split_once("  ")?;
    let (answer, evidence) = rest.trim_start().split_once("  ")?;
    let is_row = engine == "coracle" && number.parse::<u8>().is_ok();
    is_row.then_some((feature, answer, evidence.trim_start()))
}

/// Whether a job is a program of the black-box suite.
fn is_black_box(job: &Job) -> bool {
    job.name.starts_with("tests/")
}

/// The lines of one machine, sorted into jobs.
struct Results<'a> {
    kernel: &'static str,
    jobs: &'a [Job],
    /// The job that runs now, what it printed so far, and since when.
    now: Option<(usize, CargoTest, Instant)>,
    skips: Vec<String>,
    ended: usize,
    total: Tally,
}

impl<'a> Results<'a> {
    fn new(kernel: &'static str, jobs: &'a [Job]) -> Results<'a> {
        Results {
            kernel,
            jobs,
            now: None,
            skips: Vec::new(),
            ended: 0,
            total: Tally::default(),
        }
    }

    fn line(&mut self, line: &str) {
        match Event::from_line(line) {
            None => {
                println!("{line}");
                if let Some(running) = &mut self.now {
                    running.1.line(line);
                    let (job, skip) = (running.0, line.split_once("SKIP: "));
                    // The black-box suite writes a log of its skips; the crates' own tests only say them.
                    let is_conform = is_conform(&self.jobs[job]);
                    if let Some((feature, answer, evidence)) = column(line).filter(|_| is_conform) {
                        let skip = format!("{}::{feature}: {evidence}", self.name(job));
                        let seen = &mut self.now.as_mut().expect("it was just there").1;
                        match answer {
                            "Yes" => seen.passed += 1,
                            "No" if evidence != "not built yet" => {
                                seen.failed.push(format!("{feature}: {evidence}"));
                            }
                            _ => {
                                // `add` takes skips from what passed.
                                seen.passed += 1;
                                self.skips.push(skip);
                            }
                        }
                    } else if let Some((_, skip)) = skip
                        && !is_black_box(&self.jobs[job])
                    {
                        let name = self.name(job);
                        self.skips.push(format!("{name}::{skip}"));
                    }
                }
            }
            Some(Event::Begin(job)) => {
                println!("\n==> {}", self.name(job));
                self.now = Some((job, CargoTest::default(), Instant::now()));
                self.skips.clear();
            }
            Some(Event::Skip(job, skip)) => {
                let name = self.name(job);
                let (prefix, _) = name.rsplit_once('/').unwrap_or((&name, ""));
                self.skips.push(format!("{prefix}/{skip}"));
            }
            Some(Event::End(job, problem)) => self.end(job, problem),
            Some(Event::Leak(leak)) => {
                let kernel = self.kernel;
                self.total
                    .failures
                    .push(format!("{kernel}: left behind: {leak}"));
            }
            Some(Event::Trouble(trouble)) => {
                let kernel = self.kernel;
                self.total.failures.push(format!("{kernel}: {trouble}"));
            }
            Some(Event::Ready | Event::Done) => {}
        }
    }

    /// `KERNEL/USER/PACKAGE/PROGRAM`.
    fn name(&self, job: usize) -> String {
        match self.jobs.get(job) {
            Some(job) => format!("{}/{}/{}", self.kernel, job.who.as_str(), job.name),
            None => format!("{}/{job}", self.kernel),
        }
    }

    fn end(&mut self, job: usize, problem: Option<String>) {
        let name = self.name(job);
        self.ended += 1;
        let Some((_, seen, since)) = self.now.take() else {
            self.total
                .failures
                .push(format!("{name} ended before it began"));
            return;
        };
        println!("==> {name}: {:.0} s", since.elapsed().as_secs_f64());
        let mut failed = seen.failed;
        // A program that failed has a failed test; `conform` fails where a column is not built yet, too.
        let told = !failed.is_empty() || (is_conform(&self.jobs[job]) && !self.skips.is_empty());
        if let Some(problem) = problem
            && !told
        {
            failed.push(problem);
        }
        let failed = failed
            .into_iter()
            .map(|test| format!("{name}::{test}"))
            .collect();
        let skips = std::mem::take(&mut self.skips);
        self.total.add(seen.passed, failed, skips);
    }

    /// Adds everything to the run's; what has not ended has failed.
    fn finish(mut self, tally: &mut Tally) {
        for job in self.ended..self.jobs.len() {
            let name = self.name(job);
            self.total
                .failures
                .push(format!("{name}: not run to its end"));
        }
        tally.passed += self.total.passed;
        tally.failures.append(&mut self.total.failures);
        tally.skips.append(&mut self.total.skips);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str, who: Who) -> Job {
        Job {
            name: name.to_owned(),
            who,
            command: Vec::new(),
        }
    }

    #[test]
    fn results_carry_kernel_and_user_and_skips_are_not_passes() {
        let jobs = [
            job("tests/limits", Who::Root),
            job("conform", Who::User),
            job("cgroup/host", Who::User),
            job("tests/logs", Who::User),
        ];
        let mut results = Results::new("6.1", &jobs);
        for line in [
            "@vm begin 0",
            "test a ... ok",
            "test b ... FAILED",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured",
            "@vm skip 0 limits::c: no swap",
            "@vm end 0 exit status: 101",
            "@vm begin 1",
            "coracle   1         file system isolation              Yes       none seen; fine",
            "coracle   3         disk quotas                        No        not built yet",
            "coracle   4         I/O rate limiting                  No        80 of 8 MB/s",
            "@vm end 1 exit status: 1",
            "@vm begin 2",
            "SKIP: d: no memory",
            "test d ... ok",
            "test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured",
            "@vm end 2",
            "@vm leak mount /x",
        ] {
            results.line(line);
        }
        let mut tally = Tally::default();
        results.finish(&mut tally);
        assert_eq!(tally.passed, 5);
        assert_eq!(
            tally.skips,
            [
                "6.1/root/tests/limits::c: no swap",
                "6.1/user/conform::disk quotas: not built yet",
                "6.1/user/cgroup/host::d: no memory"
            ]
        );
        assert_eq!(
            tally.failures,
            [
                "6.1/root/tests/limits::b",
                "6.1/user/conform::I/O rate limiting: 80 of 8 MB/s",
                "6.1: left behind: mount /x",
                "6.1/user/tests/logs: not run to its end"
            ]
        );
    }

    #[test]
    fn options_are_read_and_mistakes_refused() {
        let options = Options::parse(&["--kernel", "all", "--user", "limits"]).expect("good");
        assert_eq!(options.kernels.len(), 3);
        assert_eq!(options.users, [Who::User]);
        assert_eq!(options.tests, ["limits"]);
        for bad in [&["--kernel"][..], &["--kernel", "5.0"], &["--nonsense"]] {
            assert!(Options::parse(bad).is_err(), "{bad:?}");
        }
    }
}
