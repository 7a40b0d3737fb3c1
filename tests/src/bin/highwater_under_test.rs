//! The server that the tests start: the same code as the `highwater` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    highwater_server::cli::run()
}
