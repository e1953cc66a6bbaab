//! Control files: the only place of this crate that reads and writes them, so that every failure names file and value.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Waiting for the kernel where nothing can be polled: short pauses first, longer ones later, up to a deadline.
pub(crate) struct Pause {
    deadline: Instant,
    next: Duration,
}

impl Pause {
    /// Waits for so long at most.
    pub(crate) fn until(within: Duration) -> Pause {
        Pause {
            deadline: Instant::now() + within,
            next: Duration::from_micros(50),
        }
    }

    /// Sleeps, and returns whether to look again; `false` at once when the time is up.
    pub(crate) fn again(&mut self) -> bool {
        if Instant::now() >= self.deadline {
            return false;
        }
        std::thread::sleep(self.next);
        self.next = (self.next * 2).min(Duration::from_millis(20));
        true
    }
}

/// A file's whole content. Control files are small; the buffer grows for the few that list processes.
pub(crate) fn read(file: &Path) -> Result<String> {
    read_raw(file).map_err(|source| Error::Read {
        file: file.to_owned(),
        source,
    })
}

/// Like [`read`], `None` when the file (or its cgroup) is not there.
pub(crate) fn read_opt(file: &Path) -> Result<Option<String>> {
    match read_raw(file) {
        Ok(content) => Ok(Some(content)),
        // ENODEV is what a file says whose cgroup was removed after it was opened.
        Err(Errno::NOENT | Errno::NODEV) => Ok(None),
        Err(source) => Err(Error::Read {
            file: file.to_owned(),
            source,
        }),
    }
}

/// Like [`read`], with the bare errno.
pub(crate) fn read_raw(file: &Path) -> std::result::Result<String, Errno> {
    let fd = rustix::fs::open(file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut content = vec![0; 4096];
    let mut length = 0;
    loop {
        match rustix::io::read(&fd, &mut content[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        }
        if length == content.len() {
            content.resize(length * 4, 0);
        }
    }
    content.truncate(length);
    String::from_utf8(content).map_err(|_| Errno::ILSEQ)
}

/// Writes a value in one `write(2)`, as the kernel wants it.
pub(crate) fn write(file: &Path, value: &str) -> Result<()> {
    write_raw(file, value).map_err(|source| Error::Write {
        file: file.to_owned(),
        value: value.to_owned(),
        source,
    })
}

/// As [`write`], for one value after the other.
pub(crate) fn write_each(file: &Path, values: &[String]) -> Result<()> {
    let failed = |value: &str, source| Error::Write {
        file: file.to_owned(),
        value: value.to_owned(),
        source,
    };
    let Some(first) = values.first() else {
        return Ok(());
    };
    let fd = open_to_write(file).map_err(|source| failed(first, source))?;
    values
        .iter()
        .try_for_each(|value| put(&fd, value).map_err(|source| failed(value, source)))
}

/// Like [`write`], with the bare errno.
pub(crate) fn write_raw(file: &Path, value: &str) -> std::result::Result<(), Errno> {
    put(&open_to_write(file)?, value)
}

fn open_to_write(file: &Path) -> std::result::Result<OwnedFd, Errno> {
    rustix::fs::open(file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}

fn put(fd: &OwnedFd, value: &str) -> std::result::Result<(), Errno> {
    let bytes = value.as_bytes();
    loop {
        match rustix::io::write(fd, bytes) {
            Ok(count) if count == bytes.len() => return Ok(()),
            Ok(_) => return Err(Errno::IO),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        }
    }
}

/// Whether the file is there.
pub(crate) fn exists(file: &Path) -> bool {
    rustix::fs::access(file, Access::EXISTS).is_ok()
}

/// Whether this process may write it, its effective ids and a read-only mount considered.
pub(crate) fn writable(file: &Path) -> bool {
    rustix::fs::accessat(CWD, file, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// Opens a cgroup's directory.
pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|source| Error::Open {
        path: path.to_owned(),
        source,
    })
}

/// The child cgroups of a cgroup; empty when it is gone.
pub(crate) fn children(path: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source| match source {
        Errno::NOENT | Errno::NODEV => Ok(Vec::new()),
        source => Err(Error::Open {
            path: path.to_owned(),
            source,
        }),
    };
    // kernfs counts subdirectories in the link count: the listing of some forty files is saved where there are none.
    match rustix::fs::stat(path) {
        Ok(stat) if stat.st_nlink <= 2 => return Ok(Vec::new()),
        Ok(_) => {}
        Err(source) => return failed(source),
    }
    let directory = match rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Ok(directory) => directory,
        Err(source) => return failed(source),
    };
    let mut children = Vec::new();
    let mut reader = match rustix::fs::Dir::new(directory) {
        Ok(reader) => reader,
        Err(source) => return failed(source),
    };
    while let Some(entry) = reader.read() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(source) => return failed(source),
        };
        let name = entry.file_name();
        if entry.file_type().is_dir() && name != c"." && name != c".." {
            children.push(path.join(String::from_utf8_lossy(name.to_bytes()).as_ref()));
        }
    }
    Ok(children)
}
