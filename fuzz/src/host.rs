//! What the kernel says, and files of the engine's state and of images.

use crate::{text, two};

/// `/proc/self/mountinfo`, `/proc/self/cgroup`.
pub(crate) fn cgroup_layout(data: &[u8]) {
    if let Some(text) = text(data) {
        coracle_cgroup::fuzzing::kernel_text(text);
    }
}

/// Control files.
pub(crate) fn cgroup_files(data: &[u8]) {
    if let Some((first, second)) = two(data) {
        coracle_cgroup::fuzzing::control_files(first, second);
    }
}

/// Limits, on their way into control files of either version.
pub(crate) fn cgroup_limits(data: &[u8]) {
    if let Ok(limits) = serde_json::from_slice(data) {
        coracle_cgroup::fuzzing::limits(&limits);
    }
}

/// The engine's own documents.
pub(crate) fn documents(data: &[u8]) {
    coracle_engine::fuzzing::documents(data);
}

/// passwd and group of an image: `user`, a further group, and the two files, each after a line of `--`.
pub(crate) fn passwd(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let mut parts = text.splitn(4, "\n--\n");
    let mut next = || parts.next().unwrap_or_default();
    let (user, extra, passwd, group) = (next(), next(), next(), next());
    let extra: Vec<String> = extra.lines().map(str::to_owned).collect();
    coracle_engine::fuzzing::user(passwd, group, user, &extra);
}

/// `/proc/PID/stat` and `/proc/PID/cmdline`.
pub(crate) fn process(data: &[u8]) {
    let Some((stat, arguments)) = two(data) else {
        return;
    };
    let _ = coracle_runtime::fuzzing::process_stat(stat);
    coracle_engine::fuzzing::process(stat, arguments.as_bytes());
}

/// `/etc/subuid`.
pub(crate) fn subordinate_ids(data: &[u8]) {
    if let Some(text) = text(data) {
        coracle_cli::fuzzing::subordinate_ids(text);
    }
}
