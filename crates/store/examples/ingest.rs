//! How long storing layers takes: `ingest DIRECTORY erofs|directory FILE…` prints seconds and the peak of resident memory.
//!
//! Run it on a fresh file system: after large deletions the root file system of some machines creates files many times slower.

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use coracle_store::{Driver, Durability, Options, Store, decompress};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: ingest DIRECTORY erofs|directory[-relaxed] FILE…";
    let root = arguments.next().ok_or(usage)?;
    let driver = arguments.next().ok_or(usage)?;
    let durability = if driver.ends_with("-relaxed") {
        Durability::Relaxed
    } else {
        Durability::Synced
    };
    let driver = match driver.trim_end_matches("-relaxed") {
        "erofs" => Driver::Erofs,
        "directory" => Driver::Directory,
        _ => return Err(usage.into()),
    };
    let options = Options {
        driver,
        durability,
        ..Options::default()
    };
    let store = Store::open(Path::new(&root), &options)?;
    let start = Instant::now();
    let (mut bytes, mut content) = (0, 0);
    for path in arguments {
        let layer = store.ingest_layer(decompress(File::open(&path)?, u64::MAX)?, None)?;
        bytes += layer.size;
        content += layer.content_size;
    }
    let seconds = start.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap_or("VmHWM: unknown");
    // Fields 14 and 15 of stat, in hundredths of a second: on a busy machine they say more than the clock.
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .ok_or("no stat")?
        .1
        .split_ascii_whitespace()
        .collect();
    let cpu = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
            / 100.0
    };
    let (user, system) = (cpu(11), cpu(12));
    println!(
        "{seconds:.3} s ({user:.2} user, {system:.2} system), {bytes} bytes of tar, {content} of content, {peak}"
    );
    Ok(())
}
