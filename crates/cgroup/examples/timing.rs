//! What a cgroup costs a container's start and end: medians of its parts, in microseconds.
//!
//! `cargo run --release -p coracle-cgroup --example timing [ROUNDS [IDLE_MS]]`; idle time between rounds shows what a
//! tight loop hides.

use std::process::Command;
use std::time::{Duration, Instant};

use coracle_cgroup::{CgroupPath, DeviceRules, Error, Limits, Manager};

const PARTS: [&str; 7] = [
    "recall",
    "open",
    "create",
    "entry",
    "join and leave",
    "usage",
    "remove",
];

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|argument| argument.parse().expect("a number"));
    let rounds: usize = arguments.next().unwrap_or(100);
    let idle = Duration::from_millis(arguments.next().unwrap_or(20) as u64);
    let prefix = format!("coracle-test-{}", std::process::id());
    let path = CgroupPath::new("timing")?;
    let limits = Limits {
        memory: Some(256 << 20),
        memory_swap: Some(256 << 20),
        cpu_quota: Some(100_000),
        pids: Some(512),
        ..Limits::default()
    };
    let devices = DeviceRules::docker_default();
    let first = Manager::open(&prefix)?;
    let remembered = first.remember();
    println!(
        "{:?}, {rounds} rounds, {} ms idle between",
        first.layout(),
        idle.as_millis()
    );
    for (name, limits, devices) in [
        (
            "nothing limited",
            &Limits::default(),
            &DeviceRules::unrestricted(),
        ),
        ("limits and devices", &limits, &devices),
    ] {
        let mut times: [Vec<Duration>; PARTS.len()] = Default::default();
        for round in 0..rounds {
            std::thread::sleep(idle);
            let mut at = Instant::now();
            let mut lap = |part: usize| {
                times[part].push(at.elapsed());
                at = Instant::now();
            };
            // By turns, since either would warm the other up.
            let manager = match &remembered {
                Some(remembered) if round % 2 == 0 => {
                    let manager =
                        Manager::recall(&prefix, remembered.clone()).expect("nothing changed");
                    lap(0);
                    manager
                }
                _ => {
                    let manager = Manager::open(&prefix)?;
                    lap(1);
                    manager
                }
            };
            let cgroup = manager.create(&path, limits, devices)?;
            lap(2);
            let entry = cgroup.entry()?;
            lap(3);
            // A thread goes in and ends there, with a child as a container's process would.
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for tasks in &entry.tasks {
                        rustix::io::write(tasks, b"0").expect("joining");
                    }
                    Command::new("/bin/true").status().expect("/bin/true runs");
                });
            });
            lap(4);
            cgroup.usage()?;
            lap(5);
            cgroup.remove()?;
            lap(6);
        }
        println!("{name}:");
        for (part, times) in PARTS.iter().zip(&mut times) {
            if times.is_empty() {
                continue;
            }
            times.sort();
            let micros = |index: usize| times[index].as_secs_f64() * 1e6;
            println!(
                "  {part:16} median {:8.0}  p90 {:8.0}",
                micros(times.len() / 2),
                micros(times.len() * 9 / 10)
            );
        }
    }
    first.prune().map(drop)
}
