//! Two locks, both flock(2), so that they end with their holder however it dies.
//!
//! - `lock`: held alone while records, references and memos change; milliseconds. Because all writing happens under it, one
//!   fixed temporary name is enough, and one left by a killed writer is simply written over.
//! - `loading`: held shared from before the first layer of an image is looked for until its record is written, and alone (never
//!   waited for) by who wants to free layers that no record names. So nothing frees a layer that a load has just found.
//!
//! Order: `loading` before `lock`.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::{Error, Result};

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub(crate) struct Held(#[expect(dead_code, reason = "closing the descriptor unlocks")] OwnedFd);

fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(
        path,
        OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o600),
    )
    .map_err(Error::io("open the lock", path))
}

fn flock(path: &Path, operation: FlockOperation) -> Result<Option<Held>> {
    let file = open(path)?;
    loop {
        match rustix::fs::flock(&file, operation) {
            Ok(()) => return Ok(Some(Held(file))),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(Error::io("lock", path)(error)),
        }
    }
}

/// Waits until nobody else changes names.
pub(crate) fn exclusive(path: &Path) -> Result<Held> {
    loop {
        if let Some(held) = flock(path, FlockOperation::LockExclusive)? {
            return Ok(held);
        }
    }
}

/// Waits until nobody frees layers.
pub(crate) fn shared(path: &Path) -> Result<Held> {
    loop {
        if let Some(held) = flock(path, FlockOperation::LockShared)? {
            return Ok(held);
        }
    }
}

/// None where somebody loads.
pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Held>> {
    flock(path, FlockOperation::NonBlockingLockExclusive)
}
