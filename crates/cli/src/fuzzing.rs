//! Entry points for fuzzing: what people type, files that they name, and an archive that came out of a container.

use std::path::Path;

use serde_json::Value;

use crate::archive::{self, Destination};
use crate::{rootless, spec, template, units};

/// Sizes, durations, numbers of CPUs, points in time.
///
/// # Panics
/// Where a size that was printed is not read as about itself.
pub fn units(text: &str) {
    if let Ok(bytes) = units::parse_bytes(text) {
        assert_eq!(units::parse_bytes(&format!("{bytes}b")), Ok(bytes));
        for printed in [
            units::human_size(bytes),
            units::human_size4(bytes),
            units::binary_size(bytes),
        ] {
            assert!(printed.len() < 16, "{printed}");
        }
    }
    if let Ok(bytes) = units::parse_bytes_or_unlimited(text) {
        assert!(bytes >= -1);
    }
    if let Ok(cpus) = units::parse_cpus(text) {
        assert!(cpus == -1 || cpus > 0, "{cpus}");
    }
    if let Ok(duration) = units::parse_duration(text) {
        let _: String = units::human_duration(i128::from(duration));
    }
    let now = 1_700_000_000_000_000_000;
    if let Ok(time) = units::parse_time(text, now) {
        let _ = (units::rfc3339(time), units::created_at(time));
    }
    assert!(units::quote(text).len() >= text.len() + 2);
    assert!(units::ellipsis(text, 8).chars().count() <= 8);
    let _: &str = units::short_id(text);
}

/// Options of `run` with a grammar of their own: mounts, devices, namespaces, ports, lists of variables.
///
/// # Panics
/// Where a mount is accepted whose target is not below the root.
pub fn options(text: &str) {
    spec::options_for_fuzzing(text);
}

/// A template, rendered over a value as `inspect` gives it.
pub fn template(text: &str) {
    let value = serde_json::json!({
        "Name": "web", "Count": 3, "Ratio": 0.5, "Yes": true, "Nothing": null, "Negative": -7,
        "List": ["a", "b", "é"], "Map": {"x": {"y": [1, 2, {"z": "w"}]}},
        "Labels": {"com.example/x": "1"},
    });
    let labels = value.get("Labels").and_then(Value::as_object);
    if let Ok(template) = template::Template::parse(text) {
        // That a value does not have what the template asks for is an error like any other.
        let _ = template.render(&value, labels);
    }
}

/// `/etc/subuid`.
pub fn subordinate_ids(text: &str) {
    rootless::ranges_for_fuzzing(text);
}

/// Unpacks an archive that came out of a container, as `cp` does, into `directory`.
pub fn copied(tar: &[u8], directory: &Path, name: Option<&Path>) {
    let to = Destination {
        directory: directory.to_owned(),
        name: name.map(Path::to_owned),
        owners: false,
    };
    // Most archives that are made up are refused.
    let _ = archive::unpack(tar, &to);
}
