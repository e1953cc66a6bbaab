//! `coracle`: the binary. All of it is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    coracle_cli::main()
}
