//! The tree of mounts: the root, the document's mounts in their order, and what belongs to them.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use coracle_linux::descriptor::Slot;
use coracle_linux::mount::{ATIME, Attributes, NODEV, NOSUID, RDONLY};
use coracle_linux::namespace;
use oci_spec::runtime::{LinuxIdMapping, Mount, Spec};

use super::namespaces::Spaces;
use super::options::{self, Options};
use super::{
    Bind, CopyUp, Host, HostDevice, INIT, Idmap, devices, hooks, in_root, placement, root as roots,
    string,
};
use crate::Error;
use crate::plan::{File, FileSystem, Kind, Link, MountStep, Source};
use crate::request::{IdMapping, Map, OwnFile, Root};

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
    pub(super) copies: Vec<CopyUp>,
    pub(super) devices: Vec<HostDevice>,
}

/// What the mounts are resolved in.
pub(super) struct Context<'a> {
    ids: &'a IdMapping,
    host: &'a Host,
    /// v1 controllers whose hierarchies hold a cgroup of the container's own; `None`: it gets no cgroup.
    pub(super) controllers: Option<&'a [&'static str]>,
    pub(super) mounts: Vec<MountStep>,
    pub(super) links: Vec<Link>,
    binds: Vec<Bind>,
    copies: Vec<CopyUp>,
    /// The SELinux context of new file systems.
    label: Option<String>,
}

/// What the document does not say of the file systems.
pub(super) struct Beside<'a> {
    /// See [`Context::controllers`].
    pub(super) controllers: Option<&'a [&'static str]>,
    /// The process gets a terminal, which is /dev/console too.
    pub(super) terminal: bool,
    /// The built-in init is put in.
    pub(super) init: bool,
    /// See [`crate::Deviations::no_pivot`].
    pub(super) no_pivot: bool,
    /// Files of the container's own.
    pub(super) files: Vec<OwnFile>,
}

pub(super) fn resolve(
    spec: &Spec,
    root: Root,
    ids: &IdMapping,
    spaces: &Spaces,
    host: &Host,
    beside: Beside<'_>,
) -> Result<Tree, Error> {
    let Beside {
        controllers,
        terminal,
        init,
        no_pivot,
        files,
    } = beside;
    let own_users = !matches!(ids, IdMapping::Host);
    let mut context = Context {
        ids,
        host,
        controllers,
        mounts: Vec::new(),
        links: Vec::new(),
        binds: Vec::new(),
        copies: Vec::new(),
        label: placement::mount_label(spec)?,
    };
    let mut dev_is_the_hosts = false;
    for mount in spec.mounts().iter().flatten() {
        let is_bind = context.add(mount)?;
        dev_is_the_hosts |= is_bind && clean(mount.destination()) == Path::new("/dev");
    }
    if init {
        context.add_init()?;
    }
    let files = files
        .into_iter()
        .enumerate()
        .map(|(number, file)| context.add_file(number, file))
        .collect::<Result<Vec<_>, _>>()?;
    let proc = context.mounts.iter().position(|mount| {
        matches!(&mount.source, Source::New { kind, attributes, .. }
            if kind.as_bytes() == b"proc" && attributes & RDONLY == 0)
    });
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
    roots::check(&root)?;
    let attach_at = hooks::attach_at(spec, &root)?;
    let root_attributes = Attributes {
        set: if own_users { NODEV } else { 0 },
        ..Attributes::default()
    };
    // The layers' mounts and the upper's.
    let spent = match &root {
        Root::Overlay { lowers, .. } if host.may_mount => lowers.len() + 1,
        _ => 0,
    };
    let (source, root) = if host.may_mount {
        (Source::Given { mount: Slot::new() }, Some(root))
    } else {
        (roots::made_by_child(&root)?, None)
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
        files,
        files_config: files_config(),
        spent: std::iter::repeat_with(Slot::new).take(spent).collect(),
        proc,
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
        attach_at,
        no_pivot,
        working_directory: in_root("process.cwd", cwd)?,
    };
    Ok(Tree {
        plan,
        root,
        binds: context.binds,
        copies: context.copies,
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
            inner: Vec::new(),
            late_read_only: None,
            no_links: false,
            on_proc,
        });
        Ok(())
    }

    pub(super) fn add_new(
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
            if value
                .as_ref()
                .is_some_and(|value| value.len() > roots::VALUE)
            {
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
        if let (Some(label), "tmpfs" | "devpts" | "mqueue") = (&self.label, kind) {
            config.push((
                c"context".to_owned(),
                Some(string("linux.mountLabel", label)?),
            ));
        }
        let mut attributes = parsed.attributes.set;
        // Others may be mounted inside of a tmpfs, so that it becomes read-only last.
        let late = kind == "tmpfs" && attributes & RDONLY != 0;
        if late {
            attributes &= !RDONLY;
        }
        let propagation = parsed.propagation.map_or(0, |(value, _)| value);
        let attributes = attributes & (0xff | ATIME | coracle_linux::mount::NOSYMFOLLOW);
        let source = if parsed.copy_up {
            self.copied_up(&target, kind, config, attributes)?
        } else {
            Source::New {
                kind: string("mount type", kind)?,
                config,
                attributes,
                made: Slot::new(),
            }
        };
        self.mounts.push(MountStep {
            target,
            source,
            kind: Kind::Directory,
            attributes: Attributes {
                propagation,
                ..Attributes::default()
            },
            recursive_attributes: Attributes::default(),
            inner: Vec::new(),
            late_read_only: late.then(Slot::new),
            no_links: matches!(
                kind,
                "proc" | "sysfs" | "cgroup" | "cgroup2" | "devpts" | "mqueue"
            ),
            on_proc: false,
        });
        Ok(())
    }

    /// A file that the process makes itself.
    fn add_file(&mut self, number: usize, file: OwnFile) -> Result<File, Error> {
        let name = file.target.file_name().unwrap_or_default();
        let mount = self.mounts.len();
        self.mounts.push(MountStep {
            target: in_root("mount target", &file.target)?,
            source: Source::Given { mount: Slot::new() },
            kind: Kind::File,
            attributes: Attributes::default(),
            recursive_attributes: Attributes::default(),
            inner: Vec::new(),
            late_read_only: None,
            no_links: false,
            on_proc: false,
        });
        Ok(File {
            mount,
            // The number keeps equal names of different directories apart.
            name: string("file", &format!("{number}-{}", name.to_string_lossy()))?,
            content: file.content,
        })
    }

    /// A tmpfs with the image's files in it, which the parent makes: the child may not allocate.
    fn copied_up(
        &mut self,
        target: &CString,
        kind: &str,
        config: Vec<(CString, Option<CString>)>,
        attributes: u64,
    ) -> Result<Source, Error> {
        let what = || {
            format!(
                "option \"tmpcopyup\" of the mount on /{}",
                target.to_string_lossy()
            )
        };
        if kind != "tmpfs" {
            return Err(Error::invalid(what(), "only a tmpfs can begin so"));
        }
        if !self.host.may_mount {
            return Err(Error::invalid(
                what(),
                "only a privileged caller can copy the image's files",
            ));
        }
        self.copies.push(CopyUp {
            mount: self.mounts.len(),
            target: target.clone(),
            config,
            attributes,
        });
        Ok(Source::Given { mount: Slot::new() })
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
                set: RDONLY | NOSUID | NODEV,
                propagation: options::PRIVATE,
                ..Attributes::default()
            },
            recursive_attributes: Attributes::default(),
            inner: Vec::new(),
            late_read_only: None,
            no_links: false,
            on_proc: false,
        });
        Ok(())
    }
}

fn files_config() -> Vec<(CString, Option<CString>)> {
    [(c"source", c"tmpfs"), (c"size", c"1m"), (c"mode", c"0755")]
        .map(|(key, value)| (key.to_owned(), Some(value.to_owned())))
        .into()
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
