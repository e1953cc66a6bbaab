//! Entry points for fuzzing: what of this crate reads text that others write, and cannot be called from outside.

use oci_spec::runtime::Spec;

use crate::request::{IdMapping, Map, Ownership, Root, Start, Stdio};
use crate::{Error, process, resolve};

/// Resolves a document as the start of a container would, up to the clone; nothing is started or changed.
///
/// # Errors
/// Whatever is wrong with it.
///
/// # Panics
/// When `/dev/null` cannot be opened.
pub fn resolve(spec: &Spec) -> Result<(), Error> {
    let null = || {
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
        rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()).expect("/dev/null is there")
    };
    let ids = vec![Map {
        inside: 0,
        outside: 100_000,
        count: 65_536,
    }];
    let start = Start {
        spec,
        root: Root::Directory {
            path: "/nonexistent".into(),
            ownership: Ownership::Inside,
        },
        ids: IdMapping::Own {
            uids: ids.clone(),
            gids: ids,
        },
        cgroup: None,
        stdio: Stdio::Pipes {
            stdin: null(),
            stdout: null(),
            stderr: null(),
        },
        preserved: Vec::new(),
        init: false,
        clamp: true,
        files: Vec::new(),
        gate: None,
        deviations: Default::default(),
        prepare: None,
    };
    resolve::start(start).map(drop)
}

/// `/proc/PID/stat`: state and start time.
#[must_use]
pub fn process_stat(text: &str) -> Option<(char, u64)> {
    process::parse(text)
}
