//! `--ulimit`.

const NAMES: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Parses `NAME=SOFT[:HARD]`; `-1` and `unlimited` are unlimited.
pub(super) fn ulimits(texts: &[String]) -> Result<Vec<(String, u64, u64)>, String> {
    texts.iter().map(|text| ulimit(text)).collect()
}

fn ulimit(text: &str) -> Result<(String, u64, u64), String> {
    let (name, values) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not NAME=SOFT[:HARD]"))?;
    let name = name.to_ascii_lowercase();
    let name = name.strip_prefix("rlimit_").unwrap_or(&name).to_owned();
    if !NAMES.contains(&name.as_str()) {
        return Err(format!(
            "there is no limit {name:?}; there are {}",
            NAMES.join(", ")
        ));
    }
    let number = |value: &str| match value {
        "-1" | "unlimited" => Ok(u64::MAX),
        _ => value
            .parse::<u64>()
            .map_err(|_| format!("{value:?} is not a whole number, -1 or unlimited")),
    };
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(values)?, number(values)?),
    };
    if soft > hard {
        return Err(format!("the soft limit of {text:?} is above the hard one"));
    }
    Ok((name, soft, hard))
}
