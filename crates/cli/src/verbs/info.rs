//! `info`.

use serde_json::Value;

use crate::door::Door;
use crate::error::Error;
use crate::output;
use crate::template::Template;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Info {
    /// json, or a Go template
    #[arg(short = 'f', long, value_name = "FORMAT")]
    format: Option<String>,
}

impl super::Verb for Info {
    fn run(self, door: &Door) -> Result<u8, Error> {
        let info = door.engine()?.info()?;
        match self.format.as_deref() {
            Some("json") => output::line(info)?,
            Some(text) if !text.is_empty() => {
                output::line(Template::parse(text)?.render(&info, None)?)?
            }
            _ => {
                let mut text = String::new();
                lines(&info, 0, &mut text);
                output::print(&text)?;
            }
        }
        Ok(0)
    }
}

/// `key: value`, nested values indented by one.
fn lines(value: &Value, depth: usize, out: &mut String) {
    let Value::Object(fields) = value else { return };
    for (key, value) in fields {
        out.push_str(&" ".repeat(depth));
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push_str(&format!("{key}:\n"));
                lines(value, depth + 1, out);
            }
            Value::Array(items) => {
                let items: Vec<_> = items.iter().map(plain).collect();
                out.push_str(&format!("{key}: {}\n", items.join(" ")));
            }
            other => out.push_str(&format!("{key}: {}\n", plain(other))),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nested_values_are_indented() {
        let mut text = String::new();
        lines(
            &json!({"A": {"B": 1, "C": ["x", "y"]}, "D": "text", "E": {}}),
            0,
            &mut text,
        );
        assert_eq!(text, "A:\n B: 1\n C: x y\nD: text\nE: {}\n");
    }
}
