//! Entry points for fuzzing: the engine's own documents, and files that images and the kernel write.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::state::{LastRun, Record, Run};
use crate::users;
use crate::verbs::top;

/// Reads `bytes` as each of the documents of state; what is one is written and read again, and must be the same then.
///
/// # Panics
/// Where it is not.
pub fn documents(bytes: &[u8]) {
    same::<Record>(bytes);
    same::<LastRun>(bytes);
    same::<Run>(bytes);
    same::<crate::bundle::StoredForFuzzing>(bytes);
    if let Ok(record) = serde_json::from_slice::<Record>(bytes) {
        let run = Run::expected(&record);
        assert!(!run.cgroup.is_empty());
    }
}

fn same<T: DeserializeOwned + Serialize>(bytes: &[u8]) {
    let Ok(document) = serde_json::from_slice::<T>(bytes) else {
        return;
    };
    let written = serde_json::to_vec(&document).expect("a document of ours becomes JSON");
    let again: T = serde_json::from_slice(&written).expect("its own writing");
    let rewritten = serde_json::to_vec(&again).expect("a document of ours becomes JSON");
    assert_eq!(
        String::from_utf8_lossy(&written),
        String::from_utf8_lossy(&rewritten)
    );
}

/// Looks `user` and a group up in an image's files.
///
/// # Panics
/// Where the groups of whom it finds are not as [`users`] promises.
pub fn user(passwd: &str, group: &str, user: &str, extra: &[String]) {
    if let Ok(identity) = users::resolve(passwd, group, user, extra) {
        assert!(identity.groups.contains(&identity.gid));
        assert!(identity.groups.is_sorted_by(|a, b| a < b));
        assert!(!identity.home.is_empty());
    }
}

/// A process as `/proc` describes it.
///
/// # Panics
/// Where a share of the CPU is no number.
pub fn process(stat: &str, arguments: &[u8]) {
    let now = 2_000_000_000_000_000_000;
    if let Some(process) = top::parse(1, 0, stat, arguments, now / 2, now) {
        assert!(process.cpu_percent.is_finite() && process.cpu_percent >= 0.0);
    }
}
