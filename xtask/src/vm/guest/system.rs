//! What a running system has around its programs: mounts, cgroups with a user's delegated part, a network, disks.

use std::ffi::CStr;
use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use rustix::fs::XattrFlags;
use rustix::mount::MountFlags;

use super::{attach, attach_with, make_dir};
use crate::vm::userland::{DISKS, USER};
use crate::vm::{Problem, Result, passes};

const CGROUPS: &str = "/sys/fs/cgroup";

/// Where root's jobs are: below a slice, as a login is.
pub(super) const ROOTS_CGROUP: &str = "/sys/fs/cgroup/user.slice/user-0.slice/session-1.scope";

/// What systemd would hand to the user, and his jobs' place in it.
const DELEGATED: &str = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service";
const APPLICATIONS: &str = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice";

/// The user's run-time folder.
pub(super) const USERS_RUN: &str = "/run/user/1000";

/// The device of the disk that has this serial number.
pub(super) fn disk(serial: &str) -> Result<String> {
    let disks = fs::read_dir("/sys/block").problem(|| "cannot read /sys/block".to_owned())?;
    disks
        .flatten()
        .find(|disk| {
            fs::read_to_string(disk.path().join("serial")).is_ok_and(|text| text.trim() == serial)
        })
        .map(|disk| format!("/dev/{}", disk.file_name().display()))
        .ok_or_else(|| format!("the machine has no disk {serial}"))
}

/// Brings everything up that the first job needs.
pub(super) fn bring_up() -> Result<()> {
    let own = MountFlags::NOSUID | MountFlags::NODEV;
    make_dir("/dev/pts", 0o755)?;
    make_dir("/dev/shm", 0o1777)?;
    attach(
        "devpts",
        "/dev/pts",
        "devpts",
        c"mode=620,gid=5,ptmxmode=666",
    )?;
    attach_with("tmpfs", "/dev/shm", "tmpfs", own, c"mode=1777")?;
    attach_with("tmpfs", "/run", "tmpfs", own, c"mode=755")?;
    attach_with("tmpfs", "/tmp", "tmpfs", own, c"mode=1777")?;
    let read_only = MountFlags::RDONLY;
    attach_with(
        &disk("modules")?,
        "/usr/lib/modules",
        "erofs",
        read_only,
        c"",
    )?;
    attach_with(&disk("payload")?, "/payload", "erofs", read_only, c"")?;
    make_dir(USERS_RUN, 0o700)?;
    for path in [USERS_RUN, "/home/user"] {
        owned_by_user(Path::new(path))?;
    }
    rustix::system::sethostname(b"coracle-vm")
        .problem(|| "cannot set the host's name".to_owned())?;
    // Devices that udev would have made appear with their modules.
    passes(Command::new("/sbin/modprobe").args(["-a", "-q", "loop", "fuse", "tun"]))?;
    passes(Command::new("/sbin/ip").args(["link", "set", "lo", "up"]))?;
    cgroups()
}

/// Mounts the disks; not before the first job, because Btrfs alone measures its checksums for a second.
pub(super) fn mount_disks() -> Result<()> {
    let options: [&CStr; 3] = [c"prjquota", c"prjquota,noinit_itable", c""];
    for (kind, options) in DISKS.iter().zip(options) {
        let point = format!("/disks/{kind}");
        attach(&disk(kind)?, &point, kind, options)?;
        make_dir(&point, 0o1777)?;
    }
    Ok(())
}

/// The v2 hierarchy alone, every controller at hand everywhere.
fn cgroups() -> Result<()> {
    let kept = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = c"nsdelegate,memory_recursiveprot";
    attach_with("cgroup2", CGROUPS, "cgroup2", kept, options)?;
    make_dir("/sys/fs/cgroup/init.scope", 0o755)?;
    let into = "/sys/fs/cgroup/init.scope/cgroup.procs";
    for pid in ["1".to_owned(), std::process::id().to_string()] {
        fs::write(into, &pid).problem(|| format!("cannot write {pid} to {into}"))?;
    }
    let applications = format!("{APPLICATIONS}/none");
    for leaf in [ROOTS_CGROUP, applications.as_str()] {
        make_dir(leaf, 0o755)?;
        let above: Vec<&Path> = Path::new(leaf).ancestors().skip(1).collect();
        for cgroup in above
            .iter()
            .rev()
            .filter(|cgroup| cgroup.starts_with(CGROUPS))
        {
            delegate_controllers(cgroup)?;
        }
    }
    for cgroup in [DELEGATED, APPLICATIONS] {
        hand_over(cgroup)?;
    }
    mark(DELEGATED)
}

/// Makes the scope of one of the user's jobs, as `systemd-run --user --scope -p Delegate=yes` would: a new one for each,
/// because what an engine has divided takes no further processes.
pub(super) fn users_scope(number: usize) -> Result<String> {
    let scope = format!("{APPLICATIONS}/tests-{number}.scope");
    make_dir(&scope, 0o755)?;
    hand_over(&scope)?;
    mark(&scope)?;
    Ok(scope)
}

fn hand_over(cgroup: &str) -> Result<()> {
    owned_by_user(Path::new(cgroup))?;
    for file in ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
        owned_by_user(&Path::new(cgroup).join(file))?;
    }
    Ok(())
}

/// The mark by which systemd says that it keeps out of what is below.
fn mark(cgroup: &str) -> Result<()> {
    rustix::fs::setxattr(cgroup, "user.delegate", b"1", XattrFlags::empty())
        .problem(|| format!("cannot mark {cgroup} as delegated"))
}

fn delegate_controllers(cgroup: &Path) -> Result<()> {
    let (from, into) = (
        cgroup.join("cgroup.controllers"),
        cgroup.join("cgroup.subtree_control"),
    );
    let list = fs::read_to_string(&from).problem(|| format!("cannot read {}", from.display()))?;
    for controller in list.split_whitespace() {
        fs::write(&into, format!("+{controller}"))
            .problem(|| format!("cannot write +{controller} to {}", into.display()))?;
    }
    Ok(())
}

fn owned_by_user(path: &Path) -> Result<()> {
    chown(path, Some(USER), Some(USER)).problem(|| format!("cannot chown {}", path.display()))
}
