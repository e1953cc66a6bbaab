//! Locks and temporary names: how several processes share one store (docs/format/store.md).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, FlockOperation, RenameFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use crate::{Durability, Error, Result};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A held flock; closing lets go.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its flock")] File);

/// How a lock is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Shared,
    Exclusive,
}

impl Lock {
    /// Waits for the lock.
    pub(crate) fn take(path: &Path, mode: Mode) -> Result<Lock> {
        let operation = match mode {
            Mode::Shared => FlockOperation::LockShared,
            Mode::Exclusive => FlockOperation::LockExclusive,
        };
        let file = lock_file(path)?;
        loop {
            match rustix::fs::flock(&file, operation) {
                Ok(()) => return Ok(Lock(file)),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::io("lock", path)(errno)),
            }
        }
    }

    /// The lock alone, or `None` if somebody holds it.
    pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Lock>> {
        let file = lock_file(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
            Err(errno) => Err(Error::io("lock", path)(errno)),
        }
    }
}

fn lock_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(Error::io("open", path))
}

/// A name in `tmp/`; what has it is removed when this is dropped, unless [`Temporary::publish`] gave it its own name.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
    published: bool,
}

impl Temporary {
    /// A name that no other process or thread uses.
    pub(crate) fn name(directory: &Path) -> Result<Temporary> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{}-{number}", std::process::id(), own_start_time()?);
        Ok(Temporary {
            path: directory.join(name),
            published: false,
        })
    }

    /// A new file under such a name.
    pub(crate) fn file(directory: &Path) -> Result<(Temporary, File)> {
        let temporary = Temporary::name(directory)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary.path)
            .map_err(Error::io("create", &temporary.path))?;
        Ok((temporary, file))
    }

    /// A new directory under such a name.
    pub(crate) fn directory(directory: &Path) -> Result<Temporary> {
        let temporary = Temporary::name(directory)?;
        fs::create_dir(&temporary.path).map_err(Error::io("create", &temporary.path))?;
        Ok(temporary)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Renames to the final name. False if that name was there already: what is there stays, and this is removed.
    pub(crate) fn publish(mut self, to: &Path, durability: Durability) -> Result<bool> {
        match rustix::fs::renameat_with(CWD, &self.path, CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST | Errno::NOTEMPTY) => return Ok(false),
            // File systems without the flag (NFS): equal names have equal content, so replacing is harmless.
            Err(Errno::INVAL | Errno::NOSYS) => {
                fs::rename(&self.path, to).map_err(Error::io("rename to", to))?;
            }
            Err(errno) => return Err(Error::io("rename to", to)(errno)),
        }
        self.published = true;
        if durability == Durability::Synced {
            sync_directory(to.parent().unwrap_or(to))?;
        }
        Ok(true)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            // A destructor cannot report; what stays in tmp/ is swept by the next opening.
            let _ = remove_tree(&self.path);
        }
    }
}

/// Makes the names in a directory survive a power cut.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::io("sync", path))
}

/// Sets the modification time to now: the collector's grace begins anew.
pub(crate) fn touch(path: &Path) -> Result<()> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Error::io("touch", path))
}

/// Removes a file or a tree, never following a symlink; directories that forbid it to their own owner are opened up first.
/// Not being there is no error.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match remove_once(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            remove_once(path)
        }
        other => other,
    }
}

fn remove_once(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn open_up(path: &Path) -> io::Result<()> {
    let mut stack = vec![path.to_owned()];
    while let Some(directory) = stack.pop() {
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                stack.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Field 22 of /proc/self/stat.
fn own_start_time() -> Result<u64> {
    static START: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    if let Some(start) = START.get() {
        return Ok(*start);
    }
    let path = Path::new("/proc/self/stat");
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    // The command's name may hold spaces and parentheses; nothing after the last one does.
    let start = text
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19)?.parse().ok())
        .ok_or_else(|| Error::io("parse", path)(io::Error::from(io::ErrorKind::InvalidData)))?;
    Ok(*START.get_or_init(|| start))
}
