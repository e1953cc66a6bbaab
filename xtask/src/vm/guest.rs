//! Inside the machine: this program is its first process, and the worker that runs the jobs.
//!
//! As `/init` in the initial archive it loads the modules without which there are no disks, makes the root disk the root,
//! starts itself again as the worker, and from then on only reaps; when the worker is gone it turns the machine off. A
//! machine that goes without saying [`Event::Done`] has failed, whatever it said before.

mod jobs;
mod system;

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::Mode;
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{WaitOptions, chdir, chroot, wait};
use rustix::system::{RebootCommand, finit_module, reboot};

use super::initramfs::MODULES;
use super::{Problem, Result};

const WORKER: &str = "guest-worker";

/// Runs as what this process is inside a machine; `None` outside of one.
pub(crate) fn run_if_inside() -> Option<std::process::ExitCode> {
    let mut args = std::env::args();
    if args.next()? != "/init" {
        return None;
    }
    if args.next().as_deref() == Some(WORKER) {
        return Some(jobs::run());
    }
    if std::process::id() != 1 {
        return None;
    }
    if let Err(reason) = start() {
        eprintln!("coracle-vm: {reason}");
    }
    rustix::fs::sync();
    match reboot(RebootCommand::PowerOff) {
        Ok(()) => None,
        Err(error) => panic!("the machine cannot be turned off: {error}"),
    }
}

fn start() -> Result<()> {
    attach("devtmpfs", "/dev", "devtmpfs", c"")?;
    attach("proc", "/proc", "proc", c"")?;
    attach("sysfs", "/sys", "sysfs", c"")?;
    let mut modules: Vec<_> = fs::read_dir(MODULES)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .problem(|| format!("cannot read {MODULES}"))?;
    modules.sort();
    for module in &modules {
        let file = File::open(module).problem(|| format!("cannot open {}", module.display()))?;
        finit_module(&file, c"", 0).problem(|| format!("cannot load {}", module.display()))?;
    }
    let root = system::disk("root")?;
    // Project quotas are counted and enforced on this disk; its unwritten inode tables are zeroes already.
    attach(&root, "/new", "ext4", c"prjquota,noinit_itable")?;
    for folder in ["dev", "proc", "sys"] {
        let (from, to) = (format!("/{folder}"), format!("/new/{folder}"));
        mount_move(&from, &to).problem(|| format!("cannot move {from}"))?;
    }
    let become_root = || {
        chdir("/new")?;
        mount_move(".", "/")?;
        chroot(".")?;
        chdir("/")
    };
    become_root().problem(|| "cannot make the disk the root".to_owned())?;
    // The first file system is still there and this program in it, though no path leads to it any more.
    let worker = Command::new("/proc/self/exe")
        .arg0("/init")
        .arg(WORKER)
        .spawn()
        .problem(|| "cannot start the worker".to_owned())?;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if pid.as_raw_nonzero().get() as u32 == worker.id() => return Ok(()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("cannot wait: {error}")),
        }
    }
}

/// Mounts a file system.
fn attach(source: &str, target: &str, kind: &str, options: &CStr) -> Result<()> {
    attach_with(source, target, kind, MountFlags::empty(), options)
}

fn attach_with(
    source: &str,
    target: &str,
    kind: &str,
    flags: MountFlags,
    options: &CStr,
) -> Result<()> {
    mount(source, target, kind, flags, options)
        .problem(|| format!("cannot mount {kind} {source} on {target}"))
}

/// Makes a folder and what is above it.
fn make_dir(path: impl AsRef<Path>, mode: u32) -> Result<()> {
    let path = path.as_ref();
    fs::create_dir_all(path).problem(|| format!("cannot make {}", path.display()))?;
    rustix::fs::chmod(path, Mode::from_raw_mode(mode))
        .problem(|| format!("cannot change the mode of {}", path.display()))
}
