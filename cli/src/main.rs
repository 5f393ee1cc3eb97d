//! The `packshot` command.

use std::process::ExitCode;

use clap::Parser as _;
use packshot::command::Cli;

fn main() -> ExitCode {
    packshot::command::run(Cli::parse())
}
