//! The program inside: pushes against limits and walls, and prints what happened.
//!
//! It is this binary, copied into the test's image, called as `coracle conform-inside TEST ARGUMENT…`. It must not rely on
//! anything in its root but itself.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};

use crate::error::Error;
use crate::output;

/// Exit code of a test that got out.
pub(super) const ESCAPED: u8 = 3;

/// Runs one test.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> Result<u8, Error> {
    let words: Vec<String> = arguments
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|_| Error::usage(format!("{text:?} is not a number"), "run `coracle conform`"))
    };
    match words.as_slice() {
        ["print", paths @ ..] => print(paths),
        ["escape", canary] => escape(canary),
        ["change"] => change().map(|()| 0),
        ["sleep", seconds] => {
            std::thread::sleep(Duration::from_secs(number(seconds)?));
            Ok(0)
        }
        ["memory", mebibytes, seconds] => memory(number(mebibytes)?, number(seconds)?),
        ["spin", seconds, rounds] => spin(number(seconds)?, number(rounds)?),
        ["tasks", most] => tasks(number(most)?),
        ["affinity"] => affinity(),
        ["io", way, path, size, seconds] => io(way, path, number(size)?, number(seconds)?),
        ["privileges"] => privileges(),
        _ => Err(Error::usage(
            "this is the inner half of a test",
            "run `coracle conform`",
        )),
    }
}

/// Prints files; one that cannot be read gives its reason.
fn print(paths: &[&str]) -> Result<u8, Error> {
    for path in paths {
        match std::fs::read_to_string(path) {
            Ok(text) => output::print(&text)?,
            Err(error) => output::line(format_args!("{path}: {error}"))?,
        }
    }
    Ok(0)
}

/// Tries to read a file of the host by every classic way out.
fn escape(canary: &str) -> Result<u8, Error> {
    let mut out = false;
    let mut told = |way: &str, result: Result<String, String>| {
        out |= result.is_ok();
        output::line(format_args!(
            "{way}: {}",
            result.map_or_else(|problem| problem, |_| "READ THE HOST'S FILE".into())
        ))
    };
    let read = |prefix: &str| {
        std::fs::read_to_string(format!("{prefix}{canary}")).map_err(|error| error.to_string())
    };
    told("its own path", read(""))?;
    told("dot dot", read(&"/..".repeat(64)))?;
    told("/proc/1/root", read("/proc/1/root"))?;
    told(
        "/proc/1/cwd",
        read(&format!("/proc/1/cwd{}", "/..".repeat(64))),
    )?;
    for descriptor in 3..64 {
        // CVE-2024-21626: a descriptor of the host's that survived into the container.
        let path = format!("/proc/self/fd/{descriptor}");
        if let Ok(leaked) = std::fs::read_link(&path) {
            told(
                &format!("leaked descriptor {descriptor} ({})", leaked.display()),
                read(&format!("{path}{}", "/..".repeat(64))),
            )?;
        }
    }
    told("second chroot", second_chroot(canary))?;
    Ok(if out { ESCAPED } else { 0 })
}

/// chroot(2) does not move the working directory: from above the new root `..` leads to the real one.
fn second_chroot(canary: &str) -> Result<String, String> {
    let step = |step: &'static str| move |error: rustix::io::Errno| format!("{step}: {error}");
    let below = "/coracle-conform-chroot";
    match rustix::fs::mkdir(below, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(step("mkdir")(error)),
    }
    let top = rustix::fs::open("/", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(step("open /"))?;
    rustix::process::chroot(below).map_err(step("chroot"))?;
    rustix::process::fchdir(&top).map_err(step("fchdir"))?;
    for _ in 0..64 {
        rustix::process::chdir("..").map_err(step("chdir .."))?;
    }
    rustix::process::chroot(".").map_err(step("second chroot"))?;
    std::fs::read_to_string(canary).map_err(|error| format!("after the second chroot: {error}"))
}

/// Adds, changes and deletes what [`super::copy_on_write`] expects.
fn change() -> Result<(), Error> {
    let path = |name: &str| format!("/data/{name}");
    let mut file = OpenOptions::new()
        .append(true)
        .open(path("file"))
        .map_err(Error::file("open", path("file")))?;
    file.write_all(b"changed\n")
        .map_err(Error::file("write", path("file")))?;
    std::fs::remove_file(path("gone")).map_err(Error::file("remove", path("gone")))?;
    std::fs::write(path("new"), "added\n").map_err(Error::file("write", path("new")))?;
    std::fs::create_dir("/added").map_err(Error::file("make", "/added"))?;
    std::fs::write("/added/inner", "added\n").map_err(Error::file("write", "/added/inner"))
}

/// Touches so much memory and keeps it for so long.
fn memory(mebibytes: u64, seconds: u64) -> Result<u8, Error> {
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    for mebibyte in 0..mebibytes {
        // Not zero: a page of zeros could be shared.
        chunks.push(vec![(mebibyte % 251) as u8 + 1; 1 << 20]);
    }
    let sum: u64 = chunks
        .iter()
        .map(|chunk| u64::from(chunk[chunk.len() / 2]))
        .sum();
    output::line(format_args!("touched {mebibytes} MiB ({sum})"))?;
    std::thread::sleep(Duration::from_secs(seconds));
    drop(chunks);
    Ok(0)
}

/// Burns one CPU for `seconds`, `rounds` times; prints (CPU time, wall time) in nanoseconds after each.
fn spin(seconds: u64, rounds: u64) -> Result<u8, Error> {
    let cpu = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    };
    for _ in 0..rounds {
        let (start, used) = (Instant::now(), cpu());
        let mut state = 1u64;
        while start.elapsed() < Duration::from_secs(seconds) {
            for _ in 0..100_000 {
                state = std::hint::black_box(
                    state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1),
                );
            }
        }
        output::line(format_args!(
            "{} {}",
            cpu() - used,
            start.elapsed().as_nanos()
        ))?;
    }
    Ok(0)
}

/// Makes threads until the kernel refuses; prints how many there were with this one.
fn tasks(most: u64) -> Result<u8, Error> {
    let gate = std::sync::Arc::new(std::sync::Barrier::new(usize::MAX));
    let mut count = 1;
    while count < most {
        let gate = std::sync::Arc::clone(&gate);
        let made = std::thread::Builder::new()
            .stack_size(64 << 10)
            .spawn(move || {
                gate.wait();
            });
        match made {
            Ok(_) => count += 1,
            Err(error) => {
                output::line(format_args!("{count} {error}"))?;
                return Ok(0);
            }
        }
    }
    output::line(format_args!("{count} no refusal"))?;
    Ok(0)
}

/// Prints the CPUs that it may run on.
fn affinity() -> Result<u8, Error> {
    let set = rustix::thread::sched_getaffinity(None).map_err(|source| Error::Terminal {
        action: "read the CPU affinity",
        source: source.into(),
    })?;
    let cpus: Vec<_> = (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .map(|cpu| cpu.to_string())
        .collect();
    output::line(cpus.join(","))?;
    Ok(0)
}

const ALIGNMENT: usize = 4096;
/// Bytes of the file that is read or overwritten again and again.
pub(super) const IO_FILE: u64 = 64 << 20;

/// How many transfers are under way at a time: one that waits for the CPU must not keep the device idle.
const DEPTH: u64 = 4;

/// Reads or writes a file in pieces of `size` for `seconds`; prints (bytes, operations, nanoseconds).
///
/// `way`: `read`, `write` (both direct), or `buffered` (written through the page cache, synced at the end). The first
/// half second is not counted: a throttle lets a little through at once.
fn io(way: &str, path: &str, size: u64, seconds: u64) -> Result<u8, Error> {
    use std::sync::atomic::{AtomicU64, Ordering};
    let (warm, end) = match way {
        "buffered" => (Duration::ZERO, Duration::from_secs(seconds)),
        _ => (
            Duration::from_millis(500),
            Duration::from_millis(500) + Duration::from_secs(seconds),
        ),
    };
    let (begin, counted) = (Instant::now(), AtomicU64::new(0));
    let worker = |part: u64| -> Result<(), Error> {
        let mut transfer = Transfer::open(way, path, size, part)?;
        while begin.elapsed() < end {
            // A buffered writer must not run so far ahead that the sync at the end takes minutes.
            if way == "buffered" && transfer.done * size >= IO_FILE / DEPTH {
                break;
            }
            transfer.one().map_err(Error::file("use", path))?;
            if (warm..end).contains(&begin.elapsed()) || way == "buffered" {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
        if way == "buffered" {
            transfer
                .file
                .sync_all()
                .map_err(Error::file("sync", path))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..DEPTH)
            .map(|part| scope.spawn(move || worker(part)))
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| {
                Err(Error::Usage {
                    problem: "a transfer panicked".into(),
                    hint: None,
                })
            })
        })
    })?;
    let operations = counted.into_inner();
    let nanos = if way == "buffered" {
        begin.elapsed()
    } else {
        end - warm
    }
    .as_nanos();
    output::line(format_args!("{} {operations} {nanos}", operations * size))?;
    Ok(0)
}

/// One thread's part of the file, gone over again and again.
struct Transfer {
    file: File,
    read: bool,
    memory: Vec<u8>,
    offset: usize,
    size: usize,
    from: u64,
    to: u64,
    at: u64,
    done: u64,
}

impl Transfer {
    fn open(way: &str, path: &str, size: u64, part: u64) -> Result<Self, Error> {
        let direct = if way == "buffered" {
            0
        } else {
            OFlags::DIRECT.bits() as i32
        };
        let read = way == "read";
        let file = OpenOptions::new()
            .read(read)
            .write(!read)
            // Written back on the account of the cgroup that made it, and so it must be made in here.
            .create(way == "buffered")
            .truncate(false)
            .custom_flags(direct)
            .open(path);
        let memory = vec![7u8; size as usize + ALIGNMENT];
        // Direct I/O wants aligned memory.
        let offset = memory.as_ptr().align_offset(ALIGNMENT);
        let share = IO_FILE / DEPTH;
        let (from, to) = (part * share, (part + 1) * share);
        let file = file.map_err(Error::file("open", path))?;
        Ok(Self {
            file,
            read,
            memory,
            offset,
            size: size as usize,
            from,
            to,
            at: from,
            done: 0,
        })
    }

    fn one(&mut self) -> std::io::Result<()> {
        if self.at + self.size as u64 > self.to {
            self.at = self.from;
        }
        let piece = &mut self.memory[self.offset..self.offset + self.size];
        match self.read {
            true => self.file.read_exact_at(piece, self.at)?,
            false => self.file.write_all_at(piece, self.at)?,
        }
        self.at += self.size as u64;
        self.done += 1;
        Ok(())
    }
}

/// Prints what this process may do, and what became of things that it must not.
fn privileges() -> Result<u8, Error> {
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(Error::file("read", "/proc/self/status"))?;
    for line in status.lines().filter(|line| {
        ["Uid:", "CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp:"]
            .iter()
            .any(|key| line.starts_with(key))
    }) {
        output::line(line)?;
    }
    let map = std::fs::read_to_string("/proc/self/uid_map")
        .map_err(Error::file("read", "/proc/self/uid_map"))?;
    output::line(format_args!(
        "UidMap: {}",
        map.split_whitespace().collect::<Vec<_>>().join(" ")
    ))?;
    let tried = |what: &str, result: Result<(), String>| match result {
        Ok(()) => output::line(format_args!("Try: {what}: ALLOWED")),
        Err(error) => output::line(format_args!("Try: {what}: {error}")),
    };
    let errno = |error: rustix::io::Errno| error.to_string();
    // Written back as it is: the attempt must not harm a host that allows it.
    let rewrite = |path: &str| {
        let text = std::fs::read(path).map_err(|error| error.to_string())?;
        std::fs::write(path, text).map_err(|error| error.to_string())
    };
    tried(
        "write core_pattern",
        rewrite("/proc/sys/kernel/core_pattern"),
    )?;
    tried(
        "write the OOM policy",
        rewrite("/proc/sys/vm/overcommit_memory"),
    )?;
    tried(
        "open sysrq-trigger",
        OpenOptions::new()
            .write(true)
            .open("/proc/sysrq-trigger")
            .map(drop)
            .map_err(|e| e.to_string()),
    )?;
    let kcore = File::open("/proc/kcore").and_then(|mut kcore| kcore.read_exact(&mut [0; 4]));
    tried("read kcore", kcore.map_err(|error| error.to_string()))?;
    tried("make and open a block device", block_device())?;
    let data: Option<&std::ffi::CStr> = None;
    let mounted = rustix::mount::mount(
        "none",
        "/tmp",
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        data,
    );
    tried("mount a tmpfs", mounted.map_err(errno))?;
    let cgroup = rustix::mount::mount(
        "cgroup",
        "/tmp",
        "cgroup",
        rustix::mount::MountFlags::empty(),
        Some(c"memory"),
    );
    tried(
        "mount a cgroup v1 hierarchy (release_agent)",
        cgroup.map_err(errno),
    )?;
    let unshared = rustix::mount::mount_change("/", rustix::mount::MountPropagationFlags::SHARED);
    tried("change mount propagation", unshared.map_err(errno))?;
    tried(
        "set the host's name",
        rustix::system::sethostname(b"coracle-conform").map_err(errno),
    )?;
    Ok(0)
}

/// The disk with the host's root may be any: the first SCSI, virtio and loop devices are tried.
fn block_device() -> Result<(), String> {
    let mut last = String::new();
    for (major, minor) in [(8, 0), (254, 0), (253, 0), (252, 0), (7, 0)] {
        let path = format!("/coracle-conform-device-{major}");
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::RUSR | Mode::WUSR;
        match rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::BlockDevice,
            mode,
            device,
        ) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => {
                last = format!("mknod: {error}");
                continue;
            }
        }
        match File::open(&path) {
            Ok(_) => return Ok(()),
            Err(error) => last = format!("open: {error}"),
        }
    }
    Err(last)
}
