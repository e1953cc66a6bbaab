//! Entry points for fuzzing: the documents of images, and patterns.

use crate::record::Record;
use crate::{document, glob};

/// Reads `bytes` as each kind of document; what is one is written and read again, and must be the same then.
///
/// # Panics
/// Where it is not.
pub fn documents(bytes: &[u8]) {
    if let Ok(index) = document::parse_index(bytes, "index", "fuzzing") {
        let written = document::encode(&index);
        let again = document::parse_index(&written, "index", "fuzzing").expect("its own writing");
        assert_eq!(written, document::encode(&again));
        for descriptor in &index.manifests {
            // What kind it is may well be an error.
            let _ = descriptor.kind("fuzzing");
            let _ = (descriptor.platform(), descriptor.is_attachment());
        }
    }
    if let Ok(manifest) = document::parse_manifest(bytes, "manifest", "fuzzing") {
        let written = manifest.encode();
        let again =
            document::parse_manifest(&written, "manifest", "fuzzing").expect("its own writing");
        assert_eq!(written, again.encode());
    }
    if let Ok(record) = Record::parse(bytes) {
        assert_eq!(Record::parse(&document::encode(&record)), Ok(record));
    }
}

/// A pattern of `--filter reference=`.
///
/// # Panics
/// Where a text does not fit the pattern that is itself, quoted.
pub fn pattern(pattern: &str, text: &str) {
    let _: bool = glob::matches(pattern, text);
    let quoted: String = text.chars().flat_map(|c| ['\\', c]).collect();
    assert!(glob::matches(&quoted, text));
}
