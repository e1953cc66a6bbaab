//! What compiling the default seccomp profile costs: `cargo run --release -p coracle-runtime --example seccomp`.
//!
//! On the project's reference machine (two cores, shared), x86_64 with x86 and x32:
//!
//! | | |
//! |---|---|
//! | instructions, three architectures / native only | 383 / 108 |
//! | making the profile, warm | 12 µs |
//! | compiling it, warm: three architectures / native only | 26 / 10 µs |
//! | both, first time in a process | 29 + 73 µs |
//!
//! A cache by hash would have to write the document as JSON (6 µs), hash 8 kB (5 µs) and read a file (4 µs warm and
//! more cold), and would still have to make the document and fault in the code for all that; it could gain some 30 µs
//! of a start of 2.5 ms, for a file that must be trusted, verified and cleaned up. So there is none.

use std::collections::HashSet;
use std::hint::black_box;
use std::time::{Duration, Instant};

use coracle_runtime::seccomp::{Architecture, Context, compile, default_profile};

/// Median of many single runs, each timed alone.
fn median(mut work: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..2000)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let capabilities = HashSet::new();
    let native = Architecture::native()?;
    let context = Context::host(&capabilities)?;
    let start = Instant::now();
    let profile = default_profile(&context);
    let built = start.elapsed();
    let program = compile(&profile, native)?;
    println!(
        "first profile and program of this process: {built:?} + {:?}",
        start.elapsed() - built
    );
    let mut alone = profile.clone();
    alone.set_architectures(None);
    println!(
        "instructions: {} for all architectures",
        program.instructions.len()
    );
    println!(
        "instructions: {} for the native one",
        compile(&alone, native)?.instructions.len()
    );
    println!(
        "making the profile:   {:?}",
        median(|| drop(black_box(default_profile(&context))))
    );
    println!(
        "compiling it:         {:?}",
        median(|| drop(black_box(compile(black_box(&profile), native))))
    );
    println!(
        "compiling native:     {:?}",
        median(|| drop(black_box(compile(black_box(&alone), native))))
    );
    let json = serde_json::to_vec(&profile)?;
    println!("its JSON:             {} bytes", json.len());
    println!(
        "writing the JSON:     {:?}",
        median(|| drop(black_box(serde_json::to_vec(black_box(&profile)))))
    );
    println!(
        "reading the JSON:     {:?}",
        median(|| {
            drop(black_box(coracle_runtime::seccomp::load_profile(
                black_box(&json),
                &context,
            )));
        })
    );
    // What a cache by hash would cost at least: the key, and reading a file as long as the program.
    let file = std::env::temp_dir().join(format!("coracle-seccomp-example-{}", std::process::id()));
    std::fs::write(&file, vec![0_u8; program.instructions.len() * 8])?;
    println!(
        "reading such a file:  {:?}",
        median(|| drop(black_box(std::fs::read(&file))))
    );
    std::fs::remove_file(&file)?;
    Ok(())
}
