//! The options before the verb.

use std::ffi::OsString;
use std::iter::Peekable;
use std::path::PathBuf;

use coracle_engine::bundle::{Bundles, BundlesConfig};

use super::Verb;
use crate::error::Error;
use crate::rootless;

/// What `--help` says of them.
pub(super) const HELP: &str = "
Options:
      --root DIR            Where containers' state is [/run/coracle-oci; $XDG_RUNTIME_DIR/coracle-oci]
      --log FILE            Errors and warnings are also appended here
      --log-format FORMAT   text or json
      --log-level LEVEL     error leaves warnings out
      --debug               The same as --log-level debug
      --systemd-cgroup      Have systemd make the cgroups
      --rootless BOOL       true, false or auto: found out by itself in each case
  -v, --version             Print the version
  -h, --help                Print this help
";

/// The options.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Globals {
    pub root: Option<PathBuf>,
    pub log: Option<PathBuf>,
    pub json: bool,
    pub quiet: bool,
    pub systemd_cgroup: bool,
}

/// The first word after them.
#[derive(Debug, PartialEq)]
pub(super) enum First {
    Verb(String),
    Version,
    Help,
}

/// Takes the options off the front.
pub(super) fn take(
    arguments: &mut Peekable<impl Iterator<Item = OsString>>,
) -> Result<(Globals, First), Error> {
    let mut globals = Globals::default();
    loop {
        let Some(argument) = arguments.next() else {
            return Ok((globals, First::Help));
        };
        let text = argument.to_string_lossy().into_owned();
        if !text.starts_with('-') {
            return Ok((globals, First::Verb(text)));
        }
        // As Go's programs take them: one dash is as good as two.
        let option = text.trim_start_matches('-');
        let (option, glued) = match option.split_once('=') {
            Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
            None => (option.to_owned(), None),
        };
        let flag = match glued.as_deref() {
            None | Some("true" | "1") => Some(true),
            Some("false" | "0") => Some(false),
            Some(_) => None,
        };
        let wrong = |problem: String| Error::Value {
            option: format!("--{option}"),
            problem,
        };
        let needed = |flag: Option<bool>| flag.ok_or_else(|| wrong("it is true or false".into()));
        let mut value = || match glued.clone() {
            Some(value) => Ok(value),
            None => match arguments.next() {
                Some(value) => Ok(value.to_string_lossy().into_owned()),
                None => Err(wrong("it is missing".into())),
            },
        };
        match option.as_str() {
            "root" => globals.root = Some(value()?.into()),
            "log" => {
                globals.log = Some(value()?)
                    .filter(|path| !path.is_empty())
                    .map(PathBuf::from)
            }
            "log-format" => match value()?.as_str() {
                "json" => globals.json = true,
                "text" | "" => globals.json = false,
                other => return Err(wrong(format!("{other:?} is neither text nor json"))),
            },
            "log-level" => globals.quiet = matches!(value()?.as_str(), "error" | "fatal" | "panic"),
            "debug" => globals.quiet &= !needed(flag)?,
            "systemd-cgroup" => globals.systemd_cgroup = needed(flag)?,
            "cgroup-manager" => match value()?.as_str() {
                "cgroupfs" => globals.systemd_cgroup = false,
                "systemd" => globals.systemd_cgroup = true,
                other => return Err(wrong(format!("{other:?} is neither cgroupfs nor systemd"))),
            },
            "rootless" => match value()?.as_str() {
                "true" | "false" | "auto" | "1" | "0" => {}
                other => return Err(wrong(format!("{other:?} is not true, false or auto"))),
            },
            // runc's, long without a meaning.
            "criu" => drop(value()?),
            "v" | "version" => return Ok((globals, First::Version)),
            "h" | "help" => return Ok((globals, First::Help)),
            _ => {
                return Err(Error::usage(
                    format!("there is no option {text} before the command"),
                    "`coracle oci --help` lists those that there are",
                ));
            }
        }
    }
}

impl Globals {
    /// The containers of `--root`, or of where this user's are.
    pub(super) fn bundles(&self) -> Result<Bundles, Error> {
        let root = match &self.root {
            Some(root) => std::path::absolute(root).map_err(Error::file("find", root.clone()))?,
            None => default_root()?,
        };
        Ok(Bundles::open(BundlesConfig {
            root,
            systemd_cgroup: self.systemd_cgroup,
        }))
    }
}

fn default_root() -> Result<PathBuf, Error> {
    if rustix::process::geteuid().is_root() && !rootless::is_confined() {
        return Ok("/run/coracle-oci".into());
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty()) {
        Some(directory) => Ok(PathBuf::from(directory).join("coracle-oci")),
        None => Err(Error::usage(
            "there is no place for an ordinary user's state: XDG_RUNTIME_DIR is not set",
            "set it, or use --root",
        )),
    }
}

/// What `--version` prints; Docker reads the lines.
pub(super) fn version() -> String {
    format!(
        "coracle version {}\ncommit: unknown\nspec: 1.2.1\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// `help`.
#[derive(Debug, clap::Args)]
pub(super) struct Help {}

impl Verb for Help {
    fn run(self, _: &super::Runtime) -> Result<u8, Error> {
        crate::output::print(&super::overview()).map(|()| 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(line: &str) -> Result<(Globals, First), Error> {
        take(&mut line.split_whitespace().map(OsString::from).peekable())
    }

    #[test]
    fn what_containerd_and_slurm_send_is_understood() {
        let (globals, first) =
            taken("--root /r --log /b/log.json --log-format json create --bundle /b x")
                .expect("ok");
        assert_eq!(first, First::Verb("create".into()));
        assert_eq!(globals.root, Some("/r".into()));
        assert!(globals.json && globals.log == Some("/b/log.json".into()));
        let (globals, first) =
            taken("--rootless=true --root=/run/user/0 --systemd-cgroup state a.-1").expect("ok");
        assert_eq!(first, First::Verb("state".into()));
        assert!(globals.systemd_cgroup);
        assert_eq!(taken("--version").expect("ok").1, First::Version);
        assert_eq!(taken("").expect("ok").1, First::Help);
        for wrong in [
            "--root",
            "--log-format xml x",
            "--bogus x",
            "--rootless maybe x",
            "--systemd-cgroup=x y",
        ] {
            assert!(taken(wrong).is_err(), "{wrong}");
        }
    }
}
