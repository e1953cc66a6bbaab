//! `features`.

use coracle_engine::bundle::features;

use super::state::json;
use super::{Runtime, Verb};
use crate::error::Error;
use crate::output;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(super) struct Features {}

impl Verb for Features {
    fn run(self, _: &Runtime) -> Result<u8, Error> {
        output::line(json(&features())?).map(|()| 0)
    }
}
