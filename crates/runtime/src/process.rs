//! Questions about processes that the engine asks again and again: is it still the one that was started?

use coracle_linux::procfs::Proc;
use rustix::io::Errno;

/// The start time of a process in clock ticks after boot: with the pid, a name that is not reused.
///
/// # Errors
/// ENOENT or ESRCH when there is no such process; EINVAL when the kernel's text is not as documented in proc(5).
pub fn start_time(pid: i32) -> Result<u64, Errno> {
    let text = Proc::host()?.read(&format!("{pid}/stat"))?;
    parse(&text)
        .map(|(_, start_time)| start_time)
        .ok_or(Errno::INVAL)
}

/// A descriptor of the process that had this pid and start time; `None` when it is gone, or only a zombie is left.
///
/// # Errors
/// As pidfd_open(2) and [`is_alive`].
pub fn open(pid: i32, started: u64) -> Result<Option<std::os::fd::OwnedFd>, Errno> {
    let Some(number) = rustix::process::Pid::from_raw(pid) else {
        return Ok(None);
    };
    // First the descriptor, then the look: what is alive after the opening is what was opened.
    match rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()) {
        Ok(fd) => Ok(is_alive(pid, started)?.then_some(fd)),
        Err(Errno::SRCH) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the process that had this pid and start time is there and not a zombie.
///
/// # Errors
/// As [`start_time`], but for a process that is gone.
pub fn is_alive(pid: i32, started: u64) -> Result<bool, Errno> {
    match Proc::host()?.read(&format!("{pid}/stat")) {
        Ok(text) => {
            let (state, start_time) = parse(&text).ok_or(Errno::INVAL)?;
            Ok(start_time == started && !matches!(state, 'Z' | 'X' | 'x'))
        }
        Err(Errno::NOENT | Errno::SRCH) => Ok(false),
        Err(error) => Err(error),
    }
}

/// State and start time (field 22). The name, field 2, is in parentheses and may have anything in it.
pub(crate) fn parse(stat: &str) -> Option<(char, u64)> {
    let rest = stat.get(stat.rfind(')')? + 1..)?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Writes a process's oom_score_adj.
pub(crate) fn write_oom_score_adj(pid: i32, value: i32) -> Result<(), Errno> {
    Proc::host()?.write(&format!("{pid}/oom_score_adj"), &value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let stat = "7 (a) R 1 (b) c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 99 1";
        assert_eq!(parse(stat), Some(('S', 123_456)));
        assert_eq!(parse("7 (x"), None);
    }

    #[test]
    fn we_are_alive_and_a_later_process_of_our_pid_would_not_be_us() {
        let pid = std::process::id() as i32;
        let started = start_time(pid).expect("our own stat");
        assert!(is_alive(pid, started).expect("readable"));
        assert!(!is_alive(pid, started + 1).expect("readable"));
    }
}
