//! Whatever is typed: no parser panics, and a source prints as it was typed.

use coracle_image::{Change, ListFilter, Source};
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_source(text in "(oci:|oci-archive:|docker-archive:|@)?\\PC{0,40}(:[a-z]{0,5})?(\\.tar|\\.tgz)?") {
        if let Ok(source) = Source::parse(&text) {
            prop_assert_eq!(source.to_string(), text);
        }
    }

    #[test]
    fn any_change(
        word in "(CMD|ENTRYPOINT|ENV|EXPOSE|LABEL|USER|VOLUME|WORKDIR|ONBUILD|STOPSIGNAL|HEALTHCHECK|\\PC{0,5})",
        rest in "( |\\PC|--(interval|retries)=[0-9.smh]{0,4} |CMD|[\\[\\]\"'=/]){0,20}",
    ) {
        if let Ok(change) = Change::parse(&format!("{word} {rest}")) {
            change.apply(&mut coracle_image::Config::default());
        }
    }

    #[test]
    fn any_filter(text in "(dangling|reference|before|until|label)?=?\\PC{0,20}") {
        if let Ok(filter) = ListFilter::default().and(&text) {
            prop_assert_ne!(filter, ListFilter::default());
        }
    }
}
