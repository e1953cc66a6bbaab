//! The OCI document and seccomp profiles.

use std::collections::HashSet;

use coracle_oci::runtime::{Capability, Spec};
use coracle_runtime::seccomp::{Architecture, Context, Error, KernelVersion, load_profile};

/// `config.json`: read, written and read again as the same; resolved as for a start, up to the clone.
pub(crate) fn config(data: &[u8]) {
    let Ok(spec) = serde_json::from_slice::<Spec>(data) else {
        return;
    };
    let written = serde_json::to_vec(&spec).expect("it becomes JSON");
    let again: Spec = serde_json::from_slice(&written).expect("its own writing");
    assert!(again == spec, "{}", String::from_utf8_lossy(&written));
    if let Err(error) = coracle_runtime::fuzzing::resolve(&spec) {
        assert!(!error.to_string().is_empty());
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
