//! What the host has, read from the kernel; and the skips for what it has not.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::skip;

/// Whether the tests run as root; a visible skip where they do not.
pub fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("needs root");
    }
    root
}

/// Whether a program is installed; a visible skip where it is not.
pub fn has_program(name: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
        || Path::new("/usr/sbin").join(name).is_file();
    if !found {
        skip(&format!("{name} is not installed"));
    }
    found
}

/// Whether the one who runs the tests can limit by this controller (v2's name for it); a visible skip where not.
pub fn has_controller(name: &str) -> bool {
    let found = if rustix::process::geteuid().is_root() {
        let legacy = if name == "io" { "blkio" } else { name };
        let v1 = Path::new("/sys/fs/cgroup")
            .join(legacy)
            .join("cgroup.procs")
            .exists();
        v1 || lists_controller(Path::new("/sys/fs/cgroup"), name)
    } else {
        delegated_cgroup().is_some_and(|cgroup| lists_controller(&cgroup, name))
    };
    if !found {
        skip(&format!("no cgroup controller {name} for us"));
    }
    found
}

/// Whether processes can be frozen by the one who runs the tests: every cgroup of v2 can be.
pub fn has_freezer() -> bool {
    let found = if rustix::process::geteuid().is_root() {
        let root = Path::new("/sys/fs/cgroup");
        root.join("freezer/cgroup.procs").exists() || root.join("cgroup.controllers").exists()
    } else {
        delegated_cgroup().is_some()
    };
    if !found {
        skip("no cgroup that we may freeze");
    }
    found
}

fn lists_controller(cgroup: &Path, name: &str) -> bool {
    fs::read_to_string(cgroup.join("cgroup.controllers"))
        .is_ok_and(|list| list.split_whitespace().any(|controller| controller == name))
}

/// The highest v2 cgroup above us in which this user may make others.
fn delegated_cgroup() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = Path::new("/sys/fs/cgroup").join(path);
    let may_write = |cgroup: &&Path| {
        let file = cgroup.join("cgroup.subtree_control");
        rustix::fs::access(&file, rustix::fs::Access::WRITE_OK).is_ok()
    };
    own.ancestors()
        .take_while(may_write)
        .last()
        .map(Path::to_owned)
}

/// The mount points at or under `dir`, in this mount namespace.
pub fn mounts_under(dir: &Path) -> Vec<PathBuf> {
    let info = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    info.lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(dir))
        .collect()
}

/// Takes the mount off `point`, if there is one.
pub fn unmount(point: &Path) {
    match rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH) {
        // Not a mount, not there, or not root, who alone could have made one.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT | Errno::PERM) => {}
        Err(error) => panic!("{} cannot be unmounted: {error}", point.display()),
    }
}

/// The processes whose command line contains `path`, apart from this one.
pub fn processes_naming(path: &Path) -> Vec<u32> {
    let wanted = path.as_os_str().as_bytes();
    let own = std::process::id();
    fs::read_dir("/proc")
        .expect("/proc is mounted")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            // A process that ended between the two reads names nothing.
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.windows(wanted.len()).any(|window| window == wanted)
        })
        .collect()
}

/// The command line of a process, readable; empty when it is gone.
pub fn command_line(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line)
        .replace('\0', " ")
        .trim()
        .to_owned()
}

/// The inode of one of the caller's namespaces (`mnt`, `pid`, …), as in `pid:[4026531836]`.
pub fn namespace(kind: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{kind}"))
        .expect("/proc is mounted")
        .display()
        .to_string()
}

/// Whether the kernel calls itself this version or a later one: for features that nothing but the engine itself could probe.
pub fn kernel_at_least(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs");
    let mut numbers = release.split('.').map(|number| number.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (major, minor)
}
