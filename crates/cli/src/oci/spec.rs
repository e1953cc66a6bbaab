//! `spec`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use coracle_engine::bundle::template;
use rustix::process::{getegid, geteuid};

use super::state::json;
use super::{Runtime, Verb};
use crate::error::Error;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(super) struct Spec {
    /// The bundle's directory
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// For an ordinary user
    #[arg(long)]
    rootless: bool,
}

impl Verb for Spec {
    fn run(self, _: &Runtime) -> Result<u8, Error> {
        let ids = (geteuid().as_raw(), getegid().as_raw());
        let document = template(self.rootless.then_some(ids));
        let path = self.bundle.join("config.json");
        // Never over one that is there.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(Error::file("create", path.clone()))?;
        writeln!(file, "{}", json(&document)?).map_err(Error::file("write", path))?;
        Ok(0)
    }
}
