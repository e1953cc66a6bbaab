//! `images`, `image ls`.

use coracle_engine::image::{ListFilter, Summary};
use serde_json::Value;

use crate::door::Door;
use crate::error::Error;
use crate::output::{self, Columns, Row};
use crate::units;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Images {
    /// Also those without a name (they are always shown)
    #[arg(short = 'a', long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Only those with KEY=VALUE: dangling, reference, before, since, until, label
    #[arg(short = 'f', long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// json, table, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Only images with this name, or a pattern of it
    #[arg(value_name = "REFERENCE")]
    reference: Option<String>,
}

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Containers", "CONTAINERS"),
];

impl super::Verb for Images {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let mut filter = ListFilter::default();
        for text in &self.filter {
            filter = filter.and(text).map_err(coracle_engine::Error::from)?;
        }
        filter.references.extend(self.reference);
        let images = door
            .engine()?
            .images()?
            .list(&filter)
            .map_err(coracle_engine::Error::from)?;
        let columns = Columns {
            default: if self.digests {
                "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
            } else {
                "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
            },
            headings: HEADINGS,
        };
        let now = units::now();
        let rows: Vec<Row> = images
            .iter()
            .flat_map(|image| rows(image, now, self.no_trunc))
            .collect();
        let format = if self.quiet && self.format.is_none() {
            Some("{{.ID}}")
        } else {
            self.format.as_deref()
        };
        output::print(&output::render(format, &columns, &rows)?)?;
        Ok(0)
    }
}

/// One row a name; one with `<none>` for an image without.
fn rows(image: &Summary, now: i128, whole: bool) -> Vec<Row> {
    let id = image.id.to_string();
    let id = if whole {
        id
    } else {
        units::short_id(&id).to_owned()
    };
    let none = || "<none>".to_owned();
    let row = |repository: String, tag: String| {
        let created = i128::from(image.created) * 1_000_000_000;
        let (since, at) = match image.created {
            0 => ("N/A".to_owned(), "N/A".to_owned()),
            _ => (
                format!("{} ago", units::human_duration(now - created)),
                units::created_at(created),
            ),
        };
        Row::new([
            ("ID", id.as_str().into()),
            ("Repository", repository.into()),
            ("Tag", tag.into()),
            ("Digest", image.manifest.to_string().into()),
            ("CreatedSince", since.into()),
            ("CreatedAt", at.into()),
            ("Size", units::human_size(image.size).into()),
            ("VirtualSize", units::human_size(image.size).into()),
            ("SharedSize", "N/A".into()),
            ("UniqueSize", "N/A".into()),
            ("Containers", "N/A".into()),
        ])
        .with_labels(&image.labels)
    };
    if image.names.is_empty() {
        return vec![row(none(), none())];
    }
    image
        .names
        .iter()
        .map(|name| {
            row(
                name.familiar_name(),
                name.tag().map_or_else(none, str::to_owned),
            )
        })
        .collect()
}

/// An image in Docker's form, for the several verbs that inspect.
pub(super) fn inspect(door: &Door, name: &str) -> Result<Value, Error> {
    Ok(door
        .engine()?
        .images()?
        .inspect(name)
        .map_err(coracle_engine::Error::from)?)
}
