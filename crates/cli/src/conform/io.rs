//! Column 4: rates of block I/O are limited, and can be changed while a container runs.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Checks;
use super::inside::IO_FILE;
use super::subject::{INSIDE, PROGRAM, Subject};

/// Bytes a second that the tests allow.
const RATE: u64 = 8 << 20;
/// Operations a second that the tests allow.
const OPERATIONS: u64 = 100;
/// Bytes in one transfer where bytes are counted, and where operations are.
const LARGE: u64 = 256 << 10;
const SMALL: u64 = 4 << 10;

/// Makes all observations.
pub(super) fn test(subject: &Subject, checks: &mut Checks) {
    let what = "rates of a block device hold";
    let file = match prepare(subject) {
        Ok(file) => file,
        Err(problem) => return checks.skip(what, problem),
    };
    let device = match disk_of(&file) {
        Ok(device) => device,
        Err(problem) => return checks.skip(what, problem),
    };
    let device = device.to_string_lossy().into_owned();
    let rate = |bytes: u64| format!("{device}:{bytes}");
    checks.attempt(
        "write bytes a second within 10 %",
        limited(
            subject,
            &file,
            ["--device-write-bps", &rate(RATE)],
            "write",
            LARGE,
        ),
    );
    checks.attempt(
        "read bytes a second within 10 %",
        limited(
            subject,
            &file,
            ["--device-read-bps", &rate(RATE)],
            "read",
            LARGE,
        ),
    );
    checks.attempt(
        "writes a second within 10 %",
        limited(
            subject,
            &file,
            ["--device-write-iops", &rate(OPERATIONS)],
            "write",
            SMALL,
        ),
    );
    checks.attempt(
        "reads a second within 10 %",
        limited(
            subject,
            &file,
            ["--device-read-iops", &rate(OPERATIONS)],
            "read",
            SMALL,
        ),
    );
    if on_v2() {
        checks.attempt(
            "buffered writes within 10 %",
            limited(
                subject,
                &file.with_file_name("fresh"),
                ["--device-write-bps", &rate(RATE)],
                "buffered",
                LARGE,
            ),
        );
    }
    checks.attempt(
        "an update to half works live",
        update(subject, &file, &device),
    );
}

/// Whether the io controller is a cgroup v2 one; v1 throttles direct and synchronous I/O only.
fn on_v2() -> bool {
    std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
        .is_ok_and(|text| text.split_whitespace().any(|word| word == "io"))
}

/// A file that is overwritten and read again and again, in a directory that the container gets.
fn prepare(subject: &Subject) -> Result<PathBuf, String> {
    let directory = subject.scratch().join("io");
    let file = directory.join("file");
    let failed = |error: std::io::Error| format!("cannot prepare {}: {error}", file.display());
    std::fs::create_dir_all(&directory).map_err(failed)?;
    std::fs::write(&file, vec![1u8; IO_FILE as usize]).map_err(failed)?;
    // Whoever root inside is outside must be able to write it, and another beside it.
    for (path, mode) in [(&file, 0o666), (&directory, 0o777)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    std::fs::File::open(&file)
        .and_then(|file| file.sync_all())
        .map_err(failed)?;
    Ok(file)
}

/// The whole disk that a file is on: a limit on a partition is refused by the kernel.
fn disk_of(file: &Path) -> Result<PathBuf, String> {
    let device = std::fs::metadata(file)
        .map_err(|error| error.to_string())?
        .dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let none = |problem: String| {
        format!(
            "{} is not on a block device of its own ({problem}); give --scratch a directory that is",
            file.display()
        )
    };
    let system = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"))
        .map_err(|error| none(error.to_string()))?;
    let whole = if system.join("partition").exists() {
        system.parent().map(Path::to_owned).unwrap_or(system)
    } else {
        system
    };
    let name = whole
        .file_name()
        .ok_or_else(|| none("it has no name".into()))?;
    let path = Path::new("/dev").join(name);
    if path.exists() {
        Ok(path)
    } else {
        Err(none(format!("{} is not there", path.display())))
    }
}

/// (bytes, operations) a second that the program inside reached.
fn reached(text: &str) -> Result<(f64, f64), String> {
    let numbers: Vec<f64> = text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [bytes, operations, nanos] = numbers[..] else {
        return Err(format!("the program inside said {text:?}"));
    };
    Ok((bytes / nanos * 1e9, operations / nanos * 1e9))
}

fn limited(
    subject: &Subject,
    file: &Path,
    limit: [&str; 2],
    way: &str,
    size: u64,
) -> Result<(bool, String), String> {
    let (directory, size_text) = (
        file.parent()
            .unwrap_or(Path::new("/"))
            .display()
            .to_string(),
        size.to_string(),
    );
    let mount = format!("{directory}:/scratch");
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let inside = format!("/scratch/{name}");
    let answer = subject.run(
        &[limit[0], limit[1], "-v", &mount],
        &["io", way, &inside, &size_text, "5"],
    )?;
    let (bytes, operations) = reached(&answer.output()?)?;
    Ok(if size == SMALL {
        let wanted = OPERATIONS as f64;
        (
            (operations - wanted).abs() <= wanted / 10.0,
            format!("{operations:.1} of {wanted} a second"),
        )
    } else {
        let wanted = RATE as f64;
        (
            (bytes - wanted).abs() <= wanted / 10.0,
            format!("{:.2} of {:.2} MB/s", bytes / 1e6, wanted / 1e6),
        )
    })
}

fn update(subject: &Subject, file: &Path, device: &str) -> Result<(bool, String), String> {
    let mount = format!(
        "{}:/scratch",
        file.parent().unwrap_or(Path::new("/")).display()
    );
    let limit = format!("{device}:{RATE}");
    let name = subject.start(
        &["--device-write-bps", &limit, "-v", &mount],
        &["sleep", "60"],
    )?;
    let half = RATE / 2;
    let result = subject
        .call(&[
            "update",
            "--device-write-bps",
            &format!("{device}:{half}"),
            &name,
        ])
        .and_then(|answer| {
            answer.output()?;
            let line = [
                "exec",
                &name,
                PROGRAM,
                INSIDE,
                "io",
                "write",
                "/scratch/file",
                &LARGE.to_string(),
                "5",
            ];
            let (bytes, _) = reached(&subject.call_for(&line, Duration::from_secs(60))?.output()?)?;
            let wanted = half as f64;
            Ok((
                (bytes - wanted).abs() <= wanted / 10.0,
                format!("{:.2} of {:.2} MB/s", bytes / 1e6, wanted / 1e6),
            ))
        });
    subject.remove(&name);
    result
}
