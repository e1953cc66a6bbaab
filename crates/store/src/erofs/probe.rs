//! Can this kernel, and this user, mount a layer file? Found out by doing it once a boot, with a layer of an empty archive.

use std::fs;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use serde::{Deserialize, Serialize};

use crate::temporary::Temporary;
use crate::{Durability, Error, Result};

/// What was found, and for whom it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Cached {
    kernel: String,
    boot: String,
    uid: u32,
    initial_namespace: bool,
    mountable: bool,
    reason: String,
}

/// `Ok(())`, or the reason why not. `cache` is read and replaced; `directory` is for temporary files.
pub(crate) fn probe(cache: &Path, directory: &Path) -> Result<std::result::Result<(), String>> {
    let key = key()?;
    let known = fs::read(cache)
        .ok()
        .and_then(|text| serde_json::from_slice::<Cached>(&text).ok());
    if let Some(known) = known
        && (
            &known.kernel,
            &known.boot,
            known.uid,
            known.initial_namespace,
        ) == (&key.kernel, &key.boot, key.uid, key.initial_namespace)
    {
        return Ok(if known.mountable {
            Ok(())
        } else {
            Err(known.reason)
        });
    }
    let found = attempt(directory)?;
    let cached = Cached {
        mountable: found.is_ok(),
        reason: found.as_ref().err().cloned().unwrap_or_default(),
        ..key
    };
    let temporary = Temporary::name(directory)?;
    let text = serde_json::to_vec(&cached)
        .map_err(|error| Error::io("write", cache)(std::io::Error::from(error)))?;
    fs::write(temporary.path(), text).map_err(Error::io("write", temporary.path()))?;
    fs::rename(temporary.path(), cache).map_err(Error::io("rename to", cache))?;
    Ok(found)
}

fn key() -> Result<Cached> {
    let read = |path: &str| fs::read_to_string(path).map_err(Error::io("read", path));
    let map = read("/proc/self/uid_map")?;
    Ok(Cached {
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        boot: read("/proc/sys/kernel/random/boot_id")?.trim().to_owned(),
        uid: rustix::process::geteuid().as_raw(),
        initial_namespace: map.split_ascii_whitespace().eq(["0", "0", "4294967295"]),
        mountable: false,
        reason: String::new(),
    })
}

/// Makes a layer, mounts it detached, looks at its root, lets go of it.
fn attempt(directory: &Path) -> Result<std::result::Result<(), String>> {
    let (temporary, file) = Temporary::file(directory)?;
    let limits = crate::Limits::default();
    super::ingest(
        &[0u8; 1024][..],
        &file,
        temporary.path(),
        &limits,
        Durability::Relaxed,
    )?;
    drop(file);
    let step = |name: &'static str| move |errno: Errno| (name, errno);
    let mount = || -> std::result::Result<(), (&'static str, Errno)> {
        let context =
            rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(step("fsopen"))?;
        rustix::mount::fsconfig_set_string(&context, "source", temporary.path())
            .map_err(step("setting the source"))?;
        rustix::mount::fsconfig_set_flag(&context, "ro").map_err(step("setting read-only"))?;
        rustix::mount::fsconfig_create(&context).map_err(step("mounting a file as EROFS"))?;
        let mount = rustix::mount::fsmount(
            &context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV,
        )
        .map_err(step("fsmount"))?;
        rustix::fs::openat(
            &mount,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(step("opening its root"))?;
        Ok(())
    };
    match mount() {
        Ok(()) => Ok(Ok(())),
        // Says something of this moment, nothing of the kernel.
        Err((
            name,
            errno @ (Errno::MFILE
            | Errno::NFILE
            | Errno::NOMEM
            | Errno::IO
            | Errno::NOSPC
            | Errno::INTR
            | Errno::AGAIN),
        )) => Err(Error::io(name, temporary.path())(errno)),
        Err((name, errno)) => Ok(Err(format!("{name}: {errno}"))),
    }
}
