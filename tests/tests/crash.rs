//! kill -9 at any moment, and a host that restarted: the next command repairs, and nothing is left.

use std::fs;
use std::time::Duration;

use coracle_tests::{BUSYBOX, Engine, Session, busybox_archive, eventually};
use rustix::process::{Pid, Signal, kill_process};

/// Delays that cover a command's whole life, most of them early, in no order.
fn moments(count: u64, longest: Duration) -> impl Iterator<Item = Duration> {
    (0..count).map(move |n| {
        let scattered = (n * 7919 + 13) % count;
        let share = scattered as f64 / count as f64;
        longest.mul_f64(share * share)
    })
}

fn kill_after(session: Session, delay: Duration) {
    std::thread::sleep(delay);
    // It may be over by then, which is also a moment.
    let _ = kill_process(
        Pid::from_raw(session.pid() as i32).expect("a pid"),
        Signal::KILL,
    );
    session.wait();
}

fn kill(pid: u32) {
    // It may have ended by itself.
    let _ = kill_process(Pid::from_raw(pid as i32).expect("a pid"), Signal::KILL);
}

fn cgroups_naming(id: &str) -> Vec<String> {
    let output = std::process::Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-name", &format!("*{id}*")])
        .output()
        .expect("find is there");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn killed_run_leaves_a_container_that_can_be_removed_and_nothing_else() {
    let engine = Engine::new();
    for delay in moments(40, Duration::from_millis(60)) {
        let session = engine.spawn(&format!("run --name c1 --memory 64m {BUSYBOX} sleep 0.02"));
        kill_after(session, delay);
        let ids = engine.ok("ps -aq --no-trunc");
        if !ids.is_empty() {
            let state = engine.field("c1", "{{.State.Status}}");
            let known = ["created", "running", "exited", "dead"];
            assert!(known.contains(&state.as_str()), "{state} after {delay:?}");
        }
        engine.ok("rm -f c1");
        assert_eq!(engine.ok("ps -aq"), "", "after {delay:?}");
        // The name is free again, at once.
        engine.ok(&format!("run --rm --name c1 {BUSYBOX} true"));
        for id in ids.lines() {
            assert_eq!(cgroups_naming(id), Vec::<String>::new(), "after {delay:?}");
        }
    }
}

#[test]
fn killed_run_rm_is_cleaned_up_by_a_later_command() {
    let engine = Engine::new();
    for delay in moments(25, Duration::from_millis(50)) {
        kill_after(
            engine.spawn(&format!("run --rm {BUSYBOX} sleep 0.02")),
            delay,
        );
    }
    eventually("nothing runs", Duration::from_secs(20), || {
        engine.ok("ps -q").is_empty()
    });
    engine.ok("system prune -f");
    assert_eq!(engine.ok("ps -aq"), "");
}

#[test]
fn killed_verbs_can_be_repeated() {
    let engine = Engine::new();
    engine.ok(&format!("create --name c1 {BUSYBOX} sleep 1000"));
    for (n, delay) in moments(30, Duration::from_millis(25)).enumerate() {
        let verb = ["start c1", "stop -t 0 c1", "restart -t 0 c1"][n % 3];
        kill_after(engine.spawn(verb), delay);
        engine.ok("start c1");
        engine.until_status("c1", "running");
        engine.ok("exec c1 true");
        engine.ok("stop -t 0 c1");
        assert_eq!(engine.field("c1", "{{.State.Status}}"), "exited");
    }
}

#[test]
fn killed_rm_is_finished_by_the_next_one() {
    let engine = Engine::new();
    for delay in moments(25, Duration::from_millis(15)) {
        engine.detached("--name c1", "sleep 1000");
        kill_after(engine.spawn("rm -f c1"), delay);
        engine.ok("rm -f c1");
        assert_eq!(engine.ok("ps -aq"), "", "after {delay:?}");
    }
}

#[test]
fn killed_load_leaves_no_image_or_a_whole_one() {
    let engine = Engine::empty();
    let archive = busybox_archive(engine.dir());
    let line = format!("load -i {}", archive.path.display());
    for delay in moments(25, Duration::from_millis(60)) {
        kill_after(engine.spawn(&line), delay);
        if !engine.ok("images -q").is_empty() {
            assert_eq!(
                engine.ok("run --rm busybox cat /etc/motd"),
                "a file of the image"
            );
            engine.ok("rmi busybox");
        }
    }
    engine.ok(&line);
    assert_eq!(
        engine.ok("run --rm busybox cat /etc/motd"),
        "a file of the image"
    );
    engine.ok("rmi busybox");
    engine.ok("system prune -f");
    let output = std::process::Command::new("du")
        .arg("-sk")
        .arg(engine.root())
        .output();
    let text = String::from_utf8_lossy(&output.expect("du is there").stdout).into_owned();
    let kb: u64 = text
        .split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a number");
    assert!(kb < 1500, "{kb} kB of killed loads are left");
}

#[test]
fn killed_monitor_is_noticed_and_the_container_can_be_used_or_started_again() {
    let engine = Engine::new();
    for round in 0..5 {
        let name = format!("c{round}");
        engine.detached(
            &format!("--name {name} --memory 64m"),
            "echo up; sleep 1000",
        );
        engine.until_logged(&name, "up");
        let monitors = engine.processes();
        assert!(!monitors.is_empty(), "a detached container has a monitor");
        monitors.into_iter().for_each(kill);
        let state = engine.field(&name, "{{.State.Status}}");
        assert!(
            ["running", "exited", "dead"].contains(&state.as_str()),
            "{state}"
        );
        if state == "running" {
            engine.ok(&format!("exec {name} true"));
        }
        engine.ok(&format!("stop -t 0 {name}"));
        assert_eq!(engine.field(&name, "{{.State.Status}}"), "exited");
        engine.ok(&format!("start {name}"));
        engine.until_status(&name, "running");
        engine.ok(&format!("exec {name} true"));
        engine.ok(&format!("rm -f {name}"));
    }
}

#[test]
fn monitor_killed_at_random_moments_never_blocks_the_next_command() {
    let engine = Engine::new();
    for delay in moments(25, Duration::from_millis(30)) {
        let session = engine.spawn(&format!("run -d --name c1 {BUSYBOX} sleep 1000"));
        std::thread::sleep(delay);
        engine
            .processes()
            .into_iter()
            .filter(|pid| *pid != session.pid())
            .for_each(kill);
        session.wait();
        engine.ok("ps -a");
        engine.ok("rm -f c1");
        assert_eq!(engine.ok("ps -aq"), "", "after {delay:?}");
    }
}

#[test]
fn container_killed_from_outside_is_exited() {
    let engine = Engine::new();
    engine.detached("--name c1", "echo up; sleep 1000");
    engine.until_logged("c1", "up");
    let pid = Pid::from_raw(engine.pid("c1")).expect("a pid");
    if kill_process(pid, Signal::KILL).is_err() {
        coracle_tests::skip("a process of the container cannot be signalled from here");
        return;
    }
    engine.until_status("c1", "exited");
    assert_eq!(engine.field("c1", "{{.State.ExitCode}}"), "137");
}

#[test]
fn after_a_restart_of_the_host_containers_are_exited_and_start_again() {
    let engine = Engine::new();
    engine.detached(
        "--name c1 -v data:/d",
        "echo kept >> /file; echo up; sleep 1000",
    );
    engine.ok(&format!("create --name made {BUSYBOX} true"));
    engine.until_logged("c1", "up");
    let id = engine.field("c1", "{{.Id}}");
    let pid = engine.pid("c1");
    // What a restart does: every process gone at once, then /run is empty.
    engine.processes().into_iter().for_each(kill);
    kill(pid as u32);
    eventually("the processes are gone", Duration::from_secs(10), || {
        !fs::exists(format!("/proc/{pid}")).unwrap_or(true)
            || fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| stat.contains(") Z "))
    });
    engine.unmount_layers();
    fs::remove_dir_all(engine.run_root()).expect("it is ours");
    assert_eq!(
        engine.field("c1", "{{.State.Status}} {{.State.Running}}"),
        "exited false"
    );
    assert_eq!(engine.field("made", "{{.State.Status}}"), "created");
    engine.ok("start c1");
    engine.until_status("c1", "running");
    assert_eq!(engine.ok("exec c1 sh -c 'sleep 0.2; wc -l < /file'"), "2");
    engine.ok("start -a made");
    engine.ok("rm -f c1 made");
    assert_eq!(cgroups_naming(&id), Vec::<String>::new());
}
