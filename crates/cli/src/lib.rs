//! The command line door, as a library: the binary and the fuzz targets are its only callers.
//!
//! Job: to turn what was typed into one request, call the engine once, and render what comes back. The first word is
//! dispatched by hand ([`verbs`]), help and version open nothing, errors are printed in one place ([`error::report`]).

mod archive;
mod archive_output;
mod confirm;
mod conform;
mod door;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod oci;
mod output;
mod roles;
mod rootless;
mod spec;
mod template;
mod terminal;
mod units;
mod verbs;

use std::process::ExitCode;

use door::{Door, First};
use error::Error;

/// The whole program.
pub fn main() -> ExitCode {
    if let Some(code) = roles::play(std::env::args_os()) {
        return ExitCode::from(code);
    }
    ExitCode::from(command().unwrap_or_else(|error| error::report(&error)))
}

/// Apart from `main`, which a monitor has on its stack as long as its container runs.
#[inline(never)]
fn command() -> Result<u8, Error> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let (globals, first) = door::globals(&mut arguments)?;
    match first {
        First::Verb(verb) if verb == oci::WORD => Ok(oci::main(arguments)),
        First::Help => output::print(&verbs::overview()).map(|()| 0),
        First::Version => verbs::print_version().map(|()| 0),
        First::Verb(verb) => verbs::dispatch(&verb, arguments, &Door::new(globals)),
    }
}
