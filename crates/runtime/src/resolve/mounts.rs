//! The tree of mounts: the root, the document's mounts in their order, and what belongs to them.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use coracle_linux::descriptor::Slot;
use coracle_linux::mount::{ATIME, Attributes, NODEV, RDONLY};
use coracle_linux::namespace;
use coracle_linux::procfs::Proc;
use oci_spec::runtime::{LinuxIdMapping, Mount, Spec};
use rustix::fs::statfs;

use super::namespaces::Spaces;
use super::options::{self, Options};
use super::{Bind, Host, HostDevice, INIT, Idmap, devices, in_root, string};
use crate::Error;
use crate::plan::{FileSystem, Kind, Link, MountStep, Source};
use crate::request::{IdMapping, Lower, Map, Root};

const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
/// The most layers that overlay takes.
const LOWERS: usize = 500;
/// The kernel's limit on a value of fsconfig(2).
const VALUE: usize = 255;

/// Files of procfs that others may stand in for, as lxcfs does.
const ON_PROC: &[&str] = &[
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "net/dev",
    "slabinfo",
    "stat",
    "swaps",
    "sys/kernel/ns_last_pid",
    "uptime",
];

pub(super) struct Tree {
    pub(super) plan: FileSystem,
    pub(super) root: Option<Root>,
    pub(super) binds: Vec<Bind>,
    pub(super) devices: Vec<HostDevice>,
}

/// What the mounts are resolved in.
struct Context<'a> {
    ids: &'a IdMapping,
    host: &'a Host,
    mounts: Vec<MountStep>,
    links: Vec<Link>,
    binds: Vec<Bind>,
}

pub(super) fn resolve(
    spec: &Spec,
    root: Root,
    ids: &IdMapping,
    spaces: &Spaces,
    host: &Host,
    terminal: bool,
    init: bool,
) -> Result<Tree, Error> {
    let own_users = !matches!(ids, IdMapping::Host);
    let mut context = Context {
        ids,
        host,
        mounts: Vec::new(),
        links: Vec::new(),
        binds: Vec::new(),
    };
    let mut dev_is_the_hosts = false;
    for mount in spec.mounts().iter().flatten() {
        let is_bind = context.add(mount)?;
        dev_is_the_hosts |= is_bind && clean(mount.destination()) == Path::new("/dev");
    }
    if init {
        context.add_init()?;
    }
    let linux = spec.linux().as_ref();
    let mut nodes = devices::Devices {
        devices: Vec::new(),
        links: Vec::new(),
        on_host: Vec::new(),
    };
    // A bound /dev is somebody else's: nothing is made in it.
    if !dev_is_the_hosts {
        let asked = linux
            .and_then(|linux| linux.devices().as_deref())
            .unwrap_or_default();
        nodes = devices::resolve(asked, ids, host)?;
    }
    nodes.links.append(&mut context.links);
    let paths = |what: &str, list: Option<&Vec<String>>| -> Result<Vec<CString>, Error> {
        list.into_iter()
            .flatten()
            .map(|path| in_root(what, Path::new(path)))
            .collect()
    };
    let root_propagation = match linux.and_then(|linux| linux.rootfs_propagation().as_deref()) {
        None | Some("") => 0,
        Some(word) => {
            let (value, _) = options::propagation(word).ok_or_else(|| {
                Error::invalid(
                    format!("linux.rootfsPropagation {word:?}"),
                    "there is no such propagation",
                )
            })?;
            refuse_shared("linux.rootfsPropagation", value, own_users)?;
            value
        }
    };
    check_root(&root)?;
    let root_attributes = Attributes {
        set: if own_users { NODEV } else { 0 },
        ..Attributes::default()
    };
    let (source, root) = if host.may_mount {
        (Source::Given { mount: Slot::new() }, Some(root))
    } else {
        (own_root(&root)?, None)
    };
    let cwd = spec
        .process()
        .as_ref()
        .map_or(Path::new("/"), |process| process.cwd());
    let plan = FileSystem {
        // A user namespace of its own makes the kernel do that.
        detach_propagation: !spaces.owns(namespace::USER),
        root: source,
        root_attributes,
        mounts: context.mounts,
        devices: nodes.devices,
        links: nodes.links,
        console: terminal && !dev_is_the_hosts,
        masked: paths(
            "linux.maskedPaths",
            linux.and_then(|linux| linux.masked_paths().as_ref()),
        )?,
        read_only: paths(
            "linux.readonlyPaths",
            linux.and_then(|linux| linux.readonly_paths().as_ref()),
        )?,
        root_read_only: spec
            .root()
            .as_ref()
            .and_then(|root| root.readonly())
            .unwrap_or(false),
        root_propagation,
        working_directory: in_root("process.cwd", cwd)?,
    };
    Ok(Tree {
        plan,
        root,
        binds: context.binds,
        devices: nodes.on_host,
    })
}

fn refuse_shared(what: &str, propagation: u64, own_users: bool) -> Result<(), Error> {
    if own_users && options::is_shared(propagation) {
        return Err(Error::invalid(
            what,
            "shared propagation would let a user namespace mount into the host; use slave, or no user namespace",
        ));
    }
    Ok(())
}

/// A path without `.`, doubled and trailing slashes.
fn clean(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| !matches!(part, std::path::Component::CurDir))
        .collect()
}

impl Context<'_> {
    /// Adds one mount of the document. Says whether it is a bind.
    fn add(&mut self, mount: &Mount) -> Result<bool, Error> {
        let path = mount.destination();
        let target = in_root("mount target", path)?;
        if target.as_bytes() == b"." {
            return Err(Error::invalid(
                "mount target /",
                "the root file system is mounted there",
            ));
        }
        let words = mount.options().clone().unwrap_or_default();
        let parsed = options::parse(&path.to_string_lossy(), &words)?;
        let own_users = !matches!(self.ids, IdMapping::Host);
        if let Some((propagation, _)) = parsed.propagation {
            refuse_shared(
                &format!("the mount on {}", path.display()),
                propagation,
                own_users,
            )?;
        }
        let kind = mount.typ().as_deref().unwrap_or("");
        if let (Some(recursive), _) | (None, ("bind" | "rbind", recursive)) =
            (parsed.bind, (kind, kind == "rbind"))
        {
            self.add_bind(mount, target, parsed, recursive)?;
            return Ok(true);
        }
        if parsed.idmap.is_some() {
            return Err(Error::invalid(
                format!("the mount on {}", path.display()),
                "only a bind can be idmapped",
            ));
        }
        match kind {
            "cgroup" => self.add_cgroup(path, target, parsed)?,
            "" => {
                return Err(Error::invalid(
                    format!("the mount on {}", path.display()),
                    "it has no type and is no bind",
                ));
            }
            kind => {
                let source = mount
                    .source()
                    .as_ref()
                    .map(|source| source.to_string_lossy().into_owned());
                self.add_new(target, kind, source.as_deref(), parsed)?;
            }
        }
        Ok(false)
    }

    fn add_bind(
        &mut self,
        mount: &Mount,
        target: CString,
        parsed: Options,
        recursive: bool,
    ) -> Result<(), Error> {
        let path = mount.destination();
        let what = || format!("the source of the mount on {}", path.display());
        let source = mount
            .source()
            .as_ref()
            .filter(|source| source.is_absolute())
            .ok_or_else(|| Error::invalid(what(), "a bind needs an absolute path of the host"))?;
        let on_proc = clean(path)
            .strip_prefix("/proc")
            .is_ok_and(|rest| ON_PROC.iter().any(|allowed| Path::new(allowed) == rest));
        let idmap = idmap(mount, &parsed, self.ids, &what())?;
        if idmap.is_some() && !self.host.may_mount {
            return Err(Error::invalid(
                what(),
                "only a privileged caller can make idmapped mounts",
            ));
        }
        let (propagation, whole) = parsed.propagation.unwrap_or((options::PRIVATE, true));
        let mut attributes = parsed.attributes;
        let mut recursive_attributes = parsed.recursive_attributes;
        if whole {
            recursive_attributes.propagation = propagation;
        } else {
            attributes.propagation = propagation;
        }
        let source = if self.host.may_mount {
            self.binds.push(Bind {
                mount: self.mounts.len(),
                source: source.clone(),
                recursive,
                idmap,
            });
            Source::Given { mount: Slot::new() }
        } else {
            let text = source
                .to_str()
                .ok_or_else(|| Error::invalid(what(), "it is not UTF-8"))?;
            // Below a user namespace's copy of a mount tree, parts may only be cloned whole.
            Source::Path {
                path: string(&what(), text)?,
                recursive: true,
                made: Slot::new(),
            }
        };
        self.mounts.push(MountStep {
            target,
            source,
            kind: Kind::AsSource,
            attributes,
            recursive_attributes,
            late_read_only: None,
            no_links: false,
            on_proc,
        });
        Ok(())
    }

    fn add_new(
        &mut self,
        target: CString,
        kind: &str,
        source: Option<&str>,
        parsed: Options,
    ) -> Result<(), Error> {
        let mut config = Vec::new();
        // What is shown as the device in /proc/mounts; for file systems on a device it is the device.
        if let Some(source) = source.filter(|source| !source.is_empty()) {
            config.push((c"source".to_owned(), Some(string("mount source", source)?)));
        }
        for (key, value) in &parsed.data {
            if value.as_ref().is_some_and(|value| value.len() > VALUE) {
                return Err(Error::invalid(
                    format!("mount option {key}"),
                    "the kernel takes at most 255 bytes",
                ));
            }
            config.push((
                string("mount option", key)?,
                value
                    .as_ref()
                    .map(|value| string("mount option", value))
                    .transpose()?,
            ));
        }
        let mut attributes = parsed.attributes.set;
        // Others may be mounted inside of a tmpfs, so that it becomes read-only last.
        let late = kind == "tmpfs" && attributes & RDONLY != 0;
        if late {
            attributes &= !RDONLY;
        }
        let propagation = parsed.propagation.map_or(0, |(value, _)| value);
        self.mounts.push(MountStep {
            target,
            source: Source::New {
                kind: string("mount type", kind)?,
                config,
                attributes: attributes & (0xff | ATIME | coracle_linux::mount::NOSYMFOLLOW),
                made: Slot::new(),
            },
            kind: Kind::Directory,
            attributes: Attributes {
                propagation,
                ..Attributes::default()
            },
            recursive_attributes: Attributes::default(),
            late_read_only: late.then(Slot::new),
            no_links: matches!(
                kind,
                "proc" | "sysfs" | "cgroup" | "cgroup2" | "devpts" | "mqueue"
            ),
            on_proc: false,
        });
        Ok(())
    }

    /// `cgroup` is what the host has: one cgroup2, or a tmpfs with every v1 hierarchy in it.
    fn add_cgroup(&mut self, path: &Path, target: CString, parsed: Options) -> Result<(), Error> {
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
        self.add_new(target.clone(), "tmpfs", Some("tmpfs"), holder)?;
        let base = target.to_string_lossy().into_owned();
        for hierarchy in hierarchies(&list) {
            let mut options = Options {
                attributes: parsed.attributes,
                ..Options::default()
            };
            options.data = hierarchy.config.clone();
            let place = in_root("mount target", &path.join(&hierarchy.directory))?;
            self.add_new(place, "cgroup", Some("cgroup"), options)?;
            for alias in &hierarchy.aliases {
                self.links.push(Link {
                    directory: string("mount target", &base)?,
                    name: string("link", alias)?,
                    text: string("link", &hierarchy.directory)?,
                });
            }
        }
        Ok(())
    }

    /// The caller's own executable, read-only.
    fn add_init(&mut self) -> Result<(), Error> {
        let executable = PathBuf::from("/proc/self/exe");
        let source = if self.host.may_mount {
            self.binds.push(Bind {
                mount: self.mounts.len(),
                source: executable,
                recursive: false,
                idmap: None,
            });
            Source::Given { mount: Slot::new() }
        } else {
            let path = std::env::current_exe().map_err(|error| {
                Error::host(
                    "finding",
                    "our own executable",
                    rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::NOENT),
                )
            })?;
            Source::Path {
                path: string("executable", &path.to_string_lossy())?,
                recursive: true,
                made: Slot::new(),
            }
        };
        self.mounts.push(MountStep {
            target: in_root("init", Path::new(INIT))?,
            source,
            kind: Kind::File,
            attributes: Attributes {
                set: RDONLY | coracle_linux::mount::NOSUID | NODEV,
                propagation: options::PRIVATE,
                ..Attributes::default()
            },
            recursive_attributes: Attributes::default(),
            late_read_only: None,
            no_links: false,
            on_proc: false,
        });
        Ok(())
    }
}

/// The user namespace that a bind is mapped by.
fn idmap(
    mount: &Mount,
    parsed: &Options,
    ids: &IdMapping,
    what: &str,
) -> Result<Option<(Idmap, bool)>, Error> {
    let convert = |maps: &Option<Vec<LinuxIdMapping>>| -> Option<Vec<Map>> {
        let maps = maps.as_ref().filter(|maps| !maps.is_empty())?;
        Some(
            maps.iter()
                .map(|map| Map {
                    inside: map.container_id(),
                    outside: map.host_id(),
                    count: map.size(),
                })
                .collect(),
        )
    };
    let recursive = parsed.idmap.unwrap_or(false);
    match (convert(mount.uid_mappings()), convert(mount.gid_mappings())) {
        (Some(uids), Some(gids)) => {
            super::host::check_maps(what, &uids)?;
            super::host::check_maps(what, &gids)?;
            Ok(Some((Idmap::Own { uids, gids }, recursive)))
        }
        (None, None) if parsed.idmap.is_none() => Ok(None),
        (None, None) => match ids {
            // Ids are the same on both sides: there is nothing to map.
            IdMapping::Host => Ok(None),
            _ => Ok(Some((Idmap::Container, recursive))),
        },
        _ => Err(Error::invalid(
            what,
            "uidMappings and gidMappings go together",
        )),
    }
}

fn check_root(root: &Root) -> Result<(), Error> {
    if let Root::Overlay {
        lowers,
        upper,
        work,
        ..
    } = root
    {
        if lowers.is_empty() {
            return Err(Error::invalid(
                "the root",
                "an overlay needs at least one layer",
            ));
        }
        if lowers.len() > LOWERS {
            return Err(Error::invalid(
                format!("the root with {} layers", lowers.len()),
                format!("the kernel's overlay takes at most {LOWERS}; flatten the image"),
            ));
        }
        if upper == work || upper.starts_with(work) || work.starts_with(upper) {
            return Err(Error::invalid(
                "the root",
                "upper and work lie in each other",
            ));
        }
    }
    Ok(())
}

/// The root as the child of an ordinary user makes it itself.
fn own_root(root: &Root) -> Result<Source, Error> {
    let text = |path: &Path| -> Result<CString, Error> {
        let text = path
            .to_str()
            .ok_or_else(|| Error::invalid(format!("{path:?}"), "it is not UTF-8"))?;
        if text.len() > VALUE {
            return Err(Error::invalid(
                text,
                "without privileges a path of the root has at most 255 bytes; use a shorter directory",
            ));
        }
        string("path", text)
    };
    match root {
        Root::Directory { path, .. } => Ok(Source::Path {
            path: text(path)?,
            recursive: true,
            made: Slot::new(),
        }),
        Root::Overlay {
            lowers,
            upper,
            work,
            volatile,
            ..
        } => {
            let mut config = vec![
                (c"source".to_owned(), Some(c"overlay".to_owned())),
                (c"userxattr".to_owned(), None),
            ];
            for lower in lowers {
                let Lower::Directory(path) = lower else {
                    return Err(Error::invalid(
                        "the root",
                        "a layer in one file can only be mounted by a privileged caller; unpack layers into directories",
                    ));
                };
                config.push((c"lowerdir+".to_owned(), Some(text(path)?)));
            }
            config.push((c"upperdir".to_owned(), Some(text(upper)?)));
            config.push((c"workdir".to_owned(), Some(text(work)?)));
            if *volatile {
                config.push((c"volatile".to_owned(), None));
            }
            Ok(Source::New {
                kind: c"overlay".to_owned(),
                config,
                attributes: NODEV,
                made: Slot::new(),
            })
        }
    }
}

/// A cgroup v1 hierarchy of the host.
#[derive(Debug, Eq, PartialEq)]
struct Hierarchy {
    directory: String,
    config: Vec<(String, Option<String>)>,
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
                config: vec![
                    ("none".to_owned(), None),
                    ("name".to_owned(), Some(name.to_owned())),
                ],
                aliases: Vec::new(),
            });
            continue;
        }
        let names: Vec<String> = controllers.split(',').map(str::to_owned).collect();
        all.push(Hierarchy {
            directory: controllers.to_owned(),
            config: names.iter().map(|name| (name.clone(), None)).collect(),
            aliases: if names.len() > 1 { names } else { Vec::new() },
        });
    }
    all.reverse();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Ownership;

    #[test]
    fn hierarchies_are_read_from_the_kernels_list() {
        let all = hierarchies("9:name=systemd:/\n4:cpu,cpuacct:/x:y\n2:memory:/\n0::/\n");
        let directories: Vec<&str> = all
            .iter()
            .map(|hierarchy| hierarchy.directory.as_str())
            .collect();
        assert_eq!(directories, ["memory", "cpu,cpuacct", "systemd"]);
        assert_eq!(all[1].aliases, ["cpu", "cpuacct"]);
        assert_eq!(all[2].config[0], ("none".to_owned(), None));
    }

    #[test]
    fn an_overlay_past_the_kernels_limit_is_refused_with_the_limit() {
        let root = |count| Root::Overlay {
            lowers: vec![Lower::Directory("/l".into()); count],
            upper: "/u/upper".into(),
            work: "/u/work".into(),
            volatile: false,
            ownership: Ownership::Outside,
        };
        assert!(check_root(&root(500)).is_ok());
        assert!(
            check_root(&root(501))
                .expect_err("refused")
                .to_string()
                .contains("at most 500")
        );
        assert!(check_root(&root(0)).is_err());
    }
}
