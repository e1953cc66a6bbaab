//! The table of verbs as a whole, and the help of each against what is kept in `snapshots/`.
//!
//! `CORACLE_UPDATE_SNAPSHOTS=1 cargo test -p coracle-cli` rewrites what is kept.

use super::*;
use std::path::Path;

#[test]
fn every_name_is_one_verb() {
    let mut names: Vec<_> = ENTRIES.iter().flat_map(|entry| entry.names).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    for (group, _) in GROUPS {
        assert!(find(group).is_none());
        assert!(
            names
                .iter()
                .any(|name| name.starts_with(&format!("{group} ")))
        );
    }
}

#[test]
fn every_verb_builds() {
    for entry in ENTRIES {
        prepare((entry.arguments)(Command::new(entry.names[0]))).debug_assert();
    }
    tree().debug_assert();
}

#[test]
fn unknown_words_get_the_nearest() {
    let hint = |word: &str| unknown(word).render();
    assert!(hint("pss").contains("`coracle ps`"));
    assert!(hint("isnpect").contains("`coracle inspect`"));
    assert!(hint("container lss").contains("`coracle container ls`"));
    assert!(hint("zzzzzzzz").contains("`coracle --help`"));
    assert_eq!(unknown("x").exit_code(), 125);
}

#[test]
fn help_reads_as_it_is_kept() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshots/help");
    let update = std::env::var_os("CORACLE_UPDATE_SNAPSHOTS").is_some();
    let mut texts = vec![("coracle".to_owned(), overview())];
    texts.extend(
        GROUPS
            .iter()
            .map(|(group, _)| ((*group).to_owned(), group_help(group))),
    );
    texts.extend(ENTRIES.iter().map(|entry| {
        (entry.names[0].replace(' ', "-"), {
            // The width of a terminal must not change what is kept.
            let mut command = describe(entry, entry.names[0]).term_width(120);
            command.render_help().to_string()
        })
    }));
    for (name, text) in texts {
        let file = directory.join(format!("{name}.txt"));
        if update {
            std::fs::create_dir_all(&directory).expect("writable");
            std::fs::write(&file, &text).expect("writable");
        }
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(
            kept,
            text,
            "{} differs; CORACLE_UPDATE_SNAPSHOTS=1 rewrites it",
            file.display()
        );
    }
}
