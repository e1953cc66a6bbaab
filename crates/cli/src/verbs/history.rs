//! `history`.

use coracle_engine::image::HistoryLine;

use crate::door::Door;
use crate::error::Error;
use crate::output::{self, Columns, Row};
use crate::units;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct History {
    /// json, table, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Sizes and times in words (the default; --human=false: numbers)
    #[arg(short = 'H', long, value_name = "BOOL", default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    human: String,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Name or id
    #[arg(value_name = "IMAGE")]
    image: String,
}

const COLUMNS: Columns = Columns {
    default: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    headings: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
        ("Tags", "TAGS"),
    ],
};

impl super::Verb for History {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let human = super::run::boolean("--human", &self.human)?;
        let steps = door
            .engine()?
            .images()?
            .history(&self.image)
            .map_err(coracle_engine::Error::from)?;
        let now = units::now();
        let rows: Vec<Row> = steps
            .iter()
            .map(|step| row(step, now, human, self.no_trunc))
            .collect();
        let format = if self.quiet && self.format.is_none() {
            Some("{{.ID}}")
        } else {
            self.format.as_deref()
        };
        output::print(&output::render(format, &COLUMNS, &rows)?)?;
        Ok(0)
    }
}

fn row(step: &HistoryLine, now: i128, human: bool, whole: bool) -> Row {
    let id = step
        .id
        .as_ref()
        .map_or_else(|| "<missing>".to_owned(), |id| id.to_string());
    let id = if whole {
        id
    } else {
        units::short_id(&id).to_owned()
    };
    let created = step
        .created
        .as_ref()
        .and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let since = match (created, human) {
        (None, _) => "N/A".to_owned(),
        (Some(time), true) => format!("{} ago", units::human_duration(now - time.as_nanosecond())),
        (Some(time), false) => time.to_string(),
    };
    let by = step.created_by.replace(['\t', '\n'], " ");
    Row::new([
        ("ID", id.into()),
        ("CreatedSince", since.into()),
        ("CreatedAt", step.created.clone().unwrap_or_default().into()),
        (
            "CreatedBy",
            if whole {
                by.into()
            } else {
                units::ellipsis(&by, 45).into()
            },
        ),
        (
            "Size",
            if human {
                units::human_size(step.size).into()
            } else {
                step.size.to_string().into()
            },
        ),
        ("Comment", step.comment.as_str().into()),
        (
            "Tags",
            step.names
                .iter()
                .map(|name| name.familiar())
                .collect::<Vec<_>>()
                .join(",")
                .into(),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_reads_as_dockers() {
        let step = |created_by: &str, size| HistoryLine {
            id: None,
            created: Some("2026-01-01T00:00:00Z".into()),
            created_by: created_by.into(),
            size,
            comment: "buildkit".into(),
            names: Vec::new(),
        };
        let now = "2026-01-01T00:00:05Z"
            .parse::<jiff::Timestamp>()
            .expect("a time")
            .as_nanosecond();
        let rows = [row(
            &step(
                "RUN /bin/sh -c apt-get install -y a-long-list-of-packages",
                1_500_000,
            ),
            now,
            true,
            false,
        )];
        let expected = "\
IMAGE       CREATED         CREATED BY                                      SIZE      COMMENT
<missing>   5 seconds ago   RUN /bin/sh -c apt-get install -y a-long-lis…   1.5MB     buildkit
";
        assert_eq!(
            output::render(None, &COLUMNS, &rows).ok().as_deref(),
            Some(expected)
        );
    }
}
