//! Real consumers over our runtime: Podman, Docker and containerd of the peers' root (and of the host, where it has them), each with a
//! container in the foreground and detached, exec, terminal, logs, stop, limits, running out of memory, health and a port.

use std::fs;
use std::io::Read as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use coracle_tests::oci::{peer, peers};
use coracle_tests::{binary, busybox_rootfs, eventually, host, skip};
use tempfile::TempDir;

/// A folder that the consumer sees, with our runtime and a root file system in it.
struct Place {
    dir: TempDir,
    /// The folder as the consumer sees it.
    inside: PathBuf,
    /// What enters the peers' root; empty on the host itself.
    enter: Vec<PathBuf>,
}

/// What a command did; all of it is shown when a test fails.
#[derive(Debug)]
struct Done {
    code: i32,
    stdout: String,
    #[expect(dead_code, reason = "for failures")]
    stderr: String,
}

impl Place {
    /// In the peers' root. `None`, after a visible skip, where there is none.
    fn of_peers() -> Option<Place> {
        if !host::root() {
            skip("the peers' root needs root");
            return None;
        }
        let root = peers()?;
        let dir = folder(&root.join("opt"));
        let inside = Path::new("/").join(dir.path().strip_prefix(&root).expect("below the root"));
        Some(Place::filled(dir, inside, vec![peer()]))
    }

    /// On the host, if it has `program`.
    fn of_host(program: &str) -> Option<Place> {
        if !host::root() || !host::has_program(program) {
            skip(&format!(
                "{program} is not installed on this host, or this is not root"
            ));
            return None;
        }
        let dir = folder(Path::new("/var/tmp"));
        let inside = dir.path().to_owned();
        Some(Place::filled(dir, inside, Vec::new()))
    }

    fn filled(dir: TempDir, inside: PathBuf, enter: Vec<PathBuf>) -> Place {
        fs::copy(binary(), dir.path().join("coracle-oci")).expect("our runtime");
        let root = dir.path().join("rootfs");
        fs::create_dir(&root).expect("a folder");
        busybox_rootfs(&root);
        let archive = dir.path().join("image.tar");
        let status = Command::new("tar")
            .arg("-C")
            .arg(&root)
            .arg("-cf")
            .arg(&archive)
            .arg(".")
            .status();
        assert!(status.expect("tar runs").success());
        Place { dir, inside, enter }
    }

    fn path(&self, name: &str) -> String {
        self.inside.join(name).display().to_string()
    }

    fn command(&self, words: &[&str]) -> Command {
        let all: Vec<&std::ffi::OsStr> = self
            .enter
            .iter()
            .map(|path| path.as_os_str())
            .chain(["timeout", "60"].map(std::ffi::OsStr::new))
            .chain(words.iter().map(std::ffi::OsStr::new))
            .collect();
        let mut command = Command::new(all[0]);
        command.args(&all[1..]);
        command
    }

    fn run(&self, words: &[&str]) -> Done {
        let output = self
            .command(words)
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        Done {
            code: output.status.code().unwrap_or(255),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// A daemon, with its output in a file.
    fn daemon(&self, words: &[&str]) -> Daemon {
        let log = fs::File::create(self.dir.path().join("daemon.log")).expect("a file");
        let mut all: Vec<&std::ffi::OsStr> =
            self.enter.iter().map(|path| path.as_os_str()).collect();
        all.extend(words.iter().map(std::ffi::OsStr::new));
        let child = Command::new(all[0])
            .args(&all[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a copy"))
            .stderr(log)
            .spawn()
            .expect("the daemon runs");
        Daemon(child)
    }
}

fn folder(parent: &Path) -> TempDir {
    let dir = tempfile::Builder::new()
        .prefix("oci-")
        .rand_bytes(6)
        .tempdir_in(parent)
        .expect("a folder can be made");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    dir
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

impl Done {
    #[track_caller]
    fn code(self, code: i32) -> Done {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    #[track_caller]
    fn says(self, text: &str) -> Done {
        assert!(self.stdout.contains(text), "{text:?} is not in {self:?}");
        self
    }
}

/// What Podman's and Docker's command lines have in common.
fn a_day_of_work(client: &dyn Fn(&[&str]) -> Done) {
    let quiet = ["--network", "none"];
    let run = |options: &[&str], script: &str| {
        let mut words = vec!["run", "--rm"];
        words.extend(quiet);
        words.extend(options);
        words.extend(["bb", "sh", "-c", script]);
        client(&words)
    };
    run(&[], "id -u; echo $HOME; exit 5")
        .code(5)
        .says("0\n/root");
    run(&["-t"], "tty").code(0).says("/dev/pts/0");
    run(&["--user", "7:8"], "id -u; id -g").code(0).says("7\n8");
    run(
        &["--pids-limit", "31"],
        "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; true",
    )
    .code(0)
    .says("31");
    run(
        &["--memory", "20m", "--memory-swap", "20m"],
        "head -c 100m /dev/zero | tail > /dev/null",
    )
    .code(137);
    run(&["--read-only"], "touch /x").code(1);
    run(
        &["--privileged"],
        "mount -t tmpfs none /tmp && echo mounted",
    )
    .code(0)
    .says("mounted");
    client(&["run", "--rm", "--network", "none", "bb", "no-such-program"]).code(127);
    client(&["run", "--rm", "--network", "none", "bb", "/etc"]).code(126);

    let script = "trap 'exit 4' TERM; echo hello; sleep 300 & wait";
    client(&[
        "run",
        "-d",
        "--name",
        "work",
        "--network",
        "none",
        "--health-cmd",
        "true",
        "--health-interval",
        "1s",
        "bb",
        "sh",
        "-c",
        script,
    ])
    .code(0);
    eventually("it has said hello", Duration::from_secs(20), || {
        client(&["logs", "work"]).stdout.contains("hello")
    });
    client(&["exec", "work", "sh", "-c", "echo inside; exit 6"])
        .code(6)
        .says("inside");
    client(&["exec", "-t", "work", "tty"])
        .code(0)
        .says("/dev/pts/");
    client(&["exec", "work", "no-such-program"]).code(127);
    client(&["pause", "work"]).code(0);
    client(&["unpause", "work"]).code(0);
    client(&["update", "--memory", "50m", "--memory-swap", "50m", "work"]).code(0);
    client(&["stats", "--no-stream", "work"]).code(0);
    client(&["top", "work"]).code(0).says("sleep 300");
    eventually("it is healthy", Duration::from_secs(20), || {
        let state = client(&["inspect", "work", "--format", "{{.State.Health.Status}}"]);
        state.stdout.trim() == "healthy" || {
            // Without systemd nobody runs Podman's timers.
            client(&["healthcheck", "run", "work"]).code == 0
        }
    });
    client(&["stop", "-t", "10", "work"]).code(0);
    client(&[
        "inspect",
        "work",
        "--format",
        "{{.State.ExitCode}} {{.State.Status}}",
    ])
    .code(0)
    .says("4 exited");
    client(&["start", "work"]).code(0);
    client(&["kill", "work"]).code(0);
    eventually("it has ended", Duration::from_secs(20), || {
        client(&["inspect", "work", "--format", "{{.State.Status}}"])
            .stdout
            .trim()
            == "exited"
    });
    client(&["rm", "work"]).code(0);
    client(&[
        "create",
        "--name",
        "never",
        "--network",
        "none",
        "bb",
        "true",
    ])
    .code(0);
    client(&["rm", "never"]).code(0);
}

fn podman(place: &Place) {
    let (root, run, runtime) = (place.path("p"), place.path("r"), place.path("coracle-oci"));
    let client = |words: &[&str]| {
        let mut all = vec![
            "podman",
            "--root",
            &root,
            "--runroot",
            &run,
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
            "--runtime",
            &runtime,
        ];
        all.extend(words);
        place.run(&all)
    };
    client(&["import", &place.path("image.tar"), "bb"]).code(0);
    a_day_of_work(&client);
    a_port_of_podman_leads_inside(&client);
    client(&["rm", "--all", "--force", "--time", "0"]).code(0);
    client(&["system", "reset", "--force"]).code(0);
}

fn a_port_of_podman_leads_inside(client: &dyn Fn(&[&str]) -> Done) {
    // Free a moment ago; the kernel gives others first.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
        .port();
    let published = format!("127.0.0.1:{port}:80");
    client(&[
        "run",
        "-d",
        "--name",
        "port",
        "-p",
        &published,
        "bb",
        "sh",
        "-c",
        "while true; do echo served | nc -l -p 80; done",
    ])
    .code(0);
    eventually("the port answers", Duration::from_secs(20), || {
        let mut text = String::new();
        TcpStream::connect(("127.0.0.1", port)).is_ok_and(|mut stream| {
            let limit = stream.set_read_timeout(Some(Duration::from_secs(2)));
            limit.is_ok() && stream.read_to_string(&mut text).is_ok() && text == "served\n"
        })
    });
    client(&["rm", "--force", "--time", "0", "port"]).code(0);
}

#[test]
fn podman_of_the_peers_works_over_it() {
    let Some(place) = Place::of_peers() else {
        return;
    };
    podman(&place);
}

#[test]
fn podman_of_the_host_works_over_it() {
    let Some(place) = Place::of_host("podman") else {
        return;
    };
    podman(&place);
}

fn docker(place: &Place) {
    let (socket, runtime) = (
        format!("unix://{}", place.path("d.sock")),
        place.path("coracle-oci"),
    );
    let config = format!(
        r#"{{"runtimes":{{"coracle":{{"path":"{runtime}"}}}},"default-runtime":"coracle"}}"#
    );
    fs::write(place.dir.path().join("daemon.json"), config).expect("a file");
    let (config, data, exec, pid) = (
        place.path("daemon.json"),
        place.path("d"),
        place.path("e"),
        place.path("d.pid"),
    );
    let daemon = place.daemon(&[
        "dockerd",
        "--config-file",
        &config,
        "--data-root",
        &data,
        "--exec-root",
        &exec,
        "--pidfile",
        &pid,
        "-H",
        &socket,
        "--storage-driver",
        "vfs",
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
    ]);
    let client = |words: &[&str]| {
        let mut all = vec!["docker", "-H", &socket];
        all.extend(words);
        place.run(&all)
    };
    eventually("dockerd answers", Duration::from_secs(60), || {
        client(&["version"]).code == 0
    });
    client(&["import", &place.path("image.tar"), "bb"]).code(0);
    client(&["info", "--format", "{{.DefaultRuntime}}"])
        .code(0)
        .says("coracle");
    a_day_of_work(&client);
    client(&[
        "run",
        "--name",
        "hungry",
        "--network",
        "none",
        "--memory",
        "20m",
        "--memory-swap",
        "20m",
        "bb",
        "sh",
        "-c",
        "head -c 100m /dev/zero | tail > /dev/null",
    ])
    .code(137);
    client(&["inspect", "hungry", "--format", "{{.State.OOMKilled}}"])
        .code(0)
        .says("true");
    client(&["rm", "hungry"]).code(0);
    drop(daemon);
}

#[test]
fn docker_of_the_peers_works_over_it() {
    let Some(place) = Place::of_peers() else {
        return;
    };
    docker(&place);
}

#[test]
fn docker_of_the_host_works_over_it() {
    let Some(place) = Place::of_host("dockerd") else {
        return;
    };
    docker(&place);
}

fn containerd(place: &Place) {
    let (socket, root, state, runtime, rootfs) = (
        place.path("c.sock"),
        place.path("c"),
        place.path("s"),
        place.path("coracle-oci"),
        place.path("rootfs"),
    );
    let config =
        format!("version = 2\nroot = {root:?}\nstate = {state:?}\n[grpc]\naddress = {socket:?}\n");
    fs::write(place.dir.path().join("config.toml"), config).expect("a file");
    let config = place.path("config.toml");
    let daemon = place.daemon(&["containerd", "--config", &config]);
    let client = |words: &[&str]| {
        let mut all = vec!["ctr", "-a", &socket];
        all.extend(words);
        place.run(&all)
    };
    eventually("containerd answers", Duration::from_secs(60), || {
        client(&["version"]).code == 0
    });
    let run = ["run", "--runc-binary", &runtime, "--rootfs"];
    let with = |options: &[&str], rest: &[&str]| {
        let mut all: Vec<&str> = run.to_vec();
        all.extend(options);
        all.push(&rootfs);
        all.extend(rest);
        client(&all)
    };
    with(&["--rm"], &["one", "/bin/sh", "-c", "echo hello; exit 6"])
        .code(6)
        .says("hello");
    with(
        &["-d", "--memory-limit", "50000000"],
        &["two", "/bin/sleep", "300"],
    )
    .code(0);
    client(&["task", "ls"]).code(0).says("RUNNING");
    client(&[
        "task",
        "exec",
        "--exec-id",
        "e",
        "two",
        "/bin/sh",
        "-c",
        "echo inside; exit 3",
    ])
    .code(3)
    .says("inside");
    client(&["task", "pause", "two"]).code(0);
    client(&["task", "ls"]).code(0).says("PAUSED");
    client(&["task", "resume", "two"]).code(0);
    client(&["task", "metrics", "two"]).code(0).says("memory");
    client(&["task", "kill", "--signal", "KILL", "two"]).code(0);
    eventually("it has stopped", Duration::from_secs(20), || {
        client(&["task", "ls"]).stdout.contains("STOPPED")
    });
    client(&["task", "rm", "two"]).code(0);
    client(&["container", "rm", "two"]).code(0);
    with(&["--rm"], &["three", "/no-such-program"]).code(1);
    drop(daemon);
}

#[test]
fn containerd_of_the_peers_works_over_it() {
    let Some(place) = Place::of_peers() else {
        return;
    };
    containerd(&place);
}

#[test]
fn containerd_of_the_host_works_over_it() {
    let Some(place) = Place::of_host("containerd") else {
        return;
    };
    containerd(&place);
}
