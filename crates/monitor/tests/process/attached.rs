//! Clients of the attach socket.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use coracle_monitor::attach::{Client, Ended, Event, Kind, PumpOptions, StopTimeout, Wants, pump};
use coracle_monitor::log::Stream;
use coracle_monitor::{
    DetachKeys, Error, ExitStatus, RestartPolicy, StdinMode, Streams, Supervision, WindowSize,
};
use coracle_oci::Signal;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

use crate::shell::{Place, Told, eventually, hear, log_in, logged, supervised};

pub(crate) const TESTS: &[(&str, fn())] = &[
    (
        "two_clients_see_the_same_output",
        two_clients_see_the_same_output,
    ),
    (
        "slow_client_holds_the_container_and_loses_nothing",
        slow_client_holds_the_container_and_loses_nothing,
    ),
    (
        "client_that_leaves_frees_the_container",
        client_that_leaves_frees_the_container,
    ),
    (
        "input_of_mode_once_ends_with_its_client",
        input_of_mode_once_ends_with_its_client,
    ),
    (
        "input_of_mode_open_outlives_its_client",
        input_of_mode_open_outlives_its_client,
    ),
    ("resize_reaches_the_terminal", resize_reaches_the_terminal),
    (
        "terminal_echoes_through_the_pump_and_detaches",
        terminal_echoes_through_the_pump_and_detaches,
    ),
    (
        "pump_carries_pipes_and_the_exit",
        pump_carries_pipes_and_the_exit,
    ),
    ("stop_prevents_the_restart", stop_prevents_the_restart),
    (
        "stop_cancels_a_restart_that_waits",
        stop_cancels_a_restart_that_waits,
    ),
    ("stop_kills_after_its_timeout", stop_kills_after_its_timeout),
    (
        "signal_is_delivered_and_unless_stopped_heeds_it",
        signal_is_delivered_and_unless_stopped_heeds_it,
    ),
    (
        "restart_policy_can_be_changed",
        restart_policy_can_be_changed,
    ),
    (
        "broken_protocol_ends_the_connection_only",
        broken_protocol_ends_the_connection_only,
    ),
    ("long_socket_path_works", long_socket_path_works),
    (
        "dead_socket_is_told_and_replaced",
        dead_socket_is_told_and_replaced,
    ),
];

const ALL: Wants = Wants {
    stdin: true,
    stdout: true,
    stderr: true,
};

fn with_socket(place: &Place) -> Supervision {
    Supervision {
        attach: Some(place.socket()),
        log: log_in(place.path()),
        stdin: StdinMode::Open,
        ..Supervision::default()
    }
}

fn attach(place: &Place, wants: Wants) -> Client {
    eventually("the socket should be there", || place.socket().exists());
    Client::connect(&place.socket(), wants).expect("connected")
}

/// Output until the exit.
fn rest(client: &Client) -> (String, String, ExitStatus) {
    let (mut out, mut err) = (String::new(), String::new());
    let mut buffer = Vec::new();
    loop {
        match client.receive(&mut buffer).expect("received") {
            Event::Stdout(data) => out.push_str(&String::from_utf8_lossy(data)),
            Event::Stderr(data) => err.push_str(&String::from_utf8_lossy(data)),
            Event::Exit { status, .. } => return (out, err, status),
            Event::Done(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn two_clients_see_the_same_output() {
    let place = Place::new();
    let script = "read a; echo $a; echo e >&2; exit 5";
    let (monitor, _heard) = supervised(script, with_socket(&place));
    let first = attach(&place, ALL);
    let second = attach(
        &place,
        Wants {
            stderr: false,
            ..ALL
        },
    );
    assert!(first.was_running() && first.has_stdin() && !first.has_terminal());
    second.send_stdin(b"hello\n").expect("sent");
    let status = ExitStatus::Code(5);
    assert_eq!(rest(&first), ("hello\n".into(), "e\n".into(), status));
    assert_eq!(rest(&second), ("hello\n".into(), String::new(), status));
    assert_eq!(
        first.receive(&mut Vec::new()).expect("received"),
        Event::Closed
    );
    monitor.join().expect("no panic").expect("supervised");
    assert!(!place.socket().exists());
}

fn slow_client_holds_the_container_and_loses_nothing() {
    let place = Place::new();
    let script = "read a; head -c 5000000 /dev/zero; echo done >&2";
    let (monitor, heard) = supervised(script, with_socket(&place));
    let slow = attach(&place, ALL);
    slow.send_stdin(b"go\n").expect("sent");
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        !heard.try_iter().any(|told| matches!(told, Told::Exited(_))),
        "the container should wait for the client"
    );
    // Meanwhile others are served.
    let other = attach(&place, Wants::default());
    other
        .resize(WindowSize {
            rows: 1,
            columns: 1,
        })
        .expect("sent");
    let (out, err, status) = rest(&slow);
    assert_eq!(
        (out.len(), err.as_str(), status),
        (5_000_000, "done\n", ExitStatus::Code(0))
    );
    monitor.join().expect("no panic").expect("supervised");
}

fn client_that_leaves_frees_the_container() {
    let place = Place::new();
    let script = "read a; head -c 5000000 /dev/zero";
    let (monitor, _heard) = supervised(
        script,
        Supervision {
            log: coracle_monitor::LogDriver::None,
            ..with_socket(&place)
        },
    );
    let slow = attach(&place, ALL);
    slow.send_stdin(b"go\n").expect("sent");
    std::thread::sleep(Duration::from_millis(200));
    drop(slow);
    let exit = monitor.join().expect("no panic").expect("supervised");
    assert_eq!(exit.status, ExitStatus::Code(0));
}

fn input_of_mode_once_ends_with_its_client() {
    for by_frame in [true, false] {
        let place = Place::new();
        let (monitor, _heard) = supervised(
            "cat; echo end",
            Supervision {
                stdin: StdinMode::Once,
                ..with_socket(&place)
            },
        );
        let watcher = attach(
            &place,
            Wants {
                stdin: false,
                ..ALL
            },
        );
        let feeder = attach(&place, ALL);
        feeder.send_stdin(b"text\n").expect("sent");
        if by_frame {
            feeder.end_stdin().expect("sent");
        } else {
            feeder.detach().expect("sent");
        }
        assert_eq!(rest(&watcher).0, "text\nend\n");
        monitor.join().expect("no panic").expect("supervised");
    }
}

fn input_of_mode_open_outlives_its_client() {
    let place = Place::new();
    let (monitor, _heard) = supervised("read a; read b; echo $a$b", with_socket(&place));
    let first = attach(&place, ALL);
    first.send_stdin(b"one\n").expect("sent");
    first.end_stdin().expect("sent");
    drop(first);
    let second = attach(&place, ALL);
    second.send_stdin(b"two\n").expect("sent");
    assert_eq!(rest(&second).0, "onetwo\n");
    monitor.join().expect("no panic").expect("supervised");
}

fn resize_reaches_the_terminal() {
    let place = Place::new();
    let script = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done";
    let (monitor, _heard) = supervised(
        script,
        Supervision {
            streams: Streams::Terminal,
            ..with_socket(&place)
        },
    );
    let client = attach(&place, ALL);
    assert!(client.has_terminal());
    eventually("it should be ready", || {
        logged(place.path(), Stream::Stdout).contains("ready")
    });
    client
        .resize(WindowSize {
            rows: 50,
            columns: 132,
        })
        .expect("sent");
    assert!(rest(&client).0.contains("50 132"));
    monitor.join().expect("no panic").expect("supervised");
}

/// (the user's side, what the pump is given)
fn terminal() -> (OwnedFd, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).expect("a pty");
    unlockpt(&master).expect("unlocked");
    let user = ioctl_tiocgptpeer(&master, flags).expect("a terminal");
    (master, user)
}

fn terminal_echoes_through_the_pump_and_detaches() {
    let place = Place::new();
    let (monitor, _heard) = supervised(
        "cat",
        Supervision {
            streams: Streams::Terminal,
            ..with_socket(&place)
        },
    );
    let (master, user) = terminal();
    let lflag = |fd: &OwnedFd| {
        rustix::termios::tcgetattr(fd)
            .expect("a terminal")
            .local_modes
    };
    let before = lflag(&user);
    let path = place.socket();
    eventually("the socket should be there", || path.exists());
    let pumping = std::thread::spawn({
        let user = user.try_clone().expect("duplicated");
        move || {
            let client = Client::connect(&path, ALL).expect("connected");
            let ended = pump(
                &client,
                &PumpOptions {
                    stdin: Some(user.as_fd()),
                    stdout: Some(user.as_fd()),
                    stderr: Some(user.as_fd()),
                    detach_keys: DetachKeys::default(),
                    sig_proxy: false,
                },
            );
            client.detach().expect("detached");
            ended
        }
    });
    eventually("the terminal should become raw", || lflag(&user) != before);
    rustix::io::write(&master, b"hi\x10there\r").expect("typed");
    let mut seen = String::new();
    let mut chunk = [0; 1024];
    // Once by the terminal's echo, once by cat; ctrl-p alone is passed on (and echoed as ^P).
    while seen.matches("there").count() < 2 {
        let count = rustix::io::read(&master, &mut chunk).expect("read");
        seen.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
    assert!(seen.starts_with("hi^Pthere\r\n"), "{seen:?}");
    rustix::io::write(&master, b"\x10\x11").expect("typed");
    let ended = pumping.join().expect("no panic").expect("pumped");
    assert_eq!(ended, Ended::Detached);
    assert_eq!(lflag(&user), before);
    let again = attach(&place, ALL);
    assert!(again.was_running());
    again.send_stdin(b"\x04").expect("sent");
    assert_eq!(rest(&again).2, ExitStatus::Code(0));
    monitor.join().expect("no panic").expect("supervised");
}

fn pump_carries_pipes_and_the_exit() {
    let place = Place::new();
    let (monitor, _heard) = supervised(
        "wc -c; echo e >&2; exit 9",
        Supervision {
            stdin: StdinMode::Once,
            ..with_socket(&place)
        },
    );
    let client = attach(&place, ALL);
    let (stdin, mut feed) = std::io::pipe().expect("a pipe");
    let (mut out, stdout) = std::io::pipe().expect("a pipe");
    let (mut err, stderr) = std::io::pipe().expect("a pipe");
    let feeding = std::thread::spawn(move || {
        use std::io::Write;
        feed.write_all(&vec![b'x'; 2_000_000]).expect("taken");
    });
    let ended = pump(
        &client,
        &PumpOptions {
            stdin: Some(stdin.as_fd()),
            stdout: Some(stdout.as_fd()),
            stderr: Some(stderr.as_fd()),
            detach_keys: DetachKeys::default(),
            sig_proxy: false,
        },
    )
    .expect("pumped");
    drop((stdout, stderr));
    assert_eq!(
        ended,
        Ended::Exited {
            status: ExitStatus::Code(9),
            restarting: false,
            oom: false,
        }
    );
    use std::io::Read;
    let (mut outs, mut errs) = (String::new(), String::new());
    out.read_to_string(&mut outs).expect("read");
    err.read_to_string(&mut errs).expect("read");
    assert_eq!((outs.trim(), errs.as_str()), ("2000000", "e\n"));
    feeding.join().expect("no panic");
    monitor.join().expect("no panic").expect("supervised");
}

fn stop_prevents_the_restart() {
    let place = Place::new();
    let (monitor, heard) = supervised(
        "exec sleep 100",
        Supervision {
            restart: RestartPolicy::Always,
            ..with_socket(&place)
        },
    );
    let client = attach(&place, Wants::default());
    client.stop(None, StopTimeout::Configured).expect("sent");
    let mut buffer = Vec::new();
    assert_eq!(
        client.receive(&mut buffer).expect("received"),
        Event::Done(Kind::Stop)
    );
    assert_eq!(
        client.receive(&mut buffer).expect("received"),
        Event::Exit {
            status: ExitStatus::Signal(15),
            restarting: false,
            oom: false,
        }
    );
    let exit = monitor.join().expect("no panic").expect("supervised");
    assert!(exit.stopped_by_user);
    let starts = heard.iter().filter(|told| matches!(told, Told::Started));
    assert_eq!(starts.count(), 1);
}

fn stop_cancels_a_restart_that_waits() {
    let place = Place::new();
    let (monitor, heard) = supervised(
        "exit 1",
        Supervision {
            restart: RestartPolicy::Always,
            ..with_socket(&place)
        },
    );
    // The third wait is 400 ms.
    for _ in 0..3 {
        hear(&heard, |told| matches!(told, Told::Exited(_)).then_some(()));
    }
    let client = attach(&place, Wants::default());
    assert!(!client.was_running());
    client.stop(None, StopTimeout::Configured).expect("sent");
    let exit = monitor.join().expect("no panic").expect("supervised");
    assert_eq!((exit.stopped_by_user, exit.restart_in), (true, None));
    let last = heard.iter().filter_map(|told| match told {
        Told::Exited(exit) => Some(exit),
        _ => None,
    });
    assert_eq!(last.last(), Some(exit));
}

fn stop_kills_after_its_timeout() {
    let place = Place::new();
    let script = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let (monitor, _heard) = supervised(script, with_socket(&place));
    let client = attach(&place, Wants::default());
    eventually("it should be ready", || {
        logged(place.path(), Stream::Stdout).contains("ready")
    });
    client
        .stop(None, StopTimeout::After(Duration::from_millis(200)))
        .expect("sent");
    let before = std::time::Instant::now();
    assert_eq!(rest(&client).2, ExitStatus::Signal(9));
    assert!(before.elapsed() >= Duration::from_millis(190));
    monitor.join().expect("no panic").expect("supervised");
}

fn signal_is_delivered_and_unless_stopped_heeds_it() {
    let place = Place::new();
    let script = "trap 'echo usr1; exit 0' USR1; echo ready; while :; do sleep 0.05; done";
    let (monitor, _heard) = supervised(
        script,
        Supervision {
            restart: RestartPolicy::UnlessStopped,
            ..with_socket(&place)
        },
    );
    let client = attach(&place, ALL);
    eventually("it should be ready", || {
        logged(place.path(), Stream::Stdout).contains("ready")
    });
    client
        .signal(Signal::from_number(10).expect("USR1"))
        .expect("sent");
    let (out, _, status) = rest(&client);
    assert!(out.ends_with("usr1\n"));
    assert_eq!(status, ExitStatus::Code(0));
    let exit = monitor.join().expect("no panic").expect("supervised");
    assert_eq!((exit.stopped_by_user, exit.restart_in), (false, None));
}

fn restart_policy_can_be_changed() {
    let place = Place::new();
    let (monitor, _heard) = supervised(
        "read a; exit 1",
        Supervision {
            restart: RestartPolicy::Always,
            ..with_socket(&place)
        },
    );
    let client = attach(&place, ALL);
    client.set_restart(RestartPolicy::No).expect("sent");
    let mut buffer = Vec::new();
    assert_eq!(
        client.receive(&mut buffer).expect("received"),
        Event::Done(Kind::Restart)
    );
    client.send_stdin(b"\n").expect("sent");
    let exit = monitor.join().expect("no panic").expect("supervised");
    assert_eq!((exit.status, exit.restart_count), (ExitStatus::Code(1), 0));
}

fn broken_protocol_ends_the_connection_only() {
    let place = Place::new();
    let (monitor, heard) = supervised("read a", with_socket(&place));
    let good = attach(&place, ALL);
    let long = vec![2; 40_000];
    let packets: [&[&[u8]]; 5] = [
        &[&[2, b'x']],
        &[&[99]],
        &[&[1, 1, 0], &[2, b'x']],
        &[&[1, 1, 7], &[1, 1, 7]],
        &[&[1, 1, 7], &long],
    ];
    for frames in packets {
        let raw = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
        let address = SocketAddrUnix::new(place.socket()).expect("an address");
        connect(&raw, &address).expect("connected");
        for frame in frames {
            rustix::io::write(&raw, frame).expect("sent");
        }
        let warning = hear(&heard, |told| match told {
            Told::Warning(text) => Some(text),
            _ => None,
        });
        assert!(warning.contains("broke the attach protocol"), "{warning}");
    }
    good.send_stdin(b"\n").expect("sent");
    assert_eq!(rest(&good).2, ExitStatus::Code(0));
    monitor.join().expect("no panic").expect("supervised");
}

fn long_socket_path_works() {
    let place = Place::new();
    let directory = place.path().join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&directory).expect("made");
    let path = directory.join("attach");
    let (monitor, _heard) = supervised(
        "read a",
        Supervision {
            attach: Some(path.clone()),
            stdin: StdinMode::Open,
            ..Supervision::default()
        },
    );
    eventually("the socket should be there", || path.exists());
    let client = Client::connect(&path, ALL).expect("connected");
    client.send_stdin(b"\n").expect("sent");
    assert_eq!(rest(&client).2, ExitStatus::Code(0));
    monitor.join().expect("no panic").expect("supervised");
    assert!(!path.exists());
}

fn dead_socket_is_told_and_replaced() {
    let place = Place::new();
    let missing = Client::connect(&place.socket(), ALL);
    assert!(
        matches!(missing, Err(Error::NoMonitor { .. })),
        "{missing:?}"
    );
    let stale = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
    let address = SocketAddrUnix::new(place.socket()).expect("an address");
    rustix::net::bind(&stale, &address).expect("bound");
    drop(stale);
    let dead = Client::connect(&place.socket(), ALL).expect_err("nobody listens");
    assert!(
        matches!(dead, Error::NoMonitor { .. }) && dead.hint().is_some(),
        "{dead:?}"
    );
    let (monitor, heard) = supervised("read a", with_socket(&place));
    hear(&heard, |told| matches!(told, Told::Started).then_some(()));
    let client = attach(&place, ALL);
    client.send_stdin(b"\n").expect("sent");
    assert_eq!(rest(&client).2, ExitStatus::Code(0));
    monitor.join().expect("no panic").expect("supervised");
}
