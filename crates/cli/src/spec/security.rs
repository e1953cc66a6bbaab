//! `--security-opt`.

use coracle_engine::request::{Seccomp, Security};

use super::Caller;
use crate::error::Error;

/// All `--security-opt`, in order; reads a seccomp profile.
pub(super) fn options(texts: &[String], caller: &Caller) -> Result<Security, Error> {
    let mut security = Security::default();
    for text in texts {
        // Docker takes both separators; the old one is the colon.
        let at = text.find(['=', ':']);
        let (key, value) = at.map_or((text.as_str(), None), |at| {
            (&text[..at], Some(&text[at + 1..]))
        });
        let wrong = |problem: String| Error::Value {
            option: "--security-opt".into(),
            problem,
        };
        match (key, value) {
            ("no-new-privileges", None | Some("true" | "1")) => {
                security.no_new_privileges = Some(true)
            }
            ("no-new-privileges", Some("false" | "0")) => security.no_new_privileges = Some(false),
            ("no-new-privileges", Some(other)) => {
                return Err(wrong(format!("{other:?} is not true or false")));
            }
            ("seccomp", Some("unconfined")) => security.seccomp = Seccomp::Unconfined,
            ("seccomp", Some("builtin" | "default")) => security.seccomp = Seccomp::Default,
            ("seccomp", Some(file)) if !file.is_empty() => {
                let path = caller.path(file);
                let profile = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
                security.seccomp = Seccomp::Profile(profile);
            }
            ("mask", Some(paths)) => security.mask.extend(split(paths, false).map_err(wrong)?),
            ("unmask", Some(paths)) => security.unmask.extend(split(paths, true).map_err(wrong)?),
            ("systempaths", Some("unconfined")) => security.unmask.push("ALL".into()),
            ("label", Some(label)) if !label.is_empty() => security.label.push(label.to_owned()),
            ("apparmor", Some(profile)) if !profile.is_empty() => {
                security.apparmor = Some(profile.to_owned())
            }
            _ => {
                return Err(wrong(format!(
                    "{text:?} is not known; known are seccomp=, no-new-privileges, mask=, unmask=, systempaths=unconfined, label=, apparmor="
                )));
            }
        }
    }
    Ok(security)
}

/// Paths separated by colons.
fn split(paths: &str, all: bool) -> Result<Vec<String>, String> {
    let one = |path: &str| {
        if path.starts_with('/') || (all && path == "ALL") {
            Ok(path.to_owned())
        } else {
            Err(format!("{path:?} is not an absolute path"))
        }
    };
    paths.split(':').map(one).collect()
}
