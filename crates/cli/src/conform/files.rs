//! Column 1: the container sees only its root and its own mounts, and nothing inside leads out.

use std::path::Path;
use std::time::Duration;

use super::inside::ESCAPED;
use super::subject::{Answer, Subject};
use super::{Checks, image};

const SECRET: &str = "a file of the host's\n";

/// Makes all observations.
pub(super) fn test(subject: &Subject, checks: &mut Checks) {
    checks.attempt("/proc/mounts shows no path of the host", mounts(subject));
    checks.attempt("no way out of the root", escapes(subject));
    checks.attempt("links at every mount target stay inside", links(subject));
}

fn mounts(subject: &Subject) -> Result<(bool, String), String> {
    let storage = subject.storage();
    if storage.is_empty() {
        return Err("the engine does not say where it keeps its things".into());
    }
    let mounts = subject.run(&[], &["print", "/proc/mounts"])?.output()?;
    let lines = mounts.lines().count();
    let shown = mounts.lines().find(|line| {
        storage
            .iter()
            .any(|path| line.contains(&*path.to_string_lossy()))
    });
    Ok(match shown {
        Some(line) => (
            false,
            format!("it shows {}", line.chars().take(200).collect::<String>()),
        ),
        None => (
            lines > 0,
            format!("{lines} mounts, none names {}", storage[0].display()),
        ),
    })
}

fn escapes(subject: &Subject) -> Result<(bool, String), String> {
    let canary = subject.scratch().join("canary");
    std::fs::write(&canary, SECRET)
        .map_err(|error| format!("cannot write {}: {error}", canary.display()))?;
    let answer = subject.run(&[], &["escape", &canary.to_string_lossy()])?;
    let tries = answer.stdout.lines().count();
    match answer.code {
        Some(0) if tries >= 5 => {
            let leaked = answer
                .stdout
                .lines()
                .filter(|line| line.starts_with("leaked"))
                .count();
            let chroot = answer.stdout.lines().last().unwrap_or_default();
            Ok((
                true,
                format!("{tries} ways tried, {leaked} leaked descriptors; {chroot}"),
            ))
        }
        Some(code) if code == i32::from(ESCAPED) => {
            let ways: Vec<_> = answer
                .stdout
                .lines()
                .filter(|line| line.ends_with("READ THE HOST'S FILE"))
                .collect();
            Ok((false, ways.join(", ")))
        }
        _ => Err(answer
            .output()
            .err()
            .unwrap_or_else(|| "the program inside said nothing".into())),
    }
}

/// An image whose mount targets are links to a directory of the host. Refusing to start it is as good as staying inside.
fn links(subject: &Subject) -> Result<(bool, String), String> {
    let bait = subject.scratch().join("bait");
    let failed = |error: std::io::Error| format!("cannot prepare {}: {error}", bait.display());
    std::fs::create_dir_all(&bait).map_err(failed)?;
    std::fs::write(bait.join("canary"), SECRET).map_err(failed)?;
    let target = bait.to_string_lossy().into_owned();
    let image = subject.make_image(&image::links(&target)?)?;
    let before = listing(&bait).map_err(failed)?;
    let canaries: Vec<String> = ["dev", "proc", "sys", "run", "tmp", "data"]
        .iter()
        .map(|name| format!("/{name}/canary"))
        .collect();
    let mut program = vec!["print"];
    program.extend(canaries.iter().map(String::as_str));
    let options = ["--tmpfs", "/data/inner"];
    // The same without links must run, so that a refusal can only be about them.
    subject.run(&options, &["print", "/data/file"])?.output()?;
    let answer: Answer = subject.run_image(&image, &options, &program, Duration::from_secs(60))?;
    let after = listing(&bait).map_err(failed)?;
    if before != after {
        return Ok((
            false,
            format!("the host's {target} held {before:?} and holds {after:?}"),
        ));
    }
    if answer.stdout.contains(SECRET.trim()) {
        return Ok((false, "the program inside read the host's file".into()));
    }
    let how = match answer.code {
        Some(0) => "the container ran, and the host's directory is as it was".to_owned(),
        _ => format!(
            "refused: {}",
            answer.stderr.lines().collect::<Vec<_>>().join(", ")
        ),
    };
    Ok((true, how))
}

fn listing(directory: &Path) -> std::io::Result<Vec<String>> {
    let names: std::io::Result<Vec<_>> = std::fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect();
    names.map(|mut names| {
        names.sort();
        names
    })
}
