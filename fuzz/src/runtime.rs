//! The OCI document and seccomp profiles.

use std::collections::HashSet;

use coracle_cgroup::Limits;
use coracle_oci::runtime::{Capability, LinuxResources, Process, Spec};
use coracle_runtime::seccomp::{Architecture, Context, Error, KernelVersion, load_profile};

/// `config.json`: read as the OCI runtime does, written and read again as the same; resolved as for a start, up to the
/// clone.
pub(crate) fn config(data: &[u8]) {
    let mut warnings = 0;
    let Ok(spec) = coracle_engine::bundle::parse(data, &mut |_| warnings += 1) else {
        return;
    };
    assert!(warnings <= data.len());
    let written = serde_json::to_vec(&spec).expect("it becomes JSON");
    let again: Spec = serde_json::from_slice(&written).expect("its own writing");
    assert!(again == spec, "{}", String::from_utf8_lossy(&written));
    if let Err(error) = coracle_runtime::fuzzing::resolve(&spec) {
        assert!(!error.to_string().is_empty());
    }
}

/// The document of `exec --process`.
pub(crate) fn process(data: &[u8]) {
    let Ok(process) = coracle_engine::bundle::parse_process(data, &mut |_| ()) else {
        return;
    };
    let written = serde_json::to_vec(&process).expect("it becomes JSON");
    let again: Process = serde_json::from_slice(&written).expect("its own writing");
    assert!(again == process, "{}", String::from_utf8_lossy(&written));
}

/// `linux.resources`, of a document or of `update --resources`, on its way into control files of either version.
pub(crate) fn resources(data: &[u8]) {
    if let Ok(resources) = serde_json::from_slice::<LinuxResources>(data) {
        coracle_cgroup::fuzzing::limits(&Limits::from(&resources));
    }
}

/// A profile of either form for each family of architectures: what is compiled does what the document says.
pub(crate) fn seccomp(data: &[u8]) {
    let capabilities = HashSet::from([Capability::Chown, Capability::SysAdmin]);
    for architecture in [
        Architecture::X86_64,
        Architecture::Aarch64,
        Architecture::Riscv64,
    ] {
        let context = Context {
            capabilities: &capabilities,
            architecture,
            kernel: KernelVersion {
                major: 6,
                minor: 12,
            },
        };
        let Ok(profile) = load_profile(data, &context) else {
            return;
        };
        match coracle_runtime::seccomp::compare(&profile, architecture) {
            Ok(program) => assert!(!program.instructions.is_empty()),
            Err(Error::TooLong { count }) => assert!(count > 4096),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
