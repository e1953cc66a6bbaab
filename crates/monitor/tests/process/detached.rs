//! Monitors in processes of their own: signals to them, their death, and what another can take over.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use coracle_monitor::attach::{Client, Event, Wants};
use coracle_monitor::log::Stream;
use coracle_monitor::{
    Adopt, BrokenPipe, Exit, ExitStatus, LocalClient, Readiness, RestartPolicy, Streams,
    Supervision, supervise,
};
use coracle_oci::Signal;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::shell::{AS_MONITOR, Place, Shell, eventually, log_in, logged, supervised};

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "term_to_a_monitor_stops_its_container",
        term_to_a_monitor_stops_its_container,
    ),
    (
        "hangup_does_not_reach_a_detached_container",
        hangup_does_not_reach_a_detached_container,
    ),
    (
        "signals_are_forwarded_in_the_foreground",
        signals_are_forwarded_in_the_foreground,
    ),
    (
        "container_survives_its_monitor_and_is_adopted",
        container_survives_its_monitor_and_is_adopted,
    ),
    (
        "adopted_container_that_has_ended_is_recorded",
        adopted_container_that_has_ended_is_recorded,
    ),
    (
        "client_learns_that_the_monitor_died",
        client_learns_that_the_monitor_died,
    ),
];

/// What this binary does as a monitor: standard output is the readiness pipe, `script` what to run, `exit` the result.
pub(crate) fn as_monitor(case: &str, directory: &Path) {
    let script = std::fs::read_to_string(directory.join("script")).expect("a script");
    let stdout = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).expect("duplicated");
    let (mut shell, _heard) = Shell::new(&script);
    let mut options = Supervision {
        streams: Streams::Pipes {
            fifos: Some(directory.to_path_buf()),
        },
        log: log_in(directory),
        attach: Some(directory.join("attach")),
        restart: RestartPolicy::UnlessStopped,
        ready: Some(stdout),
        ..Supervision::default()
    };
    if case == "foreground" {
        options.restart = RestartPolicy::No;
        options.local = Some(LocalClient {
            stdin: None,
            stdout: None,
            stderr: None,
            sig_proxy: true,
            broken_pipe: BrokenPipe::Continue,
        });
    }
    let exit = supervise(&mut shell, options).expect("supervised");
    let record = serde_json::to_vec(&exit).expect("JSON");
    std::fs::write(directory.join("exit.new"), record).expect("written");
    std::fs::rename(directory.join("exit.new"), directory.join("exit")).expect("renamed");
}

struct Monitor {
    process: Child,
    container: Pid,
}

/// Starts a monitor and waits until its container runs and has said `ready`.
fn monitor(case: &str, place: &Place, script: &str) -> Monitor {
    std::fs::write(place.path().join("script"), script).expect("written");
    let mut process = Command::new(std::env::current_exe().expect("this binary"))
        .args([AS_MONITOR, case])
        .arg(place.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a monitor");
    let ready = process.stdout.take().expect("piped");
    let ready = Readiness::receive(ready.into())
        .expect("received")
        .expect("a message");
    assert!(ready.ok, "{ready:?}");
    eventually("it should be ready", || {
        logged(place.path(), Stream::Stdout).contains("ready")
    });
    Monitor {
        process,
        container: ready.pid.and_then(Pid::from_raw).expect("a pid"),
    }
}

impl Monitor {
    fn signal(&self, number: i32) {
        let pidfd =
            pidfd_open(Pid::from_child(&self.process), PidfdFlags::empty()).expect("a pidfd");
        coracle_linux::signal::send(pidfd, number).expect("sent");
    }

    fn exit(mut self, place: &Place) -> Exit {
        assert!(self.process.wait().expect("waited").success());
        let record = std::fs::read(place.path().join("exit")).expect("a record");
        serde_json::from_slice(&record).expect("JSON")
    }
}

fn term_to_a_monitor_stops_its_container() {
    let place = Place::new();
    let script = "trap 'echo bye; exit 4' TERM; echo ready; while :; do sleep 0.05; done";
    let monitor = monitor("detached", &place, script);
    monitor.signal(15);
    let exit = monitor.exit(&place);
    assert_eq!(
        (exit.status, exit.stopped_by_user),
        (ExitStatus::Code(4), true)
    );
    assert_eq!(logged(place.path(), Stream::Stdout), "ready\nbye\n");
}

fn hangup_does_not_reach_a_detached_container() {
    let place = Place::new();
    let script = "echo ready; exec sleep 100";
    let monitor = monitor("detached", &place, script);
    monitor.signal(1);
    monitor.signal(13);
    std::thread::sleep(Duration::from_millis(100));
    assert!(
        Client::connect(&place.socket(), Wants::default())
            .expect("connected")
            .was_running()
    );
    monitor.signal(2);
    assert_eq!(monitor.exit(&place).status, ExitStatus::Signal(15));
}

fn signals_are_forwarded_in_the_foreground() {
    let place = Place::new();
    let script = "for s in HUP INT USR1 USR2 WINCH RTMIN+1; do trap \"echo $s\" $s; done; \
                  trap 'exit 6' TERM; echo ready; while :; do sleep 0.02; done";
    // dash knows no real-time signal by name; its number does.
    let script = script.replace("RTMIN+1", "35");
    let monitor = monitor("foreground", &place, &script);
    for (number, name) in [
        (1, "HUP"),
        (2, "INT"),
        (10, "USR1"),
        (12, "USR2"),
        (28, "WINCH"),
        (35, "35"),
    ] {
        monitor.signal(number);
        eventually(name, || {
            logged(place.path(), Stream::Stdout).contains(&format!("{name}\n"))
        });
    }
    monitor.signal(15);
    assert_eq!(monitor.exit(&place).status, ExitStatus::Code(6));
}

/// Kills the monitor; the container is then somebody else's child.
fn kill(mut monitor: Monitor) -> (Pid, std::os::fd::OwnedFd) {
    let container = monitor.container;
    let pidfd = pidfd_open(container, PidfdFlags::empty()).expect("a pidfd");
    monitor.process.kill().expect("killed");
    monitor.process.wait().expect("waited");
    (container, pidfd)
}

fn adopt(place: &Place, pid: Pid, pidfd: std::os::fd::OwnedFd) -> Supervision {
    Supervision {
        streams: Streams::Pipes {
            fifos: Some(place.path().to_path_buf()),
        },
        log: log_in(place.path()),
        attach: Some(place.socket()),
        adopt: Some(Adopt {
            pid,
            pidfd,
            started_at: jiff::Timestamp::now(),
            oom_event: None,
        }),
        ..Supervision::default()
    }
}

/// Makes this process the one that orphans go to, and reaps the container when it ends, as a host's init does.
fn reaps_orphans() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("a subreaper");
}

fn reap(pid: Pid) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let options = rustix::process::WaitOptions::empty();
        rustix::process::waitpid(Some(pid), options).expect("reaped");
    })
}

/// Whether this kernel keeps the status of processes that others reap.
fn keeps_status() -> bool {
    let mut child = Command::new("true").spawn().expect("a child");
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).expect("a pidfd");
    child.wait().expect("reaped");
    matches!(coracle_linux::exit_info::wait_status(pidfd), Ok(Some(0)))
}

fn known_or_skipped(test: &str, status: ExitStatus, expected: ExitStatus) {
    if keeps_status() {
        assert_eq!(status, expected);
    } else {
        assert_eq!(status, ExitStatus::Unknown);
        println!("SKIP: {test}: the kernel (before Linux 6.15) keeps no exit status");
    }
}

fn container_survives_its_monitor_and_is_adopted() {
    let place = Place::new();
    // Every write that fails would end the loop early and be missing in the log.
    let script = "echo ready; i=0; while [ $i -lt 60 ]; do echo line $i || exit 1; i=$((i+1)); sleep 0.01; done; exit 7";
    reaps_orphans();
    let monitor = monitor("detached", &place, script);
    let (pid, pidfd) = kill(monitor);
    let reaper = reap(pid);
    std::thread::sleep(Duration::from_millis(200));
    let (adopter, _heard) = supervised("false", adopt(&place, pid, pidfd));
    let exit = adopter.join().expect("no panic").expect("supervised");
    reaper.join().expect("no panic");
    let expected: String = (0..60).map(|n| format!("line {n}\n")).collect();
    assert_eq!(
        logged(place.path(), Stream::Stdout),
        format!("ready\n{expected}")
    );
    known_or_skipped(
        "container_survives_its_monitor_and_is_adopted",
        exit.status,
        ExitStatus::Code(7),
    );
}

fn adopted_container_that_has_ended_is_recorded() {
    let place = Place::new();
    reaps_orphans();
    let monitor = monitor(
        "detached",
        &place,
        "echo ready; sleep 0.2; echo last; exit 8",
    );
    let (pid, pidfd) = kill(monitor);
    reap(pid).join().expect("no panic");
    let (adopter, _heard) = supervised("false", adopt(&place, pid, pidfd));
    let exit = adopter.join().expect("no panic").expect("supervised");
    // What it wrote last had no reader left: a FIFO without any open end forgets (docs/format/attach.md).
    assert!(logged(place.path(), Stream::Stdout).starts_with("ready\n"));
    known_or_skipped(
        "adopted_container_that_has_ended_is_recorded",
        exit.status,
        ExitStatus::Code(8),
    );
}

fn client_learns_that_the_monitor_died() {
    let place = Place::new();
    reaps_orphans();
    let monitor = monitor("detached", &place, "echo ready; exec sleep 100");
    let client = Client::connect(&place.socket(), Wants::default()).expect("connected");
    let (pid, pidfd) = kill(monitor);
    assert_eq!(
        client.receive(&mut Vec::new()).expect("received"),
        Event::Closed
    );
    let mut log = String::new();
    std::fs::File::open(place.path().join("log"))
        .and_then(|mut file| file.read_to_string(&mut log))
        .expect("a log");
    assert!(log.contains("ready"));
    coracle_linux::signal::send(pidfd, Signal::KILL.number()).expect("killed");
    reap(pid).join().expect("no panic");
}
