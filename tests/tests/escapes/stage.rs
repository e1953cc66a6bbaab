//! Where the attempts are made, and what they have in common.
//!
//! A program inside says `ESCAPED`, `GOT`, `STOLEN`, `WROTE`, `READ` or `MOUNTED` when it got what it came for.

use std::path::{Path, PathBuf};

use coracle_tests::tar::Tar;
use coracle_tests::{BUSYBOX, Engine, Outcome, busybox_layer, docker_archive, words};
use serde_json::Value;

/// Root inside is root on the host, which only the other walls then hold.
pub(crate) const HOST_USERS: &str = "--userns host";

/// The flags under which an attempt is made by the one who runs the tests: as it is by default, and with root on the
/// host where the tests run as root.
pub(crate) fn stances() -> impl Iterator<Item = &'static str> {
    let all = rustix::process::geteuid().is_root();
    ["", HOST_USERS].into_iter().take(if all { 2 } else { 1 })
}

/// Makes an attempt in every place: root's containers in each stance, then an ordinary user's (a visible skip where
/// the host cannot have one).
pub(crate) fn everywhere(attempt: impl Fn(&Engine, &str)) {
    let engine = Engine::new();
    for stance in stances() {
        attempt(&engine, stance);
    }
    drop(engine);
    as_user(|engine| attempt(engine, ""));
}

/// Makes an attempt by default and by an ordinary user, for what `--userns host` opens by its own meaning.
pub(crate) fn with_own_users(attempt: impl Fn(&Engine, &str)) {
    attempt(&Engine::new(), "");
    as_user(|engine| attempt(engine, ""));
}

/// Makes an attempt in an ordinary user's containers, where the one who runs the tests is not that already.
pub(crate) fn as_user(attempt: impl Fn(&Engine)) {
    if rustix::process::geteuid().is_root()
        && let Some(engine) = Engine::rootless()
    {
        attempt(&engine);
    }
}

/// Runs a compiled attack in a container.
pub(crate) fn attack(engine: &Engine, program: &Path, options: &str, args: &[&str]) -> Outcome {
    let mount = format!("{}:/attack:ro", program.display());
    let mut line = words(&format!("run --rm -v {mount} {options} {BUSYBOX} /attack"));
    line.extend(args.iter().map(|arg| (*arg).to_owned()));
    engine.command(line).run()
}

/// A file on the host that no container may see, and its path.
pub(crate) fn marker(engine: &Engine) -> (PathBuf, String) {
    let path = engine.make_file("marker", "of the host");
    let text = path.display().to_string();
    (path, text)
}

/// Loads `name:1`: busybox, `layers` upon it, and `config`.
#[track_caller]
pub(crate) fn load(engine: &Engine, name: &str, layers: &mut [&mut Tar], config: &Value) {
    try_load(engine, name, layers, config).success();
}

/// As [`load`], for an image that may well be refused.
pub(crate) fn try_load(
    engine: &Engine,
    name: &str,
    layers: &mut [&mut Tar],
    config: &Value,
) -> Outcome {
    let finished: Vec<Vec<u8>> = layers.iter_mut().map(|layer| layer.finish()).collect();
    let mut all = vec![busybox_layer()];
    all.extend(finished.iter().map(Vec::as_slice));
    let path = engine.dir().join(format!("{name}.tar"));
    let file = docker_archive(&path, &format!("{name}:1"), &all, config);
    let outcome = engine.run(&format!("load -i {}", file.path.display()));
    std::fs::remove_file(file.path).expect("the archive is ours");
    outcome
}

/// The names in a folder of the host.
pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .expect("it is ours")
        .map(|entry| entry.expect("it is ours").file_name().display().to_string())
        .collect();
    names.sort();
    names
}

/// A file of `run`'s options for a script: `run --rm OPTIONS IMAGE sh -c SCRIPT`.
pub(crate) fn sh_in(engine: &Engine, options: &str, image: &str, script: &str) -> Outcome {
    let mut line = words(&format!("run --rm {options} {image} /bin/sh -c"));
    line.push(script.to_owned());
    engine.command(line).run()
}
