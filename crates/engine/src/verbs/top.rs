//! `top`: the processes of a container, read from /proc by the ids that its cgroup names.

use coracle_oci::ContainerId;

use super::stop::running;
use crate::Engine;
use crate::answer::ProcessInfo;
use crate::error::Result;
use crate::state;

impl Engine {
    /// The processes of a running container.
    ///
    /// # Errors
    /// [`Error::WrongState`] when it does not run.
    pub fn top(&self, id: &ContainerId) -> Result<Vec<ProcessInfo>> {
        let record = self.existing(id)?;
        let observed = self.observe(&record)?;
        let run = running(&record, &observed, "list the processes of")?;
        let mut pids: Vec<i32> = match self.cgroup_of(run)?.processes() {
            Ok(pids) => pids.iter().map(|pid| pid.as_raw_nonzero().get()).collect(),
            Err(coracle_cgroup::Error::Unavailable { .. }) => in_pid_namespace(run.pid),
            Err(error) => return Err(error.into()),
        };
        if pids.is_empty() {
            pids.push(run.pid);
        }
        table(pids)
    }
}

/// What /proc says of these processes, by pid; without those that have ended.
pub(crate) fn table(mut pids: Vec<i32>) -> Result<Vec<ProcessInfo>> {
    pids.sort_unstable();
    let boot = state::now() - uptime_nanos()?;
    Ok(pids
        .into_iter()
        .filter_map(|pid| process(pid, boot))
        .collect())
}

/// Where no cgroup can be made (an ordinary user on cgroup v1): all that share the pid namespace with the first process,
/// and only that one if it has none of its own.
fn in_pid_namespace(first: i32) -> Vec<i32> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = namespace(&first.to_string());
    if wanted.is_none() || wanted == namespace("self") {
        return Vec::new();
    }
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let pid = name.parse().ok()?;
            (namespace(&name) == wanted).then_some(pid)
        })
        .collect()
}

fn uptime_nanos() -> Result<i128> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Ok(i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec))
}

/// `None` when it ended in between.
fn process(pid: i32, boot: i128) -> Option<ProcessInfo> {
    let directory = std::path::Path::new("/proc").join(pid.to_string());
    let stat = std::fs::read_to_string(directory.join("stat")).ok()?;
    let arguments = std::fs::read(directory.join("cmdline")).ok()?;
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&directory).ok()?);
    parse(pid, owner, &stat, &arguments, boot, state::now())
}

const TICK: i128 = 10_000_000;

pub(crate) fn parse(
    pid: i32,
    uid: u32,
    stat: &str,
    arguments: &[u8],
    boot: i128,
    now: i128,
) -> Option<ProcessInfo> {
    // The name may hold spaces and parentheses: the last one ends it (proc_pid_stat(5)).
    let (head, tail) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let number = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<i64>().ok())
    };
    let ticks = number(11)?.max(0).unsigned_abs() + number(12)?.max(0).unsigned_abs();
    let started = boot + i128::from(number(19)?) * TICK;
    let tty = number(4)?;
    let command = match arguments {
        [] => format!("[{name}]"),
        arguments => String::from_utf8_lossy(arguments)
            .trim_end_matches('\0')
            .replace('\0', " "),
    };
    let life = (now - started).max(TICK);
    Some(ProcessInfo {
        uid,
        pid,
        ppid: i32::try_from(number(1)?).ok()?,
        ticks,
        started,
        tty: match tty {
            0 => "?".into(),
            tty if (tty >> 8) & 0xfff == 136 => format!("pts/{}", tty & 0xff),
            _ => "tty".into(),
        },
        command,
        cpu_percent: ticks as f64 * TICK as f64 * 100.0 / life as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_read() {
        let stat = "7 (a) b (c) S 1 7 7 34817 7 4194304 1 2 3 4 50 25 0 0 20 0 1 0 1000 0 0";
        let info = parse(7, 5, stat, b"", 0, 20_000_000_000).unwrap();
        assert_eq!((info.ppid, info.ticks, info.tty.as_str()), (1, 75, "pts/1"));
        assert_eq!(info.command, "[a) b (c]");
        assert_eq!(info.started, 10_000_000_000);
        assert!((info.cpu_percent - 7.5).abs() < 0.01);
        let named = parse(7, 5, stat, b"sleep\x0010\x00", 0, 20_000_000_000).unwrap();
        assert_eq!(named.command, "sleep 10");
    }
}
