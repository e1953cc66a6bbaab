//! What is typed before the verb, where this user's files are, and the engine that is opened when first needed.
//!
//! Only this module reads the environment for the engine: the engine itself takes values.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::path::PathBuf;

use coracle_engine::oci::ContainerId;
use coracle_engine::{Engine, EngineConfig};

use crate::error::Error;
use crate::rootless;

/// The options before the verb.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Globals {
    /// `--root`: where images, containers and volumes are.
    pub(crate) root: Option<PathBuf>,
    /// `--run-root`: what a reboot may clear.
    pub(crate) run_root: Option<PathBuf>,
    /// `--log-level`, or `-D` for `debug`.
    pub(crate) log_level: Option<String>,
}

/// The first word after the global options, or what took its place.
#[derive(Debug, PartialEq)]
pub(crate) enum First {
    /// A verb or a group.
    Verb(String),
    /// `--version`, `-v`.
    Version,
    /// `--help`, `-h`, or nothing at all.
    Help,
}

/// Takes the global options off the front of `arguments`; leaves what follows the first word.
pub(crate) fn globals(
    arguments: &mut std::iter::Peekable<impl Iterator<Item = OsString>>,
) -> Result<(Globals, First), Error> {
    let mut globals = Globals::default();
    loop {
        let Some(argument) = arguments.next() else {
            return Ok((globals, First::Help));
        };
        let Some(text) = argument.to_str() else {
            return Err(Error::usage(
                "the first argument is not UTF-8",
                "`coracle --help` lists the commands",
            ));
        };
        if !text.starts_with('-') {
            return Ok((globals, First::Verb(text.to_owned())));
        }
        let (option, glued) = match text.split_once('=') {
            Some((option, value)) => (option, Some(OsString::from(value))),
            None => (text, None),
        };
        let mut value = || {
            glued.clone().or_else(|| arguments.next()).ok_or_else(|| {
                Error::usage(
                    format!("{option} needs a value"),
                    "`coracle --help` lists the options before the command",
                )
            })
        };
        match option {
            "--root" => globals.root = Some(value()?.into()),
            "--run-root" => globals.run_root = Some(value()?.into()),
            "--log-level" | "-l" => {
                let level = value()?.to_string_lossy().into_owned();
                if !["debug", "info", "warn", "error", "fatal", "trace"].contains(&level.as_str()) {
                    return Err(Error::Value {
                        option: option.into(),
                        problem: format!("{level:?} is not a log level"),
                    });
                }
                globals.log_level = Some(level);
            }
            "-D" | "--debug" => globals.log_level = Some("debug".into()),
            "-v" | "--version" => return Ok((globals, First::Version)),
            "-h" | "--help" => return Ok((globals, First::Help)),
            other => {
                return Err(Error::usage(
                    format!("there is no option {other} before the command"),
                    "options of a command come after it; `coracle --help` lists those that come before",
                ));
            }
        }
    }
}

/// The door as a verb sees it.
pub(crate) struct Door {
    /// What was typed before the verb.
    pub(crate) globals: Globals,
    engine: OnceCell<Engine>,
}

impl Door {
    /// A door that has opened nothing yet.
    pub(crate) fn new(globals: Globals) -> Self {
        Self {
            globals,
            engine: OnceCell::new(),
        }
    }

    /// The engine, opened on first use.
    pub(crate) fn engine(&self) -> Result<&Engine, Error> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let mut config = self.config()?;
        rootless::enter(&config.run_root)?;
        config.rootless = rootless::is_confined();
        let engine = Engine::open(config)?;
        Ok(self.engine.get_or_init(|| engine))
    }

    /// Whether this is an ordinary user, or root of a namespace only: then no container has the host's root.
    pub(crate) fn is_confined(&self) -> bool {
        !rustix::process::geteuid().is_root() || rootless::is_confined()
    }

    /// The container that a name or a prefix of an id means.
    pub(crate) fn find(&self, name: &str) -> Result<ContainerId, Error> {
        Ok(self.engine()?.find(name)?)
    }

    /// Where this user's things are: the options, then `CORACLE_ROOT` and `CORACLE_RUN_ROOT`, then the places that
    /// the base directory specification gives to an ordinary user, `/var/lib` and `/run` to root.
    pub(crate) fn config(&self) -> Result<EngineConfig, Error> {
        let rootless = !rustix::process::geteuid().is_root();
        let variable = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let root = self
            .globals
            .root
            .clone()
            .or_else(|| variable("CORACLE_ROOT"));
        let root = match (root, rootless) {
            (Some(root), _) => root,
            (None, false) => "/var/lib/coracle".into(),
            (None, true) => {
                let data = variable("XDG_DATA_HOME")
                    .or_else(|| variable("HOME").map(|home| home.join(".local/share")));
                let data = data.ok_or_else(|| {
                    Error::usage(
                        "HOME is not set",
                        "set HOME, or say where to keep things: --root DIR",
                    )
                })?;
                data.join("coracle")
            }
        };
        let run_root = self
            .globals
            .run_root
            .clone()
            .or_else(|| variable("CORACLE_RUN_ROOT"));
        let run_root = match (run_root, rootless) {
            (Some(run_root), _) => run_root,
            (None, false) => "/run/coracle".into(),
            (None, true) => match variable("XDG_RUNTIME_DIR") {
                Some(runtime) => runtime.join("coracle"),
                None => PathBuf::from(format!(
                    "/tmp/coracle-run-{}",
                    rustix::process::getuid().as_raw()
                )),
            },
        };
        Ok(EngineConfig {
            root: absolute(root)?,
            run_root: absolute(run_root)?,
            rootless,
            cgroup_prefix: "coracle".into(),
        })
    }
}

/// The engine's processes outlive the working directory of the command.
fn absolute(path: PathBuf) -> Result<PathBuf, Error> {
    std::path::absolute(&path).map_err(Error::file("resolve", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<(Globals, First, Vec<OsString>), Error> {
        let mut arguments = line.iter().map(OsString::from).peekable();
        let (globals, first) = globals(&mut arguments)?;
        Ok((globals, first, arguments.collect()))
    }

    #[test]
    fn global_options_come_before_the_verb() {
        let (globals, first, rest) =
            parse(&["--root", "/a", "--run-root=/b", "-D", "run", "--root", "x"]).expect("parses");
        let expected = Globals {
            root: Some("/a".into()),
            run_root: Some("/b".into()),
            log_level: Some("debug".into()),
        };
        assert_eq!(globals, expected);
        assert_eq!(first, First::Verb("run".into()));
        assert_eq!(rest, ["--root", "x"]);
        assert_eq!(parse(&[]).expect("parses").1, First::Help);
        assert_eq!(parse(&["-v"]).expect("parses").1, First::Version);
        for wrong in [
            &["--root"][..],
            &["--wrong", "run"],
            &["--log-level", "loud", "ps"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn given_roots_are_kept() {
        let globals = Globals {
            root: Some("/a".into()),
            run_root: Some("/b".into()),
            log_level: None,
        };
        let config = Door::new(globals).config().expect("resolves");
        assert_eq!((config.root, config.run_root), ("/a".into(), "/b".into()));
        assert_eq!(config.cgroup_prefix, "coracle");
    }
}
