//! Small C programs that do what an attacker would: `tests/programs/NAME.c`, linked statically so that they run in any
//! root. C, because an escape is written against the system-call interface, and a Rust toolchain needs `cc` anyway.
//!
//! They are compiled once a checkout, by `tests/programs/build`, into `target/test-programs`, and again when a source or
//! the script is newer. Where `CORACLE_TEST_PROGRAMS` names a directory that the script filled, nothing is compiled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use crate::skip;

/// Puts the program of `tests/programs/NAME.c` into `dir`, where every user of the host and every container can be
/// given it. `None` after a visible skip where the host has no C compiler or no static C library.
pub fn compile(name: &str, dir: &Path) -> Option<PathBuf> {
    let built = match std::env::var_os("CORACLE_TEST_PROGRAMS") {
        Some(prebuilt) => PathBuf::from(prebuilt).join(name),
        None => build(name)?,
    };
    let program = dir.join(name);
    fs::copy(&built, &program)
        .unwrap_or_else(|error| panic!("{}: {error}: run tests/programs/build", built.display()));
    Some(program)
}

fn build(name: &str) -> Option<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    let source = sources.join(format!("{name}.c"));
    let script = sources.join("build");
    let into = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-programs");
    let program = into.join(name);
    let changed = |file: &Path| fs::metadata(file).and_then(|meta| meta.modified());
    let newest = |files: [&Path; 2]| -> SystemTime {
        let times = files.map(|file| {
            changed(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        });
        times[0].max(times[1])
    };
    if changed(&program).is_ok_and(|built| built > newest([&source, &script])) {
        return Some(program);
    }
    let output = Command::new("sh")
        .args([&script, &into])
        .arg(name)
        .output()
        .expect("there is a shell");
    if output.status.success() {
        return Some(program);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("cannot find -lc") {
        skip("no static C library");
        return None;
    }
    // The shell's answer for a command that is not there.
    if output.status.code() == Some(127) {
        skip(&format!("no C compiler: {errors}"));
        return None;
    }
    panic!("{} does not compile: {errors}", source.display());
}
