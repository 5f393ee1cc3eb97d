//! `bench`: the real binaries beside their floors, in one run. See benches/README.md.

mod by_hand;
mod events;
mod lambda;
mod process;
mod stand_ins;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Whatever goes wrong ends the measurement; the text says what it was.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures packshot beside its floors.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve S3, SQS and the images API on loopback until the process is ended; prints the environment that leads there.
    StandIns(stand_ins::StandInsArgs),
    /// Invoke one function, with the environment of this process, and say what it used.
    Lambda(by_hand::LambdaArgs),
    /// Write a catalog.
    Catalog(by_hand::CatalogArgs),
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match Cli::parse().command {
            Command::StandIns(args) => stand_ins::serve(args).await,
            Command::Lambda(args) => by_hand::lambda(args).await,
            Command::Catalog(args) => by_hand::catalog(&args),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
