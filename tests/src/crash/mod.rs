//! Crash and fault injection: every verb, broken at every point, and what must be true afterwards.
//!
//! A [`Ground`] is an engine with what the scenarios need. It runs one [`Scenario`] as often as asked, each time with
//! something else done to it, and after each run it asks what a user would ask: is everything still listed, can it be
//! inspected, used, repeated and removed; and then nothing may be left (`world`). What is wrong is a sentence in
//! [`Ground::findings`], with the name of the point.

mod examine;
mod ground;
mod plan;
mod scenario;

pub use examine::is_error;
pub use ground::Ground;
pub use plan::{Extent, Stroke, crashes, faults};
pub use scenario::{SCENARIOS, Scenario, scenario};
