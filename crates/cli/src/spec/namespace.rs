//! Namespaces, networks and ports.

use std::net::IpAddr;

use coracle_engine::request::{NamespaceMode, NetworkMode, UserNamespace};

/// `--pid`, `--ipc`, `--uts`, `--cgroupns`; `own` are the words for a namespace of its own.
pub(super) fn mode(text: Option<&str>, own: &[&str]) -> Result<NamespaceMode, String> {
    match text {
        None | Some("") => Ok(NamespaceMode::Private),
        Some(word) if own.contains(&word) => Ok(NamespaceMode::Private),
        Some("host") => Ok(NamespaceMode::Host),
        Some(word) => match word.strip_prefix("container:") {
            Some("") => Err("container: needs the name of a container".into()),
            Some(name) => Ok(NamespaceMode::Container(name.to_owned())),
            None => Err(format!(
                "{word:?} is not {}, host or container:NAME",
                own.join(", ")
            )),
        },
    }
}

/// `--network`.
pub(super) fn network(text: Option<&str>) -> Result<NetworkMode, String> {
    Ok(match text {
        None | Some("default" | "") => NetworkMode::Default,
        Some("none") => NetworkMode::None,
        Some("host") => NetworkMode::Host,
        Some(word) => match word.strip_prefix("container:") {
            Some("") => return Err("container: needs the name of a container".into()),
            Some(name) => NetworkMode::Container(name.to_owned()),
            None => NetworkMode::Named(word.to_owned()),
        },
    })
}

/// `--userns`. Docker's `--privileged` has no user namespace of its own unless one is asked for.
pub(super) fn user(text: Option<&str>, privileged: bool) -> Result<UserNamespace, String> {
    match text {
        None | Some("") if privileged => Ok(UserNamespace::Host),
        None | Some("" | "auto" | "private") => Ok(UserNamespace::Auto),
        Some("host") => Ok(UserNamespace::Host),
        Some(word) => {
            if let Some(name) = word
                .strip_prefix("container:")
                .filter(|name| !name.is_empty())
            {
                return Ok(UserNamespace::Container(name.to_owned()));
            }
            match word
                .strip_prefix("map:")
                .or_else(|| word.strip_prefix("map="))
            {
                Some(map) => mapping(map),
                None => Err(format!(
                    "{word:?} is not auto, host, container:NAME or map:uids=INSIDE:OUTSIDE:COUNT,gids=…"
                )),
            }
        }
    }
}

/// `uids=0:100000:65536,gids=0:100000:65536`; each key may be repeated, and `gids` default to the `uids`.
fn mapping(text: &str) -> Result<UserNamespace, String> {
    let (mut uids, mut gids) = (Vec::new(), Vec::new());
    for part in text.split(',') {
        let (key, range) = part
            .split_once('=')
            .ok_or_else(|| format!("{part:?} is not uids=… or gids=…"))?;
        let numbers: Vec<u32> = range
            .split(':')
            .map(|number| {
                number
                    .parse()
                    .map_err(|_| format!("{range:?} is not INSIDE:OUTSIDE:COUNT"))
            })
            .collect::<Result<_, _>>()?;
        let [inside, outside, count] = numbers[..] else {
            return Err(format!("{range:?} is not INSIDE:OUTSIDE:COUNT"));
        };
        if count == 0 || inside.checked_add(count).is_none() || outside.checked_add(count).is_none()
        {
            return Err(format!("{range:?} is not a range of ids"));
        }
        match key {
            "uids" => uids.push((inside, outside, count)),
            "gids" => gids.push((inside, outside, count)),
            _ => return Err(format!("{key:?} is not uids or gids")),
        }
    }
    if uids.is_empty() {
        return Err("it has no uids".into());
    }
    if gids.is_empty() {
        gids.clone_from(&uids);
    }
    Ok(UserNamespace::Map { uids, gids })
}

fn protocol(text: &str) -> Result<(&str, &str), String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if ["tcp", "udp", "sctp"].contains(&protocol) {
        Ok((ports, protocol))
    } else {
        Err(format!("{protocol:?} is not tcp, udp or sctp"))
    }
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("{text:?} is not a port or a range of ports");
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (from.parse::<u16>(), to.parse::<u16>()) {
        (Ok(from), Ok(to)) if from >= 1 && from <= to => Ok((from, to)),
        _ => Err(wrong()),
    }
}

/// `--publish`, checked and left as typed.
pub(super) fn published(text: &str) -> Result<String, String> {
    let (ports, _) = protocol(text)?;
    // An IPv6 address is in brackets and has colons itself.
    let (address, ports) = match ports
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]:"))
    {
        Some((address, ports)) => (Some(address), ports),
        None if ports.matches(':').count() == 2 => ports
            .split_once(':')
            .map_or((None, ports), |(a, p)| (Some(a), p)),
        None => (None, ports),
    };
    if let Some(address) = address
        && address.parse::<IpAddr>().is_err()
    {
        return Err(format!("{address:?} is not an address"));
    }
    match ports.split_once(':') {
        None => range(ports).map(|_| ())?,
        Some((host, container)) => {
            let container = range(container)?;
            if !host.is_empty() {
                let host = range(host)?;
                let (length, wanted) = (host.1 - host.0, container.1 - container.0);
                if length != wanted && wanted != 0 {
                    return Err(format!("{text:?} has ranges of different lengths"));
                }
            }
        }
    }
    Ok(text.to_owned())
}

/// `--expose`, as single `PORT/PROTOCOL`.
pub(super) fn exposed(text: &str) -> Result<Vec<String>, String> {
    let (ports, protocol) = protocol(text)?;
    let (from, to) = range(ports)?;
    Ok((from..=to)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

/// `--add-host`, `NAME:ADDRESS` or `NAME=ADDRESS`.
pub(super) fn hosts(texts: &[String]) -> Result<Vec<(String, String)>, String> {
    let one = |text: &String| {
        let (name, address) = text
            .split_once('=')
            .or_else(|| text.split_once(':'))
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| format!("{text:?} is not NAME:ADDRESS"))?;
        let bare = address
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(address);
        if bare != "host-gateway" && bare.parse::<IpAddr>().is_err() {
            return Err(format!("{address:?} is not an address"));
        }
        Ok((name.to_owned(), bare.to_owned()))
    };
    texts.iter().map(one).collect()
}

/// `--dns`.
pub(super) fn addresses(texts: Vec<String>) -> Result<Vec<String>, String> {
    match texts.iter().find(|text| text.parse::<IpAddr>().is_err()) {
        Some(wrong) => Err(format!("{wrong:?} is not an address")),
        None => Ok(texts),
    }
}
