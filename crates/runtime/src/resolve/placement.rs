//! On which processors and memory nodes a process runs, and under which labels of security modules.

use std::ffi::CString;
use std::path::Path;

use coracle_linux::process::MEMORY_NODES;
use coracle_linux::procfs::Proc;
use oci_spec::runtime::{
    LinuxMemoryPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process as Document, Spec,
};
use rustix::thread::CpuSet;

use super::copy;
use crate::Error;
use crate::plan::{Affinity, Label, Labels, MemoryPolicy};

/// The numbers of a list such as `0-3,8`, all below `limit`.
fn list(what: &str, text: &str, limit: usize) -> Result<Vec<usize>, Error> {
    let invalid = || Error::invalid(format!("{what} {text:?}"), "it is no list such as 0-3,8");
    let mut numbers = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| invalid());
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last >= limit {
            return Err(invalid());
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

/// `process.execCPUAffinity`, which is not for a container's first process.
pub(super) fn affinity(document: &Document) -> Result<Option<Affinity>, Error> {
    let Some(asked) = document.exec_cpu_affinity() else {
        return Ok(None);
    };
    let set = |what: &str, text: &Option<String>| -> Result<Option<CpuSet>, Error> {
        let Some(text) = text.as_ref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let mut set = CpuSet::new();
        for number in list(what, text, CpuSet::MAX_CPU)? {
            set.set(number);
        }
        Ok(Some(set))
    };
    Ok(Some(Affinity {
        initial: set("process.execCPUAffinity.initial", asked.initial())?,
        last: set("process.execCPUAffinity.final", asked.cpu_affinity_final())?,
    }))
}

/// `linux.memoryPolicy`.
pub(super) fn memory_policy(spec: &Spec) -> Result<Option<MemoryPolicy>, Error> {
    let policy = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.memory_policy().as_ref());
    policy.map(resolve_policy).transpose()
}

fn resolve_policy(policy: &LinuxMemoryPolicy) -> Result<MemoryPolicy, Error> {
    let mut mode = match policy.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    for flag in policy.flags().iter().flatten() {
        mode |= match flag {
            MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
            MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        };
    }
    let text = policy.nodes().as_ref().filter(|text| !text.is_empty());
    let nodes = match text {
        None => None,
        Some(text) => {
            let mut mask = [0u64; MEMORY_NODES / 64];
            for node in list("linux.memoryPolicy.nodes", text, MEMORY_NODES)? {
                if let Some(word) = mask.get_mut(node / 64) {
                    *word |= 1 << (node % 64);
                }
            }
            Some(mask)
        }
    };
    Ok(MemoryPolicy { mode, nodes })
}

fn apparmor_is_active() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with('Y'))
}

fn selinux_is_active() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

pub(crate) fn security_modules() -> (bool, bool) {
    (apparmor_is_active(), selinux_is_active())
}

/// `process.apparmorProfile` and `process.selinuxLabel`: written by the process for its exec.
pub(super) fn labels(document: &Document) -> Result<Option<Labels>, Error> {
    let mut all = Vec::new();
    let asked = |label: &Option<String>| label.clone().filter(|label| !label.is_empty());
    if let Some(profile) = asked(document.apparmor_profile()) {
        if !apparmor_is_active() {
            return Err(inactive("process.apparmorProfile", &profile, "AppArmor"));
        }
        // Since Linux 5.8 each module has a directory of its own, so that two can be active.
        let own = Path::new("/proc/self/attr/apparmor/exec").exists();
        let path = if own {
            c"self/attr/apparmor/exec"
        } else {
            c"self/attr/exec"
        };
        all.push(label(path.to_owned(), format!("exec {profile}")));
    }
    if let Some(text) = asked(document.selinux_label()) {
        if !selinux_is_active() {
            return Err(inactive("process.selinuxLabel", &text, "SELinux"));
        }
        all.push(label(c"self/attr/exec".to_owned(), text));
    }
    if all.is_empty() {
        return Ok(None);
    }
    let proc = Proc::host().map_err(|source| Error::host("opening", "/proc", source))?;
    Ok(Some(Labels {
        proc: copy(proc)?,
        all,
    }))
}

fn label(path: CString, text: String) -> Label {
    Label {
        path,
        text: text.into_bytes(),
    }
}

fn inactive(what: &str, value: &str, module: &str) -> Error {
    Error::invalid(
        format!("{what} {value:?}"),
        format!("{module} is not active on this host; leave the label away"),
    )
}

/// `linux.mountLabel`: the SELinux context of new file systems.
pub(super) fn mount_label(spec: &Spec) -> Result<Option<String>, Error> {
    let label = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.mount_label().clone())
        .filter(|label| !label.is_empty());
    match label {
        Some(label) if !selinux_is_active() => Err(inactive("linux.mountLabel", &label, "SELinux")),
        label => Ok(label),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_those_of_cpusets() {
        assert_eq!(list("x", "0-2,5", 8).expect("a list"), [0, 1, 2, 5]);
        for wrong in ["", "3-1", "8", "a", "1,,2", "-1"] {
            assert!(list("x", wrong, 8).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_memory_policy_is_a_mode_with_flags_and_a_mask() {
        let policy: LinuxMemoryPolicy = serde_json::from_str(
            r#"{"mode":"MPOL_BIND","nodes":"0,65","flags":["MPOL_F_STATIC_NODES"]}"#,
        )
        .expect("a policy");
        let policy = resolve_policy(&policy).expect("sound");
        assert_eq!(policy.mode, 2 | 1 << 15);
        let mask = policy.nodes.expect("nodes");
        assert_eq!((mask[0], mask[1]), (1, 2));
    }
}
