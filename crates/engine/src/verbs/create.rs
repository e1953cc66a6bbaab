//! `create`: everything that can be decided without a process. The order of its steps is in docs/format/state.md.

use std::collections::BTreeMap;
use std::path::Path;

use coracle_image::{Config, Source};
use coracle_oci::ContainerId;
use rustix::fs::Mode;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::{Error, Result};
use crate::events::Happening;
use crate::request::{
    ContainerSpec, MountKind, NamespaceMode, NetworkMode, Pull, Restart, UserNamespace,
};
use crate::state::{self, ImageFacts, Lock, Record, VolumeFacts};
use crate::{Engine, names, process, spec};

/// Names tried before giving up.
const ATTEMPTS: usize = 16;

/// A container that was made.
#[derive(Debug, Clone)]
pub struct Created {
    /// Its id.
    pub id: ContainerId,
    /// What the user should know, each one line.
    pub warnings: Vec<String>,
}

impl Engine {
    /// Makes a container; nothing runs yet.
    ///
    /// # Errors
    /// [`Error::Refused`] for a request that makes no sense here, [`Error::NameInUse`], and what the image says.
    pub fn create(&self, mut spec: ContainerSpec, pull: Pull) -> Result<Created> {
        let mut warnings = Vec::new();
        share_users(&mut spec);
        self.check(&spec, &mut warnings)?;
        // Nobody frees a layer between its being found and its being named by config.json.
        let _hold = match spec.image.is_empty() || spec.image == "@host" {
            true => None,
            false => Some(self.images()?.hold()?),
        };
        let (config, image) = self.image_for(&spec, pull)?;
        let process = process::resolve(&spec, &config)?;
        // Refused before anything is made: a profile or capability that does not exist.
        spec::seccomp(&spec)?;
        let id = new_id()?;
        let directory = self.paths.container(&id);
        let _lock = Lock::make(&directory)?;
        let made = self.make(&id, spec, process, image, &config);
        match made {
            Ok(record) => {
                self.happened(Happening::container("create", &record))?;
                Ok(Created { id, warnings })
            }
            Err(error) => {
                // Without config.json the directory is an unfinished creation: if this fails too, a sweep deletes it.
                let _ = state::delete_tree(&directory);
                Err(error)
            }
        }
    }

    fn make(
        &self,
        id: &ContainerId,
        spec: ContainerSpec,
        process: state::ProcessFacts,
        image: Option<ImageFacts>,
        config: &Config,
    ) -> Result<Record> {
        let volumes = self.volumes_for(&spec, config)?;
        // The upper's own mode and owner become those of `/` inside.
        let upper = self.paths.upper(id);
        state::make_directory(&upper)?;
        state::make_directory(&self.paths.work(id))?;
        rustix::fs::chmod(&upper, Mode::from_raw_mode(0o755))
            .map_err(|error| Error::file("opening up", &upper, error))?;
        let name = match &spec.name {
            Some(name) => {
                names::claim(&self.paths, name, id)?;
                name.trim_start_matches('/').to_owned()
            }
            None => self.claim_made_up_name(id)?,
        };
        let record = Record {
            version: state::VERSION,
            id: id.clone(),
            name,
            created: state::now(),
            spec,
            image,
            process,
            volumes,
        };
        state::store(&self.paths.config(id), &record).inspect_err(|_| {
            // The name goes back at once rather than at the next use of it; the first error is the one to report.
            let _ = names::release(&self.paths, &record.name, id);
        })?;
        Ok(record)
    }

    fn claim_made_up_name(&self, id: &ContainerId) -> Result<String> {
        for attempt in 0..ATTEMPTS {
            let name = names::made_up(id, attempt);
            match names::claim(&self.paths, &name, id) {
                Ok(()) => return Ok(name),
                Err(Error::NameInUse { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::refused_with(
            "no free name could be made up",
            "choose one with --name",
        ))
    }

    /// The image's configuration and, for one in the store, its layers.
    fn image_for(&self, spec: &ContainerSpec, pull: Pull) -> Result<(Config, Option<ImageFacts>)> {
        if let Some(rootfs) = &spec.rootfs {
            if !rootfs.is_dir() {
                return Err(Error::file(
                    "entering --rootfs",
                    rootfs,
                    rustix::io::Errno::NOTDIR,
                ));
            }
            return Ok((Config::default(), None));
        }
        let source =
            Source::parse(&spec.image).map_err(|error| Error::refused(error.to_string()))?;
        if source == Source::Host {
            return Ok((Config::default(), None));
        }
        if pull == Pull::Always && matches!(source, Source::Local(_)) {
            return Err(Error::refused_with(
                format!(
                    "cannot pull {}: this version speaks to no registry",
                    spec.image
                ),
                "load an archive (`coracle load -i FILE`), or run it in place: oci:DIR, docker-archive:FILE",
            ));
        }
        let image = self
            .images()?
            .obtain(&source, &coracle_image::LoadOptions::default())?;
        let facts = ImageFacts {
            id: *image.id.digest(),
            layers: image.layers.iter().map(|layer| layer.diff_id).collect(),
        };
        Ok((image.config, Some(facts)))
    }

    /// Refuses what this version or this host cannot do, before anything is made.
    fn check(&self, spec: &ContainerSpec, warnings: &mut Vec<String>) -> Result<()> {
        if spec.image.is_empty() && spec.rootfs.is_none() {
            return Err(Error::refused_with(
                "no image was given",
                "name one, or @host, or --rootfs DIR",
            ));
        }
        if spec.auto_remove && spec.restart != Restart::No {
            return Err(Error::refused("--rm and --restart contradict each other"));
        }
        if let NetworkMode::Named(name) = &spec.network {
            return Err(Error::refused_with(
                format!(
                    "there is no network {name:?}: this version has none, host and container:X"
                ),
                "use --network none (the default), host, or container:NAME",
            ));
        }
        if !spec.publish.is_empty() && spec.network != NetworkMode::Host {
            return Err(Error::refused_with(
                "ports cannot be published: this version has no bridge network yet",
                "use --network host, where the container's ports are the host's",
            ));
        }
        if self.config.rootless && matches!(spec.userns, UserNamespace::Map { .. }) {
            return Err(Error::refused_with(
                "an ordinary user cannot choose the ids of a user namespace",
                "leave --userns away: your own id and your subordinate ids are mapped",
            ));
        }
        if let Some(profile) = &spec.security.apparmor
            && profile != "unconfined"
        {
            return Err(Error::refused_with(
                format!(
                    "AppArmor profile {profile:?} cannot be applied: AppArmor labels are not supported"
                ),
                "leave it away or say apparmor=unconfined: user namespace, seccomp and capabilities confine already",
            ));
        }
        if spec.security.label.iter().any(|label| label != "disable") {
            return Err(Error::refused_with(
                "SELinux labels cannot be applied: they are not supported",
                "leave them away or say label=disable",
            ));
        }
        self.check_references(spec)?;
        for mount in &spec.mounts {
            check_mount(mount)?;
        }
        check_words(spec)?;
        check_cpus(&spec.resources)?;
        if spec.resources.memory.is_some_and(|bytes| bytes < 1 << 20) {
            return Err(Error::refused_with(
                "a memory limit below 1 MiB leaves no room to start a process",
                "give at least 6m, as Docker does",
            ));
        }
        if spec.userns == UserNamespace::Host && !spec.privileged && !self.config.rootless {
            warnings.push("root inside is root outside (--userns host)".into());
        }
        Ok(())
    }

    /// Containers whose namespaces or volumes are to be shared must be there; whether they run is for the start to see.
    fn check_references(&self, spec: &ContainerSpec) -> Result<()> {
        let mut names: Vec<&str> = spec
            .volumes_from
            .iter()
            .map(|from| {
                from.rsplit_once(':')
                    .map_or(from.as_str(), |(name, _)| name)
            })
            .collect();
        for mode in [&spec.pid, &spec.ipc, &spec.uts, &spec.cgroupns] {
            if let NamespaceMode::Container(name) = mode {
                names.push(name);
            }
        }
        if let NetworkMode::Container(name) = &spec.network {
            names.push(name);
        }
        if let UserNamespace::Container(name) = &spec.userns {
            names.push(name);
        }
        names
            .into_iter()
            .try_for_each(|name| self.find(name).map(drop))
    }

    fn volumes_for(&self, spec: &ContainerSpec, config: &Config) -> Result<Vec<VolumeFacts>> {
        let mut volumes = Vec::new();
        for mount in &spec.mounts {
            if let MountKind::Volume { name, nocopy } = &mount.kind {
                let volume = match name {
                    Some(name) => self.volume_ensure(name, BTreeMap::new(), false)?,
                    None => self.volume_ensure(new_id()?.as_str(), BTreeMap::new(), true)?,
                };
                volumes.push(VolumeFacts {
                    anonymous: name.is_none(),
                    name: volume.name,
                    target: mount.target.clone(),
                    read_only: mount.read_only,
                    copy_up: !nocopy,
                });
            }
        }
        for from in &spec.volumes_from {
            let (name, access) = from.rsplit_once(':').unwrap_or((from, "rw"));
            let other = self.existing(&self.find(name)?)?;
            for volume in other.volumes {
                volumes.push(VolumeFacts {
                    read_only: volume.read_only || access == "ro",
                    copy_up: false,
                    anonymous: false,
                    ..volume
                });
            }
        }
        // The image's own volumes, where nothing else is mounted.
        let taken = |target: &str, volumes: &[VolumeFacts]| {
            spec.mounts.iter().any(|mount| mount.target == target)
                || volumes.iter().any(|volume| volume.target == target)
        };
        for target in &config.volumes {
            if !taken(target, &volumes) {
                let volume = self.volume_ensure(new_id()?.as_str(), BTreeMap::new(), true)?;
                volumes.push(VolumeFacts {
                    name: volume.name,
                    target: target.clone(),
                    read_only: false,
                    anonymous: true,
                    copy_up: true,
                });
            }
        }
        Ok(volumes)
    }
}

/// Refuses what would be more than a word in /etc/hosts, hostname or resolv.conf: a line break would add lines.
fn check_words(spec: &ContainerSpec) -> Result<()> {
    let own = spec.hostname.iter().map(|name| ("host name", name));
    let domain = spec.domainname.iter().map(|name| ("domain name", name));
    let hosts = spec.extra_hosts.iter().map(|(name, _)| ("host name", name));
    let servers = spec.dns.iter().map(|server| ("DNS server", server));
    let search = spec
        .dns_search
        .iter()
        .map(|name| ("DNS search domain", name));
    let options = spec.dns_options.iter().map(|option| ("DNS option", option));
    let all = own
        .chain(domain)
        .chain(hosts)
        .chain(servers)
        .chain(search)
        .chain(options);
    for (what, word) in all {
        if word.is_empty() || word.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(Error::refused_with(
                format!("invalid {what} {word:?}: it is not one word"),
                "leave blanks, line ends and control characters out of it",
            ));
        }
    }
    Ok(())
}

fn check_mount(mount: &crate::request::Mount) -> Result<()> {
    if !mount.target.starts_with('/') || mount.target == "/" {
        return Err(Error::refused(format!(
            "the mount target {:?} is not an absolute path below /",
            mount.target
        )));
    }
    let MountKind::Bind { source, create, .. } = &mount.kind else {
        return Ok(());
    };
    if !source.is_absolute() {
        return Err(Error::refused(format!(
            "the bind source {} is not an absolute path",
            source.display()
        )));
    }
    match (source.exists(), create) {
        (true, _) => Ok(()),
        (false, true) => std::fs::create_dir_all(source)
            .map_err(|error| Error::file("making the bind source", source, error)),
        (false, false) => Err(Error::refused_with(
            format!("the bind source {} does not exist", source.display()),
            "make it first, or use -v, which makes a missing directory",
        )),
    }
}

/// More than there are would limit nothing, and is a slip of the hand.
pub(crate) fn check_cpus(resources: &crate::request::Resources) -> Result<()> {
    // Not what a cgroup leaves of them: a limit on this process is none on what it may ask for.
    let online = rustix::thread::sched_getaffinity(None).map_or(1, |cpus| cpus.count());
    let period = resources.cpu_period.unwrap_or(100_000).max(1);
    let asked = resources.cpu_quota.unwrap_or(0) as f64 / period as f64;
    if asked > online as f64 {
        return Err(Error::refused_with(
            format!("{asked:.2} CPUs were asked for, and this host has {online}"),
            format!("the range is from 0.01 to {online}.00"),
        ));
    }
    Ok(())
}

/// A namespace belongs to a user namespace, and only from there can it be used (a procfs of its processes, a sysfs of
/// its network): who shares one with a container shares its users too, unless it asks otherwise.
fn share_users(spec: &mut ContainerSpec) {
    if spec.userns != UserNamespace::Auto || spec.privileged {
        return;
    }
    let network = match &spec.network {
        NetworkMode::Container(name) => Some(name),
        _ => None,
    };
    let others = [&spec.pid, &spec.ipc, &spec.uts, &spec.cgroupns]
        .into_iter()
        .filter_map(|mode| match mode {
            NamespaceMode::Container(name) => Some(name),
            _ => None,
        });
    if let Some(name) = network.into_iter().chain(others).next() {
        spec.userns = UserNamespace::Container(name.clone());
    }
}

/// A new id from the kernel's generator.
pub(crate) fn new_id() -> Result<ContainerId> {
    let mut bits = [0u8; 32];
    getrandom(&mut bits, GetRandomFlags::empty())
        .map_err(|error| Error::file("reading", Path::new("/dev/urandom"), error))?;
    Ok(ContainerId::from_bytes(bits))
}
