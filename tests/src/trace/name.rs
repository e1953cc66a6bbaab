//! Names of what a call acts on that are the same in every run.

use std::collections::BTreeSet;
use std::path::Path;

/// Replaces the folders by their names, an id by `ID` and any number of two digits or more by `N`.
pub(super) fn normalize(on: &str, folders: &[(&Path, &str)]) -> String {
    let mut rest = on;
    let mut name = String::new();
    for (folder, label) in folders {
        if let Some(below) = on.strip_prefix(&*folder.to_string_lossy()) {
            name.push_str(label);
            rest = below;
            break;
        }
    }
    let mut word = String::new();
    for letter in rest.chars().chain(['\0']) {
        if letter.is_ascii_alphanumeric() {
            word.push(letter);
            continue;
        }
        name.push_str(&known(&word));
        word.clear();
        if letter != '\0' {
            name.push(letter);
        }
    }
    name
}

/// A word without its numbers.
fn known(word: &str) -> String {
    if is_hex(word) && word.len() >= 12 {
        return "ID".into();
    }
    let mut name = String::new();
    let mut digits = String::new();
    for letter in word.chars().chain(['\0']) {
        if letter.is_ascii_digit() {
            digits.push(letter);
            continue;
        }
        name.push_str(if digits.len() >= 2 { "N" } else { &digits });
        digits.clear();
        if letter != '\0' {
            name.push(letter);
        }
    }
    name
}

fn is_hex(word: &str) -> bool {
    word.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Adds the full ids in a path.
pub(super) fn ids(on: &str, into: &mut BTreeSet<String>) {
    for word in on.split(|letter: char| !letter.is_ascii_alphanumeric()) {
        if word.len() == 64 && is_hex(word) {
            into.insert(word.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_from_run_to_run() {
        let root = Path::new("/var/tmp/x1y2/s");
        let id = "0123456789abcdef".repeat(4);
        for (on, name) in [
            (
                format!("/var/tmp/x1y2/s/containers/{id}/config.json"),
                "ROOT/containers/ID/config.json",
            ),
            (
                "/var/tmp/x1y2/s/.tmp-run.json-4711".into(),
                "ROOT/.tmp-run.json-N",
            ),
            ("/proc/812/ns/net".into(), "/proc/N/ns/net"),
            (
                "/sys/fs/cgroup/cpu,cpuacct".into(),
                "/sys/fs/cgroup/cpu,cpuacct",
            ),
            ("pipe".into(), "pipe"),
        ] {
            assert_eq!(normalize(&on, &[(root, "ROOT")]), name);
        }
    }

    #[test]
    fn ids_are_found_in_paths() {
        let id = "0123456789abcdef".repeat(4);
        let mut found = BTreeSet::new();
        ids(&format!("/x/.rm-{id}/upper"), &mut found);
        ids("/x/0123456789ab", &mut found);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [id]);
    }
}
