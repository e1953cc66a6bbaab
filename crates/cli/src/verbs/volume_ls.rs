//! `volume ls`.

use coracle_engine::answer::Volume;
use coracle_engine::request::ListFilter;

use super::filter;
use crate::door::Door;
use crate::error::Error;
use crate::output::{self, Columns, Row};
use crate::units;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct VolumeLs {
    /// Only those with KEY=VALUE: name, label, driver, dangling
    #[arg(short = 'f', long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// json, table, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only names
    #[arg(short = 'q', long)]
    quiet: bool,
}

const COLUMNS: Columns = Columns {
    default: "{{.Driver}}\t{{.Name}}",
    headings: &[
        ("Driver", "DRIVER"),
        ("Name", "VOLUME NAME"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Scope", "SCOPE"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
};

impl super::Verb for VolumeLs {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let filters = filter::parse(&self.filter, &["name", "label", "driver", "dangling"])?;
        let engine = door.engine()?;
        // Which are used costs reading every container: only when asked for.
        let mut used = Vec::new();
        if filters.iter().any(|(key, _)| key == "dangling") {
            let containers = engine.list(&ListFilter {
                all: true,
                ..ListFilter::default()
            })?;
            used = containers
                .into_iter()
                .flat_map(|container| container.mounts)
                .collect();
        }
        let rows: Vec<Row> = engine
            .volume_list()?
            .iter()
            .filter(|volume| passes(volume, &filters, used.contains(&volume.name)))
            .map(row)
            .collect();
        let format = if self.quiet && self.format.is_none() {
            Some("{{.Name}}")
        } else {
            self.format.as_deref()
        };
        output::print(&output::render(format, &COLUMNS, &rows)?)?;
        Ok(0)
    }
}

fn passes(volume: &Volume, filters: &[(String, String)], used: bool) -> bool {
    filters.iter().all(|(key, value)| match key.as_str() {
        "name" => volume.name.contains(value.as_str()),
        "label" => match value.split_once('=') {
            Some((key, value)) => volume.labels.get(key).is_some_and(|found| found == value),
            None => volume.labels.contains_key(value),
        },
        "driver" => value == "local",
        _ => used != matches!(value.as_str(), "true" | "1"),
    })
}

fn row(volume: &Volume) -> Row {
    Row::new([
        ("Driver", "local".into()),
        ("Name", volume.name.as_str().into()),
        ("Mountpoint", volume.mountpoint.as_str().into()),
        ("Scope", "local".into()),
        ("CreatedAt", units::created_at(volume.created).into()),
    ])
    .with_labels(&volume.labels)
}
