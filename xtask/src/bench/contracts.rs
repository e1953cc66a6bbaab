//! Reads the contracts from SPECIFICATION.md: the rows of its tables whose first cell is an id in backquotes.
//!
//! ```text
//! | id | what | at most | measured |
//! |---|---|---|---|
//! | `exec-ms` | `exec C true`, median | 5 | 3.1 |
//! | `run-hot-ms` | `run --rm …`, back to back, median | 5 | 7.1, open |
//! ```
//!
//! "Open" says that the contract was never met: the full form fails on it all the same, the quick one (part of the tests)
//! fails when it gets worse than it was measured.

use std::path::Path;

/// A number that the project promises.
#[derive(Debug, PartialEq)]
pub(super) struct Contract {
    /// Its name in the benchmarks.
    pub(super) id: String,
    /// What is measured, and in what unit.
    pub(super) what: String,
    /// The measured figure is at most this.
    pub(super) limit: f64,
    /// What was measured when it was last written down, of a contract that was never met.
    pub(super) open: Option<f64>,
}

/// The contracts in the file.
pub(super) fn load(path: &Path) -> Result<Vec<Contract>, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    parse(&text).map_err(|reason| format!("{}: {reason}", path.display()))
}

fn parse(text: &str) -> Result<Vec<Contract>, String> {
    let mut rows: Vec<Contract> = Vec::new();
    for line in text.lines() {
        let cells: Vec<&str> = line
            .trim()
            .trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect();
        let id = cells[0]
            .strip_prefix('`')
            .and_then(|id| id.strip_suffix('`'));
        let (Some(id), true) = (id, line.trim_start().starts_with('|')) else {
            continue;
        };
        let [_, what, limit, measured] = cells[..] else {
            return Err(format!("the row of {id} has {} cells, not 4", cells.len()));
        };
        let limit = limit
            .parse()
            .map_err(|_| format!("the limit of {id}, {limit:?}, is no number"))?;
        if rows.iter().any(|row| row.id == id) {
            return Err(format!("{id} stands there twice"));
        }
        let open = match measured.strip_suffix(", open") {
            None => None,
            Some(value) => {
                let value: f64 = value
                    .parse()
                    .map_err(|_| format!("what was measured of {id}, {value:?}, is no number"))?;
                if value <= limit {
                    return Err(format!(
                        "{id} is called open, but {value} is within {limit}"
                    ));
                }
                Some(value)
            }
        };
        rows.push(Contract {
            id: id.to_owned(),
            what: what.replace('`', ""),
            limit,
            open,
        });
    }
    if rows.is_empty() {
        return Err("no contract in any table".to_owned());
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_with_an_id_are_contracts_and_the_rest_is_prose() {
        let text = "# x\n| id | what | at most | measured |\n|---|---|---|---|\n\
                    | `a-ms` | `run` of it | 5 | 3.1 |\n| not one | x | y | z |\n\
                    | `b` | c | 5 | 7.5, open |\n";
        let a = Contract {
            id: "a-ms".into(),
            what: "run of it".into(),
            limit: 5.0,
            open: None,
        };
        let b = Contract {
            id: "b".into(),
            what: "c".into(),
            limit: 5.0,
            open: Some(7.5),
        };
        assert_eq!(parse(text), Ok(vec![a, b]));
    }

    #[test]
    fn mistaken_tables_are_refused() {
        assert!(parse("| `a` | b | five | - |").is_err());
        assert!(parse("| `a` | b | 5 |").is_err());
        assert!(parse("| `a` | b | 5 | - |\n| `a` | b | 5 | - |").is_err());
        assert!(parse("| `a` | b | 5 | 4, open |").is_err());
        assert!(parse("| `a` | b | 5 | x, open |").is_err());
        assert!(parse("prose").is_err());
    }

    #[test]
    fn contracts_of_this_repository_can_be_read() {
        let rows = load(&crate::workspace().join("SPECIFICATION.md")).expect("readable");
        assert!(rows.iter().any(|row| row.id == "run-hot-ms"));
    }
}
