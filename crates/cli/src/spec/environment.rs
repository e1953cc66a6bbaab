//! `--env`, `--env-file`, `--label`, `--label-file` and other lists of `KEY=VALUE`.

use std::collections::BTreeMap;

use super::Caller;
use crate::error::Error;

/// `--env-file` first, then `--env`, as Docker orders them. `KEY` alone takes the caller's value; without one it stays
/// alone, which removes the image's.
pub(crate) fn environment(
    variables: &[String],
    files: &[String],
    caller: &Caller,
) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    for file in files {
        let path = caller.path(file);
        let text = std::fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        for line in lines(&text).map_err(Error::value("--env-file"))? {
            all.push(variable(line, caller).map_err(Error::value("--env-file"))?);
        }
    }
    for text in variables {
        all.push(variable(text, caller).map_err(Error::value("--env"))?);
    }
    Ok(all)
}

pub(super) fn variable(text: &str, caller: &Caller) -> Result<String, String> {
    match text.split_once('=') {
        Some(("", _)) => Err(format!("{text:?} has no name before \"=\"")),
        Some(_) => Ok(text.to_owned()),
        None if text.is_empty() => Err("it is empty".into()),
        None => Ok((caller.variable)(text)
            .map_or_else(|| text.to_owned(), |value| format!("{text}={value}"))),
    }
}

/// The lines of an environment or label file: neither empty nor comments.
pub(super) fn lines(text: &str) -> Result<Vec<&str>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = Vec::new();
    for line in text.lines().map(str::trim_start) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        if name.contains(char::is_whitespace) {
            return Err(format!("the name {name:?} contains white space"));
        }
        lines.push(line);
    }
    Ok(lines)
}

/// `--label-file` first, then `--label`; `KEY` alone is an empty value.
pub(crate) fn labels(
    labels: &[String],
    files: &[String],
) -> Result<BTreeMap<String, String>, Error> {
    let mut all = BTreeMap::new();
    let mut add = |text: &str, option: &str| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() {
            return Err(Error::Value {
                option: option.into(),
                problem: format!("{text:?} has no name"),
            });
        }
        all.insert(key.to_owned(), value.to_owned());
        Ok(())
    };
    for file in files {
        let text = std::fs::read_to_string(file).map_err(Error::file("read", file))?;
        for line in lines(&text).map_err(Error::value("--label-file"))? {
            add(line, "--label-file")?;
        }
    }
    for text in labels {
        add(text, "--label")?;
    }
    Ok(all)
}

/// `KEY=VALUE` where both are needed; the last of a key stands.
pub(crate) fn pairs(texts: &[String]) -> Result<BTreeMap<String, String>, String> {
    texts
        .iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(format!("{text:?} is not KEY=VALUE")),
        })
        .collect()
}
