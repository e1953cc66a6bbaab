//! `checkpoint` and `restore`: refused, with all options that callers send, so that they read why.

use std::ffi::OsString;

use super::{Runtime, Verb};
use crate::error::Error;

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(super) struct Checkpoint {
    /// Whatever is typed
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    words: Vec<OsString>,
}

impl Verb for Checkpoint {
    fn run(self, _: &Runtime) -> Result<u8, Error> {
        Err(refused("checkpoint", self.words.len()))
    }
}

/// What may be typed.
#[derive(Debug, clap::Args)]
pub(super) struct Restore {
    /// Whatever is typed
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    words: Vec<OsString>,
}

impl Verb for Restore {
    fn run(self, _: &Runtime) -> Result<u8, Error> {
        Err(refused("restore", self.words.len()))
    }
}

fn refused(verb: &str, words: usize) -> Error {
    let what = match words {
        0 => String::new(),
        _ => " a container".to_owned(),
    };
    Error::usage(
        format!(
            "this version cannot {verb}{what}: checkpoint and restore come with issue 8, checkpoints of the engine"
        ),
        "use a runtime that can (runc, crun with CRIU) for containers that are to be moved",
    )
}
