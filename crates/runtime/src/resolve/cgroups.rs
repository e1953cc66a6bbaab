//! The mount of type `cgroup`, which means what the host has: one cgroup2, or a tmpfs with each v1 hierarchy in it
//! that holds a cgroup of the container's own.

use std::ffi::CString;
use std::path::Path;

use coracle_linux::mount::{ATIME, NOATIME, NODEV, NOEXEC, NOSUID, RDONLY};
use coracle_linux::procfs::Proc;
use rustix::fs::statfs;

use super::mounts::Context;
use super::options::Options;
use super::{in_root, string};
use crate::Error;
use crate::plan::{Inner, Link};

const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

impl Context<'_> {
    /// `cgroup` is what the host has: one cgroup2, or a tmpfs with every v1 hierarchy in it.
    pub(super) fn add_cgroup(
        &mut self,
        path: &Path,
        target: CString,
        parsed: Options,
    ) -> Result<(), Error> {
        let magic = statfs("/sys/fs/cgroup")
            .map_err(|source| Error::host("looking at", "/sys/fs/cgroup", source))?
            .f_type as u64;
        if magic == CGROUP2_SUPER_MAGIC {
            return self.add_new(target, "cgroup2", Some("cgroup"), parsed);
        }
        let list = Proc::host()
            .and_then(|proc| {
                proc.read(&format!(
                    "{}/cgroup",
                    rustix::process::getpid().as_raw_nonzero()
                ))
            })
            .map_err(|source| Error::host("reading", "/proc/self/cgroup", source))?;
        let read_only = parsed.attributes.set & RDONLY;
        let mut holder = Options {
            attributes: parsed.attributes,
            ..Options::default()
        };
        holder.attributes.set |= read_only;
        holder
            .data
            .push(("mode".to_owned(), Some("755".to_owned())));
        self.add_new(target, "tmpfs", Some("tmpfs"), holder)?;
        let flags = classic(parsed.attributes.set);
        let base = in_root("mount target", path)?;
        // In a hierarchy without a cgroup of its own the container is in its caller's, and a mount of that would show all
        // that is below: other containers, or the host.
        let own = |hierarchy: &Hierarchy| match self.controllers {
            None => true,
            Some(controllers) => hierarchy
                .data
                .split(',')
                .any(|name| controllers.contains(&name)),
        };
        let shown: Vec<Hierarchy> = hierarchies(&list).into_iter().filter(own).collect();
        for hierarchy in shown {
            let inner = Inner {
                name: string("cgroup hierarchy", &hierarchy.directory)?,
                kind: c"cgroup".to_owned(),
                data: string("cgroup hierarchy", &hierarchy.data)?,
                flags,
            };
            if let Some(holder) = self.mounts.last_mut() {
                holder.inner.push(inner);
            }
            for alias in &hierarchy.aliases {
                self.links.push(Link {
                    directory: base.clone(),
                    name: string("link", alias)?,
                    text: string("link", &hierarchy.directory)?,
                });
            }
        }
        Ok(())
    }
}

/// `MOUNT_ATTR_*` as `MS_*`, of those that a mount of cgroups may have.
fn classic(attributes: u64) -> u32 {
    // The first four have the same values in both.
    let mut flags = (attributes & (RDONLY | NOSUID | NODEV | NOEXEC)) as u32;
    if attributes & ATIME == NOATIME {
        flags |= 1 << 10;
    }
    flags
}

/// A cgroup v1 hierarchy of the host.
#[derive(Debug, Eq, PartialEq)]
struct Hierarchy {
    directory: String,
    /// The options of mount(2).
    data: String,
    /// Its controllers, when they share it.
    aliases: Vec<String>,
}

/// Parses /proc/PID/cgroup. The unified hierarchy is not among the result.
fn hierarchies(list: &str) -> Vec<Hierarchy> {
    let mut all = Vec::new();
    for line in list.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(_)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if controllers.is_empty() {
            continue;
        }
        if let Some(name) = controllers.strip_prefix("name=") {
            all.push(Hierarchy {
                directory: name.to_owned(),
                data: format!("none,{controllers}"),
                aliases: Vec::new(),
            });
            continue;
        }
        let names: Vec<String> = controllers.split(',').map(str::to_owned).collect();
        all.push(Hierarchy {
            directory: controllers.to_owned(),
            data: controllers.to_owned(),
            aliases: if names.len() > 1 { names } else { Vec::new() },
        });
    }
    all.reverse();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_read_from_the_kernels_list() {
        let all = hierarchies("9:name=systemd:/\n4:cpu,cpuacct:/x:y\n2:memory:/\n0::/\n");
        let directories: Vec<&str> = all
            .iter()
            .map(|hierarchy| hierarchy.directory.as_str())
            .collect();
        assert_eq!(directories, ["memory", "cpu,cpuacct", "systemd"]);
        assert_eq!(all[1].aliases, ["cpu", "cpuacct"]);
        assert_eq!(
            (all[1].data.as_str(), all[2].data.as_str()),
            ("cpu,cpuacct", "none,name=systemd")
        );
    }
}
