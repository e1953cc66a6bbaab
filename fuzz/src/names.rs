//! Names: what parses prints to something that parses to the same.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use coracle_image::{ListFilter, Source};
use coracle_oci::{ContainerId, ContainerName, Digest, Platform, Reference, Signal};

use crate::text;

/// References, digests, platforms, ids, names, signals, sources, filters.
pub(crate) fn names(data: &[u8]) {
    let Some(text) = text(data) else { return };
    round_trips::<ContainerId>(text);
    round_trips::<ContainerName>(text);
    round_trips::<Digest>(text);
    round_trips::<Platform>(text);
    round_trips::<Reference>(text);
    round_trips::<Signal>(text);
    if let Ok(reference) = text.parse::<Reference>() {
        // The short form is for people; it must mean the same.
        let familiar = reference.familiar();
        assert_eq!(familiar.parse::<Reference>().ok(), Some(reference.clone()));
        assert!(reference.or_latest().to_string().len() <= 1024);
    }
    if let Ok(source) = Source::parse(text) {
        assert_eq!(source.to_string(), text);
    }
    // That it is a filter is not known; a refusal is in words.
    let _ = ListFilter::default().and(text);
}

fn round_trips<T: FromStr<Err: Debug> + Display + Debug + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let printed = value.to_string();
        assert_eq!(
            printed.parse::<T>().ok(),
            Some(value),
            "{text:?} printed as {printed:?}"
        );
    }
}
