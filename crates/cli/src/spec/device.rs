//! `--device` and `--device-cgroup-rule`.

use std::path::PathBuf;

use coracle_engine::request::Device;

/// Parses `HOST[:INSIDE][:rwm]`.
pub(super) fn devices(texts: &[String]) -> Result<Vec<Device>, String> {
    texts.iter().map(|text| device(text)).collect()
}

fn is_access(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b"rwm".contains(&b))
}

fn device(text: &str) -> Result<Device, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, access) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, access] if is_access(access) => (*host, *host, *access),
        [host, container] => (*host, *container, "rwm"),
        [host, container, access] if is_access(access) => (*host, *container, *access),
        _ => return Err(format!("{text:?} is not HOST[:INSIDE][:rwm]")),
    };
    for path in [host, container] {
        if !path.starts_with('/') {
            return Err(format!("{path:?} is not an absolute path"));
        }
    }
    Ok(Device {
        host: PathBuf::from(host),
        container: container.to_owned(),
        access: access.to_owned(),
    })
}

/// Checks rules of the form `a|b|c MAJOR|*:MINOR|* rwm`.
pub(super) fn rules(texts: Vec<String>) -> Result<Vec<String>, String> {
    for text in &texts {
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = |word: &str| word == "*" || word.parse::<u32>().is_ok();
        let sound = matches!(words.as_slice(), [kind, numbers, access]
            if ["a", "b", "c"].contains(kind)
                && numbers.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor))
                && is_access(access));
        if !sound {
            return Err(format!("{text:?} is not a rule such as \"c 10:200 rwm\""));
        }
    }
    Ok(texts)
}
