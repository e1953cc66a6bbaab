//! Names of cgroups: where one is, apart from which hierarchy it is in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The place of a cgroup, the same in every hierarchy.
///
/// `web` and `pods/a/b` are below the manager's parent (`coracle/` of the root, or what is delegated to us);
/// `/machine/web` is below the hierarchy's root as it is mounted here, as OCI's `cgroupsPath` means it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CgroupPath {
    absolute: bool,
    components: Vec<String>,
}

impl CgroupPath {
    /// Parses a path.
    ///
    /// # Errors
    /// [`Error::InvalidPath`] when it is empty, names a parent (`..`), or has a component that a cgroup cannot have.
    pub fn new(path: &str) -> Result<CgroupPath, Error> {
        let invalid = |reason| Error::InvalidPath {
            path: path.to_owned(),
            reason,
        };
        let mut components = Vec::new();
        for component in path.split('/') {
            match component {
                "" | "." => {}
                ".." => return Err(invalid("it must not contain \"..\"")),
                _ if component.len() > 255 => {
                    return Err(invalid("a component is longer than 255 bytes"));
                }
                _ if component.contains(['\n', '\0']) => {
                    return Err(invalid("a component has a newline or NUL byte"));
                }
                // kernfs has the control files and the children in one directory.
                _ if is_control_file(component) => {
                    return Err(invalid("a component has the name of a control file"));
                }
                _ => components.push(component.to_owned()),
            }
        }
        if components.is_empty() {
            return Err(invalid("it names no cgroup"));
        }
        Ok(CgroupPath {
            absolute: path.starts_with('/'),
            components,
        })
    }

    /// Whether it is below the root of the hierarchies rather than below the manager's parent.
    pub fn is_absolute(&self) -> bool {
        self.absolute
    }

    /// The directory names, outermost first; never empty.
    pub fn components(&self) -> &[String] {
        &self.components
    }
}

fn is_control_file(name: &str) -> bool {
    matches!(name, "tasks" | "notify_on_release" | "release_agent")
        || name.split_once('.').is_some_and(|(prefix, _)| {
            matches!(
                prefix,
                "cgroup"
                    | "cpu"
                    | "cpuacct"
                    | "cpuset"
                    | "memory"
                    | "devices"
                    | "freezer"
                    | "blkio"
                    | "io"
                    | "pids"
                    | "hugetlb"
                    | "rdma"
                    | "net_cls"
                    | "net_prio"
                    | "misc"
                    | "irq"
            )
        })
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.absolute {
            f.write_str("/")?;
        }
        f.write_str(&self.components.join("/"))
    }
}

impl FromStr for CgroupPath {
    type Err = Error;

    fn from_str(path: &str) -> Result<CgroupPath, Error> {
        CgroupPath::new(path)
    }
}

impl TryFrom<String> for CgroupPath {
    type Error = Error;

    fn try_from(path: String) -> Result<CgroupPath, Error> {
        CgroupPath::new(&path)
    }
}

impl From<CgroupPath> for String {
    fn from(path: CgroupPath) -> String {
        path.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_elsewhere_or_clash_are_refused() {
        for bad in [
            "",
            "/",
            "..",
            "a/../b",
            "/..",
            "a\nb",
            "tasks",
            "x/cgroup.procs",
            "memory.max",
            &"x".repeat(256),
        ] {
            assert!(
                matches!(CgroupPath::new(bad), Err(Error::InvalidPath { .. })),
                "{bad:?} was accepted"
            );
        }
    }

    #[test]
    fn paths_are_normalised_and_survive_serde() {
        for (given, shown) in [
            ("a", "a"),
            ("a//b/", "a/b"),
            ("/m/./x", "/m/x"),
            ("a.b:c", "a.b:c"),
        ] {
            let path = CgroupPath::new(given).unwrap();
            assert_eq!(path.to_string(), shown);
            let json = serde_json::to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<CgroupPath>(&json).unwrap(), path);
        }
        assert!(serde_json::from_str::<CgroupPath>("\"../x\"").is_err());
    }
}
