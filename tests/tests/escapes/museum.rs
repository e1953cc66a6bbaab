//! The catalogue and the exhibits name each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The table's rows, as cells.
fn rows() -> Vec<Vec<String>> {
    let text = fs::read_to_string(repository().join("docs/museum.md")).expect("the catalogue");
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim_matches('|');
        inner
            .split(" |")
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    // The first one is the head.
    rows.skip(1).map(cells).collect()
}

/// `module::test` of every test beside this file.
fn tests() -> BTreeSet<String> {
    let folder = repository().join("tests/tests/escapes");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("the exhibits") {
        let path = entry.expect("an entry").path();
        let module = path.file_stem().expect("a name").display().to_string();
        let text = fs::read_to_string(&path).expect("a source");
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line != "#[test]" || module == "museum" {
                continue;
            }
            let name = lines
                .find_map(|line| line.strip_prefix("fn ")?.split('(').next())
                .expect("a test has a name");
            found.insert(format!("{module}::{name}"));
        }
    }
    found
}

#[test]
fn every_exhibit_is_a_test_and_every_test_an_exhibit() {
    let named: BTreeSet<String> = rows()
        .iter()
        .map(|row| row[row.len() - 1].trim_matches('`').to_owned())
        .collect();
    assert_eq!(named, tests());
    for row in rows() {
        assert_eq!(row.len(), 7, "{row:?}");
        assert!(row[3].len() > 5 && row[4].len() > 5, "{row:?}");
        assert!(["", "yes"].contains(&row[5].as_str()), "{row:?}");
    }
}

#[test]
fn a_test_that_names_an_advisory_is_its_row() {
    for test in tests() {
        let name = test.split("::").nth(1).expect("a module and a name");
        let Some(rest) = name.strip_prefix("cve_") else {
            continue;
        };
        let mut parts = rest.split('_');
        let (year, number) = (
            parts.next().expect("a year"),
            parts.next().expect("a number"),
        );
        let advisory = format!("CVE-{year}-{number}");
        let shown = rows()
            .iter()
            .any(|row| row[0].starts_with(&advisory) && row[6].contains(&test));
        assert!(shown, "{advisory} has no row with {test}");
    }
}

#[test]
fn museum_has_what_was_promised() {
    let rows = rows();
    let advisories: BTreeSet<&str> = rows
        .iter()
        .filter(|row| row[0].starts_with("CVE-"))
        .map(|row| row[0].split(',').next().expect("a number"))
        .collect();
    assert!(advisories.len() >= 45, "{}", advisories.len());
    let controlled = rows.iter().filter(|row| row[5] == "yes").count();
    assert!(
        controlled * 3 >= rows.len(),
        "{controlled} of {}",
        rows.len()
    );
}
