//! What a container without a cgroup namespace sees at a mount of type `cgroup`: its own cgroup, as every runtime shows it.
//!
//! A new mount of a hierarchy would have the hierarchy's root in it, which shows all that runs on the host. With a cgroup
//! namespace the kernel puts the container's own in its place, and the document's mount is made as it is.

use std::path::{Path, PathBuf};

use coracle_cgroup::{Cgroup, Layout, Manager};
use coracle_oci::runtime::{LinuxNamespaceType, Mount, MountBuilder, Spec};

use crate::error::{Error, Result};

/// Where hosts have their hierarchies.
const HOST: &str = "/sys/fs/cgroup";

/// Replaces mounts of type `cgroup` by binds of the container's own directories.
pub(super) fn show_own(spec: &mut Spec, cgroup: &Cgroup, manager: &Manager) -> Result<()> {
    let namespaces = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().as_deref())
        .unwrap_or_default();
    let is_cgroup = |mount: &Mount| mount.typ().as_deref() == Some("cgroup");
    let in_own = namespaces
        .iter()
        .any(|namespace| namespace.typ() == LinuxNamespaceType::Cgroup);
    let mounts = spec.mounts().clone().unwrap_or_default();
    if in_own || cgroup.is_none() || !mounts.iter().any(is_cgroup) {
        return Ok(());
    }
    let mut shown = Vec::new();
    for mount in mounts {
        if !is_cgroup(&mount) {
            shown.push(mount);
        } else if manager.layout() == Layout::V2 {
            let directory = cgroup.directories().next().unwrap_or(Path::new(HOST));
            shown.push(bind(directory, mount.destination().clone(), &mount)?);
        } else {
            shown.push(holder(&mount)?);
            for directory in cgroup.directories() {
                for name in names(directory) {
                    let target = mount.destination().join(name);
                    shown.push(bind(directory, target, &mount)?);
                }
            }
        }
    }
    spec.set_mounts(Some(shown));
    Ok(())
}

/// The names of a hierarchy in a container: `cpu,cpuacct`, `cpu`, `cpuacct`; none for the v2 one beside v1.
fn names(directory: &Path) -> Vec<String> {
    let below = directory.strip_prefix(HOST).unwrap_or(directory);
    let first = below.components().next();
    let Some(name) = first.and_then(|part| part.as_os_str().to_str()) else {
        return Vec::new();
    };
    if name == "unified" {
        return Vec::new();
    }
    let mut names = vec![name.to_owned()];
    if name.contains(',') {
        names.extend(name.split(',').map(str::to_owned));
    }
    names
}

/// The words of a mount's options that a bind has too.
fn flags(mount: &Mount) -> Vec<String> {
    let words = mount.options().iter().flatten();
    words
        .filter(|word| {
            matches!(
                word.as_str(),
                "ro" | "rw"
                    | "nosuid"
                    | "nodev"
                    | "noexec"
                    | "noatime"
                    | "relatime"
                    | "strictatime"
            )
        })
        .cloned()
        .collect()
}

fn bind(source: &Path, target: PathBuf, mount: &Mount) -> Result<Mount> {
    let options: Vec<String> = ["bind".to_owned()]
        .into_iter()
        .chain(flags(mount))
        .collect();
    built(
        MountBuilder::default()
            .destination(target)
            .source(source)
            .typ("bind")
            .options(options),
    )
}

/// The directory that v1 hierarchies are in.
fn holder(mount: &Mount) -> Result<Mount> {
    let options: Vec<String> = ["mode=755".to_owned()]
        .into_iter()
        .chain(flags(mount))
        .collect();
    built(
        MountBuilder::default()
            .destination(mount.destination().clone())
            .source("tmpfs")
            .typ("tmpfs")
            .options(options),
    )
}

fn built(builder: MountBuilder) -> Result<Mount> {
    builder
        .build()
        .map_err(|error| Error::refused(format!("the cgroup mount cannot be made: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_with_several_controllers_have_several_names() {
        for (directory, expected) in [
            ("/sys/fs/cgroup/pids/docker/x", vec!["pids"]),
            (
                "/sys/fs/cgroup/cpu,cpuacct/x",
                vec!["cpu,cpuacct", "cpu", "cpuacct"],
            ),
            ("/sys/fs/cgroup/unified/x", vec![]),
        ] {
            assert_eq!(names(Path::new(directory)), expected);
        }
    }
}
