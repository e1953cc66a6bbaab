//! The three files of /etc that a container shares with nobody: hosts, hostname, resolv.conf.
//!
//! They are made at each start, on a tmpfs of the container's own: what it writes to them is bounded, and gone with it.

use std::path::Path;

use coracle_runtime::OwnFile;

use crate::error::Result;
use crate::request::{ContainerSpec, NamespaceMode, NetworkMode};
use crate::state::{self, Record};

const HOST_RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where systemd-resolved keeps the servers that its stub (127.0.0.53) asks.
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// The files, without those in whose place (or above which) something else is mounted.
pub(crate) fn files(record: &Record) -> Result<Vec<OwnFile>> {
    let spec = &record.spec;
    let host_network = spec.network == NetworkMode::Host;
    let name = match (&spec.hostname, &spec.uts) {
        (Some(name), _) => name.clone(),
        (None, NamespaceMode::Host) => {
            String::from_utf8_lossy(rustix::system::uname().nodename().to_bytes()).into()
        }
        (None, _) => record.id.short().into(),
    };
    let host_hosts = if host_network {
        read_host("/etc/hosts")?
    } else {
        None
    };
    let host = read_host(HOST_RESOLV_CONF)?.unwrap_or_default();
    let host = match only_loopback_servers(&host) && !host_network {
        true => read_host(RESOLVED_CONF)?.unwrap_or(host),
        false => host,
    };
    let files = [
        ("/etc/hosts", hosts(spec, &name, host_hosts.as_deref())),
        ("/etc/hostname", format!("{name}\n")),
        ("/etc/resolv.conf", resolv_conf(spec, &host, host_network)),
    ];
    Ok(files
        .into_iter()
        .filter(|(target, _)| !shadowed(record, Path::new(target)))
        .map(|(target, text)| OwnFile {
            target: target.into(),
            content: text.into(),
        })
        .collect())
}

fn shadowed(record: &Record, target: &Path) -> bool {
    let asked = record.spec.mounts.iter().map(|mount| mount.target.as_str());
    let volumes = record.volumes.iter().map(|volume| volume.target.as_str());
    asked.chain(volumes).any(|other| target.starts_with(other))
}

fn read_host(path: &str) -> Result<Option<String>> {
    Ok(state::read(Path::new(path))?.map(|text| String::from_utf8_lossy(&text).into_owned()))
}

fn hosts(spec: &ContainerSpec, name: &str, host: Option<&str>) -> String {
    let mut text = match host {
        Some(host) => host.to_owned(),
        None => format!(
            "127.0.0.1\tlocalhost {name}\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\n\
             ff02::2\tip6-allrouters\n"
        ),
    };
    for (name, address) in &spec.extra_hosts {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

fn only_loopback_servers(text: &str) -> bool {
    let mut servers = servers(text).peekable();
    servers.peek().is_some() && servers.all(is_loopback)
}

fn servers(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter_map(|line| line.strip_prefix("nameserver"))
        .map(str::trim)
}

fn is_loopback(server: &str) -> bool {
    server
        .parse::<std::net::IpAddr>()
        .is_ok_and(|address| address.is_loopback())
}

/// The host's, with what was asked in place of it; servers on the host's loopback are out of reach from a stack of
/// the container's own.
fn resolv_conf(spec: &ContainerSpec, host: &str, host_network: bool) -> String {
    let kept = |line: &&str| {
        let word = line.split_whitespace().next().unwrap_or_default();
        match word {
            "nameserver" => {
                spec.dns.is_empty() && (host_network || !servers(line).all(is_loopback))
            }
            "search" | "domain" => spec.dns_search.is_empty(),
            "options" => spec.dns_options.is_empty(),
            _ => !word.is_empty(),
        }
    };
    let mut text: String = host
        .lines()
        .filter(kept)
        .flat_map(|line| [line, "\n"])
        .collect();
    for server in &spec.dns {
        text.push_str(&format!("nameserver {server}\n"));
    }
    // `--dns-search .` is Docker's way to ask for none.
    if !spec.dns_search.is_empty() && spec.dns_search != ["."] {
        text.push_str(&format!("search {}\n", spec.dns_search.join(" ")));
    }
    if !spec.dns_options.is_empty() {
        text.push_str(&format!("options {}\n", spec.dns_options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_replaces_the_hosts_lines_of_its_kind() {
        let host = "# made by dhcp\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch example.org\noptions edns0\n";
        let plain = ContainerSpec::default();
        assert_eq!(
            resolv_conf(&plain, host, false),
            "# made by dhcp\nnameserver 192.0.2.1\nsearch example.org\noptions edns0\n"
        );
        assert!(resolv_conf(&plain, host, true).contains("127.0.0.53"));
        let asked = ContainerSpec {
            dns: vec!["198.51.100.7".into()],
            dns_search: vec![".".into()],
            dns_options: vec!["ndots:2".into()],
            ..ContainerSpec::default()
        };
        assert_eq!(
            resolv_conf(&asked, host, false),
            "# made by dhcp\nnameserver 198.51.100.7\noptions ndots:2\n"
        );
    }

    #[test]
    fn a_stub_resolver_is_recognised() {
        assert!(only_loopback_servers(
            "nameserver 127.0.0.53\noptions edns0\n"
        ));
        assert!(!only_loopback_servers(
            "nameserver 127.0.0.53\nnameserver 192.0.2.1\n"
        ));
        assert!(!only_loopback_servers(""));
    }
}
