//! Column 5: memory is limited, an OOM kill stays inside and is told, and an update never kills.

use std::time::Duration;

use super::Checks;
use super::subject::{INSIDE, PROGRAM, Subject};

/// Makes all observations.
pub(super) fn test(subject: &Subject, checks: &mut Checks) {
    out_of_memory(subject, checks);
    checks.attempt("less than the limit is allowed", below(subject));
    update(subject, checks);
}

fn out_of_memory(subject: &Subject, checks: &mut Checks) {
    const KILLED: &str = "more than the limit is killed";
    let neighbour = subject.start(&[], &["sleep", "60"]);
    let since = crate::units::rfc3339(crate::units::now());
    let name = subject.container();
    let image = match subject.image() {
        Ok(image) => image,
        Err(problem) => return checks.add(KILLED, false, problem),
    };
    let line = [
        "run",
        "--name",
        &name,
        "--network",
        "none",
        "--memory",
        "64m",
        "--memory-swap",
        "64m",
        &image,
        PROGRAM,
        INSIDE,
        "memory",
        "256",
        "0",
    ];
    match subject.call(&line) {
        Ok(answer) => checks.add(
            KILLED,
            answer.code == Some(137),
            format!(
                "256 MiB of 64 MiB: exit code {:?} {}",
                answer.code,
                answer.stderr.trim()
            ),
        ),
        Err(problem) => checks.add(KILLED, false, problem),
    }
    checks.attempt(
        "the exit is reported as OOM",
        subject
            .inspect(&name, "{{.State.OOMKilled}}")
            .map(|told| (told == "true", format!("OOMKilled is {told}"))),
    );
    let until = crate::units::rfc3339(crate::units::now());
    let events = subject.call(&[
        "events",
        "--since",
        &since,
        "--until",
        &until,
        "--filter",
        "event=oom",
        "--filter",
        &format!("container={name}"),
    ]);
    checks.attempt(
        "the event is counted",
        events.and_then(|answer| answer.output()).map(|text| {
            let count = text.lines().filter(|line| line.contains("oom")).count();
            (count > 0, format!("{count} oom events"))
        }),
    );
    let alive = neighbour.and_then(|neighbour| {
        let alive = subject.inspect(&neighbour, "{{.State.Running}}");
        subject.remove(&neighbour);
        alive
    });
    checks.attempt(
        "a neighbour is not touched",
        alive.map(|alive| (alive == "true", format!("a neighbour's Running is {alive}"))),
    );
    subject.remove(&name);
}

fn below(subject: &Subject) -> Result<(bool, String), String> {
    let answer = subject.run(
        &[
            "--memory",
            "128m",
            "--memory-reservation",
            "64m",
            "--memory-swap",
            "128m",
        ],
        &["memory", "64", "0"],
    )?;
    Ok((
        answer.code == Some(0),
        format!(
            "64 MiB of 128 MiB: exit code {:?} {}",
            answer.code,
            answer.stderr.trim()
        ),
    ))
}

fn update(subject: &Subject, checks: &mut Checks) {
    const REFUSED: &str = "an update below what is used is refused";
    let name = match subject.start(
        &["--memory", "256m", "--memory-swap", "256m"],
        &["memory", "128", "120"],
    ) {
        Ok(name) => name,
        Err(problem) => return checks.add(REFUSED, false, problem),
    };
    // The program inside says when it holds its memory.
    for _ in 0..200 {
        let logs = subject
            .call(&["logs", &name])
            .map(|answer| answer.stdout)
            .unwrap_or_default();
        if logs.contains("touched") {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let shrunk = subject.call(&["update", "--memory", "32m", "--memory-swap", "32m", &name]);
    // A killer that was set off needs a moment.
    std::thread::sleep(Duration::from_millis(500));
    let running = subject.inspect(&name, "{{.State.Running}}");
    match (&shrunk, &running) {
        (Ok(answer), Ok(running)) => {
            let told = answer.stderr.trim();
            checks.add(
                REFUSED,
                answer.code != Some(0) && running == "true",
                format!("exit code {:?} {told}; Running is {running}", answer.code),
            );
        }
        (Err(problem), _) | (_, Err(problem)) => checks.add(REFUSED, false, problem.clone()),
    }
    let grown = subject
        .call(&["update", "--memory", "512m", "--memory-swap", "512m", &name])
        .and_then(|answer| answer.output());
    let more =
        grown.and_then(|_| subject.call(&["exec", &name, PROGRAM, INSIDE, "memory", "192", "0"]));
    checks.attempt(
        "an update to more works live",
        more.map(|answer| {
            (
                answer.code == Some(0),
                format!(
                    "192 MiB more: exit code {:?} {}",
                    answer.code,
                    answer.stderr.trim()
                ),
            )
        }),
    );
    subject.remove(&name);
}
