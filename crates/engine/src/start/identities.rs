//! Which ids a container's own user namespace maps, and which namespaces of others it joins.

use std::path::{Path, PathBuf};

use coracle_oci::runtime::{LinuxIdMapping, LinuxNamespaceType};
use coracle_runtime::{IdMapping, Map};

use crate::Engine;
use crate::error::{Error, Result};
use crate::leases;
use crate::request::{NamespaceMode, NetworkMode, UserNamespace};
use crate::spec;
use crate::state::{self, Record};

/// The maps of a user namespace.
#[derive(Debug, Clone, Default)]
pub(crate) struct Maps {
    pub uids: Vec<Map>,
    pub gids: Vec<Map>,
}

impl Maps {
    /// What root inside is outside.
    pub(crate) fn root(&self) -> (u32, u32) {
        let outside = |maps: &[Map]| {
            maps.iter()
                .find(|map| map.inside == 0)
                .map_or(65_534, |map| map.outside)
        };
        (outside(&self.uids), outside(&self.gids))
    }

    /// As the OCI document writes them.
    pub(crate) fn document(&self) -> Result<(Vec<LinuxIdMapping>, Vec<LinuxIdMapping>)> {
        let all = |maps: &[Map]| -> Result<Vec<LinuxIdMapping>> {
            maps.iter()
                .map(|map| spec::mapping(map.inside, map.outside, map.count))
                .collect()
        };
        Ok((all(&self.uids)?, all(&self.gids)?))
    }

    /// As the runtime takes them.
    pub(crate) fn own(&self) -> IdMapping {
        IdMapping::Own {
            uids: self.uids.clone(),
            gids: self.gids.clone(),
        }
    }
}

impl Engine {
    /// The maps of the container's own user namespace, if it gets one. `range` is the leased range.
    pub(crate) fn maps(&self, record: &Record, range: Option<u32>) -> Result<Option<Maps>> {
        if let UserNamespace::Container(name) = &record.spec.userns {
            let (other, run) = self.other(name)?;
            return self.maps(&other, run.ids);
        }
        if !spec::own_users(&record.spec) {
            return Ok(None);
        }
        if let UserNamespace::Map { uids, gids } = &record.spec.userns {
            let maps = |list: &[(u32, u32, u32)]| {
                list.iter()
                    .map(|&(inside, outside, count)| Map {
                        inside,
                        outside,
                        count,
                    })
                    .collect()
            };
            return Ok(Some(Maps {
                uids: maps(uids),
                gids: maps(gids),
            }));
        }
        if self.config.rootless {
            return Ok(Some(Maps {
                uids: available("/proc/self/uid_map")?,
                gids: available("/proc/self/gid_map")?,
            }));
        }
        let first = leases::first_id(range.unwrap_or_else(|| leases::preferred(&record.id)));
        let map = vec![Map {
            inside: 0,
            outside: first,
            count: leases::RANGE,
        }];
        Ok(Some(Maps {
            uids: map.clone(),
            gids: map,
        }))
    }

    /// Namespaces of other containers that the request joins, by path. Each path names the process that the other
    /// container's record holds; the runtime opens it at once.
    pub(crate) fn joined(&self, record: &Record) -> Result<Vec<(LinuxNamespaceType, PathBuf)>> {
        let spec = &record.spec;
        let mut joined = Vec::new();
        let mut join = |name: &str, kind: LinuxNamespaceType, file: &str| -> Result<()> {
            let (_, run) = self.other(name)?;
            joined.push((
                kind,
                Path::new("/proc")
                    .join(run.pid.to_string())
                    .join("ns")
                    .join(file),
            ));
            Ok(())
        };
        if let UserNamespace::Container(name) = &spec.userns {
            join(name, LinuxNamespaceType::User, "user")?;
        }
        for (mode, kind, file) in [
            (&spec.pid, LinuxNamespaceType::Pid, "pid"),
            (&spec.ipc, LinuxNamespaceType::Ipc, "ipc"),
            (&spec.uts, LinuxNamespaceType::Uts, "uts"),
            (&spec.cgroupns, LinuxNamespaceType::Cgroup, "cgroup"),
        ] {
            if let NamespaceMode::Container(name) = mode {
                join(name, kind, file)?;
            }
        }
        if let NetworkMode::Container(name) = &spec.network {
            join(name, LinuxNamespaceType::Network, "net")?;
        }
        Ok(joined)
    }
}

/// In an ordinary user's namespace: each id that it has, under its own number.
fn available(file: &str) -> Result<Vec<Map>> {
    let text = state::read(Path::new(file))?.unwrap_or_default();
    let maps = parse(&String::from_utf8_lossy(&text));
    if maps.is_empty() {
        return Err(Error::refused_with(
            format!("{file} maps no ids"),
            "an ordinary user's command must run in a user namespace; `coracle` makes one by itself",
        ));
    }
    Ok(maps)
}

fn parse(text: &str) -> Vec<Map> {
    let line = |line: &str| {
        let mut numbers = line
            .split_whitespace()
            .map(|number| number.parse::<u32>().ok());
        let (inside, _outside, count) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(Map {
            inside,
            outside: inside,
            count,
        })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_user_keeps_the_numbers_of_its_ids() {
        let maps = parse("         0       1000          1\n         1     100000      65536\n");
        assert_eq!(
            maps,
            [
                Map {
                    inside: 0,
                    outside: 0,
                    count: 1
                },
                Map {
                    inside: 1,
                    outside: 1,
                    count: 65_536
                }
            ]
        );
    }
}
