//! Rendering of lists: Docker's tables, `--format TEMPLATE`, `--format 'table …'` and `--format json`.
//!
//! Column width is that of the widest cell plus three, at least ten, as Docker's tables have.

use std::borrow::Cow;
use std::io::{self, Write};

use serde_json::{Map, Value};

use crate::error::Error;
use crate::template::Template;

/// One line of a list: what templates see.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    fields: Map<String, Value>,
    labels: Map<String, Value>,
}

impl Row {
    /// A row with these fields.
    pub(crate) fn new<const N: usize>(fields: [(&str, Value); N]) -> Self {
        Self {
            fields: fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            labels: Map::new(),
        }
    }

    /// Adds `Labels` in Docker's form, and what `.Label "key"` finds.
    pub(crate) fn with_labels(
        mut self,
        labels: &std::collections::BTreeMap<String, String>,
    ) -> Self {
        let shown = labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect::<Vec<_>>()
            .join(",");
        self.fields.insert("Labels".into(), shown.into());
        self.labels = labels
            .iter()
            .map(|(key, value)| (key.clone(), Value::from(value.as_str())))
            .collect();
        self
    }
}

impl Row {
    /// For a table: what stands in a cell is one line of it.
    fn shown(&self) -> Self {
        let cells = |map: &Map<String, Value>| {
            let cell = |value: &Value| match value {
                Value::String(text) => shown(text).into_owned().into(),
                other => other.clone(),
            };
            map.iter()
                .map(|(name, value)| (name.clone(), cell(value)))
                .collect()
        };
        Self {
            fields: cells(&self.fields),
            labels: cells(&self.labels),
        }
    }
}

/// The default table of a verb.
pub(crate) struct Columns {
    /// Template of a line, with tabs between cells.
    pub(crate) default: &'static str,
    /// Heading of each field.
    pub(crate) headings: &'static [(&'static str, &'static str)],
}

/// Text of a container's or an image's for a terminal: control characters, with which it could move the cursor, hide
/// lines or type into it, are spelled out.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let spelled = text.chars().flat_map(|c| match c.is_control() {
        true => c.escape_default().collect::<Vec<_>>(),
        false => vec![c],
    });
    Cow::Owned(spelled.collect())
}

/// Prints on standard output.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Error::output)
}

/// Prints one line on standard output.
pub(crate) fn line(text: impl std::fmt::Display) -> Result<(), Error> {
    print(&format!("{text}\n"))
}

/// Renders `rows` by `format` (`None`: the default table).
pub(crate) fn render(
    format: Option<&str>,
    columns: &Columns,
    rows: &[Row],
) -> Result<String, Error> {
    let format = format.map(str::trim).unwrap_or("table");
    if format == "json" {
        return Ok(rows
            .iter()
            .map(|row| without_control(&format!("{}\n", Value::Object(row.fields.clone()))))
            .collect());
    }
    let escaped = format.replace("\\t", "\t").replace("\\n", "\n");
    let (table, body) = match escaped.strip_prefix("table") {
        Some("") => (true, columns.default),
        Some(rest) if rest.starts_with([' ', '\t', '{']) => (true, rest.trim_start()),
        _ => (false, escaped.as_str()),
    };
    let template = Template::parse(body)?;
    let mut lines = Vec::with_capacity(rows.len() + 1);
    if table {
        lines.push(template.render(&headings(columns, rows), Some(&label_headings(rows)))?);
    }
    for row in rows {
        let row = if table { row.shown() } else { row.clone() };
        lines.push(template.render(&Value::Object(row.fields), Some(&row.labels))?);
    }
    Ok(if table {
        align(&lines)
    } else {
        lines.iter().map(|line| format!("{line}\n")).collect()
    })
}

fn headings(columns: &Columns, rows: &[Row]) -> Value {
    let mut headings: Map<String, Value> = columns
        .headings
        .iter()
        .map(|(field, heading)| ((*field).to_owned(), Value::from(*heading)))
        .collect();
    for field in rows.iter().flat_map(|row| row.fields.keys()) {
        if !headings.contains_key(field) {
            headings.insert(field.clone(), field.to_uppercase().into());
        }
    }
    Value::Object(headings)
}

fn label_headings(rows: &[Row]) -> Map<String, Value> {
    let keys = rows.iter().flat_map(|row| row.labels.keys());
    keys.map(|key| {
        (
            key.clone(),
            key.rsplit('.')
                .next()
                .unwrap_or(key)
                .replace(['-', '_'], " ")
                .to_uppercase()
                .into(),
        )
    })
    .collect()
}

/// Aligns cells that are separated by tabs.
pub(crate) fn align(lines: &[String]) -> String {
    let rows: Vec<Vec<&str>> = lines
        .iter()
        .flat_map(|line| line.split('\n'))
        .map(|line| line.split('\t').collect())
        .collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        // The last cell of a line ends without a tab and takes no part.
        for (at, cell) in row.iter().take(row.len() - 1).enumerate() {
            let width = (cell.chars().count() + 3).max(10);
            match widths.get_mut(at) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for row in &rows {
        for (at, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if at + 1 < row.len() {
                let fill = widths[at] - cell.chars().count();
                text.extend(std::iter::repeat_n(' ', fill));
            }
        }
        text.push('\n');
    }
    text
}

/// JSON with four spaces of indent, as `inspect` prints it.
pub(crate) fn pretty(value: &Value) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    // A Value with string keys written to memory: neither can fail.
    let _ = serde::Serialize::serialize(value, &mut serializer);
    without_control(&String::from_utf8_lossy(&bytes))
}

/// JSON leaves DEL and the second set of control characters as they are; a terminal obeys those too.
fn without_control(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}' => text.push_str(&format!("\\u{:04x}", c as u32)),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const COLUMNS: Columns = Columns {
        default: "{{.ID}}\t{{.Names}}",
        headings: &[("ID", "CONTAINER ID"), ("Names", "NAMES")],
    };

    fn rows() -> Vec<Row> {
        let labels = [("com.example.some-tier".to_owned(), "front".to_owned())].into();
        vec![
            Row::new([("ID", json!("0123456789ab")), ("Names", json!("web"))]).with_labels(&labels),
            Row::new([
                ("ID", json!("ba9876543210")),
                ("Names", json!("a-longer-name")),
            ])
            .with_labels(&Default::default()),
        ]
    }

    #[test]
    fn formats_are_dockers() {
        let cases = [
            (
                None,
                "CONTAINER ID   NAMES\n0123456789ab   web\nba9876543210   a-longer-name\n",
            ),
            (Some("{{.Names}}"), "web\na-longer-name\n"),
            (
                Some("{{.Names}}\\t{{.ID}}"),
                "web\t0123456789ab\na-longer-name\tba9876543210\n",
            ),
            (
                Some("table {{.Names}}\\t{{.Label \"com.example.some-tier\"}}"),
                "NAMES           SOME TIER\nweb             front\na-longer-name   \n",
            ),
            (
                Some("json"),
                "{\"ID\":\"0123456789ab\",\"Labels\":\"com.example.some-tier=front\",\"Names\":\"web\"}\n\
                 {\"ID\":\"ba9876543210\",\"Labels\":\"\",\"Names\":\"a-longer-name\"}\n",
            ),
        ];
        for (format, expected) in cases {
            assert_eq!(
                render(format, &COLUMNS, &rows()).ok().as_deref(),
                Some(expected),
                "{format:?}"
            );
        }
        assert!(render(Some("{{.Wrong}}"), &COLUMNS, &rows()).is_err());
        assert_eq!(
            render(None, &COLUMNS, &[]).ok().as_deref(),
            Some("CONTAINER ID   NAMES\n")
        );
    }

    #[test]
    fn documents_have_four_spaces() {
        assert_eq!(
            pretty(&json!([{"a": 1}])),
            "[\n    {\n        \"a\": 1\n    }\n]"
        );
    }
}
