//! Sysctls: only those that a namespace of the container owns.

use coracle_linux::namespace;
use oci_spec::runtime::Spec;

use super::namespaces::Spaces;
use crate::Error;
use crate::plan::Sysctl;

/// Those of the IPC namespace under `kernel`.
const IPC: &[&str] = &[
    "kernel/auto_msgmni",
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/msg_next_id",
    "kernel/sem",
    "kernel/sem_next_id",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_next_id",
    "kernel/shm_rmid_forced",
];

pub(super) fn resolve(spec: &Spec, spaces: &Spaces) -> Result<Vec<Sysctl>, Error> {
    let Some(sysctls) = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.sysctl().as_ref())
    else {
        return Ok(vec![]);
    };
    let mut all: Vec<(&String, &String)> = sysctls.iter().collect();
    // A document is a map; the same document does the same thing each time.
    all.sort();
    all.into_iter()
        .map(|(key, value)| {
            let path = path(key);
            let kind = owner(&path).ok_or_else(|| {
                Error::invalid(
                    format!("linux.sysctl {key:?}"),
                    "no namespace has this sysctl of its own",
                )
            })?;
            if !spaces.has(kind.0) {
                return Err(Error::invalid(
                    format!("linux.sysctl {key:?}"),
                    format!("it would change the host: there is no {} namespace", kind.1),
                ));
            }
            Ok(Sysctl {
                path: super::string("linux.sysctl", &format!("sys/{path}"))?,
                value: value.clone().into_bytes(),
            })
        })
        .collect()
}

/// As sysctl(8): the first separator that is there is the separator; with dots, a slash stands for a dot.
fn path(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'.' => key
            .chars()
            .map(|char| match char {
                '.' => '/',
                '/' => '.',
                char => char,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

fn owner(path: &str) -> Option<(u64, &'static str)> {
    if path
        .split('/')
        .any(|part| part == ".." || part == "." || part.is_empty())
    {
        None
    } else if path.starts_with("net/") {
        Some((namespace::NETWORK, "network"))
    } else if path.starts_with("fs/mqueue/") || IPC.contains(&path) {
        Some((namespace::IPC, "IPC"))
    } else if path == "kernel/domainname" || path == "kernel/hostname" {
        Some((namespace::UTS, "UTS"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_paths_as_sysctl_8_does_it() {
        for (key, expected) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            (
                "net.ipv4.conf.eth0/1.forwarding",
                "net/ipv4/conf/eth0.1/forwarding",
            ),
            (
                "net/ipv4/conf/eth0.1/forwarding",
                "net/ipv4/conf/eth0.1/forwarding",
            ),
        ] {
            assert_eq!(path(key), expected);
        }
    }

    #[test]
    fn sysctls_of_the_host_have_no_owner() {
        for key in [
            "kernel.core_pattern",
            "vm.swappiness",
            "net.ipv4/../../kernel.core_pattern",
            "net/../vm/x",
            "fs.file-max",
        ] {
            assert!(owner(&path(key)).is_none(), "{key}");
        }
        assert_eq!(
            owner("net/ipv4/ip_forward").map(|owner| owner.1),
            Some("network")
        );
        assert_eq!(owner("kernel/shmmax").map(|owner| owner.1), Some("IPC"));
    }
}
