//! The harness of the black-box suite.
//!
//! Job: give a test an [`Engine`] of its own (state, run-time state and images apart from every other test and from the
//! host's), run the built binary in it with a time limit, and prove at the end that nothing is left behind.
//!
//! Invariants:
//! - nothing here links the engine: a test knows what a user knows, the command line and what the kernel shows;
//! - only processes that the harness started are killed, each by its pid;
//! - a privilege or kernel feature that is missing is a visible skip ([`skip`]), never a silent pass.

mod engine;
pub mod host;
mod image;
mod invocation;
pub mod oci;
mod program;
mod skip;
pub mod soak;
pub mod tar;
mod terminal;
mod user;
mod words;

pub use engine::Engine;
pub use image::{
    BUSYBOX, ImageFile, busybox_archive, busybox_layer, busybox_rootfs, docker_archive, oci_layout,
    sha256,
};
pub use invocation::{Invocation, Outcome, Session, binary};
pub use program::compile;
pub use skip::skip;
pub use terminal::Terminal;
pub use words::words;

use std::time::{Duration, Instant};

/// Asks `condition` every few milliseconds until it holds; panics with `what` after `limit`.
///
/// Waiting for an event that has no descriptor in a black-box test is the only use of this.
pub fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
