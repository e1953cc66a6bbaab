//! How long loading takes, and how much memory: HOST.md's image set, each kind into a fresh store on a fresh file system.
//!
//! `cargo run --release -p coracle-image --example load -- [SET [RUNS]]`, as root (loop mount). SET is what `images/make` wrote, by
//! default /var/tmp/coracle-images. Each load is a process of its own, so that its peak memory is its own; the page cache is warm.
//! Also measured: `resolve` by name and `obtain` of what was loaded before, in microseconds.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use coracle_image::{Images, LoadOptions, Source};
use coracle_store::{Driver, Options, Store};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--one", driver, source, root] => one(driver, source, Path::new(root)),
        [] => all(Path::new("/var/tmp/coracle-images"), 3),
        [set] => all(Path::new(set), 3),
        [set, runs] => runs
            .parse()
            .map_err(Into::into)
            .and_then(|runs| all(Path::new(set), runs)),
        _ => Err("usage: load [SET [RUNS]]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("caused by: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn all(set: &Path, runs: u32) -> Outcome {
    println!(
        "{:<28} {:<10} {:>8} {:>9}  (best of {runs})",
        "source", "driver", "seconds", "peak MiB"
    );
    let set = set.display();
    for driver in ["erofs", "directory"] {
        for source in [
            format!("docker-archive:{set}/docker-full.tar"),
            format!("oci:{set}/oci-gzip:full"),
            format!("oci:{set}/oci-zstd:full"),
            format!("oci:{set}/oci-gzip:many50"),
        ] {
            let mut best: Option<(f64, f64, String)> = None;
            for _ in 0..runs {
                let disk = Disk::new()?;
                let mut child = Command::new(std::env::current_exe()?);
                let output = child
                    .args(["--one", driver, &source])
                    .arg(disk.mount.join("store"))
                    .output()?;
                if !output.status.success() {
                    return Err(
                        format!("{source}: {}", String::from_utf8_lossy(&output.stderr)).into(),
                    );
                }
                let text = String::from_utf8(output.stdout)?;
                let mut fields = text.split_whitespace();
                let seconds: f64 = fields.next().ok_or("no time")?.parse()?;
                let memory: f64 = fields.next().ok_or("no memory")?.parse()?;
                let rest = fields.collect::<Vec<_>>().join(" ");
                if best.as_ref().is_none_or(|(other, ..)| seconds < *other) {
                    best = Some((seconds, memory, rest));
                }
            }
            if let Some((seconds, memory, rest)) = best {
                let name = source.replace(&format!("{set}/"), "");
                println!("{name:<28} {driver:<10} {seconds:>8.3} {memory:>9.1}  {rest}");
            }
        }
    }
    Ok(())
}

/// The measured process: prints seconds, peak MiB, and what finding it again costs.
fn one(driver: &str, source: &str, root: &Path) -> Outcome {
    let driver = match driver {
        "erofs" => Driver::Erofs,
        _ => Driver::Directory,
    };
    let images = Images::open(Store::open(
        root,
        &Options {
            driver,
            ..Options::default()
        },
    )?)?;
    let source = Source::parse(source)?;
    let options = LoadOptions::default();
    let start = Instant::now();
    let image = images.obtain(&source, &options)?;
    let seconds = start.elapsed().as_secs_f64();
    let memory = peak_memory()?;
    images.tag(&image.id.hex(), &"bench".parse()?)?;
    let resolve = each(|| images.resolve("bench").map(|_| ()).map_err(Into::into))?;
    let obtain = each(|| {
        images
            .obtain(&source, &options)
            .map(|_| ())
            .map_err(Into::into)
    })?;
    println!(
        "{seconds} {memory} resolve {resolve:.0} us, obtain again {obtain:.0} us, {} layers",
        image.layers.len()
    );
    Ok(())
}

fn each(mut run: impl FnMut() -> Outcome) -> Outcome<f64> {
    const TIMES: u32 = 200;
    let start = Instant::now();
    for _ in 0..TIMES {
        run()?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES))
}

fn peak_memory() -> Outcome<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .ok_or("no VmHWM")?;
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes / 1024.0)
}

/// A fresh ext4 on a loop device; gone when dropped.
struct Disk {
    files: PathBuf,
    mount: PathBuf,
}

impl Disk {
    fn new() -> Outcome<Disk> {
        let files = PathBuf::from(format!(
            "/var/tmp/coracle-load-bench.{}",
            std::process::id()
        ));
        let disk = Disk {
            mount: files.join("mnt"),
            files,
        };
        std::fs::create_dir_all(&disk.mount)?;
        let image = disk.files.join("disk");
        std::fs::File::create(&image)?.set_len(4 << 30)?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
            .arg(&image))?;
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(&disk.mount))?;
        Ok(disk)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Not mounted where making it failed; then umount says so and the files still go.
        if let Err(error) = run(Command::new("umount").arg("--detach-loop").arg(&self.mount)) {
            eprintln!("warning: {error}");
        }
        if let Err(error) = std::fs::remove_dir_all(&self.files) {
            eprintln!("warning: {} stays: {error}", self.files.display());
        }
    }
}

fn run(command: &mut Command) -> Outcome {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )
    .into())
}
