//! Two hundred commands at once on the same few objects: each succeeds or says why not, and none harms another.

use std::collections::BTreeSet;
use std::time::Duration;

use coracle_tests::crash::is_error;
use coracle_tests::world::World;
use coracle_tests::{Engine, Session, busybox_archive};

/// Six containers, three volumes, three names of images; every verb meets every object.
const LINES: [&str; 25] = [
    "run -d --name c# -v v%:/d busybox sleep MARK",
    "run --rm -v v%:/d busybox true",
    "create --name c# busybox sleep MARK",
    "start c#",
    "stop -t 0 c#",
    "restart -t 0 c#",
    "kill c#",
    "pause c#",
    "unpause c#",
    "rm -f c#",
    "rename c# c%",
    "update --memory 64m --memory-swap 64m c#",
    "exec c# true",
    "cp c#:/etc/passwd DIR/copy#",
    "commit c# new:%",
    "tag busybox new:%",
    "rmi new:%",
    "load -i DIR/busybox.tar",
    "save -o DIR/saved#.tar busybox",
    "export -o DIR/exported#.tar c#",
    "volume create v%",
    "volume rm v%",
    "ps -a",
    "inspect c#",
    "images",
];

/// How many run at the same time.
const COMMANDS: usize = 200;

#[test]
fn two_hundred_commands_at_once_do_not_harm_each_other() {
    let engine = Engine::new();
    let archive = busybox_archive(engine.dir());
    let tar = engine.dir().join("busybox.tar");
    std::fs::rename(archive.path, tar).expect("it is ours");
    engine.ok("run --rm -v v0:/d busybox true");
    engine.ok("volume rm v0");
    let world = World::at_rest(&engine);
    let dir = engine.dir().display().to_string();
    let mark = format!("2000.{}", std::process::id());
    let sessions: Vec<(String, Session)> = (0..COMMANDS)
        .map(|n| {
            let line = LINES[(n * 7) % LINES.len()]
                .replace("DIR", &dir)
                .replace("MARK", &mark)
                .replace('#', &(n % 6).to_string())
                .replace('%', &(n % 3).to_string());
            let command = engine.line(&line).limit(Duration::from_secs(240));
            (line, command.spawn())
        })
        .collect();
    let mut ids = BTreeSet::new();
    let (mut done, mut wrong) = (0, Vec::new());
    for (line, session) in sessions {
        let outcome = session.wait();
        ids.extend(
            outcome
                .stdout
                .split_whitespace()
                .filter(|word| word.len() == 64)
                .map(str::to_owned),
        );
        match outcome.code {
            0 => done += 1,
            // Its container was stopped or killed by another.
            137 if line.starts_with("exec ") => {}
            _ if is_error(&outcome) => {}
            _ => wrong.push(format!("{outcome:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(done > COMMANDS / 4, "only {done} of {COMMANDS} succeeded");
    // What is there is whole: it can be inspected, and all of it removed.
    let listed = engine.ok("ps -aq --no-trunc");
    ids.extend(listed.split_whitespace().map(str::to_owned));
    for id in listed.split_whitespace() {
        let state = engine.field(id, "{{.State.Status}}");
        let known = ["created", "running", "paused", "exited"];
        assert!(known.contains(&state.as_str()), "{id} is {state}");
        let name = engine.field(id, "{{.Name}}");
        assert_eq!(engine.field(name.trim_start_matches('/'), "{{.Id}}"), id);
    }
    engine.remove_all();
    for name in engine
        .ok("images --format {{.Repository}}:{{.Tag}}")
        .lines()
    {
        if name.starts_with("new:") {
            engine.ok(&format!("rmi {name}"));
        }
    }
    engine.ok("system prune -f --volumes");
    for volume in engine.ok("volume ls -q").split_whitespace() {
        engine.ok(&format!("volume rm {volume}"));
    }
    assert_eq!(
        engine.ok("run --rm busybox cat /etc/motd"),
        "a file of the image"
    );
    let left = world.leftovers(&engine, &ids, &mark);
    assert!(left.is_empty(), "{left:#?}");
}
