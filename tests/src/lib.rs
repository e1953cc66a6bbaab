//! The harness of the black-box suite.
//!
//! Job: give a test an [`Engine`] of its own (state, run-time state and images apart from every other test and from the
//! host's), run the built binary in it with a time limit, and prove at the end that nothing is left behind.
//!
//! Invariants:
//! - nothing here links the engine: a test knows what a user knows, the command line and what the kernel shows;
//! - only processes that the harness started are killed, each by its pid;
//! - a privilege or kernel feature that is missing is a visible skip ([`skip`]), never a silent pass.

pub mod crash;
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
pub mod trace;
mod user;
mod words;
pub mod world;

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

/// How long to wait here where a host's own processor would be given `limit`: `CORACLE_TEST_PATIENCE` times as long, which
/// is 1 unless the machine that the tests run in is emulated (`cargo xtask vm`).
pub fn patience(limit: Duration) -> Duration {
    let factor = std::env::var("CORACLE_TEST_PATIENCE").map_or(1, |text| {
        text.parse()
            .unwrap_or_else(|error| panic!("CORACLE_TEST_PATIENCE is {text:?}: {error}"))
    });
    limit * factor
}

/// Asks `condition` every few milliseconds until it holds; panics with `what` after [`patience`] with
/// `limit`.
///
/// Waiting for an event that has no descriptor in a black-box test is the only use of this.
pub fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let limit = patience(limit);
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
