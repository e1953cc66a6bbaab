//! Values that the kernel takes only after something else gave way: memory that has to be reclaimed first, real-time
//! CPU time that the cgroups above must have first.

use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

use crate::cgroup::Directory;
use crate::control::{self, Pause};
use crate::error::{Error, Result, all};
use crate::settings::Setting;

/// How long lowering a memory limit goes on asking for reclaim: dirty pages have to be written to disk first.
const RECLAIM_WITHIN: Duration = Duration::from_millis(500);

/// Lowers `memory.max` without killing. A write of less than is in use would invoke the OOM killer; `memory.high` makes
/// the kernel reclaim first, and slows down whoever allocates meanwhile.
pub(crate) fn lower_unified_memory(path: &Path, setting: &Setting) -> Result<()> {
    let max = path.join("memory.max");
    let Ok(wanted) = setting.value.parse::<u64>() else {
        return control::write(&max, &setting.value);
    };
    let current = path.join("memory.current");
    let used = || crate::usage::parse_number(&current, &control::read(&current)?);
    if used()? <= wanted {
        return control::write(&max, &setting.value);
    }
    let high = path.join("memory.high");
    let before = control::read(&high)?;
    let mut pause = Pause::until(RECLAIM_WITHIN);
    let outcome = loop {
        // Each write reclaims anew.
        let used = control::write(&high, &setting.value).and_then(|()| used());
        match used {
            Ok(used) if used <= wanted => break control::write(&max, &setting.value),
            Ok(_) if pause.again() => {}
            Ok(used) => {
                break Err(Error::BelowUse {
                    limit: setting.limit,
                    path: path.to_owned(),
                    wanted,
                    used,
                });
            }
            Err(error) => break Err(error),
        }
    };
    let restored = control::write(&high, before.trim());
    all(outcome.err().into_iter().chain(restored.err()).collect())
}

/// Lowers a v1 memory limit: the kernel reclaims, and answers EBUSY when that was not enough.
pub(crate) fn lower_legacy_memory(file: &Path, value: &str) -> Result<()> {
    let mut pause = Pause::until(RECLAIM_WITHIN);
    loop {
        match control::write(file, value) {
            Err(Error::Write {
                source: Errno::BUSY,
                ..
            }) if pause.again() => {}
            result => return result,
        }
    }
}

/// Writes real-time CPU time; a new v1 cgroup has none to give to its children, so those above are given what their
/// children need, if the kernel refuses at first.
pub(crate) fn write_realtime(directory: &Directory, file: &Path, value: &str) -> Result<()> {
    let first = control::write(file, value);
    let wanted: i64 = value.parse().unwrap_or_default();
    if !matches!(
        first,
        Err(Error::Write {
            source: Errno::INVAL,
            ..
        })
    ) || wanted <= 0
    {
        return first;
    }
    let name = "cpu.rt_runtime_us";
    let runtime = |path: &Path| -> Result<i64> {
        Ok(control::read(&path.join(name))?
            .trim()
            .parse()
            .unwrap_or_default())
    };
    let mut levels: Vec<&Path> = directory
        .path
        .ancestors()
        .skip(1)
        .take_while(|level| *level != directory.base)
        .collect();
    levels.reverse();
    for level in levels {
        let mut needed = wanted;
        for child in control::children(level)? {
            if !directory.path.starts_with(&child) {
                needed += runtime(&child)?;
            }
        }
        if runtime(level)? < needed {
            control::write(&level.join(name), &needed.to_string())?;
        }
    }
    control::write(file, value)
}
