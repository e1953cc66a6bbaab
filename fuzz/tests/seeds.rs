//! Every seed of every target, on any toolchain: what fuzzing found once is never there again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use coracle_fuzz::TARGETS;

/// A seed that takes longer than this is a way to stop somebody who reads it.
const PATIENCE: Duration = Duration::from_secs(10);

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn names(directory: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(here().join(directory)).expect("the folder is there");
    entries
        .map(|entry| PathBuf::from(entry.expect("it can be listed").file_name()))
        .map(|name| {
            name.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

#[test]
fn every_target_has_a_binary_and_seeds() {
    let listed: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(listed.len(), TARGETS.len(), "a name stands there twice");
    assert_eq!(listed, names("fuzz_targets"));
    assert_eq!(listed, names("seeds"));
    let manifest = fs::read_to_string(here().join("Cargo.toml")).expect("it is there");
    for name in &listed {
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name}"
        );
        let source = here().join(format!("fuzz_targets/{name}.rs"));
        let source = fs::read_to_string(source).expect("it is there");
        assert!(source.contains(&format!("run(\"{name}\", data)")), "{name}");
    }
}

#[test]
fn every_seed_holds() {
    let mut count = 0;
    let mut broken = Vec::new();
    for (name, target) in TARGETS {
        let folder = here().join("seeds").join(name);
        let mut files: Vec<PathBuf> = fs::read_dir(&folder)
            .expect("the target has seeds")
            .map(|entry| entry.expect("it can be listed").path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{name} has no seed");
        for file in files {
            let data = fs::read(&file).expect("a seed can be read");
            let begun = Instant::now();
            let held = std::panic::catch_unwind(|| target(&data)).is_ok();
            let took = begun.elapsed();
            count += 1;
            if !held || took > PATIENCE {
                broken.push(format!("{} ({took:?})", file.display()));
            }
        }
    }
    assert!(
        broken.is_empty(),
        "{} of {count} seeds: {broken:#?}",
        broken.len()
    );
}
