//! Whatever the text: no parser panics, and what parses prints to something that parses to the same.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use coracle_oci::{ContainerId, ContainerName, Digest, Platform, Reference, Signal};
use proptest::prelude::*;

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

fn all(text: &str) {
    round_trips::<ContainerId>(text);
    round_trips::<ContainerName>(text);
    round_trips::<Digest>(text);
    round_trips::<Platform>(text);
    round_trips::<Reference>(text);
    round_trips::<Signal>(text);
}

proptest! {
    #[test]
    fn any_text(text in any::<String>()) {
        all(&text);
    }

    #[test]
    fn text_that_is_almost_a_reference(
        text in "([a-zA-Z0-9.-]{1,8}(:[0-9]{0,5})?/)?[a-z0-9._/-]{1,20}(:[A-Za-z0-9_.-]{0,10})?(@sha256:[0-9a-f]{0,64})?"
    ) {
        all(&text);
        if let Ok(reference) = text.parse::<Reference>() {
            // What Docker users see means the same image.
            prop_assert_eq!(reference.familiar().parse::<Reference>().ok(), Some(reference));
        }
    }

    #[test]
    fn text_that_is_almost_a_signal(text in "(SIG|sig)?(RTMIN|RTMAX|TERM|[0-9]{1,3})[+-]?[0-9]{0,3}") {
        all(&text);
    }
}
