//! Column 2: containers share their image's files, and only what they change is theirs.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use coracle_store::Limits;
use coracle_store::tar::TarReader;

use super::subject::Subject;
use super::{Checks, image};

/// How many containers of one image are made.
const CONTAINERS: u64 = 100;
const MEBIBYTE: u64 = 1 << 20;

/// Makes all observations.
pub(super) fn test(subject: &Subject, checks: &mut Checks) {
    checks.attempt("100 containers add less than 1 MiB each", many(subject));
    let changed = subject.container();
    let made = subject.image().and_then(|image| {
        let line = [
            "run",
            "--name",
            &changed,
            "--network",
            "none",
            &image,
            super::subject::PROGRAM,
            super::subject::INSIDE,
            "change",
        ];
        subject.call(&line)?.output()
    });
    if let Err(problem) = made {
        checks.add("a container changes its files", false, problem);
        return;
    }
    checks.attempt("the image's files never change", unchanged(subject));
    checks.attempt(
        "diff lists exactly what was added, changed and deleted",
        diff(subject, &changed),
    );
    checks.attempt(
        "commit makes a layer of just those",
        commit(subject, &changed),
    );
    subject.remove(&changed);
}

fn many(subject: &Subject) -> Result<(bool, String), String> {
    let storage = subject.storage();
    let image = subject.image()?;
    let used = || storage.iter().map(|path| disk_use(path)).sum::<u64>();
    let before = used();
    if before == 0 {
        return Err("the engine's files cannot be measured: it does not say where they are, or they cannot be read".into());
    }
    let mut names = Vec::new();
    for _ in 0..CONTAINERS {
        let name = subject.container();
        let line = [
            "run",
            "-d",
            "--name",
            &name,
            "--network",
            "none",
            &image,
            super::subject::PROGRAM,
            super::subject::INSIDE,
            "sleep",
            "0",
        ];
        subject.call(&line)?.output()?;
        names.push(name);
    }
    let each = used().saturating_sub(before) / CONTAINERS;
    names.iter().for_each(|name| subject.remove(name));
    Ok((each < MEBIBYTE, format!("{} kB each", each / 1000)))
}

/// Bytes on disk below a directory; mounts in it, which show the same bytes again, are left out.
fn disk_use(directory: &Path) -> u64 {
    let Ok(top) = std::fs::symlink_metadata(directory) else {
        return 0;
    };
    let mut sum = top.blocks() * 512;
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(directory) else {
            continue;
        };
        for entry in entries.flatten() {
            // A running engine removes files while they are counted.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.dev() != top.dev() {
                continue;
            }
            sum += metadata.blocks() * 512;
            if metadata.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    sum
}

fn unchanged(subject: &Subject) -> Result<(bool, String), String> {
    let seen = subject
        .run(&[], &["print", "/data/file", "/data/gone"])?
        .output()?;
    let expected: String = image::FILES.iter().map(|(_, content)| *content).collect();
    Ok((
        seen == expected,
        format!("another container of the image reads {seen:?}"),
    ))
}

/// Places where engines put things of their own.
fn is_engines(path: &str) -> bool {
    let own = [
        "/dev",
        "/etc/hostname",
        "/etc/hosts",
        "/etc/mtab",
        "/etc/resolv.conf",
        "/proc",
        "/run",
        "/sys",
    ];
    path == "/etc"
        || own.iter().any(|prefix| {
            path == *prefix
                || path
                    .strip_prefix(prefix)
                    .is_some_and(|rest| rest.starts_with('/'))
        })
}

fn diff(subject: &Subject, container: &str) -> Result<(bool, String), String> {
    let text = subject.call(&["diff", container])?.output()?;
    let seen: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.get(2..).is_some_and(is_engines))
        .collect();
    let expected = BTreeSet::from([
        "A /added",
        "A /added/inner",
        "A /data/new",
        "C /data",
        "C /data/file",
        "D /data/gone",
    ]);
    let shown = seen.iter().copied().collect::<Vec<_>>().join(", ");
    Ok((seen == expected, shown))
}

fn commit(subject: &Subject, container: &str) -> Result<(bool, String), String> {
    let name = subject.fresh("commit");
    subject.owns_image(&name);
    subject.call(&["commit", container, &name])?.output()?;
    let archive = subject.scratch().join("commit.tar");
    subject
        .call_for(
            &["save", "-o", &archive.to_string_lossy(), &name],
            Duration::from_secs(120),
        )?
        .output()?;
    let entries = last_layer(&archive)?;
    let seen: BTreeSet<&str> = entries
        .iter()
        .map(|path| path.trim_end_matches('/'))
        .filter(|path| !is_engines(&format!("/{path}")))
        .collect();
    let expected = BTreeSet::from([
        "added",
        "added/inner",
        "data",
        "data/.wh.gone",
        "data/file",
        "data/new",
    ]);
    Ok((
        seen == expected,
        seen.iter().copied().collect::<Vec<_>>().join(", "),
    ))
}

/// The names in the last layer of a Docker archive.
fn last_layer(archive: &Path) -> Result<Vec<String>, String> {
    let manifest = entry_of(archive, "manifest.json")?;
    let manifest: serde_json::Value =
        serde_json::from_slice(&manifest).map_err(|error| format!("manifest.json: {error}"))?;
    let layer = manifest[0]["Layers"]
        .as_array()
        .and_then(|layers| layers.last()?.as_str())
        .ok_or("manifest.json names no layers")?;
    let bytes = entry_of(archive, layer)?;
    let plain = coracle_store::decompress(bytes.as_slice(), Limits::default().decompressed_bytes)
        .map_err(|error| format!("the layer: {error}"))?;
    let mut reader = TarReader::new(BufReader::new(plain), Limits::default());
    let mut names = Vec::new();
    while let Some(entry) = reader
        .next_entry()
        .map_err(|error| format!("the layer: {error}"))?
    {
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        names.push(name.trim_start_matches("./").to_owned());
    }
    names.retain(|name| !name.is_empty() && name != ".");
    Ok(names)
}

/// The bytes of one file of an archive, through links to other entries.
fn entry_of(archive: &Path, name: &str) -> Result<Vec<u8>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", archive.display());
    let file = File::open(archive).map_err(|error| failed(&error))?;
    let mut reader = TarReader::new(BufReader::new(file), Limits::default());
    while let Some(entry) = reader.next_entry().map_err(|error| failed(&error))? {
        if entry.path != name.as_bytes() {
            continue;
        }
        if !entry.link.is_empty() {
            let target = String::from_utf8_lossy(&entry.link).into_owned();
            // `../ID/layer.tar`, as older Docker writes shared layers.
            return entry_of(archive, target.trim_start_matches("../"));
        }
        let mut bytes = Vec::new();
        loop {
            let piece = reader.data().map_err(|error| failed(&error))?;
            if piece.is_empty() {
                return Ok(bytes);
            }
            let mut piece = piece;
            let count = piece.len();
            piece
                .read_to_end(&mut bytes)
                .map_err(|error| failed(&error))?;
            reader.consume(count);
        }
    }
    Err(format!("{} has no {name}", archive.display()))
}
