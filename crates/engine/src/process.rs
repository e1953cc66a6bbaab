//! What runs: the request over the image's configuration, put together once at `create`.

use std::collections::BTreeMap;

use coracle_image::Config;

use crate::error::{Error, Result};
use crate::request::{ContainerSpec, Health};
use crate::spec;
use crate::state::ProcessFacts;

/// Puts them together. `Config::default()` stands for `@host` and `--rootfs`.
pub(crate) fn resolve(spec: &ContainerSpec, image: &Config) -> Result<ProcessFacts> {
    let args = command(spec, image);
    if args.is_empty() {
        return Err(Error::refused_with(
            format!(
                "no command was given, and {} names none",
                if spec.image.is_empty() {
                    "a root directory"
                } else {
                    &spec.image
                }
            ),
            "say what to run after the image, as in `coracle run IMAGE sh`",
        ));
    }
    let workdir = [
        spec.workdir.as_deref(),
        Some(image.working_dir.as_str()),
        Some("/"),
    ]
    .into_iter()
    .flatten()
    .find(|directory| !directory.is_empty())
    .unwrap_or("/");
    if !workdir.starts_with('/') {
        return Err(Error::refused(format!(
            "the working directory {workdir:?} is not an absolute path"
        )));
    }
    let mut labels: BTreeMap<String, String> = image.labels.clone();
    labels.extend(spec.labels.clone());
    let stop_signal = match (&spec.stop_signal, image.stop_signal.as_str()) {
        (Some(signal), _) => signal.clone(),
        (None, "") => "SIGTERM".into(),
        (None, signal) => signal.into(),
    };
    stop_signal
        .parse::<coracle_oci::Signal>()
        .map_err(|error| Error::refused(error.to_string()))?;
    let mut exposed: Vec<String> = image.exposed_ports.iter().cloned().collect();
    exposed.extend(spec.expose.iter().cloned());
    Ok(ProcessFacts {
        args,
        env: environment(spec, image),
        workdir: workdir.into(),
        user: spec.user.clone().unwrap_or_else(|| image.user.clone()),
        stop_signal,
        labels,
        health: health(spec, image),
        exposed,
    })
}

/// Docker's rule: an entrypoint that is given also clears the image's command.
fn command(spec: &ContainerSpec, image: &Config) -> Vec<String> {
    let (entrypoint, inherited) = match &spec.entrypoint {
        Some(entrypoint) => (entrypoint.as_slice(), &[][..]),
        None => (image.entrypoint.as_slice(), image.cmd.as_slice()),
    };
    let rest = if spec.command.is_empty() {
        inherited
    } else {
        spec.command.as_slice()
    };
    entrypoint.iter().chain(rest).cloned().collect()
}

fn environment(spec: &ContainerSpec, image: &Config) -> Vec<String> {
    let mut all: Vec<String> = Vec::with_capacity(image.env.len() + spec.env.len() + 3);
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut set = |entry: String| {
        let name = key(&entry);
        let removed = !entry.contains('=');
        match all.iter().position(|other| key(other) == name) {
            Some(at) if removed => {
                all.remove(at);
            }
            Some(at) => all[at] = entry,
            None if removed => {}
            None => all.push(entry),
        }
    };
    set(spec::PATH.into());
    if spec.tty {
        set("TERM=xterm".into());
    }
    image
        .env
        .iter()
        .chain(&spec.env)
        .for_each(|entry| set(entry.clone()));
    all
}

fn health(spec: &ContainerSpec, image: &Config) -> Option<Health> {
    let inherited = image.healthcheck.as_ref().map(|check| Health {
        test: check.test.clone(),
        interval: check.interval.max(0).unsigned_abs(),
        timeout: check.timeout.max(0).unsigned_abs(),
        start_period: check.start_period.max(0).unsigned_abs(),
        start_interval: check.start_interval.max(0).unsigned_abs(),
        retries: u32::try_from(check.retries).unwrap_or(0),
    });
    let health = match (&spec.health, inherited) {
        (None, inherited) => inherited?,
        (Some(asked), None) => asked.clone(),
        (Some(asked), Some(inherited)) => Health {
            test: if asked.test.is_empty() {
                inherited.test
            } else {
                asked.test.clone()
            },
            interval: if asked.interval == 0 {
                inherited.interval
            } else {
                asked.interval
            },
            timeout: if asked.timeout == 0 {
                inherited.timeout
            } else {
                asked.timeout
            },
            start_period: if asked.start_period == 0 {
                inherited.start_period
            } else {
                asked.start_period
            },
            start_interval: if asked.start_interval == 0 {
                inherited.start_interval
            } else {
                asked.start_interval
            },
            retries: if asked.retries == 0 {
                inherited.retries
            } else {
                asked.retries
            },
        },
    };
    let none = health.test.is_empty() || health.test[0].eq_ignore_ascii_case("none");
    (!none).then_some(health)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Config {
        Config {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["default".into()],
            env: vec!["A=image".into(), "B=image".into()],
            ..Config::default()
        }
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| text.to_string()).collect()
    }

    #[test]
    fn command_and_entrypoint_follow_dockers_table() {
        for (entrypoint, command, result) in [
            (None, &[][..], &["/entry", "default"][..]),
            (None, &["x", "y"], &["/entry", "x", "y"]),
            (Some(&["/other"][..]), &[], &["/other"]),
            (Some(&["/other"]), &["x"], &["/other", "x"]),
            (Some(&[]), &["x"], &["x"]),
        ] {
            let spec = ContainerSpec {
                entrypoint: entrypoint.map(texts),
                command: texts(command),
                ..ContainerSpec::default()
            };
            assert_eq!(super::command(&spec, &image()), texts(result));
        }
    }

    #[test]
    fn nothing_to_run_is_refused() {
        let spec = ContainerSpec {
            entrypoint: Some(vec![]),
            ..ContainerSpec::default()
        };
        assert!(matches!(
            resolve(&spec, &image()),
            Err(Error::Refused { .. })
        ));
    }

    #[test]
    fn the_request_replaces_and_removes_the_images_environment() {
        let spec = ContainerSpec {
            env: texts(&["A=mine", "B", "C=new"]),
            ..ContainerSpec::default()
        };
        assert_eq!(
            environment(&spec, &image()),
            texts(&[spec::PATH, "A=mine", "C=new"])
        );
    }

    #[test]
    fn a_health_check_of_none_is_none() {
        let check = |test: &[&str]| {
            Some(Health {
                test: texts(test),
                ..Health::default()
            })
        };
        let mut config = image();
        config.healthcheck = Some(coracle_image::Healthcheck {
            test: texts(&["CMD", "true"]),
            ..Default::default()
        });
        let with = |health| ContainerSpec {
            health,
            ..ContainerSpec::default()
        };
        assert!(health(&with(check(&["NONE"])), &config).is_none());
        assert_eq!(
            health(&with(None), &config).map(|health| health.test),
            Some(texts(&["CMD", "true"]))
        );
        let interval = Some(Health {
            interval: 7,
            ..Health::default()
        });
        let merged = health(&with(interval), &config).map(|health| (health.test, health.interval));
        assert_eq!(merged, Some((texts(&["CMD", "true"]), 7)));
    }
}
