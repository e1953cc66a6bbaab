//! The engine's files (docs/format/state.md): where they are, how they are written whole, who holds them.
//!
//! Invariants: a file is never seen half written ([`replace`]); an object is changed only under the flock of its
//! directory, which the kernel gives back when its holder dies. Nothing here decides what a status is: see `status`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use coracle_oci::{ContainerId, Digest};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::request::{ContainerSpec, Health};

/// The version written into every document.
pub(crate) const VERSION: u32 = 1;

/// `config.json`: what was decided when the container was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub version: u32,
    pub id: ContainerId,
    pub name: String,
    pub created: i128,
    pub spec: ContainerSpec,
    pub image: Option<ImageFacts>,
    pub process: ProcessFacts,
    #[serde(default)]
    pub volumes: Vec<VolumeFacts>,
}

/// The image as it was when the container was made; the layers stay as long as this names them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ImageFacts {
    pub id: Digest,
    /// Bottom first.
    pub layers: Vec<Digest>,
}

/// Image configuration and request, put together.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ProcessFacts {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub workdir: String,
    pub user: String,
    pub stop_signal: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub health: Option<Health>,
    #[serde(default)]
    pub exposed: Vec<String>,
}

/// A volume that a container uses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct VolumeFacts {
    pub name: String,
    pub target: String,
    pub read_only: bool,
    pub anonymous: bool,
    /// Fill an empty volume from the image's files at the first start.
    pub copy_up: bool,
}

/// `last.json`: what became of the last run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct LastRun {
    pub version: u32,
    pub started: i128,
    pub finished: i128,
    pub exit_code: i32,
    #[serde(default)]
    pub oom_killed: bool,
    #[serde(default)]
    pub error: String,
    #[serde(default)]
    pub restarts: u32,
}

/// `run.json`: what a run holds and must give back.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Run {
    pub version: u32,
    pub cgroup: String,
    pub ids: Option<u32>,
    pub auto_remove: bool,
    pub started: i128,
    #[serde(default)]
    pub pid: i32,
    #[serde(default)]
    pub start_time: u64,
    #[serde(default)]
    pub monitor: i32,
    #[serde(default)]
    pub restarts: u32,
}

/// Exit code of a run whose end nobody saw: as after SIGKILL.
const LOST: i32 = 137;

impl LastRun {
    /// A run whose end nobody saw, or not yet: `finished` is 0.
    pub(crate) fn unseen(run: &Run, why: &str) -> LastRun {
        LastRun {
            version: VERSION,
            started: run.started,
            exit_code: LOST,
            error: why.into(),
            restarts: run.restarts,
            ..LastRun::default()
        }
    }
}

impl Run {
    /// What a run of this container would hold, known before it begins: so a run that was killed before it could be
    /// written down can still be cleaned up after.
    pub(crate) fn expected(record: &Record) -> Run {
        let parent = record.spec.resources.cgroup_parent.as_deref();
        let cgroup = match parent.unwrap_or_default().trim_matches('/') {
            "" => record.id.to_string(),
            parent => format!("{parent}/{}", record.id),
        };
        Run {
            version: VERSION,
            cgroup,
            auto_remove: record.spec.auto_remove,
            ..Run::default()
        }
    }
}

/// Where everything is.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub root: PathBuf,
    pub run: PathBuf,
}

impl Paths {
    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }
    pub(crate) fn container(&self, id: &ContainerId) -> PathBuf {
        self.containers().join(id.as_str())
    }
    pub(crate) fn upper(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("upper")
    }
    pub(crate) fn work(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("work")
    }
    pub(crate) fn config(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("config.json")
    }
    pub(crate) fn last(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("last.json")
    }
    pub(crate) fn log(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join("container.log")
    }
    pub(crate) fn names(&self) -> PathBuf {
        self.root.join("names")
    }
    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }
    pub(crate) fn runs(&self) -> PathBuf {
        self.run.join("containers")
    }
    pub(crate) fn run_of(&self, id: &ContainerId) -> PathBuf {
        self.runs().join(id.as_str())
    }
    pub(crate) fn run_file(&self, id: &ContainerId) -> PathBuf {
        self.run_of(id).join("run.json")
    }
    pub(crate) fn attach(&self, id: &ContainerId) -> PathBuf {
        self.run_of(id).join("attach")
    }
    pub(crate) fn health(&self, id: &ContainerId) -> PathBuf {
        self.run_of(id).join("health.json")
    }
    pub(crate) fn kept_layers(&self) -> PathBuf {
        self.run.join("layers")
    }
    pub(crate) fn ids(&self) -> PathBuf {
        self.run.join("ids")
    }
    pub(crate) fn events(&self) -> PathBuf {
        self.root.join("events.log")
    }
}

/// The flock of an object's directory; given back when dropped or when its holder dies.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code, reason = "held for its lock")] OwnedFd);

impl Lock {
    /// Takes it, waiting for another command on the same object. `None` if the directory is gone.
    pub(crate) fn wait(directory: &Path) -> Result<Option<Lock>> {
        Self::take(directory, FlockOperation::LockExclusive)
    }

    /// Makes the directory and takes its lock; again, if a sweep took the directory for a leftover before the lock was taken.
    pub(crate) fn make(directory: &Path) -> Result<Lock> {
        loop {
            make_directory(directory)?;
            if let Some(lock) = Self::wait(directory)? {
                return Ok(lock);
            }
        }
    }

    /// Takes it if it is free: `Ok(Some)`; `Ok(None)` if the directory is gone; held by another: `Err(Held)`.
    pub(crate) fn try_now(directory: &Path) -> Result<Result<Option<Lock>, Held>> {
        Self::without_waiting(directory, FlockOperation::NonBlockingLockExclusive)
    }

    /// Takes it shared if nobody holds it alone: a look that does not keep other looks away.
    pub(crate) fn look(directory: &Path) -> Result<Result<Option<Lock>, Held>> {
        Self::without_waiting(directory, FlockOperation::NonBlockingLockShared)
    }

    /// Waits until nobody holds it alone.
    pub(crate) fn wait_until_free(directory: &Path) -> Result<()> {
        Self::take(directory, FlockOperation::LockShared).map(drop)
    }

    fn without_waiting(
        directory: &Path,
        operation: FlockOperation,
    ) -> Result<Result<Option<Lock>, Held>> {
        match Self::take(directory, operation) {
            Err(Error::File { source, .. })
                if source.raw_os_error() == Some(rustix::io::Errno::AGAIN.raw_os_error()) =>
            {
                Ok(Err(Held))
            }
            other => other.map(Ok),
        }
    }

    fn take(directory: &Path, operation: FlockOperation) -> Result<Option<Lock>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match rustix::fs::open(directory, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(Error::file("opening", directory, error)),
        };
        loop {
            match rustix::fs::flock(&fd, operation) {
                Ok(()) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::file("locking", directory, error)),
            }
        }
        // The directory may have been removed or renamed while this waited: then the lock is on nothing.
        match (rustix::fs::fstat(&fd), rustix::fs::stat(directory)) {
            (Ok(ours), Ok(there)) if ours.st_ino == there.st_ino && ours.st_dev == there.st_dev => {
                Ok(Some(Lock(fd)))
            }
            _ => Ok(None),
        }
    }
}

/// Somebody else holds the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held;

/// Writes a file whole: beside its place, then renamed over it.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(
        ".tmp-{name}-{}",
        rustix::process::getpid().as_raw_nonzero()
    ));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let write = || -> io::Result<()> {
        let mut file = File::from(rustix::fs::open(
            &temporary,
            flags,
            Mode::from_raw_mode(0o600),
        )?);
        file.write_all(content)?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| {
        // The temporary file is only a leftover of this failure; the failure itself is what is reported.
        let _ = fs::remove_file(&temporary);
        Error::file("writing", path, source)
    })
}

/// Writes a document whole.
pub(crate) fn store<T: Serialize>(path: &Path, document: &T) -> Result<()> {
    let text = serde_json::to_vec(document).map_err(|source| Error::Damaged {
        path: path.to_owned(),
        source,
    })?;
    replace(path, &text)
}

/// Reads a document; `None` if there is none.
pub(crate) fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(text) = read(path)? else {
        return Ok(None);
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| Error::Damaged {
            path: path.to_owned(),
            source,
        })
}

/// Reads a file; `None` if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("opening", path, error)),
    };
    let mut text = Vec::with_capacity(4096);
    file.read_to_end(&mut text)
        .map_err(|source| Error::file("reading", path, source))?;
    Ok(Some(text))
}

/// Claims a name for a container: a symbolic link whose text is its id, which appears whole or not at all. Whether it
/// was free.
pub(crate) fn claim(link: &Path, id: &ContainerId) -> Result<bool> {
    match rustix::fs::symlink(id.as_str(), link) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::EXIST) => Ok(false),
        Err(error) => Err(Error::file("linking", link, error)),
    }
}

/// Who claimed a name; `None` if nobody did, or something else is there.
pub(crate) fn read_claim(link: &Path) -> Result<Option<ContainerId>> {
    match rustix::fs::readlink(link, Vec::new()) {
        Ok(text) => Ok(text.to_string_lossy().parse().ok()),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => Ok(None),
        Err(error) => Err(Error::file("reading the link", link, error)),
    }
}

/// Makes a directory that only the engine may enter, with its parents; that it exists is no error.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(rustix::io::Errno::NOENT) => {
            match path.parent() {
                Some(parent) => make_directory(parent)?,
                None => return Err(Error::file("making", path, rustix::io::Errno::NOENT)),
            }
            match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
                Err(error) => Err(Error::file("making", path, error)),
            }
        }
        Err(error) => Err(Error::file("making", path, error)),
    }
}

/// Deletes a file; that there is none is no error.
pub(crate) fn delete_file(path: &Path) -> Result<()> {
    match rustix::fs::unlinkat(CWD, path, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(Error::file("deleting", path, error)),
    }
}

/// Deletes a tree; that there is none is no error.
///
/// A container can leave directories that forbid entry to their owner, and overlay leaves `work/work` so: without
/// CAP_DAC_OVERRIDE (rootless) they are opened up first.
pub(crate) fn delete_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            fs::remove_dir_all(path).map_err(|source| Error::file("deleting", path, source))
        }
        Err(source) => Err(Error::file("deleting", path, source)),
    }
}

fn open_up(directory: &Path) -> Result<()> {
    rustix::fs::chmod(directory, Mode::RWXU)
        .map_err(|error| Error::file("opening up", directory, error))?;
    let entries =
        fs::read_dir(directory).map_err(|source| Error::file("listing", directory, source))?;
    for entry in entries {
        let entry = entry.map_err(|source| Error::file("listing", directory, source))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

/// The names in a directory; none if it is missing.
pub(crate) fn names_in(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::file("listing", directory, source)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| Error::file("listing", directory, source))?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Unix time in nanoseconds.
pub(crate) fn now() -> i128 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_exclusive_and_given_back_on_drop() {
        let directory = tempfile::tempdir().unwrap();
        let first = Lock::wait(directory.path()).unwrap();
        assert!(first.is_some());
        assert_eq!(Lock::try_now(directory.path()).unwrap().unwrap_err(), Held);
        drop(first);
        assert!(Lock::try_now(directory.path()).unwrap().unwrap().is_some());
    }

    #[test]
    fn a_lock_on_a_removed_directory_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let gone = directory.path().join("gone");
        assert!(Lock::wait(&gone).unwrap().is_none());
    }

    #[test]
    fn what_is_made_and_locked_is_there_however_often_it_is_swept_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made");
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    if let Ok(Some(_lock)) = Lock::try_now(&path).unwrap() {
                        delete_tree(&path).unwrap();
                    }
                }
            });
            for _ in 0..2000 {
                let lock = Lock::make(&path).unwrap();
                assert!(path.exists());
                drop(lock);
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    #[test]
    fn replace_leaves_the_new_content_and_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names_in(directory.path()).unwrap(), ["file"]);
    }
}
