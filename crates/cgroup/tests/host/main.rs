//! Limits against the kernel of this host: each is set, pushed against, and must hold.
//!
//! All of it runs as the host is, and again in a mount namespace of its own where the v2, the v1 or all hierarchies are
//! covered, so that a hybrid host proves every layout; `cargo xtask vm cgroup/host` runs it on kernels with all v2 controllers.
//! Everything is made below `coracle-test-PID` and removed, also on failure.

mod creation;
mod layouts;
mod life;
mod limits;
mod memory;

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coracle_cgroup::{Cgroup, CgroupPath, Controller, DeviceRules, Layout, Limits, Manager};

const MIB: i64 = 1 << 20;

/// Which hierarchies the surrounding test covered: `v1`, `v2`, `none`; unset in the first run.
const COVERED: &str = "CORACLE_TEST_COVERED";

/// A cgroup that goes away with the test.
struct Scratch {
    manager: Manager,
    cgroup: Cgroup,
    children: Vec<Child>,
}

impl Scratch {
    /// Makes it, or says why this host cannot and returns `None`.
    fn new(test: &str, needs: &[Controller], limits: &Limits) -> Option<Scratch> {
        let manager = manager();
        if let Layout::Unavailable { reason, .. } = manager.layout() {
            eprintln!("SKIP: {test}: {reason}");
            return None;
        }
        if let Some(missing) = needs
            .iter()
            .find(|controller| !manager.supports(**controller))
        {
            eprintln!(
                "SKIP: {test}: no controller {missing} here ({:?})",
                manager.layout()
            );
            return None;
        }
        let path = CgroupPath::new(test).unwrap();
        let cgroup = manager
            .create(&path, limits, &DeviceRules::unrestricted())
            .unwrap();
        Some(Scratch {
            manager,
            cgroup,
            children: Vec::new(),
        })
    }

    /// Runs a shell script that joins first, by the way a child of ours does: "0" to `tasks`.
    fn spawn(&mut self, script: &str) -> &mut Child {
        let child = spawn_in(&self.cgroup, script);
        self.children.push(child);
        self.children.last_mut().unwrap()
    }

    fn wait(&mut self) -> std::process::ExitStatus {
        self.children.pop().unwrap().wait().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let killed = self.cgroup.kill(Duration::from_secs(10));
        for child in &mut self.children {
            // It was killed with the cgroup, or never joined it; either way it must be reaped.
            let _ = child.kill();
            let _ = child.wait();
        }
        let removed = self.cgroup.remove();
        let pruned = self.manager.prune();
        if !std::thread::panicking() {
            killed.unwrap();
            removed.unwrap();
            pruned.unwrap();
        }
    }
}

fn manager() -> Manager {
    Manager::open(&format!("coracle-test-{}", std::process::id())).unwrap()
}

fn spawn_in(cgroup: &Cgroup, script: &str) -> Child {
    let mut join = String::new();
    for directory in cgroup.directories() {
        let file = if directory.join("tasks").exists() {
            "tasks"
        } else {
            "cgroup.procs"
        };
        join += &format!("echo 0 > '{}' && ", directory.join(file).display());
    }
    Command::new("/bin/sh")
        .args(["-c", &format!("{join} echo joined && {{ {script}\n}}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the child says that it is inside.
fn joined(child: &mut Child) {
    let mut line = [0u8; 7];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut line)
        .unwrap();
    assert_eq!(&line, b"joined\n");
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "{what} did not happen within 10 s"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn readable(fd: &rustix::fd::OwnedFd, within: Duration) -> bool {
    let timeout = rustix::event::Timespec::try_from(within).unwrap();
    let mut fds = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&timeout)).unwrap() == 1
}
