//! What people type.

use crate::text;

/// Options of `run` with a grammar of their own.
pub(crate) fn options(data: &[u8]) {
    if let Some(text) = text(data) {
        coracle_cli::fuzzing::options(text);
    }
}

/// A template of `--format`.
pub(crate) fn template(data: &[u8]) {
    if let Some(text) = text(data) {
        coracle_cli::fuzzing::template(text);
    }
}

/// Sizes, durations, points in time.
pub(crate) fn units(data: &[u8]) {
    if let Some(text) = text(data) {
        coracle_cli::fuzzing::units(text);
    }
}
