//! Attaching to a running container through its monitor's socket: docs/format/attach.md.
//!
//! [`Client`] speaks the protocol; [`pump`] connects one to a user's terminal. The monitor's side is private.

mod client;
mod frame;
mod pump;
pub(crate) mod server;
mod socket;

pub use client::{Client, Event, StopTimeout, Wants};
pub use frame::Kind;
pub use pump::{Ended, PumpOptions, pump};

/// A frame of either side.
///
/// # Panics
/// Where one that is accepted is written in another way than it can be read again.
#[cfg(feature = "fuzzing")]
pub fn frame_for_fuzzing(bytes: &[u8]) {
    use frame::{Received, Reply, Request};
    if let Ok(Received::Known(request)) = Request::parse(bytes) {
        let written = request.encode();
        assert_eq!(Request::parse(&written), Ok(Received::Known(request)));
    }
    if let Ok(Received::Known(reply)) = Reply::parse(bytes) {
        let written = reply.encode();
        assert_eq!(Reply::parse(&written), Ok(Received::Known(reply)));
    }
}
