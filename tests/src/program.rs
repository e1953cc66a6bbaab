//! Small C programs that do what an attacker would: `tests/programs/NAME.c`, linked statically so that they run in any
//! root. C, because an escape is written against the system-call interface, and a Rust toolchain needs `cc` anyway.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::skip;

/// Compiles `tests/programs/NAME.c` into `dir`. `None` after a visible skip where the host has no C compiler or no
/// static C library.
pub fn compile(name: &str, dir: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("programs")
        .join(format!("{name}.c"));
    let program = dir.join(name);
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let output = Command::new(&compiler)
        .args(["-std=gnu11", "-O1", "-Wall", "-Werror", "-static", "-o"])
        .args([&program, &source])
        .output();
    match output {
        Err(error) => {
            skip(&format!("no C compiler {compiler:?}: {error}"));
            None
        }
        Ok(output) if !output.status.success() => {
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(
                errors.contains("cannot find -lc"),
                "{} does not compile: {errors}",
                source.display()
            );
            skip("no static C library");
            None
        }
        Ok(_) => Some(program),
    }
}
