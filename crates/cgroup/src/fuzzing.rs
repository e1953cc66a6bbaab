//! Entry points for fuzzing: what the kernel says of cgroups, and limits on their way into control files.

use std::path::Path;

use crate::controller::Controller;
use crate::error::Result;
use crate::layout::{Mounts, Own};
use crate::limits::Limits;
use crate::settings::{Files, Version, settings};
use crate::usage;

/// `/proc/self/mountinfo` and `/proc/self/cgroup`.
///
/// # Panics
/// Where more is found than there are lines.
pub fn kernel_text(text: &str) {
    let lines = text.lines().count();
    assert!(Mounts::parse(text).0.len() <= lines);
    let own = Own::parse(text);
    assert!(own.legacy.len() + usize::from(own.unified.is_some()) <= lines);
}

/// Control files that are read.
///
/// # Panics
/// Where more devices are found than there are lines.
pub fn control_files(first: &str, second: &str) {
    let file = Path::new("fuzzing");
    let lines = first.lines().count() + second.lines().count();
    for devices in [
        usage::parse_io_stat(file, first),
        usage::parse_blkio(file, first, second),
    ] {
        assert!(devices.is_ok_and(|devices| devices.len() <= lines) || lines > 0);
    }
    let _ = (
        usage::parse_max(file, first),
        usage::flat_key(first, second),
    );
}

/// A host that has every controller in one version.
struct Every(Version);

impl Files for Every {
    fn version(&self, _: Controller, _: &str) -> Result<Version> {
        Ok(self.0)
    }
    fn exists(&self, _: Controller, _: &str) -> bool {
        true
    }
    fn read(&self, _: Controller, _: &str) -> Result<String> {
        Ok("max 100000\n".into())
    }
}

/// Limits as settings of both versions.
///
/// # Panics
/// Where a setting would be written to anything but a file of the cgroup's own directory.
pub fn limits(limits: &Limits) {
    for version in [Version::Legacy, Version::Unified] {
        for setting in settings(limits, &Every(version)).into_iter().flatten() {
            let file = setting.file.as_str();
            assert!(!file.is_empty() && !file.contains(['/', '\0']), "{file:?}");
            assert!(!matches!(file, "." | ".."), "{file:?}");
            assert!(!setting.value.contains('\0'), "{setting:?}");
            let _: String = setting.value_of("8:0 1\n8:16 2\n");
        }
    }
}
