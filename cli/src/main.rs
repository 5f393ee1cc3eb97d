//! The `packshot` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    packshot::command::run(std::env::args_os()).into()
}
