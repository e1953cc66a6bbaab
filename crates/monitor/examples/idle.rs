//! What idle detached monitors cost: starts some (default 20), each supervising `sleep`, and sums their
//! `smaps_rollup`. `cargo run --release -p coracle-monitor --example idle [COUNT]`

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use coracle_monitor::health::{HealthCommand, HealthUpdate};
use coracle_monitor::log::JsonFile;
use coracle_monitor::{
    BoxError, Exit, LogDriver, ProbeProcess, Process, Readiness, StdinMode, StdioRequest, Streams,
    Subject, Supervision, supervise,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

const AS_MONITOR: &str = "--as-monitor";

struct Sleeper;

impl Subject for Sleeper {
    fn start(
        &mut self,
        stdio: StdioRequest,
        meanwhile: &mut dyn FnMut() -> Result<(), coracle_monitor::Error>,
    ) -> Result<Process, BoxError> {
        meanwhile()?;
        let StdioRequest::Pipes {
            stdin,
            stdout,
            stderr,
        } = stdio
        else {
            return Err("only pipes here".into());
        };
        let mut command = Command::new("sh");
        command
            .args(["-c", "seq 2000; exec sleep 1000"])
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr);
        let child = coracle_linux::signal::unblocked(|| command.spawn())?;
        let pid = Pid::from_child(&child);
        Ok(Process {
            pid,
            pidfd: pidfd_open(pid, PidfdFlags::empty())?,
            terminal: None,
            oom_event: None,
        })
    }

    fn exited(&mut self, _: &Exit) -> Result<(), BoxError> {
        Ok(())
    }

    fn oom(&mut self) -> Result<bool, BoxError> {
        Ok(false)
    }

    fn health(&mut self, _: &HealthUpdate) -> Result<(), BoxError> {
        Ok(())
    }

    fn probe(&mut self, _: &HealthCommand) -> Result<ProbeProcess, BoxError> {
        Err("no probes here".into())
    }

    fn finished(&mut self) -> Result<(), BoxError> {
        Ok(())
    }

    fn warn(&mut self, warning: &str) {
        eprintln!("{warning}");
    }
}

fn as_monitor(directory: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let ready = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    supervise(
        &mut Sleeper,
        Supervision {
            streams: Streams::Pipes {
                fifos: Some(directory.to_path_buf()),
            },
            stdin: StdinMode::Open,
            log: LogDriver::JsonFile(JsonFile {
                path: directory.join("log"),
                max_size: Some(10 << 20),
                max_files: 3,
            }),
            attach: Some(directory.join("attach")),
            ready: Some(ready),
            ..Supervision::default()
        },
    )?;
    Ok(())
}

/// Kilobytes of each kind of memory.
type Memory = Vec<(String, u64)>;

/// The memory and the processor time of one process.
fn cost(pid: u32) -> Result<(Memory, String), Box<dyn std::error::Error>> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kinds = rollup.lines().skip(1).filter_map(|line| {
        let (kind, rest) = line.split_once(':')?;
        Some((
            kind.to_owned(),
            rest.trim().strip_suffix(" kB")?.parse().ok()?,
        ))
    });
    let schedstat = std::fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    Ok((kinds.collect(), schedstat))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, first, directory] = &arguments[..]
        && first == AS_MONITOR
    {
        return as_monitor(Path::new(directory));
    }
    let count: u32 = arguments.get(1).map_or(Ok(20), |text| text.parse())?;
    let mut monitors = Vec::new();
    for _ in 0..count {
        let directory = tempfile::tempdir()?;
        let mut process = Command::new(std::env::current_exe()?)
            .arg(AS_MONITOR)
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let ready = process.stdout.take().ok_or("no pipe")?;
        let ready = Readiness::receive(ready.into())?.ok_or("the monitor died")?;
        assert!(ready.ok, "{ready:?}");
        monitors.push((process, directory));
    }
    std::thread::sleep(Duration::from_millis(1500));
    let mut before = Vec::new();
    for (process, _) in &monitors {
        before.push(cost(process.id())?.1);
    }
    std::thread::sleep(Duration::from_secs(3));
    let mut sums = Memory::new();
    let mut awake = 0;
    for ((process, _), before) in monitors.iter().zip(&before) {
        let (kinds, schedstat) = cost(process.id())?;
        awake += u32::from(schedstat != *before);
        for (index, (kind, kilobytes)) in kinds.into_iter().enumerate() {
            match sums.get_mut(index) {
                Some((_, sum)) => *sum += kilobytes,
                None => sums.push((kind, kilobytes)),
            }
        }
    }
    for (kind, sum) in &sums {
        println!(
            "{kind:16} {:8.1} kB a monitor",
            *sum as f64 / f64::from(count)
        );
    }
    let private =
        |(kind, _): &&(String, u64)| matches!(kind.as_str(), "Private_Clean" | "Private_Dirty");
    let total: u64 = sums.iter().filter(private).map(|(_, sum)| sum).sum();
    println!(
        "private          {:8.1} kB a monitor, of {count}",
        total as f64 / f64::from(count)
    );
    println!("ran in 3 s       {awake} of {count}");
    if count == 1 {
        let mut maps = String::new();
        std::fs::File::open(format!("/proc/{}/smaps", monitors[0].0.id()))?
            .read_to_string(&mut maps)?;
        let shown =
            |line: &&str| line.contains('-') && !line.contains(": ") || line.starts_with("Private");
        for line in maps.lines().filter(shown) {
            println!("{line}");
        }
    }
    for (process, _directory) in &mut monitors {
        let pidfd = pidfd_open(Pid::from_child(process), PidfdFlags::empty())?;
        // TERM: it stops its container.
        coracle_linux::signal::send(&pidfd, 15)?;
    }
    for (mut process, _directory) in monitors {
        process.wait()?;
    }
    Ok(())
}
