//! `top`.

use coracle_engine::answer::ProcessInfo;

use crate::door::Door;
use crate::error::Error;
use crate::output;
use crate::units;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Top {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl super::Verb for Top {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let processes = door.engine()?.top(&door.find(&self.container)?)?;
        output::print(&table(&processes, units::now()))?;
        Ok(0)
    }
}

fn table(processes: &[ProcessInfo], now: i128) -> String {
    let mut lines = vec!["UID\tPID\tPPID\tC\tSTIME\tTTY\tTIME\tCMD".to_owned()];
    for process in processes {
        // As ps: the hour on the first day, the day afterwards.
        let day = 24 * 3_600_000_000_000;
        let start = units::local_time(
            process.started,
            if now - process.started < day {
                "%H:%M"
            } else {
                "%b%d"
            },
        );
        lines.push(format!(
            "{}\t{}\t{}\t{:.0}\t{start}\t{}\t{}\t{}",
            process.uid,
            process.pid,
            process.ppid,
            process.cpu_percent.floor().clamp(0.0, 99.0),
            process.tty,
            units::cpu_time(process.ticks),
            // A process names itself as it likes; a tab or a line end would break the table.
            process.command.replace(|c: char| c.is_control(), " "),
        ));
    }
    output::align(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_one_line_whatever_it_calls_itself() {
        let process = ProcessInfo {
            uid: 100_000,
            pid: 7,
            ppid: 1,
            ticks: 6_100,
            started: 0,
            tty: "?".into(),
            command: "evil\n\tname".into(),
            cpu_percent: 12.7,
        };
        let text = table(&[process], i128::MAX / 2);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines[0],
            "UID       PID       PPID      C         STIME     TTY       TIME       CMD"
        );
        assert!(lines[1].starts_with("100000    7         1         12        "));
        assert!(lines[1].ends_with("?         00:01:01   evil  name"));
    }
}
