//! `inspect`, and `inspect` of one kind.

use serde_json::Value;

use crate::door::Door;
use crate::error::Error;
use crate::output;
use crate::template::Template;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    shown: Shown,
    /// Only things of this kind: container, image or volume
    #[arg(long = "type", value_name = "KIND")]
    kind: Option<String>,
    /// Name or id
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

/// `container inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct InspectContainer {
    #[command(flatten)]
    shown: Shown,
    /// Name or id
    #[arg(value_name = "CONTAINER", required = true)]
    names: Vec<String>,
}

/// `image inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct InspectImage {
    #[command(flatten)]
    shown: Shown,
    /// Name or id
    #[arg(value_name = "IMAGE", required = true)]
    names: Vec<String>,
}

/// How it is shown.
#[derive(Debug, clap::Args)]
pub(super) struct Shown {
    /// json, or a Go template
    #[arg(short = 'f', long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show sizes of containers
    #[arg(short = 's', long)]
    size: bool,
}

/// One kind of thing.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Container,
    Image,
    Volume,
}

impl super::Verb for Inspect {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let kinds: &[Kind] = match self.kind.as_deref() {
            None | Some("") => &[Kind::Container, Kind::Image, Kind::Volume],
            Some("container") => &[Kind::Container],
            Some("image") => &[Kind::Image],
            Some("volume") => &[Kind::Volume],
            Some(other) => {
                let problem = format!("{other:?} is not container, image or volume");
                return Err(Error::Value {
                    option: "--type".into(),
                    problem,
                });
            }
        };
        show(&self.names, &self.shown, |name| {
            look_up(door, name, kinds, self.shown.size)
        })
    }
}

impl super::Verb for InspectContainer {
    fn run(self, door: &Door) -> Result<u8, Error> {
        show(&self.names, &self.shown, |name| {
            look_up(door, name, &[Kind::Container], self.shown.size)
        })
    }
}

impl super::Verb for InspectImage {
    fn run(self, door: &Door) -> Result<u8, Error> {
        show(&self.names, &self.shown, |name| {
            look_up(door, name, &[Kind::Image], false)
        })
    }
}

fn look_up(door: &Door, name: &str, kinds: &[Kind], size: bool) -> Result<Value, Error> {
    let mut first = None;
    for kind in kinds {
        let found = match kind {
            Kind::Container => container(door, name, size),
            Kind::Image => image(door, name),
            Kind::Volume => door
                .engine()?
                .volume_inspect(name)
                .map(|volume| super::volume_inspect::document(&volume))
                .map_err(Error::from),
        };
        match found {
            Ok(document) => return Ok(document),
            // The first kind's refusal is the one that is told: it explains ambiguous prefixes.
            Err(error) if first.is_none() => first = Some(error),
            Err(_) => {}
        }
    }
    match (kinds, first) {
        ([_], Some(error)) => Err(error),
        _ => Err(Error::usage(
            format!("there is no container, image or volume {name:?}"),
            "`coracle ps -a`, `coracle images` and `coracle volume ls` list what there is",
        )),
    }
}

fn container(door: &Door, name: &str, size: bool) -> Result<Value, Error> {
    let id = door.find(name)?;
    let mut document = door.engine()?.inspect(&id)?;
    if size && let Value::Object(fields) = &mut document {
        let filter = coracle_engine::request::ListFilter {
            all: true,
            filters: vec![("id".into(), id.as_str().into())],
            last: None,
            size: true,
        };
        if let Some((layer, all)) = door
            .engine()?
            .list(&filter)?
            .first()
            .and_then(|summary| summary.size)
        {
            fields.insert("SizeRw".into(), layer.into());
            fields.insert("SizeRootFs".into(), all.into());
        }
    }
    Ok(document)
}

fn image(door: &Door, name: &str) -> Result<Value, Error> {
    super::images::inspect(door, name)
}

/// Shows what is found of `names`; the missing ones are errors after the found ones were shown.
pub(super) fn show(
    names: &[String],
    shown: &Shown,
    look_up: impl FnMut(&str) -> Result<Value, Error>,
) -> Result<u8, Error> {
    show_as(names, shown.format.as_deref(), look_up)
}

/// [`show`] where only the format may be chosen.
pub(super) fn show_as(
    names: &[String],
    format: Option<&str>,
    mut look_up: impl FnMut(&str) -> Result<Value, Error>,
) -> Result<u8, Error> {
    let template = match format {
        None | Some("json" | "") => None,
        Some(text) => Some(Template::parse(text)?),
    };
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        let rendered = look_up(name).and_then(|document| match &template {
            Some(template) => output::line(template.render(&document, None)?),
            None => {
                documents.push(document);
                Ok(())
            }
        });
        errors.extend(rendered.err());
    }
    if template.is_none() {
        match format {
            // Compact when json was asked for by name, as Docker does.
            Some("json") => output::line(Value::Array(documents))?,
            _ => output::line(output::pretty(&Value::Array(documents)))?,
        }
    }
    match errors.len() {
        0 => Ok(0),
        1 => Err(errors.remove(0)),
        _ => Err(Error::Several(errors)),
    }
}
