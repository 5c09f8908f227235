//! The `s2ditc` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    s2ditc::cli::main(&s2ditc::cli::Host::executable())
}
