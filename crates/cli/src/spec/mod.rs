//! From what was typed after `run` or `create` to a [`ContainerSpec`], in two steps.
//!
//! [`ContainerArguments`] is what was typed: strings, no I/O. [`ContainerArguments::resolve`] reads, once, what the text
//! refers to (this process's environment and directory, `--env-file`, `--label-file`, a seccomp profile) through a
//! [`Caller`], and gives the request that the engine gets. Nothing else of the door reads these.

mod arguments;
mod device;
mod environment;
#[cfg(feature = "fuzzing")]
mod fuzzing;
mod health;
mod limits;
mod mount;
mod namespace;
mod resources;
mod security;

use std::collections::BTreeMap;
use std::path::PathBuf;

use coracle_engine::request::{ContainerSpec, Log, Pull, Restart};

pub(crate) use arguments::ContainerArguments;
pub(crate) use environment::{environment, labels};
#[cfg(feature = "fuzzing")]
pub(crate) use fuzzing::options as options_for_fuzzing;
pub(crate) use resources::ResourceArguments;

use crate::error::Error;
use crate::units;

/// What the text may refer to.
pub(crate) struct Caller {
    /// Relative paths begin here.
    pub(crate) directory: PathBuf,
    /// A variable of the caller's environment.
    pub(crate) variable: fn(&str) -> Option<String>,
}

impl Caller {
    /// This process.
    pub(crate) fn this() -> Result<Self, Error> {
        let directory =
            std::env::current_dir().map_err(Error::file("find", "the working directory"))?;
        Ok(Self {
            directory,
            variable: |name| std::env::var(name).ok(),
        })
    }

    /// A path as seen from the caller's directory.
    pub(crate) fn path(&self, text: &str) -> PathBuf {
        match text.strip_prefix("~/") {
            Some(rest) if (self.variable)("HOME").is_some() => {
                PathBuf::from((self.variable)("HOME").unwrap_or_default()).join(rest)
            }
            _ => std::path::absolute(self.directory.join(text))
                .unwrap_or_else(|_| self.directory.join(text)),
        }
    }
}

impl ContainerArguments {
    /// The request. `words` are what follows the options: the image (unless `--rootfs`), then the command.
    pub(crate) fn resolve(self, caller: &Caller) -> Result<ContainerSpec, Error> {
        self.refuse_contradictions()?;
        let mut words = self.words.into_iter();
        let (image, rootfs) = match &self.rootfs {
            Some(directory) => (String::new(), Some(caller.path(directory))),
            None => {
                let image = words.next().ok_or_else(|| {
                    Error::usage("no image is named", "name one after the options (`@host` is this host's own files), or give --rootfs DIR")
                })?;
                (image, None)
            }
        };
        let mut command: Vec<String> = words.collect();
        // `run @host -- sh -c …`: the separator belongs to neither side.
        if command.first().is_some_and(|word| word == "--") {
            command.remove(0);
        }
        let mut mounts = Vec::new();
        for text in &self.mount {
            mounts.push(mount::parse_mount(text, caller).map_err(Error::value("--mount"))?);
        }
        for text in &self.volume {
            mounts.push(mount::parse_volume(text, caller).map_err(Error::value("--volume"))?);
        }
        for text in &self.tmpfs {
            mounts.push(mount::parse_tmpfs(text).map_err(Error::value("--tmpfs"))?);
        }
        let network =
            namespace::network(self.network.as_deref()).map_err(Error::value("--network"))?;
        let mut publish = Vec::new();
        for text in &self.publish {
            publish.push(namespace::published(text).map_err(Error::value("--publish"))?);
        }
        let mut expose = Vec::new();
        for text in &self.expose {
            expose.extend(namespace::exposed(text).map_err(Error::value("--expose"))?);
        }
        let spec = ContainerSpec {
            name: self.name,
            image,
            rootfs,
            entrypoint: self.entrypoint.map(|text| {
                if text.is_empty() {
                    Vec::new()
                } else {
                    vec![text]
                }
            }),
            command,
            env: environment(&self.env, &self.env_file, caller)?,
            workdir: self.workdir,
            user: self.user,
            groups: self.group_add,
            hostname: self
                .hostname
                .map(host_name)
                .transpose()
                .map_err(Error::value("--hostname"))?,
            domainname: self
                .domainname
                .map(host_name)
                .transpose()
                .map_err(Error::value("--domainname"))?,
            tty: self.tty,
            interactive: self.interactive,
            init: self.init,
            read_only: self.read_only,
            mounts,
            devices: device::devices(&self.device).map_err(Error::value("--device"))?,
            device_cgroup_rules: device::rules(self.device_cgroup_rule)
                .map_err(Error::value("--device-cgroup-rule"))?,
            cap_add: self.cap_add,
            cap_drop: self.cap_drop,
            privileged: self.privileged,
            security: security::options(&self.security_opt, caller)?,
            userns: namespace::user(self.userns.as_deref(), self.privileged)
                .map_err(Error::value("--userns"))?,
            pid: namespace::mode(self.pid.as_deref(), &["private"])
                .map_err(Error::value("--pid"))?,
            ipc: namespace::mode(self.ipc.as_deref(), &["private", "shareable"])
                .map_err(Error::value("--ipc"))?,
            uts: namespace::mode(self.uts.as_deref(), &["private"])
                .map_err(Error::value("--uts"))?,
            cgroupns: namespace::mode(self.cgroupns.as_deref(), &["private"])
                .map_err(Error::value("--cgroupns"))?,
            network,
            publish,
            expose,
            extra_hosts: namespace::hosts(&self.add_host).map_err(Error::value("--add-host"))?,
            dns: namespace::addresses(self.dns).map_err(Error::value("--dns"))?,
            dns_search: self.dns_search,
            dns_options: self.dns_option,
            labels: labels(&self.label, &self.label_file)?,
            annotations: environment::pairs(&self.annotation)
                .map_err(Error::value("--annotation"))?,
            resources: self.resources.resolve()?,
            shm_size: self
                .shm_size
                .as_deref()
                .map(units::parse_bytes)
                .transpose()
                .map_err(Error::value("--shm-size"))?,
            ulimits: limits::ulimits(&self.ulimit).map_err(Error::value("--ulimit"))?,
            sysctls: environment::pairs(&self.sysctl).map_err(Error::value("--sysctl"))?,
            stop_signal: self
                .stop_signal
                .map(|text| signal("--stop-signal", &text))
                .transpose()?,
            stop_timeout: self
                .stop_timeout
                .as_deref()
                .map(seconds)
                .transpose()
                .map_err(Error::value("--stop-timeout"))?,
            restart: self
                .restart
                .as_deref()
                .map(restart)
                .transpose()
                .map_err(Error::value("--restart"))?
                .unwrap_or_default(),
            health: self.health.resolve()?,
            auto_remove: self.rm,
            log: log(self.log_driver, &self.log_opt)?,
            volumes_from: self.volumes_from,
        };
        if spec.auto_remove && spec.restart != Restart::No {
            return Err(Error::usage(
                "--rm and --restart contradict each other",
                "a container that is started again cannot be removed when it ends; leave one out",
            ));
        }
        Ok(spec)
    }

    /// When to fetch the image.
    pub(crate) fn pull(&self) -> Result<Pull, Error> {
        match self.pull.as_str() {
            "missing" => Ok(Pull::Missing),
            "always" => Ok(Pull::Always),
            "never" => Ok(Pull::Never),
            other => Err(Error::Value {
                option: "--pull".into(),
                problem: format!("{other:?} is not always, missing or never"),
            }),
        }
    }

    fn refuse_contradictions(&self) -> Result<(), Error> {
        if self.publish_all {
            return Err(Error::usage(
                "--publish-all is not supported",
                "publish the ports that you need one by one: -p HOST:CONTAINER",
            ));
        }
        if let Some(text) = &self.platform {
            let asked: coracle_engine::oci::Platform =
                text.parse().map_err(|problem| Error::Value {
                    option: "--platform".into(),
                    problem: format!("{problem}"),
                })?;
            let host = coracle_engine::oci::Platform::host();
            if host.rank(&asked).is_none() {
                return Err(Error::Value {
                    option: "--platform".into(),
                    problem: format!("this host is {host} and does not run programs of {asked}"),
                });
            }
        }
        for stream in &self.attach {
            if !["stdin", "stdout", "stderr"].contains(&stream.to_ascii_lowercase().as_str()) {
                return Err(Error::Value {
                    option: "--attach".into(),
                    problem: format!("{stream:?} is not stdin, stdout or stderr"),
                });
            }
        }
        Ok(())
    }
}

/// A signal's name or number, checked and left as typed.
pub(crate) fn signal(option: &str, text: &str) -> Result<String, Error> {
    match text.parse::<coracle_engine::oci::Signal>() {
        Ok(_) => Ok(text.to_owned()),
        Err(problem) => Err(Error::Value {
            option: option.into(),
            problem: problem.to_string(),
        }),
    }
}

/// A host or domain name: what resolvers take, and as long as the kernel keeps.
fn host_name(text: String) -> Result<String, String> {
    let sound = !text.is_empty()
        && text.len() <= 64
        && !text.starts_with(['-', '.'])
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if sound {
        return Ok(text);
    }
    Err(format!(
        "{text:?} is not a host name: up to 64 letters, digits, \"-\", \"_\" and \".\""
    ))
}

/// Whole seconds; -1 is without end.
pub(crate) fn seconds(text: &str) -> Result<u32, String> {
    if text == "-1" {
        return Ok(u32::MAX);
    }
    text.parse()
        .map_err(|_| format!("{text:?} is not a whole number of seconds"))
}

/// A restart policy.
pub(crate) fn restart(text: &str) -> Result<Restart, String> {
    let (name, count) = text
        .split_once(':')
        .map_or((text, None), |(name, count)| (name, Some(count)));
    match (name, count) {
        ("no" | "", None) => Ok(Restart::No),
        ("always", None) => Ok(Restart::Always),
        ("unless-stopped", None) => Ok(Restart::UnlessStopped),
        ("on-failure", None) => Ok(Restart::OnFailure(0)),
        ("on-failure", Some(count)) => count
            .parse()
            .map(Restart::OnFailure)
            .map_err(|_| format!("{count:?} is not a number of attempts")),
        ("no" | "always" | "unless-stopped", Some(_)) => {
            Err(format!("{name} takes no number of attempts"))
        }
        _ => Err(format!(
            "{text:?} is not no, on-failure[:COUNT], always or unless-stopped"
        )),
    }
}

fn log(driver: Option<String>, options: &[String]) -> Result<Log, Error> {
    let mut log = Log::default();
    if let Some(driver) = driver {
        if !["json-file", "none"].contains(&driver.as_str()) {
            return Err(Error::Value {
                option: "--log-driver".into(),
                problem: format!("there is no driver {driver:?}; there are json-file and none"),
            });
        }
        log.driver = driver;
    }
    let options: BTreeMap<String, String> =
        environment::pairs(options).map_err(Error::value("--log-opt"))?;
    for (key, value) in options {
        let problem = match key.as_str() {
            "max-size" => units::parse_bytes(&value).err(),
            "max-file" => match value.parse::<u32>() {
                Ok(1..) => None,
                _ => Some(format!("{value:?} is not a number of files, 1 or more")),
            },
            _ => Some(format!(
                "there is no option {key:?}; there are max-size and max-file"
            )),
        };
        if let Some(problem) = problem {
            return Err(Error::Value {
                option: "--log-opt".into(),
                problem,
            });
        }
        log.options.insert(key, value);
    }
    Ok(log)
}

#[cfg(test)]
mod tests;
