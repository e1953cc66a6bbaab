//! `events`.

use coracle_engine::answer::Event;
use serde_json::{Value, json};

use super::filter;
use crate::door::Door;
use crate::error::Error;
use crate::output;
use crate::template::Template;
use crate::units;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Events {
    /// Only those with KEY=VALUE: type, event, container, image, volume, label
    #[arg(short = 'f', long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// From this time (2026-01-31T12:00:00Z) or so long ago (10m); without it, from now
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Up to this time; without it, for ever
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Stop after those that were
    #[arg(long)]
    no_stream: bool,
}

const FILTERS: &[&str] = &["type", "event", "container", "image", "volume", "label"];

impl super::Verb for Events {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let now = units::now();
        let time = |option: &str, text: &Option<String>| {
            text.as_deref()
                .map(|text| units::parse_time(text, now))
                .transpose()
                .map_err(Error::value(option))
        };
        let since = time("--since", &self.since)?.unwrap_or(now);
        let until = time("--until", &self.until)?;
        let filters = filter::parse(&self.filter, FILTERS)?;
        let template = match self.format.as_deref() {
            None | Some("" | "json") => None,
            Some(text) => Some(Template::parse(text)?),
        };
        let follow = !self.no_stream && until.is_none_or(|until| until > now);
        for event in door.engine()?.events(Some(since), until, follow)? {
            let event = event?;
            if !passes(&event, &filters) {
                continue;
            }
            match (&template, self.format.as_deref()) {
                (Some(template), _) => output::line(template.render(&document(&event), None)?)?,
                (None, Some("json")) => output::line(document(&event))?,
                (None, _) => output::line(line(&event))?,
            }
        }
        Ok(0)
    }
}

/// Values of one key are alternatives; different keys must all hold.
fn passes(event: &Event, filters: &[(String, String)]) -> bool {
    let holds = |key: &str, value: &str| match key {
        "type" => event.kind == value,
        // `exec_create: …` carries its command after the colon.
        "event" => event.action == value || event.action.split(':').next() == Some(value),
        "label" => match value.split_once('=') {
            Some((key, value)) => event
                .attributes
                .get(key)
                .is_some_and(|found| found == value),
            None => event.attributes.contains_key(value),
        },
        kind @ ("container" | "image" | "volume") => {
            let named = event.kind == kind
                && (event.id.starts_with(value)
                    || event
                        .attributes
                        .get("name")
                        .is_some_and(|name| name == value));
            named
                || (kind == "image"
                    && event
                        .attributes
                        .get("image")
                        .is_some_and(|image| image == value))
        }
        _ => false,
    };
    FILTERS.iter().all(|key| {
        let mut values = filters
            .iter()
            .filter(|(filter, _)| filter == key)
            .peekable();
        values.peek().is_none() || values.any(|(_, value)| holds(key, value))
    })
}

/// `TIME TYPE ACTION ID (key=value, …)`.
fn line(event: &Event) -> String {
    let attributes: Vec<_> = event
        .attributes
        .iter()
        .map(|(key, value)| format!("{}={}", output::shown(key), output::shown(value)))
        .collect();
    let attributes = if attributes.is_empty() {
        String::new()
    } else {
        format!(" ({})", attributes.join(", "))
    };
    let time = units::local_time(event.time, "%Y-%m-%dT%H:%M:%S.%9f%:z");
    format!(
        "{time} {} {} {}{attributes}",
        event.kind, event.action, event.id
    )
}

/// The event in Docker's form.
fn document(event: &Event) -> Value {
    json!({
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": "local",
        "time": i64::try_from(event.time / 1_000_000_000).unwrap_or(0),
        "timeNano": i64::try_from(event.time).unwrap_or(0),
        // What older clients read, and what templates call ID and Status.
        "status": event.action,
        "id": event.id,
        "Status": event.action,
        "ID": event.id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn event() -> Event {
        Event {
            time: 1_700_000_000_123_456_789,
            kind: "container".into(),
            action: "die".into(),
            id: "abc".into(),
            attributes: BTreeMap::from([
                ("exitCode".into(), "0".into()),
                ("image".into(), "i".into()),
                ("name".into(), "web".into()),
            ]),
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let text = line(&event());
        assert!(text.starts_with("2023-11-1"), "{text}");
        assert!(text.contains(".123456789"), "{text}");
        assert!(
            text.ends_with(" container die abc (exitCode=0, image=i, name=web)"),
            "{text}"
        );
        assert_eq!(document(&event())["Actor"]["Attributes"]["name"], "web");
    }

    #[test]
    fn filters_of_one_key_are_alternatives() {
        let holds = |filters: &[&str]| {
            let filters: Vec<String> = filters.iter().map(|&f| f.into()).collect();
            passes(&event(), &filter::parse(&filters, FILTERS).expect("known"))
        };
        assert!(holds(&[]));
        assert!(holds(&["event=start", "event=die"]));
        assert!(!holds(&["event=start"]));
        assert!(!holds(&["event=die", "type=image"]));
        assert!(holds(&["container=web"]) && holds(&["container=ab"]) && !holds(&["container=x"]));
        assert!(holds(&["image=i"]) && holds(&["label=exitCode=0"]) && holds(&["label=name"]));
    }
}
