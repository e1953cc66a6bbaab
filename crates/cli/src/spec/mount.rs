//! `--volume`, `--mount` and `--tmpfs`.
//!
//! A bind is idmapped unless `noidmap` is given: ids inside are the same numbers on the host's files, as Docker's users
//! expect, although the container's ids are others outside. `-v` makes a missing source, `--mount` refuses it.

use coracle_engine::request::{Mount, MountKind};

use super::Caller;
use crate::units;

const PROPAGATIONS: &[&str] = &[
    "private", "rprivate", "slave", "rslave", "shared", "rshared",
];

fn target(text: &str) -> Result<String, String> {
    match text {
        "/" => Err("the target must not be the root".into()),
        _ if text.starts_with('/') => Ok(text.to_owned()),
        _ => Err(format!("the target {text:?} is not an absolute path")),
    }
}

/// A volume's name, as Docker's.
fn volume_name(text: &str) -> Result<String, String> {
    let mut bytes = text.bytes();
    let sound = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.len() >= 1
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if sound {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is neither a path nor the name of a volume (two or more of letters, digits, \"_\", \".\", \"-\")"
    ))
}

/// `[SOURCE:]TARGET[:OPTION,…]`.
pub(super) fn parse_volume(text: &str, caller: &Caller) -> Result<Mount, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, inside, options) = match parts.as_slice() {
        [inside] => (None, *inside, ""),
        [source, inside] if inside.starts_with('/') => (Some(*source), *inside, ""),
        [inside, options] if inside.starts_with('/') => (None, *inside, *options),
        [source, inside, options] => (Some(*source), *inside, *options),
        _ => return Err(format!("{text:?} is not [SOURCE:]TARGET[:OPTIONS]")),
    };
    let target = target(inside)?;
    let is_path = source.is_some_and(|source| source.starts_with(['/', '.', '~']));
    let (mut read_only, mut propagation, mut nocopy, mut idmap, mut recursive) =
        (false, None, false, true, true);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "nocopy" | "volume-nocopy" if !is_path => nocopy = true,
            "idmap" if is_path => idmap = true,
            "noidmap" if is_path => idmap = false,
            "rbind" if is_path => recursive = true,
            "bind" if is_path => recursive = false,
            // Hints about caches that mean something only where the host is a virtual machine away.
            "consistent" | "cached" | "delegated" => {}
            word if is_path && PROPAGATIONS.contains(&word) => propagation = Some(word.to_owned()),
            "z" | "Z" => relabel()?,
            other => {
                return Err(format!(
                    "{text:?} has the option {other:?}, which is not known here"
                ));
            }
        }
    }
    let kind = match source {
        Some(source) if is_path => MountKind::Bind {
            source: caller.path(source),
            create: true,
            propagation,
            recursive,
            idmap,
        },
        Some(name) => MountKind::Volume {
            name: Some(volume_name(name)?),
            nocopy,
        },
        None => MountKind::Volume { name: None, nocopy },
    };
    Ok(Mount {
        kind,
        target,
        read_only,
    })
}

/// `z` and `Z` ask for an SELinux label. Without an active SELinux nothing needs one.
fn relabel() -> Result<(), String> {
    if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        return Err(
            "relabelling (z, Z) is not supported, and SELinux is active on this host".into(),
        );
    }
    Ok(())
}

/// `type=…,source=…,target=…,…`: one line of comma-separated values, in which a field may be quoted.
pub(super) fn parse_mount(text: &str, caller: &Caller) -> Result<Mount, String> {
    let mut kind = "volume".to_owned();
    let (mut source, mut inside, mut read_only) = (None, None, false);
    let (mut propagation, mut recursive, mut idmap, mut create) = (None, true, None, false);
    let (mut nocopy, mut size, mut mode) = (None, None, None);
    let mut tmpfs_options: Vec<String> = Vec::new();
    for field in fields(text)? {
        let (key, value) = field
            .split_once('=')
            .map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        let needed = || {
            value
                .filter(|value| !value.is_empty())
                .ok_or_else(|| format!("{key} needs a value"))
        };
        let flag = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!("{key} is true or false, not {other:?}")),
        };
        match key.to_ascii_lowercase().as_str() {
            "type" => kind = needed()?.to_ascii_lowercase(),
            "source" | "src" => source = Some(needed()?.to_owned()),
            "target" | "dst" | "destination" => inside = Some(target(needed()?)?),
            "readonly" | "ro" => read_only = flag()?,
            "rw" => read_only = !flag()?,
            "bind-propagation" => {
                let word = needed()?;
                if !PROPAGATIONS.contains(&word) {
                    return Err(format!("{word:?} is not {}", PROPAGATIONS.join(", ")));
                }
                propagation = Some(word.to_owned());
            }
            "bind-recursive" => {
                recursive = match needed()? {
                    "enabled" | "true" | "writable" | "readonly" => true,
                    "disabled" | "false" => false,
                    other => {
                        return Err(format!(
                            "bind-recursive is enabled or disabled, not {other:?}"
                        ));
                    }
                }
            }
            "bind-nonrecursive" => recursive = !flag()?,
            "bind-create-src" => create = flag()?,
            "idmap" => idmap = Some(flag()?),
            "noidmap" => idmap = Some(!flag()?),
            "volume-nocopy" => nocopy = Some(flag()?),
            "consistency" => needed().map(|_| ())?,
            "tmpfs-size" => size = Some(units::parse_bytes(needed()?)?),
            "tmpfs-mode" => mode = Some(octal(needed()?)?),
            "tmpfs-opts" => tmpfs_options.push(needed()?.to_owned()),
            other => return Err(format!("the key {other:?} is not known")),
        }
    }
    let target = inside.ok_or("it has no target")?;
    let only = |owner: &str, given: bool, key: &str| {
        if given && kind != owner {
            Err(format!(
                "{key} is for type={owner}, and this is type={kind}"
            ))
        } else {
            Ok(())
        }
    };
    only("bind", propagation.is_some(), "bind-propagation")?;
    only("bind", !recursive, "bind-recursive")?;
    only("bind", idmap.is_some(), "idmap")?;
    only("bind", create, "bind-create-src")?;
    only("volume", nocopy.is_some(), "volume-nocopy")?;
    only("tmpfs", size.is_some(), "tmpfs-size")?;
    only("tmpfs", mode.is_some(), "tmpfs-mode")?;
    only("tmpfs", !tmpfs_options.is_empty(), "tmpfs-opts")?;
    let kind = match kind.as_str() {
        "bind" => MountKind::Bind {
            source: caller.path(&source.ok_or("type=bind needs a source")?),
            create,
            propagation,
            recursive,
            idmap: idmap.unwrap_or(true),
        },
        "volume" => MountKind::Volume {
            name: source.as_deref().map(volume_name).transpose()?,
            nocopy: nocopy.unwrap_or(false),
        },
        "tmpfs" if source.is_some() => return Err("type=tmpfs takes no source".into()),
        "tmpfs" => MountKind::Tmpfs {
            size,
            mode,
            options: tmpfs_options,
        },
        other => return Err(format!("the type {other:?} is not bind, volume or tmpfs")),
    };
    Ok(Mount {
        kind,
        target,
        read_only,
    })
}

/// One CSV record: fields in double quotes may contain commas, and `""` inside them is a quote.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        let current = fields.len() - 1;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                fields[current].push('"');
            }
            '"' if quoted => quoted = false,
            '"' if fields[current].is_empty() => quoted = true,
            ',' if !quoted => fields.push(String::new()),
            c => fields[current].push(c),
        }
    }
    if quoted {
        return Err("a double quote is not closed".into());
    }
    if fields.iter().any(String::is_empty) {
        return Err(format!("{text:?} has an empty field"));
    }
    Ok(fields)
}

fn octal(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| format!("{text:?} is not an octal mode"))
}

/// `TARGET[:OPTION,…]`.
pub(super) fn parse_tmpfs(text: &str) -> Result<Mount, String> {
    let (inside, words) = text.split_once(':').unwrap_or((text, ""));
    let (mut size, mut mode, mut options, mut read_only) = (None, None, Vec::new(), false);
    for option in words.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) if value.ends_with('%') => options.push(format!("size={value}")),
            Some(("size", value)) => size = Some(units::parse_bytes(value)?),
            Some(("mode", value)) => mode = Some(octal(value)?),
            Some(("uid" | "gid" | "nr_inodes" | "nr_blocks" | "huge" | "mpol", _)) => {
                options.push(option.to_owned())
            }
            None if option == "ro" => read_only = true,
            None if option == "rw" => read_only = false,
            None if [
                "exec",
                "noexec",
                "suid",
                "nosuid",
                "dev",
                "nodev",
                "sync",
                "async",
                "noatime",
                "relatime",
                "strictatime",
                "nodiratime",
            ]
            .contains(&option) =>
            {
                options.push(option.to_owned());
            }
            _ => {
                return Err(format!(
                    "{text:?} has the option {option:?}, which is not known"
                ));
            }
        }
    }
    Ok(Mount {
        kind: MountKind::Tmpfs {
            size,
            mode,
            options,
        },
        target: target(inside)?,
        read_only,
    })
}
