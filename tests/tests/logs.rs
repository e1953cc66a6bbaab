//! What a container printed: kept, followed, cut by time and count, rotated; and attach.

use std::fs;
use std::time::Duration;

use coracle_tests::Engine;

#[test]
fn streams_and_order_are_kept() {
    let engine = Engine::new();
    engine
        .run("run --name c1 busybox sh -c 'echo one; sleep 0.1; echo two >&2; sleep 0.1; echo three'")
        .success();
    let seen = engine.run("logs c1").success();
    assert_eq!(
        (seen.stdout.as_str(), seen.stderr.as_str()),
        ("one\nthree\n", "two\n")
    );
    // Also after a run in the foreground, and for the last lines only.
    let seen = engine.run("logs --tail 1 c1").success();
    assert_eq!(
        (seen.stdout.as_str(), seen.stderr.as_str()),
        ("three\n", "")
    );
    assert_eq!(engine.ok("logs -n 0 c1"), "");
}

#[test]
fn line_without_an_end_and_a_zero_byte_survive() {
    let engine = Engine::new();
    engine.detached("--name c1", "printf 'a\\0b'");
    engine.ok("wait c1");
    let output = engine
        .line("logs c1")
        .into_command()
        .output()
        .expect("it runs");
    assert_eq!(output.stdout, b"a\0b");
}

#[test]
fn very_long_line_is_whole() {
    let engine = Engine::new();
    engine.detached("--name c1", "head -c 200000 /dev/zero | tr '\\0' x; echo");
    engine.ok("wait c1");
    assert_eq!(
        engine.run("logs c1").success().stdout,
        format!("{}\n", "x".repeat(200_000))
    );
}

#[test]
fn follow_shows_what_comes_and_ends_with_the_container() {
    let engine = Engine::new();
    engine.detached(
        "--name c1",
        "echo first; sleep 1; echo second; sleep 0.3; echo last",
    );
    let mut session = engine.spawn("logs -f c1");
    session.expect("first", Duration::from_secs(10));
    session.expect("second", Duration::from_secs(10));
    let outcome = session.wait().success();
    assert_eq!(outcome.stdout, "first\nsecond\nlast\n");
}

#[test]
fn timestamps_and_times_cut() {
    let engine = Engine::new();
    engine.detached("--name c1", "echo early; sleep 2; echo late");
    engine.ok("wait c1");
    let seen = engine.ok("logs -t c1");
    let stamp = |line: &str| line.split(' ').next().expect("a stamp").to_owned();
    let stamps: Vec<String> = seen.lines().map(stamp).collect();
    assert!(
        stamps
            .iter()
            .all(|s| s.len() >= 20 && s.ends_with('Z') && s.contains('T')),
        "{seen}"
    );
    let between = &stamps[1];
    assert_eq!(engine.ok(&format!("logs --since {between} c1")), "late");
    // `until` is the other half: everything strictly before what comes at that time.
    let first = &stamps[0];
    let until = first.replace('Z', "+00:00");
    assert!(engine.ok(&format!("logs --until {until} c1")).len() <= "early".len());
    assert_eq!(engine.ok("logs --since 1h c1"), "early\nlate");
    assert_eq!(engine.ok("logs --until 1h c1"), "");
    engine.refuses("logs --since yesterday-ish c1");
}

#[test]
fn log_files_rotate_and_stay_within_their_size() {
    let engine = Engine::new();
    let options = "--name c1 --log-opt max-size=20k --log-opt max-file=2";
    engine.detached(
        options,
        "i=0; while [ $i -lt 3000 ]; do echo line number $i; i=$((i+1)); done",
    );
    engine.ok("wait c1");
    let seen = engine.ok("logs c1");
    assert!(seen.ends_with("line number 2999"), "the newest stay");
    assert!(!seen.contains("line number 0\n"), "the oldest are gone");
    let total: u64 = walk(engine.root())
        .filter(|path| path.to_string_lossy().contains("log"))
        .map(|path| fs::metadata(path).map(|m| m.len()).unwrap_or(0))
        .sum();
    assert!((10_000..100_000).contains(&total), "{total} bytes of log");
}

fn walk(dir: &std::path::Path) -> Box<dyn Iterator<Item = std::path::PathBuf>> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    Box::new(
        entries.flat_map(|entry| -> Box<dyn Iterator<Item = std::path::PathBuf>> {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => walk(&path),
                Ok(kind) if kind.is_file() => Box::new(std::iter::once(path)),
                _ => Box::new(std::iter::empty()),
            }
        }),
    )
}

#[test]
fn driver_none_keeps_nothing_and_says_so() {
    let engine = Engine::new();
    engine
        .run("run --name c1 --log-driver none busybox echo unseen")
        .success()
        .out("unseen");
    engine.refuses("logs c1");
    engine
        .run("run --rm --log-driver nonsense busybox true")
        .code(125)
        .error_form(false);
}

#[test]
fn logs_of_what_is_not_there() {
    let engine = Engine::new();
    engine.refuses("logs missing").err("missing");
    engine.ok("create --name c1 busybox true");
    assert_eq!(engine.ok("logs c1"), "");
}

#[test]
fn attach_feeds_and_shows_and_gives_the_exit_code() {
    let engine = Engine::new();
    engine.ok("run -di --name c1 busybox sh -c 'read a; echo got $a; read b; echo got $b; exit 8'");
    let mut session = engine.spawn("attach c1");
    let mut stdin = session.take_stdin();
    std::io::Write::write_all(&mut stdin, b"a\n").expect("it reads");
    session.expect("got a", Duration::from_secs(10));
    std::io::Write::write_all(&mut stdin, b"b\n").expect("it reads");
    session.expect("got b", Duration::from_secs(10));
    drop(stdin);
    session.wait().code(8);
    engine.refuses("attach c1");
}

#[test]
fn attached_twice_both_see_the_output() {
    let engine = Engine::new();
    engine.ok("run -di --name c1 busybox sh -c 'read line; echo got $line'");
    let mut first = engine.spawn("attach --no-stdin c1");
    let mut second = engine.spawn("attach c1");
    std::thread::sleep(Duration::from_millis(300));
    let mut stdin = second.take_stdin();
    std::io::Write::write_all(&mut stdin, b"x\n").expect("it reads");
    first.expect("got x", Duration::from_secs(10));
    second.expect("got x", Duration::from_secs(10));
    drop(stdin);
    first.wait().success();
    second.wait().success();
}

#[test]
fn slow_reader_of_the_output_does_not_lose_any() {
    let engine = Engine::new();
    engine.detached(
        "--name c1",
        "sleep 0.5; yes 0123456789 | head -n 100000; echo end",
    );
    let session = engine.spawn("attach --no-stdin c1");
    std::thread::sleep(Duration::from_secs(2));
    let outcome = session.wait().success();
    assert_eq!(outcome.stdout.len(), 11 * 100_000 + 4);
}
