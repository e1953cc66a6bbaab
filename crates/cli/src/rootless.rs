//! An ordinary user's command becomes root of a user namespace, in place, before the engine opens.
//!
//! All containers of one user should be under one such namespace: a command that acts on a container must have rights
//! over the container's own. So the first command makes the namespace and a later one joins that of a container's
//! monitor, if one lives. There is no process whose only job is to keep it.
//!
//! The user's own id is root in it; subordinate ids (`/etc/subuid`, subuid(5)) follow from 1 on, mapped by the
//! setuid helpers newuidmap(1) and newgidmap(1). Without them only the one id is mapped.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use coracle_linux::{namespace, process};
use rustix::fd::AsFd;
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountPropagationFlags;

use crate::error::Error;

/// The name under which this binary runs the setuid helpers on the process that started it.
pub(crate) const MAPPER: &str = "coracle-idmap";

/// One line of /etc/subuid or /etc/subgid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u32,
    count: u32,
}

/// Whether this process is in another user namespace than the host's first: then ids and devices are limited.
pub(crate) fn is_confined() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"]
}

/// Makes this process root of a user namespace that holds this user's containers. Nothing to do for root.
pub(crate) fn enter(run_root: &Path) -> Result<(), Error> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    match monitor_namespace(run_root) {
        Some(users) => namespace::join(users.as_fd(), namespace::USER)
            .map_err(failed("joining this user's namespace"))?,
        None => make()?,
    }
    process::become_root().map_err(failed("becoming root of this user's namespace"))?;
    namespace::unshare(namespace::MOUNT).map_err(failed("making a mount namespace"))?;
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .map_err(failed("keeping mounts from the host"))
}

fn failed(doing: &'static str) -> impl Fn(rustix::io::Errno) -> Error {
    move |error| {
        let hint = match error {
            rustix::io::Errno::NOSPC => {
                "user.max_user_namespaces is used up or 0: raise it with sysctl, or run as root"
            }
            _ => {
                "user namespaces may be closed to ordinary users on this host (kernel.unprivileged_userns_clone, \
                  AppArmor's restriction, or seccomp): open them, or run as root"
            }
        };
        Error::Rootless {
            doing,
            source: error,
            hint,
        }
    }
}

/// The user namespace of a live monitor of this user.
fn monitor_namespace(run_root: &Path) -> Option<rustix::fd::OwnedFd> {
    let runs = std::fs::read_dir(run_root.join("containers")).ok()?;
    for run in runs.flatten() {
        let text = std::fs::read(run.path().join("run.json")).unwrap_or_default();
        let Ok(document) = serde_json::from_slice::<serde_json::Value>(&text) else {
            continue;
        };
        let Some(pid) = document["monitor"].as_i64().filter(|pid| *pid > 0) else {
            continue;
        };
        let file = format!("/proc/{pid}/ns/user");
        let Ok(users) = rustix::fs::open(&file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        else {
            continue;
        };
        // A reused pid leads to the namespace of some other process of this user: only one below the host's own will do.
        let own = rustix::fs::stat("/proc/self/ns/user").ok()?;
        if rustix::fs::fstat(&users).is_ok_and(|other| other.st_ino != own.st_ino) {
            return Some(users);
        }
    }
    None
}

fn make() -> Result<(), Error> {
    let (uid, gid) = (
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    let name = user_name(uid);
    let uids = ranges("/etc/subuid", &name, uid);
    let gids = ranges("/etc/subgid", &name, uid);
    let helpers = ["/usr/bin/newuidmap", "/usr/bin/newgidmap"]
        .iter()
        .all(|helper| Path::new(helper).exists());
    if uids.is_empty() || gids.is_empty() || !helpers {
        namespace::unshare(namespace::USER).map_err(failed("making a user namespace"))?;
        let write = |file: &str, text: String| {
            std::fs::write(file, text).map_err(Error::file("write", file))
        };
        write("/proc/self/setgroups", "deny".into())?;
        write("/proc/self/uid_map", format!("0 {uid} 1\n"))?;
        return write("/proc/self/gid_map", format!("0 {gid} 1\n"));
    }
    let mut mapper = Command::new("/proc/self/exe")
        .arg0(MAPPER)
        .arg(rustix::process::getpid().as_raw_nonzero().to_string())
        .arg(map(uid, &uids))
        .arg(map(gid, &gids))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::file("run", "/proc/self/exe"))?;
    namespace::unshare(namespace::USER).map_err(failed("making a user namespace"))?;
    // From here on the helper may map: it waits for this byte.
    if let Some(mut input) = mapper.stdin.take() {
        input
            .write_all(b"1")
            .map_err(Error::file("write to", MAPPER))?;
    }
    let output = mapper
        .wait_with_output()
        .map_err(Error::file("wait for", MAPPER))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::usage(
            format!(
                "newuidmap or newgidmap refused: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ),
            "check this user's lines in /etc/subuid and /etc/subgid",
        )),
    }
}

/// The mapper's whole life: waits for its parent to be in the new namespace, then maps it from outside.
pub(crate) fn mapper_main(arguments: &[String]) -> u8 {
    let [pid, uids, gids] = arguments else {
        return 125;
    };
    let mut byte = [0];
    if std::io::stdin().read_exact(&mut byte).is_err() {
        return 125;
    }
    for (helper, map) in [("/usr/bin/newuidmap", uids), ("/usr/bin/newgidmap", gids)] {
        let status = Command::new(helper).arg(pid).args(map.split(' ')).status();
        if !status.is_ok_and(|status| status.success()) {
            return 125;
        }
    }
    0
}

fn map(own: u32, ranges: &[Range]) -> String {
    let mut text = format!("0 {own} 1");
    let mut inside: u32 = 1;
    for range in ranges {
        let Some(next) = inside.checked_add(range.count) else {
            // There are no more ids inside than this.
            break;
        };
        text.push_str(&format!(" {inside} {} {}", range.first, range.count));
        inside = next;
    }
    text
}

fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = passwd
        .lines()
        .find(|line| line.split(':').nth(2) == Some(&uid.to_string()));
    line.and_then(|line| line.split(':').next())
        .unwrap_or_default()
        .to_owned()
}

fn ranges(file: &str, name: &str, uid: u32) -> Vec<Range> {
    parse(
        &std::fs::read_to_string(file).unwrap_or_default(),
        name,
        uid,
    )
}

/// Lines begin with a user's name or number (subuid(5)).
fn parse(text: &str, name: &str, uid: u32) -> Vec<Range> {
    let line = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        if !(owner == uid.to_string() || (!name.is_empty() && owner == name)) {
            return None;
        }
        Some(Range {
            first: fields.next()?.parse().ok()?,
            count: fields.next()?.parse().ok()?,
        })
    };
    text.lines()
        .filter_map(line)
        .filter(|range| range.count > 0)
        .collect()
}

/// See [`crate::fuzzing`].
///
/// # Panics
/// Where there are more ranges than lines, or an empty one.
#[cfg(feature = "fuzzing")]
pub(crate) fn ranges_for_fuzzing(text: &str) {
    let ranges = parse(text, "ann", 1000);
    assert!(ranges.len() <= text.lines().count());
    assert!(ranges.iter().all(|range| range.count > 0));
    let _: String = map(1000, &ranges);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ids_are_found_by_name_and_number() {
        let text = "root:1:2\nann:100000:65536\n1000:300000:10\nbroken\nann:x:1\nann:5:0\n";
        assert_eq!(
            parse(text, "ann", 1000),
            [
                Range {
                    first: 100_000,
                    count: 65_536
                },
                Range {
                    first: 300_000,
                    count: 10
                }
            ]
        );
        assert!(parse(text, "", 7).is_empty());
    }

    #[test]
    fn ids_inside_follow_each_other() {
        let ranges = [
            Range {
                first: 100_000,
                count: 65_536,
            },
            Range {
                first: 300_000,
                count: 10,
            },
        ];
        assert_eq!(
            map(1000, &ranges),
            "0 1000 1 1 100000 65536 65537 300000 10"
        );
        let all = [Range {
            first: 1,
            count: u32::MAX,
        }];
        assert_eq!(map(1000, &all), "0 1000 1");
    }
}
