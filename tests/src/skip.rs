//! Visible skips.

use std::io::Write;

/// Says on standard error, past the test runner's capture, that the running test cannot run here and why, and appends
/// the line to the file that `CORACLE_SKIP_LOG` names, from which `cargo xtask test` prints its list.
///
/// The form is `SKIP: <file>::<test>: <reason>`.
pub fn skip(reason: &str) {
    let line = format!("SKIP: {}: {reason}\n", test_name());
    rustix::io::write(rustix::stdio::stderr(), line.as_bytes()).expect("stderr is open");
    if let Some(path) = std::env::var_os("CORACLE_SKIP_LOG") {
        std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .unwrap_or_else(|error| panic!("cannot record a skip in {path:?}: {error}"));
    }
}

/// The test runner names each test's thread after the test, and the program after the file it was made from.
fn test_name() -> String {
    let thread = std::thread::current();
    let program = std::env::current_exe().ok();
    let file = program
        .as_deref()
        .and_then(|path| path.file_stem())
        .and_then(|stem| stem.to_str())
        .map_or("unknown", |stem| {
            stem.rsplit_once('-').map_or(stem, |(name, _)| name)
        });
    format!("{file}::{}", thread.name().unwrap_or("unnamed"))
}
