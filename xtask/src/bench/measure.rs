//! Timing of commands, and the few statistics that are used.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long `command` takes from its start to its end. Panics when it fails.
pub(super) fn time(command: &mut Command) -> Duration {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let start = Instant::now();
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let took = start.elapsed();
    if !status.success() {
        // Once more, to say why: its errors were not read, because that would cost time.
        let output = command.stderr(Stdio::piped()).output();
        let errors = output.map(|output| output.stderr).unwrap_or_default();
        panic!(
            "{command:?}: {status}: {}",
            String::from_utf8_lossy(&errors)
        );
    }
    took
}

/// Starts all commands, then waits for all; gives the time from the first start to the last end.
pub(super) fn time_all(commands: Vec<Command>) -> Duration {
    let start = Instant::now();
    let children: Vec<_> = commands
        .into_iter()
        .map(|mut command| {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            let child = command
                .spawn()
                .unwrap_or_else(|error| panic!("{command:?}: {error}"));
            (command, child)
        })
        .collect();
    for (command, child) in children {
        let output = child.wait_with_output().expect("a child can be waited for");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{command:?}: {}: {errors}",
            output.status
        );
    }
    start.elapsed()
}

/// The most memory that `command` itself held at any moment, in MiB, without what it started. Panics when it fails.
pub(super) fn peak_mib(command: &mut Command) -> f64 {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let status_file = format!("/proc/{}/status", child.id());
    let mut kb = 0_u64;
    loop {
        // The kernel keeps the high-water mark: what is missed is at most what came in the last millisecond.
        let text = std::fs::read_to_string(&status_file).unwrap_or_default();
        let mark = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        kb = kb.max(
            mark.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
                .unwrap_or(0),
        );
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            assert!(status.success() && kb > 0, "{command:?}: {status}, {kb} kB");
            return kb as f64 / 1024.0;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// In milliseconds.
pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The middle value, in milliseconds.
pub(super) fn median_ms(times: &[Duration]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    match sorted.len() {
        0 => panic!("no measurements"),
        n if n % 2 == 1 => ms(sorted[n / 2]),
        n => (ms(sorted[n / 2 - 1]) + ms(sorted[n / 2])) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_or_the_mean_of_the_two() {
        let of = |list: &[u64]| {
            median_ms(
                &list
                    .iter()
                    .map(|&ms| Duration::from_millis(ms))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(of(&[9, 1, 5]), 5.0);
        assert_eq!(of(&[9, 1, 5, 6]), 5.5);
    }
}
