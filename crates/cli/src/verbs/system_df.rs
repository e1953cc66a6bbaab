//! `system df`.

use coracle_engine::answer::DiskUse;

use crate::door::Door;
use crate::error::Error;
use crate::output::{self, Columns, Row};
use crate::units;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct SystemDf {
    /// json, table, or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const COLUMNS: Columns = Columns {
    default: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    headings: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
};

impl super::Verb for SystemDf {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let rows: Vec<Row> = door.engine()?.disk_use()?.iter().map(row).collect();
        output::print(&output::render(self.format.as_deref(), &COLUMNS, &rows)?)?;
        Ok(0)
    }
}

fn row(used: &DiskUse) -> Row {
    let percent = (used.reclaimable * 100).checked_div(used.size);
    let reclaimable = match percent {
        Some(percent) => format!("{} ({percent}%)", units::human_size4(used.reclaimable)),
        None => units::human_size4(used.reclaimable),
    };
    Row::new([
        ("Type", used.kind.as_str().into()),
        ("TotalCount", used.total.to_string().into()),
        ("Active", used.active.to_string().into()),
        ("Size", units::human_size4(used.size).into()),
        ("Reclaimable", reclaimable.into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_reads_as_dockers() {
        let used = |kind: &str, total, active, size, reclaimable| DiskUse {
            kind: kind.into(),
            total,
            active,
            size,
            reclaimable,
        };
        let rows = [
            row(&used("Images", 5, 2, 16_430_000, 11_630_000)),
            row(&used("Containers", 0, 0, 0, 0)),
        ];
        let expected = "\
TYPE         TOTAL     ACTIVE    SIZE      RECLAIMABLE
Images       5         2         16.43MB   11.63MB (70%)
Containers   0         0         0B        0B
";
        assert_eq!(
            output::render(None, &COLUMNS, &rows).ok().as_deref(),
            Some(expected)
        );
    }
}
