//! Column 10: root inside is nobody in particular outside, and has few rights.

use super::Checks;
use super::subject::Subject;

/// Capabilities that no default may have: each leads to the host. Numbers of linux/capability.h.
const DANGEROUS: [(u32, &str); 11] = [
    (2, "DAC_READ_SEARCH"),
    (12, "NET_ADMIN"),
    (16, "SYS_MODULE"),
    (17, "SYS_RAWIO"),
    (19, "SYS_PTRACE"),
    (21, "SYS_ADMIN"),
    (22, "SYS_BOOT"),
    (25, "SYS_TIME"),
    (33, "MAC_ADMIN"),
    (38, "PERFMON"),
    (39, "BPF"),
];

/// Makes all observations.
pub(super) fn test(subject: &Subject, checks: &mut Checks) {
    outside(subject, checks);
    inside(subject, checks);
}

/// Looks at the processes of two containers from the host.
fn outside(subject: &Subject, checks: &mut Checks) {
    const UNPRIVILEGED: &str = "root inside is an unprivileged id outside";
    const DIFFERENT: &str = "each container has other ids";
    let started = subject
        .start(&[], &["sleep", "60"])
        .and_then(|one| Ok((one, subject.start(&[], &["sleep", "60"])?)));
    let (one, two) = match started {
        Ok(names) => names,
        Err(problem) => return checks.add(UNPRIVILEGED, false, problem),
    };
    let seen =
        seen_outside(subject, &one).and_then(|first| Ok((first, seen_outside(subject, &two)?)));
    subject.remove(&one);
    subject.remove(&two);
    match seen {
        Ok((first, second)) => {
            checks.add(
                UNPRIVILEGED,
                first.uid != 0 && second.uid != 0,
                format!("uid {} and {}", first.uid, second.uid),
            );
            let apart = first
                .ranges
                .iter()
                .all(|a| second.ranges.iter().all(|b| a.1 <= b.0 || b.1 <= a.0));
            checks.add(
                DIFFERENT,
                apart,
                format!("ids {:?} and {:?}", first.ranges, second.ranges),
            );
        }
        Err(problem) => checks.add(UNPRIVILEGED, false, problem),
    }
}

/// A container's first process as the host sees it.
struct Seen {
    uid: u32,
    /// Ids of the host: from, to (exclusive).
    ranges: Vec<(u64, u64)>,
}

fn seen_outside(subject: &Subject, container: &str) -> Result<Seen, String> {
    let pid = subject.inspect(container, "{{.State.Pid}}")?;
    let read = |name: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/{name}"))
            .map_err(|error| format!("/proc/{pid}/{name}: {error}"))
    };
    let status = read("status")?;
    let uid = status.lines().find_map(|line| {
        line.strip_prefix("Uid:")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    Ok(Seen {
        uid: uid.ok_or("the status of its process has no uid")?,
        ranges: ranges(&read("uid_map")?),
    })
}

/// The ranges of ids outside in a uid_map.
fn ranges(map: &str) -> Vec<(u64, u64)> {
    let range = |line: &str| {
        let numbers: Vec<u64> = line
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [_, outside, count] = numbers[..] else {
            return None;
        };
        Some((outside, outside + count))
    };
    map.lines().filter_map(range).collect()
}

/// Reads what the program inside says of itself and of what it tried.
fn inside(subject: &Subject, checks: &mut Checks) {
    const LIMITED: &str = "few capabilities";
    let text = match subject
        .run(&[], &["privileges"])
        .and_then(|answer| answer.output())
    {
        Ok(text) => text,
        Err(problem) => return checks.add(LIMITED, false, problem),
    };
    let field = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.split_whitespace().next())
            .unwrap_or_default()
            .to_owned()
    };
    let bounding = u64::from_str_radix(&field("CapBnd:"), 16).unwrap_or(u64::MAX);
    let held: Vec<_> = DANGEROUS
        .iter()
        .filter(|(number, _)| bounding & (1 << number) != 0)
        .map(|(_, name)| *name)
        .collect();
    checks.add(
        LIMITED,
        held.is_empty(),
        format!("bounding set {bounding:x} {}", held.join(" ")),
    );
    checks.add(
        "a system call filter",
        field("Seccomp:") == "2",
        format!("Seccomp is {}", field("Seccomp:")),
    );
    checks.add(
        "no new privileges",
        field("NoNewPrivs:") == "1",
        format!("NoNewPrivs is {}", field("NoNewPrivs:")),
    );
    checks.add(
        "root inside",
        field("Uid:") == "0",
        format!("uid {} inside", field("Uid:")),
    );
    let tries: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("Try: "))
        .collect();
    let allowed: Vec<_> = tries
        .iter()
        .filter(|line| line.ends_with(": ALLOWED"))
        .copied()
        .collect();
    let evidence = if allowed.is_empty() {
        format!("{} tried, all refused", tries.len())
    } else {
        allowed.join(", ")
    };
    checks.add(
        "what would harm the host is refused",
        allowed.is_empty() && tries.len() >= 9,
        evidence,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_map() {
        assert_eq!(
            ranges("         0     100000      65536\n     65536 300000 1\n"),
            [(100_000, 165_536), (300_000, 300_001)]
        );
    }
}
