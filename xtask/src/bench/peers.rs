//! The peers, Podman and Docker, in their own root beside the host (`peers/setup` makes it, `peers/peer` enters it).
//!
//! Their state is on a file system made for this run, as ours is (`fresh`), and their run-time state on the tmpfs that is
//! their /run; the Docker daemon is started for this run and ended by its pid. Entering their mount namespace costs a process start that is no fault of theirs: it is measured and
//! taken off.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coracle_tests::{BUSYBOX, busybox_archive};
use tempfile::TempDir;

use super::fresh;
use super::measure::{median_ms, time};
use crate::workspace;

const NAMESPACE: &str = "--mount=/run/coracle-peers/mnt";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The cgroups under which the peers put theirs, and which they leave behind.
const CGROUPS: [&str; 2] = ["libpod_parent", "docker"];

/// Both peers with the busybox image in each.
pub(super) struct Peers {
    folder: TempDir,
    inside: PathBuf,
    /// The mounted file system, and the folder for run-time state, as the peers see them.
    disk: PathBuf,
    run: PathBuf,
    daemon: Child,
    /// What entering the namespace costs, in milliseconds.
    entering: f64,
    /// Cgroups of theirs that were there before and are not ours to remove.
    cgroups: Vec<PathBuf>,
}

/// One of them.
#[derive(Clone, Copy)]
pub(super) enum Peer {
    Podman,
    Docker,
}

impl Peer {
    /// Both.
    pub(super) const ALL: [Peer; 2] = [Peer::Podman, Peer::Docker];

    /// As it stands in the names of figures.
    pub(super) fn name(self) -> &'static str {
        match self {
            Peer::Podman => "podman",
            Peer::Docker => "docker",
        }
    }
}

impl Peers {
    /// Enters the peers' root and prepares both; the error is the reason why there is nothing to compare with.
    pub(super) fn find() -> Result<Peers, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("the peers need root".to_owned());
        }
        let root =
            std::env::var_os("PEERS_ROOT").unwrap_or_else(|| "/var/lib/coracle-peers".into());
        let root = PathBuf::from(root);
        if !root.join("usr/bin/podman").exists() || !root.join("usr/sbin/dockerd").exists() {
            return Err(format!(
                "peers are not set up in {} (peers/setup does it)",
                root.display()
            ));
        }
        let script = std::env::var_os("CORACLE_PEER")
            .map_or_else(|| workspace().join("../shared/peers/peer"), PathBuf::from);
        let entered = Command::new(&script).arg("true").status();
        if !entered.as_ref().is_ok_and(|status| status.success()) {
            return Err(format!(
                "peers cannot be entered by {}: {entered:?}",
                script.display()
            ));
        }
        let folder = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(root.join("var/tmp"))
            .map_err(|error| format!("peers have no folder for their state: {error}"))?;
        let name = folder.path().file_name().expect("it has a name");
        let inside = Path::new("/var/tmp").join(name);
        let times: Vec<Duration> = (0..20).map(|_| time(enter("true").arg("x"))).collect();
        let entering = median_ms(&times);
        let cgroups = cgroups();
        let (disk, run) = (inside.join("disk"), Path::new("/run").join(name));
        let image = fresh::image(folder.path());
        std::fs::create_dir(folder.path().join("disk"))
            .map_err(|error| format!("peers have no folder for their disk: {error}"))?;
        let image = inside.join(image.file_name().expect("it has a name"));
        time(enter("mount").args(["-o", "loop"]).arg(image).arg(&disk));
        time(enter("mkdir").arg(&run));
        let daemon = start_daemon(&disk, &run, folder.path())?;
        let mut peers = Peers {
            folder,
            inside,
            disk,
            run,
            daemon,
            entering,
            cgroups,
        };
        peers.await_daemon()?;
        let archive = busybox_archive(peers.folder.path());
        let archive = peers
            .inside
            .join(archive.path.file_name().expect("it has a name"));
        for peer in Peer::ALL {
            time(peers.command(peer).arg("load").arg("-i").arg(&archive));
        }
        Ok(peers)
    }

    /// The peer's client with its options for this run; arguments follow.
    pub(super) fn command(&self, peer: Peer) -> Command {
        let mut command;
        match peer {
            Peer::Podman => {
                command = enter("podman");
                command
                    .arg("--root")
                    .arg(self.disk.join("podman"))
                    .arg("--runroot")
                    .arg(self.run.join("podman"))
                    .args(["--cgroup-manager", "cgroupfs", "--log-level", "fatal"]);
            }
            Peer::Docker => {
                command = enter("docker");
                command
                    .arg("-H")
                    .arg(format!("unix://{}", self.socket().display()));
            }
        }
        command
    }

    /// What the peer takes for `args`, without what entering its root costs; the median of `times`.
    pub(super) fn median(&self, times: &[Duration]) -> f64 {
        (median_ms(times) - self.entering).max(0.0)
    }

    /// The image's name as both know it.
    pub(super) fn image(&self) -> &'static str {
        BUSYBOX
    }

    /// The folder of this run: outside, and as the peers see it.
    pub(super) fn folders(&self) -> (&Path, &Path) {
        (self.folder.path(), &self.inside)
    }

    fn socket(&self) -> PathBuf {
        self.run.join("docker.sock")
    }

    fn await_daemon(&mut self) -> Result<(), String> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let mut ask = self.command(Peer::Docker);
            ask.arg("version")
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            if ask.status().is_ok_and(|status| status.success()) {
                return Ok(());
            }
            let log = || {
                std::fs::read_to_string(self.folder.path().join("dockerd.log")).unwrap_or_default()
            };
            if let Ok(Some(status)) = self.daemon.try_wait() {
                return Err(format!(
                    "dockerd of the peers ended with {status}: {}",
                    log()
                ));
            }
            if Instant::now() > end {
                return Err(format!("dockerd of the peers does not answer: {}", log()));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let mut remove = self.command(Peer::Podman);
        remove.args(["rm", "--all", "--force", "--time", "0"]);
        remove.stdout(Stdio::null()).stderr(Stdio::null());
        if let Err(error) = remove.status() {
            eprintln!("podman's containers could not be removed: {error}");
        }
        if let Some(pid) = rustix::process::Pid::from_raw(self.daemon.id() as i32) {
            // It may have ended already, which the wait below settles.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if let Err(error) = self.daemon.wait() {
            eprintln!("dockerd cannot be waited for: {error}");
        }
        for cgroup in cgroups() {
            if !self.cgroups.contains(&cgroup)
                && let Err(error) = std::fs::remove_dir(&cgroup)
            {
                eprintln!("{} stays: {error}", cgroup.display());
            }
        }
        // Podman leaves its store's overlay mounted on itself.
        let mut unmount = enter("umount");
        unmount.arg(self.disk.join("podman/overlay"));
        unmount.stdout(Stdio::null()).stderr(Stdio::null());
        if let Err(error) = unmount.status() {
            eprintln!("podman's store could not be unmounted: {error}");
        }
        for (program, options, path) in [("umount", "-l", &self.disk), ("rm", "-rf", &self.run)] {
            match enter(program).arg(options).arg(path).status() {
                Ok(status) if status.success() => {}
                failed => eprintln!("peers: {program} {}: {failed:?}", path.display()),
            }
        }
    }
}

/// The peers' own cgroups in all hierarchies, each after those inside it.
fn cgroups() -> Vec<PathBuf> {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten();
    let mut found = Vec::new();
    for hierarchy in hierarchies.flatten().map(|entry| entry.path()) {
        for name in CGROUPS {
            folders(&hierarchy.join(name), &mut found);
        }
    }
    found
}

fn folders(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders(&entry.path(), found);
        }
    }
    found.push(folder.to_owned());
}

/// A program in the peers' mount namespace, with the environment that the `peer` script gives.
pub(super) fn enter(program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(NAMESPACE)
        .arg("--")
        .arg(program)
        .env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1")
        .env("HOME", "/root")
        .env("PATH", PATH);
    command
}

fn start_daemon(disk: &Path, run: &Path, outside: &Path) -> Result<Child, String> {
    let log = std::fs::File::create(outside.join("dockerd.log"))
        .map_err(|error| format!("peers have no place for dockerd's log: {error}"))?;
    let stdout = log.try_clone().map_err(|error| format!("peers: {error}"))?;
    enter("dockerd")
        .arg("--data-root")
        .arg(disk.join("docker"))
        .arg("--exec-root")
        .arg(run.join("docker"))
        .arg("--pidfile")
        .arg(run.join("docker.pid"))
        .arg("-H")
        .arg(format!("unix://{}", run.join("docker.sock").display()))
        .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(log)
        .spawn()
        .map_err(|error| format!("peers: dockerd cannot be started: {error}"))
}
