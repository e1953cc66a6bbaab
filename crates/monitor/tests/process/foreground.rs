//! The local client, exits, restarts, health.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use coracle_monitor::health::{HealthCheck, HealthCommand, HealthStatus};
use coracle_monitor::log::Stream;
use coracle_monitor::{
    BrokenPipe, Error, ExitStatus, LocalClient, RestartPolicy, StdinMode, Streams, Supervision,
};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

use crate::shell::{Place, Told, eventually, hear, log_in, logged, supervised};

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "output_reaches_the_command_and_the_log",
        output_reaches_the_command_and_the_log,
    ),
    (
        "exit_codes_and_signals_are_recorded",
        exit_codes_and_signals_are_recorded,
    ),
    (
        "input_reaches_the_container_and_ends",
        input_reaches_the_container_and_ends,
    ),
    (
        "large_output_survives_a_slow_reader",
        large_output_survives_a_slow_reader,
    ),
    (
        "reader_that_left_ends_a_pipeline",
        reader_that_left_ends_a_pipeline,
    ),
    (
        "reader_that_left_does_not_stop_the_log",
        reader_that_left_does_not_stop_the_log,
    ),
    (
        "terminal_is_raw_meanwhile_and_restored",
        terminal_is_raw_meanwhile_and_restored,
    ),
    (
        "failure_is_restarted_until_it_succeeds",
        failure_is_restarted_until_it_succeeds,
    ),
    (
        "background_process_does_not_hold_the_exit",
        background_process_does_not_hold_the_exit,
    ),
    (
        "health_goes_through_its_states",
        health_goes_through_its_states,
    ),
    ("probe_that_hangs_is_killed", probe_that_hangs_is_killed),
    ("memory_event_marks_the_exit", memory_event_marks_the_exit),
    ("failed_start_is_returned", failed_start_is_returned),
    (
        "output_can_be_reopened_by_its_owner",
        output_can_be_reopened_by_its_owner,
    ),
];

fn pipe() -> (std::io::PipeReader, OwnedFd) {
    let (read, write) = std::io::pipe().expect("a pipe");
    (read, write.into())
}

fn local(stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd) -> Option<LocalClient> {
    Some(LocalClient {
        stdin,
        stdout: Some(stdout),
        stderr: Some(stderr),
        sig_proxy: false,
        broken_pipe: BrokenPipe::Continue,
    })
}

fn output_reaches_the_command_and_the_log() {
    for fifos in [false, true] {
        let place = Place::new();
        let (mut out, stdout) = pipe();
        let (mut err, stderr) = pipe();
        let options = Supervision {
            streams: Streams::Pipes {
                fifos: fifos.then(|| place.path().to_path_buf()),
            },
            log: log_in(place.path()),
            local: local(None, stdout, stderr),
            ..Supervision::default()
        };
        let (monitor, _heard) = supervised("echo out; echo err >&2; printf end", options);
        let exit = monitor.join().expect("no panic").expect("supervised");
        assert_eq!(exit.status, ExitStatus::Code(0));
        let (mut outs, mut errs) = (String::new(), String::new());
        out.read_to_string(&mut outs).expect("read");
        err.read_to_string(&mut errs).expect("read");
        assert_eq!((outs.as_str(), errs.as_str()), ("out\nend", "err\n"));
        assert_eq!(logged(place.path(), Stream::Stdout), "out\nend");
        assert_eq!(logged(place.path(), Stream::Stderr), "err\n");
        assert!(!place.path().join("stdout").exists());
    }
}

fn exit_codes_and_signals_are_recorded() {
    for (script, status) in [
        ("exit 0", ExitStatus::Code(0)),
        ("exit 42", ExitStatus::Code(42)),
        ("kill -TERM $$", ExitStatus::Signal(15)),
    ] {
        let (monitor, heard) = supervised(script, Supervision::default());
        let exit = monitor.join().expect("no panic").expect("supervised");
        assert_eq!(
            (exit.status, exit.restart_in, exit.oom),
            (status, None, false),
            "{script}"
        );
        assert!(exit.started_at <= exit.finished_at);
        let told = hear(&heard, |told| match told {
            Told::Exited(exit) => Some(exit),
            _ => None,
        });
        assert_eq!(told, exit);
        assert!(matches!(heard.recv(), Ok(Told::Finished)));
    }
}

fn input_reaches_the_container_and_ends() {
    let (stdin, mut feed) = std::io::pipe().expect("a pipe");
    let (mut out, stdout) = pipe();
    let (_err, stderr) = pipe();
    let options = Supervision {
        stdin: StdinMode::Once,
        local: local(Some(stdin.into()), stdout, stderr),
        ..Supervision::default()
    };
    let (monitor, _heard) = supervised("wc -c", options);
    feed.write_all(&vec![b'x'; 300_000]).expect("taken");
    drop(feed);
    let mut text = String::new();
    monitor.join().expect("no panic").expect("supervised");
    out.read_to_string(&mut text).expect("read");
    assert_eq!(text.trim(), "300000");
}

fn large_output_survives_a_slow_reader() {
    let (mut out, stdout) = pipe();
    let (_err, stderr) = pipe();
    let options = Supervision {
        local: local(None, stdout, stderr),
        ..Supervision::default()
    };
    let (monitor, _heard) = supervised("head -c 1000000 /dev/zero", options);
    // Longer than output is waited for when nobody is in its way.
    std::thread::sleep(Duration::from_millis(2500));
    let mut bytes = Vec::new();
    out.read_to_end(&mut bytes).expect("read");
    monitor.join().expect("no panic").expect("supervised");
    assert_eq!(bytes.len(), 1_000_000);
}

fn reader_that_left_ends_a_pipeline() {
    let (out, stdout) = pipe();
    let (_err, stderr) = pipe();
    let mut client = local(None, stdout, stderr);
    if let Some(client) = &mut client {
        client.broken_pipe = BrokenPipe::Propagate;
    }
    let options = Supervision {
        local: client,
        ..Supervision::default()
    };
    // exec: the shell may have been started with SIGPIPE ignored.
    let (monitor, _heard) = supervised("exec yes", options);
    drop(out);
    let exit = monitor.join().expect("no panic").expect("supervised");
    assert_ne!(exit.status, ExitStatus::Code(0));
}

fn reader_that_left_does_not_stop_the_log() {
    let place = Place::new();
    let (out, stdout) = pipe();
    let (_err, stderr) = pipe();
    drop(out);
    let options = Supervision {
        log: log_in(place.path()),
        local: local(None, stdout, stderr),
        ..Supervision::default()
    };
    let (monitor, _heard) = supervised("for i in 1 2 3; do echo $i; sleep 0.05; done", options);
    let exit = monitor.join().expect("no panic").expect("supervised");
    assert_eq!(exit.status, ExitStatus::Code(0));
    assert_eq!(logged(place.path(), Stream::Stdout), "1\n2\n3\n");
}

fn terminal_is_raw_meanwhile_and_restored() {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).expect("a pty");
    unlockpt(&master).expect("unlocked");
    let user = ioctl_tiocgptpeer(&master, flags).expect("a terminal");
    let size = coracle_monitor::WindowSize {
        rows: 33,
        columns: 77,
    };
    size.apply(&master).expect("a size");
    let modes = |fd: &OwnedFd| {
        let modes = rustix::termios::tcgetattr(fd).expect("a terminal");
        (modes.input_modes, modes.output_modes, modes.local_modes)
    };
    let before = modes(&user);
    let options = Supervision {
        streams: Streams::Terminal,
        local: local(
            Some(user.try_clone().expect("duplicated")),
            user.try_clone().expect("duplicated"),
            user.try_clone().expect("duplicated"),
        ),
        ..Supervision::default()
    };
    let script = "stty size; tty -s && echo is-a-tty; read line; echo got:$line";
    let (monitor, _heard) = supervised(script, options);
    eventually("the terminal should become raw", || modes(&user) != before);
    let mut seen = String::new();
    let mut chunk = [0; 1024];
    let mut typed = false;
    while !seen.contains("got:hello") {
        let count = rustix::io::read(master.as_fd(), &mut chunk).expect("read");
        seen.push_str(&String::from_utf8_lossy(&chunk[..count]));
        if seen.contains("is-a-tty") && !typed {
            typed = true;
            rustix::io::write(&master, b"hello\r").expect("typed");
        }
    }
    assert!(seen.contains("33 77"), "{seen:?}");
    let exit = monitor.join().expect("no panic").expect("supervised");
    assert_eq!(exit.status, ExitStatus::Code(0));
    assert_eq!(modes(&user), before);
}

fn failure_is_restarted_until_it_succeeds() {
    let place = Place::new();
    let options = Supervision {
        log: log_in(place.path()),
        restart: RestartPolicy::OnFailure { max_retries: None },
        restart_count: 4,
        ..Supervision::default()
    };
    let (monitor, heard) = supervised("echo run $RUN; test $RUN -ge 2", options);
    let exit = monitor.join().expect("no panic").expect("supervised");
    assert_eq!((exit.status, exit.restart_count), (ExitStatus::Code(0), 6));
    assert_eq!(
        logged(place.path(), Stream::Stdout),
        "run 0\nrun 1\nrun 2\n"
    );
    let delays: Vec<Option<Duration>> = heard
        .iter()
        .filter_map(|told| match told {
            Told::Exited(exit) => Some(exit.restart_in),
            _ => None,
        })
        .collect();
    let milliseconds = |n| Some(Duration::from_millis(n));
    assert_eq!(delays, [milliseconds(100), milliseconds(200), None]);
}

fn background_process_does_not_hold_the_exit() {
    let before = std::time::Instant::now();
    let (monitor, _heard) = supervised("sleep 6 & exit 3", Supervision::default());
    let exit = monitor.join().expect("no panic").expect("supervised");
    assert_eq!(exit.status, ExitStatus::Code(3));
    assert!(before.elapsed() < Duration::from_secs(5));
}

fn check(script: &str, retries: u32) -> HealthCheck {
    let mut check = HealthCheck::new(HealthCommand::Shell(script.to_owned()));
    check.interval = Duration::from_millis(30);
    check.retries = retries;
    check
}

fn health_goes_through_its_states() {
    let place = Place::new();
    let flag = place.path().join("ill");
    let script = format!("echo probed; test ! -e {}", flag.display());
    let options = Supervision {
        health: Some(check(&script, 2)),
        ..Supervision::default()
    };
    let (monitor, heard) = supervised(
        "read line",
        Supervision {
            stdin: StdinMode::Open,
            attach: Some(place.socket()),
            ..options
        },
    );
    let status = |heard: &_, wanted| {
        hear(heard, |told| match told {
            Told::Health(update) if update.status == wanted => Some(update),
            _ => None,
        })
    };
    let healthy = status(&heard, HealthStatus::Healthy);
    assert!(healthy.changed && healthy.failing_streak == 0);
    assert_eq!(healthy.log[0].output, "probed\n");
    std::fs::write(&flag, "").expect("written");
    let unhealthy = status(&heard, HealthStatus::Unhealthy);
    assert_eq!((unhealthy.changed, unhealthy.failing_streak), (true, 2));
    std::fs::remove_file(&flag).expect("removed");
    assert!(status(&heard, HealthStatus::Healthy).changed);
    stop(&place);
    monitor.join().expect("no panic").expect("supervised");
}

fn stop(place: &Place) {
    use coracle_monitor::attach::{Client, StopTimeout, Wants};
    let client = Client::connect(&place.socket(), Wants::default()).expect("connected");
    client.stop(None, StopTimeout::Configured).expect("asked");
}

fn probe_that_hangs_is_killed() {
    let place = Place::new();
    let mut check = check("echo begun; exec sleep 100", 1);
    check.timeout = Duration::from_millis(200);
    let options = Supervision {
        health: Some(check),
        attach: Some(place.socket()),
        ..Supervision::default()
    };
    let (monitor, heard) = supervised("exec sleep 100", options);
    let update = hear(&heard, |told| match told {
        Told::Health(update) => Some(update),
        _ => None,
    });
    assert_eq!(update.status, HealthStatus::Unhealthy);
    assert_eq!(update.log[0].exit_code, -1);
    assert_eq!(
        update.log[0].output,
        "Health check exceeded timeout (200ms): begun\n"
    );
    stop(&place);
    let exit = monitor.join().expect("no panic").expect("supervised");
    assert_eq!(exit.status, ExitStatus::Signal(15));
    assert!(exit.stopped_by_user);
}

fn memory_event_marks_the_exit() {
    let event =
        rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).expect("an eventfd");
    let trigger = event.try_clone().expect("duplicated");
    let (mut shell, heard) = crate::shell::Shell::new("sleep 0.3; exit 1");
    shell.oom_event = Some(event);
    let monitor =
        std::thread::spawn(move || coracle_monitor::supervise(&mut shell, Supervision::default()));
    rustix::io::write(&trigger, &1_u64.to_ne_bytes()).expect("triggered");
    hear(&heard, |told| matches!(told, Told::Oom).then_some(()));
    let exit = monitor.join().expect("no panic").expect("supervised");
    assert!(exit.oom);
}

fn failed_start_is_returned() {
    let (read, write) = std::io::pipe().expect("a pipe");
    let place = Place::new();
    let options = Supervision {
        ready: Some(write.into()),
        attach: Some(place.socket()),
        streams: Streams::Pipes {
            fifos: Some(place.path().join("missing")),
        },
        ..Supervision::default()
    };
    let (monitor, _heard) = supervised("true", options);
    let result = monitor.join().expect("no panic");
    assert!(matches!(result, Err(Error::File { .. })), "{result:?}");
    let told = coracle_monitor::Readiness::receive(read.into())
        .expect("received")
        .expect("a message");
    assert_eq!((told.ok, told.code), (false, 125));
    assert!(told.error.contains("making the FIFO"), "{}", told.error);
    assert!(!place.socket().exists());
}

fn output_can_be_reopened_by_its_owner() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIP: output_can_be_reopened_by_its_owner: needs root to give a pipe away");
        return;
    }
    for fifos in [false, true] {
        let place = Place::new();
        let options = Supervision {
            streams: Streams::Pipes {
                fifos: fifos.then(|| place.path().to_path_buf()),
            },
            owner: Some(coracle_monitor::Owner {
                uid: 65_534,
                gid: 65_534,
            }),
            log: log_in(place.path()),
            ..Supervision::default()
        };
        let script = "exec setpriv --reuid 65534 --regid 65534 --clear-groups \
                      sh -c 'echo again > /proc/self/fd/1; echo error > /dev/stderr'";
        let (monitor, _heard) = supervised(script, options);
        let exit = monitor.join().expect("no panic").expect("supervised");
        assert_eq!(exit.status, ExitStatus::Code(0));
        assert_eq!(logged(place.path(), Stream::Stdout), "again\n");
        assert_eq!(logged(place.path(), Stream::Stderr), "error\n");
    }
}
