//! The fuzz targets, as plain functions: `fuzz_targets/` gives them to libFuzzer, `tests/seeds.rs` gives them every seed.
//!
//! A target takes any bytes and panics where something does not hold that must: no panic of a parser, what was accepted is
//! written and read again as the same, nothing is written outside of the directory that it was to be written in. Memory and
//! time are bounded by libFuzzer (`cargo xtask fuzz`), in the seeds' test by the seeds.
//!
//! A new parser of untrusted bytes gets a function here, a line in [`TARGETS`], a file in `fuzz_targets/` with its `[[bin]]`,
//! and seeds in `seeds/<name>/`; `tests/seeds.rs` fails when one of them is missing.

mod archives;
mod door;
mod host;
mod images;
mod names;
mod runtime;
mod scratch;
mod supervision;

/// A target's name and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, in the alphabet's order.
pub const TARGETS: &[Target] = &[
    ("archive_copied", archives::copied),
    ("archive_ingest", archives::ingest),
    ("archive_reader", archives::reader),
    ("attach_frame", supervision::frame),
    ("cgroup_files", host::cgroup_files),
    ("cgroup_layout", host::cgroup_layout),
    ("cgroup_limits", host::cgroup_limits),
    ("decompress", archives::decompress),
    ("detach_keys", supervision::detach_keys),
    ("door_options", door::options),
    ("door_template", door::template),
    ("door_units", door::units),
    ("image_change", images::change),
    ("image_documents", images::documents),
    ("image_load", images::load),
    ("image_pattern", images::pattern),
    ("layer_index", archives::index),
    ("log_line", supervision::line),
    ("log_reader", supervision::reader),
    ("names", names::names),
    ("oci_config", runtime::config),
    ("oci_process", runtime::process),
    ("oci_resources", runtime::resources),
    ("passwd", host::passwd),
    ("proc_stat", host::process),
    ("seccomp_profile", runtime::seccomp),
    ("state_documents", host::documents),
    ("subordinate_ids", host::subordinate_ids),
];

/// Runs the target called `name` on `data`.
///
/// # Panics
/// Where something does not hold that must, and where there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = found.unwrap_or_else(|| panic!("there is no target {name}"));
    target(data);
}

/// The text in `data` where it is text; parsers that take `&str` never see anything else.
fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

/// Two texts, cut at the first byte 0xff, which is in no text.
fn two(data: &[u8]) -> Option<(&str, &str)> {
    let (first, rest) = match data.iter().position(|byte| *byte == 0xff) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &data[..0]),
    };
    Some((text(first)?, text(rest)?))
}
