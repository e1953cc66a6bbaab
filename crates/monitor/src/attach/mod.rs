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
