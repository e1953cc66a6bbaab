//! `--change`: the Dockerfile instructions that alter only an image's configuration, one a string.
//!
//! Words are split as a Dockerfile's are: quotes group, a backslash quotes the next character. Variables are not replaced: there is no
//! build whose variables they could be.

use std::collections::BTreeSet;

use coracle_oci::Signal;

use crate::{Config, Error, Healthcheck, Result};

/// One parsed instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `CMD`.
    Cmd(Vec<String>),
    /// `ENTRYPOINT`.
    Entrypoint(Vec<String>),
    /// `ENV`: names and values.
    Env(Vec<(String, String)>),
    /// `EXPOSE`: ports with their protocol.
    Expose(Vec<String>),
    /// `LABEL`.
    Label(Vec<(String, String)>),
    /// `USER`.
    User(String),
    /// `VOLUME`.
    Volume(Vec<String>),
    /// `WORKDIR`, absolute or relative to the one before.
    Workdir(String),
    /// `ONBUILD`: the instruction as it stands.
    OnBuild(String),
    /// `STOPSIGNAL`.
    StopSignal(String),
    /// `HEALTHCHECK`.
    Healthcheck(Box<Healthcheck>),
}

impl Change {
    /// Parses one instruction.
    pub fn parse(text: &str) -> Result<Change> {
        let refused = |reason: &str| Error::Change {
            directive: text.to_owned(),
            reason: reason.to_owned(),
        };
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        if rest.is_empty() && !matches!(word.to_ascii_uppercase().as_str(), "CMD" | "ENTRYPOINT") {
            return Err(refused("it needs an argument"));
        }
        match word.to_ascii_uppercase().as_str() {
            "CMD" => Ok(Change::Cmd(command(rest).map_err(refused)?)),
            "ENTRYPOINT" => Ok(Change::Entrypoint(command(rest).map_err(refused)?)),
            "ENV" => Ok(Change::Env(pairs(rest).map_err(refused)?)),
            "LABEL" => Ok(Change::Label(pairs(rest).map_err(refused)?)),
            "EXPOSE" => {
                let ports = words(rest).map_err(refused)?;
                let ports: Option<Vec<Vec<String>>> =
                    ports.iter().map(|port| expose(port)).collect();
                let ports =
                    ports.ok_or_else(|| refused("a port is NUMBER[-NUMBER][/tcp|udp|sctp]"))?;
                Ok(Change::Expose(ports.concat()))
            }
            "USER" => Ok(Change::User(rest.to_owned())),
            "VOLUME" => {
                let paths = list(rest)
                    .map_err(refused)?
                    .map_or_else(|| words(rest).map_err(refused), Ok)?;
                if paths.iter().any(String::is_empty) {
                    return Err(refused("a volume's path is empty"));
                }
                Ok(Change::Volume(paths))
            }
            "WORKDIR" => Ok(Change::Workdir(words(rest).map_err(refused)?.join(" "))),
            "ONBUILD" => {
                let inner = rest
                    .split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_ascii_uppercase();
                if matches!(inner.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
                    return Err(refused("this instruction cannot be triggered"));
                }
                Ok(Change::OnBuild(rest.to_owned()))
            }
            "STOPSIGNAL" => {
                rest.parse::<Signal>()
                    .map_err(|error| refused(&error.to_string()))?;
                Ok(Change::StopSignal(rest.to_owned()))
            }
            "HEALTHCHECK" => Ok(Change::Healthcheck(Box::new(
                healthcheck(rest).map_err(|reason| refused(&reason))?,
            ))),
            _ => Err(refused(
                "only CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, ONBUILD, STOPSIGNAL and HEALTHCHECK change an image",
            )),
        }
    }

    /// Alters a configuration.
    pub fn apply(self, config: &mut Config) {
        match self {
            Change::Cmd(command) => config.cmd = command,
            Change::Entrypoint(command) => config.entrypoint = command,
            Change::Env(pairs) => {
                for (name, value) in pairs {
                    let entry = format!("{name}={value}");
                    let same = |other: &&mut String| other.split('=').next() == Some(name.as_str());
                    match config.env.iter_mut().find(same) {
                        Some(other) => *other = entry,
                        None => config.env.push(entry),
                    }
                }
            }
            Change::Expose(ports) => config.exposed_ports.extend(ports),
            Change::Label(pairs) => config.labels.extend(pairs),
            Change::User(user) => config.user = user,
            Change::Volume(paths) => config.volumes.extend(paths),
            Change::Workdir(path) => config.working_dir = join(&config.working_dir, &path),
            Change::OnBuild(instruction) => config.on_build.push(instruction),
            Change::StopSignal(signal) => config.stop_signal = signal,
            Change::Healthcheck(check) => config.healthcheck = Some(*check),
        }
    }
}

/// Parses and applies several instructions.
pub(crate) fn apply_all(changes: &[String], config: &mut Config) -> Result<()> {
    let parsed: Vec<Change> = changes
        .iter()
        .map(|change| Change::parse(change))
        .collect::<Result<_>>()?;
    for change in parsed {
        change.apply(config);
    }
    Ok(())
}

/// A JSON list, or the shell form; nothing is an empty command.
fn command(text: &str) -> Result<Vec<String>, &'static str> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let shell = || vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()];
    Ok(list(text)?.unwrap_or_else(shell))
}

/// `["a", "b"]`; none where it is not meant as a list.
fn list(text: &str) -> Result<Option<Vec<String>>, &'static str> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    serde_json::from_str(text)
        .map(Some)
        .map_err(|_| "the list is no JSON array of strings")
}

/// `A=b C="d e"`, or the old form `A b c`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, &'static str> {
    let words = words(text)?;
    if !words[0].contains('=') {
        let (name, value) = text
            .split_once(char::is_whitespace)
            .ok_or("a value is missing")?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    words
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err("expected NAME=VALUE"),
        })
        .collect()
}

fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            // In single quotes a backslash is itself.
            (None | Some('"'), '\\') => {
                let next = characters
                    .next()
                    .ok_or("a backslash at the end quotes nothing")?;
                let word = word.get_or_insert_default();
                if quote.is_some() && !matches!(next, '"' | '\\' | '$') {
                    word.push('\\');
                }
                word.push(next);
            }
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, space) if space.is_whitespace() => words.extend(word.take()),
            (_, character) => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    words.extend(word);
    if words.is_empty() {
        Err("it needs an argument")
    } else {
        Ok(words)
    }
}

fn expose(text: &str) -> Option<Vec<String>> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return None;
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return None;
    }
    let ports: BTreeSet<u16> = (first..=last).collect();
    Some(
        ports
            .into_iter()
            .map(|port| format!("{port}/{protocol}"))
            .collect(),
    )
}

fn healthcheck(text: &str) -> Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option
            .split_once(char::is_whitespace)
            .ok_or("a command must follow the options")?;
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| format!("--{option} needs a value"))?;
        let time = || {
            duration(value)
                .ok_or_else(|| format!("--{name}: {value:?} is no duration such as 30s or 1m30s"))
        };
        match name {
            "interval" => check.interval = time()?,
            "timeout" => check.timeout = time()?,
            "start-period" => check.start_period = time()?,
            "start-interval" => check.start_interval = time()?,
            "retries" => {
                let retries = value
                    .parse()
                    .ok()
                    .filter(|retries| (1..=1_000_000).contains(retries));
                check.retries =
                    retries.ok_or_else(|| format!("--retries: {value:?} is no count"))?;
            }
            _ => return Err(format!("--{name} is unknown")),
        }
        rest = after.trim_start();
    }
    let (word, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let arguments = arguments.trim();
    match word.to_ascii_uppercase().as_str() {
        "NONE" if arguments.is_empty() => check.test = vec!["NONE".into()],
        "CMD" if !arguments.is_empty() => {
            check.test = match list(arguments)? {
                Some(list) if !list.is_empty() => {
                    std::iter::once("CMD".into()).chain(list).collect()
                }
                Some(_) => return Err("the command is empty".into()),
                None => vec!["CMD-SHELL".into(), arguments.to_owned()],
            };
        }
        _ => return Err("expected NONE, or CMD and a command".into()),
    }
    Ok(check)
}

/// Go's durations (`1h2m3.5s`, `100ms`) in nanoseconds.
pub(crate) fn duration(text: &str) -> Option<i64> {
    const UNITS: &[(&str, f64)] = &[
        ("ns", 1.0),
        ("us", 1e3),
        ("µs", 1e3),
        ("ms", 1e6),
        ("h", 3.6e12),
        ("m", 6e10),
        ("s", 1e9),
    ];
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() || total == 0.0 {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let (unit, factor) = UNITS
            .iter()
            .find(|(unit, _)| rest[digits..].starts_with(unit))?;
        total += number * factor;
        rest = &rest[digits + unit.len()..];
        if total == 0.0 && rest.is_empty() {
            break;
        }
    }
    (total < 9.0e18).then_some(total as i64)
}

/// A working directory: absolute, without `.` and `..`.
fn join(base: &str, path: &str) -> String {
    let full = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{base}/{path}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in full.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(changes: &[&str]) -> Config {
        let mut config = Config::default();
        let changes: Vec<String> = changes.iter().map(|text| (*text).to_owned()).collect();
        apply_all(&changes, &mut config).unwrap_or_else(|error| panic!("{error}"));
        config
    }

    #[test]
    fn commands_have_two_forms() {
        assert_eq!(applied(&[r#"CMD ["a","b c"]"#]).cmd, ["a", "b c"]);
        assert_eq!(
            applied(&["cmd echo $HOME"]).cmd,
            ["/bin/sh", "-c", "echo $HOME"]
        );
        assert_eq!(
            applied(&["ENTRYPOINT [\"x\"]", "ENTRYPOINT"]).entrypoint,
            Vec::<String>::new()
        );
        assert!(Change::parse("CMD [\"a\"").is_err());
    }

    #[test]
    fn env_and_labels_are_split_as_words() {
        let config = applied(&[
            r#"ENV A=1 B="two words" C=a\ b"#,
            "ENV D the rest of it",
            "ENV A=2",
            "LABEL x.y='z z'",
        ]);
        assert_eq!(
            config.env,
            ["A=2", "B=two words", "C=a b", "D=the rest of it"]
        );
        assert_eq!(config.labels["x.y"], "z z");
        for bad in ["ENV A", "ENV =x", "ENV A=\"x", "LABEL"] {
            assert!(Change::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_volumes_and_directories() {
        let config = applied(&[
            "EXPOSE 80 53/UDP 90-91",
            "VOLUME [\"/a\", \"/b c\"]",
            "VOLUME /d /e",
            "WORKDIR /x/y",
            "WORKDIR ../z",
        ]);
        assert_eq!(
            config
                .exposed_ports
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
            ["53/udp", "80/tcp", "90/tcp", "91/tcp"]
        );
        assert_eq!(config.volumes.len(), 4);
        assert_eq!(config.working_dir, "/x/z");
        for bad in ["EXPOSE 0", "EXPOSE 1/icmp", "EXPOSE 9-1", "EXPOSE 70000"] {
            assert!(Change::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn health_checks() {
        let config = applied(&[
            "HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 CMD curl -f http://localhost",
        ]);
        let check = config.healthcheck.expect("a check");
        assert_eq!(
            (check.interval, check.timeout, check.retries),
            (90_000_000_000, 500_000_000, 3)
        );
        assert_eq!(check.test, ["CMD-SHELL", "curl -f http://localhost"]);
        assert_eq!(
            applied(&["HEALTHCHECK NONE"])
                .healthcheck
                .expect("a check")
                .test,
            ["NONE"]
        );
        for bad in [
            "HEALTHCHECK",
            "HEALTHCHECK CMD",
            "HEALTHCHECK --interval=x CMD a",
            "HEALTHCHECK --interval=1s",
        ] {
            assert!(Change::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn others_are_refused() {
        for bad in [
            "RUN x",
            "FROM y",
            "",
            "ONBUILD FROM x",
            "STOPSIGNAL NOPE",
            "COPY a b",
        ] {
            assert!(Change::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            applied(&["STOPSIGNAL SIGINT", "USER 1:2", "ONBUILD RUN x"]).on_build,
            ["RUN x"]
        );
    }
}
