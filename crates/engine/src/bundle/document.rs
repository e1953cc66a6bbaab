//! config.json: read, checked as far as the runtime crate does not, and made absolute.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use coracle_linux::capability;
use coracle_oci::runtime::{
    Capabilities, LinuxCapabilities, LinuxNamespaceType, Mount, Process, Spec,
};
use serde_json::Value;

use super::record::CONFIG;
use crate::error::{Error, Result};

/// More than any document has.
const MOST: u64 = 32 << 20;

/// A bundle's document.
#[derive(Debug)]
pub(super) struct Document {
    pub spec: Spec,
    pub text: Vec<u8>,
    /// Absolute and without links.
    pub rootfs: PathBuf,
}

/// Reads the document of `bundle`, an absolute path.
pub(super) fn load(bundle: &Path, warn: &mut dyn FnMut(String)) -> Result<Document> {
    let path = bundle.join(CONFIG);
    let text = read(&path)?;
    let mut spec = parse(&text, warn)
        .map_err(|error| error.during(format!("cannot use {}", path.display())))?;
    let rootfs = root(bundle, &spec)?;
    absolute(bundle, &mut spec)?;
    Ok(Document { spec, text, rootfs })
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::with_capacity(16 * 1024);
    let failed = |source| Error::file("reading", path, source);
    let file = File::open(path).map_err(failed)?;
    file.take(MOST).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}

/// Parses and checks a document. Capabilities that do not exist are left out and told to `warn`.
///
/// # Errors
/// [`Error::Refused`] with what is wrong.
pub fn parse(text: &[u8], warn: &mut dyn FnMut(String)) -> Result<Spec> {
    let spec: Spec = tolerant(text, &["process", "capabilities"], warn)?;
    check(&spec)?;
    Ok(spec)
}

/// Parses a process document (`exec --process`).
///
/// # Errors
/// As [`parse`].
pub fn parse_process(text: &[u8], warn: &mut dyn FnMut(String)) -> Result<Process> {
    let process: Process = tolerant(text, &["capabilities"], warn)?;
    check_process(&process)?;
    Ok(process)
}

/// The specification asks for capabilities that nobody knows to be warned about and left out, not refused.
fn tolerant<T: serde::de::DeserializeOwned>(
    text: &[u8],
    capabilities: &[&str],
    warn: &mut dyn FnMut(String),
) -> Result<T> {
    let error = match serde_json::from_slice(text) {
        Ok(document) => return Ok(document),
        Err(error) => error,
    };
    let refuse =
        |error: serde_json::Error| Error::refused(format!("it is not a valid document: {error}"));
    let Ok(mut value) = serde_json::from_slice::<Value>(text) else {
        return Err(refuse(error));
    };
    let mut at = Some(&mut value);
    for member in capabilities {
        at = at.and_then(|value| value.get_mut(member));
    }
    let sets = at.and_then(Value::as_object_mut);
    let mut unknown = HashSet::new();
    for set in sets.into_iter().flat_map(|sets| sets.values_mut()) {
        let Some(names) = set.as_array_mut() else {
            continue;
        };
        names.retain(|name| {
            let known = name
                .as_str()
                .is_none_or(|name| capability::number(name).is_some());
            if !known {
                unknown.insert(name.to_string());
            }
            known
        });
    }
    if unknown.is_empty() {
        return Err(refuse(error));
    }
    for name in unknown {
        warn(format!("capability {name} does not exist and is left out"));
    }
    serde_json::from_value(value).map_err(refuse)
}

fn check(spec: &Spec) -> Result<()> {
    let version = spec.version();
    match major(version) {
        Some(1) => {}
        Some(_) => {
            return Err(Error::refused(format!(
                "ociVersion {version:?} is not supported; this runtime knows 1.0 to 1.2"
            )));
        }
        None => {
            return Err(Error::refused(format!(
                "ociVersion {version:?} is not a version as SemVer 2.0 writes it"
            )));
        }
    }
    if let Some(process) = spec.process() {
        check_process(process)?;
    }
    Ok(())
}

/// The first number of a version MAJOR.MINOR.PATCH[-…][+…].
fn major(version: &str) -> Option<u64> {
    let numbers = version.split(['-', '+']).next()?;
    let mut parts = numbers.split('.');
    let mut number = || {
        let part = parts.next()?;
        let sound = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        sound.then(|| part.parse::<u64>().ok()).flatten()
    };
    let (major, _, _) = (number()?, number()?, number()?);
    parts.next().is_none().then_some(major)
}

fn check_process(process: &Process) -> Result<()> {
    let mut seen = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        if seen.contains(&limit.typ()) {
            return Err(Error::refused(format!(
                "process.rlimits has {} twice",
                limit.typ()
            )));
        }
        seen.push(limit.typ());
    }
    Ok(())
}

fn root(bundle: &Path, spec: &Spec) -> Result<PathBuf> {
    let Some(root) = spec.root() else {
        return Err(Error::refused("the document has no root"));
    };
    let path = bundle.join(root.path());
    let path = std::fs::canonicalize(&path)
        .map_err(|source| Error::file("opening the root file system", &path, source))?;
    if !path.is_dir() {
        return Err(Error::refused(format!(
            "root.path {} is not a directory",
            path.display()
        )));
    }
    Ok(path)
}

/// Sources of binds are relative to the bundle; targets are in the root whatever they begin with.
fn absolute(bundle: &Path, spec: &mut Spec) -> Result<()> {
    let Some(mounts) = spec.mounts_mut() else {
        return Ok(());
    };
    for mount in mounts {
        if !mount.destination().is_absolute() {
            let target = Path::new("/").join(mount.destination());
            mount.set_destination(target);
        }
        if let (true, Some(source)) = (is_bind(mount), mount.source())
            && !source.is_absolute()
        {
            let source = bundle.join(source);
            mount.set_source(Some(source));
        }
    }
    Ok(())
}

fn is_bind(mount: &Mount) -> bool {
    let words = mount.options().iter().flatten();
    matches!(mount.typ().as_deref(), Some("bind" | "rbind"))
        || words
            .into_iter()
            .any(|word| word == "bind" || word == "rbind")
}

/// An existing path without `.` and `..`, and with links resolved as the caller would.
pub(super) fn bundle_path(path: &Path) -> Result<PathBuf> {
    let found = std::fs::canonicalize(path)
        .map_err(|source| Error::file("opening the bundle", path, source))?;
    debug_assert!(found.components().all(|part| part != Component::ParentDir));
    Ok(found)
}

/// Whether the container's processes have the host's ids: it has no user namespace, neither a new nor a joined one.
#[must_use]
pub fn shares_host_ids(spec: &Spec) -> bool {
    let namespaces = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().as_deref())
        .unwrap_or_default();
    !namespaces
        .iter()
        .any(|namespace| namespace.typ() == LinuxNamespaceType::User)
}

/// Leaves out of `process` the capabilities that cannot be granted; tells which. With ids of its own (`confined`) a
/// container can have all of them.
pub(super) fn grant(
    process: &mut Process,
    own_users: bool,
    warn: &mut dyn FnMut(String),
) -> Result<()> {
    let Some(sets) = process.capabilities().clone() else {
        return Ok(());
    };
    if own_users {
        return Ok(());
    }
    let have = capability::effective()
        .map_err(|error| Error::refused(format!("our own capabilities cannot be read: {error}")))?;
    let mut missing = Vec::new();
    let mut granted = |set: &Option<Capabilities>| -> Option<Capabilities> {
        let set = set.as_ref()?;
        let (kept, gone): (Capabilities, Capabilities) = set.iter().partition(|name| {
            capability::number(&name.to_string()).is_some_and(|number| have.contains(number))
        });
        missing.extend(gone);
        Some(kept)
    };
    let mut result = LinuxCapabilities::default();
    result.set_bounding(granted(sets.bounding()));
    result.set_effective(granted(sets.effective()));
    result.set_permitted(granted(sets.permitted()));
    result.set_inheritable(granted(sets.inheritable()));
    result.set_ambient(granted(sets.ambient()));
    let mut names: Vec<String> = missing.iter().map(ToString::to_string).collect();
    names.sort();
    names.dedup();
    for name in names {
        warn(format!(
            "capability {name} is left out: the caller does not have it"
        ));
    }
    process.set_capabilities(Some(result));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Result<Spec>, Vec<String>) {
        let mut warnings = Vec::new();
        let spec = parse(text.as_bytes(), &mut |warning| warnings.push(warning));
        (spec, warnings)
    }

    #[test]
    fn versions_are_those_of_semver() {
        for (version, expected) in [
            ("1.0.0", Some(1)),
            ("1.2.1-dev", Some(1)),
            ("1.0.2+x", Some(1)),
            ("2.0.0", Some(2)),
            ("1.0", None),
            ("", None),
            ("1.0.0.0", None),
            ("v1.0.0", None),
            ("1.-1.0", None),
        ] {
            assert_eq!(major(version), expected, "{version}");
        }
    }

    #[test]
    fn a_capability_that_nobody_knows_is_a_warning() {
        let (spec, warnings) = parsed(
            r#"{"ociVersion":"1.0.0","process":{"cwd":"\/","args":["x"],"user":{"uid":0,"gid":0},
                "capabilities":{"bounding":["CAP_KILL","CAP_FLY"],"effective":["CAP_FLY"]}}}"#,
        );
        let process = spec.unwrap().process().clone().unwrap();
        assert_eq!(process.cwd(), Path::new("/"));
        let sets = process.capabilities().clone().unwrap();
        assert_eq!(sets.bounding().as_ref().map(|set| set.len()), Some(1));
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn what_is_no_document_is_refused_with_a_reason() {
        for (text, why) in [
            ("", "not a valid document"),
            ("{}", "ociVersion"),
            (r#"{"ociVersion":"3.0.0"}"#, "not supported"),
            (r#"{"ociVersion":1}"#, "not a valid document"),
            (
                r#"{"ociVersion":"1.0.0","process":{"cwd":"/","user":{"uid":0,"gid":0},
                   "rlimits":[{"type":"RLIMIT_CPU","soft":1,"hard":1},{"type":"RLIMIT_CPU","soft":2,"hard":2}]}}"#,
                "twice",
            ),
        ] {
            let error = parsed(text).0.expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
