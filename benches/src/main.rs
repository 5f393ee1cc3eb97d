//! `bench`: the real binaries beside their floors, in one run. See benches/README.md.

mod by_hand;
mod cases;
mod events;
mod lambda;
mod pieces;
mod plot;
mod process;
mod report;
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
    /// Measure, print the table, write it as JSON.
    Run(cases::RunArgs),
    /// Bring one large catalog through all three functions; print what each stage took, draw memory and CPU over time.
    Million(cases::million::MillionArgs),
    /// Serve S3, SQS and the images API on loopback until the process is ended; prints the environment that leads there.
    StandIns(stand_ins::StandInsArgs),
    /// Invoke one function, with the environment of this process, and say what it used.
    Lambda(by_hand::LambdaArgs),
    /// Write a catalog.
    Catalog(by_hand::CatalogArgs),
    /// Do one piece of work and end; the harness measures the process.
    #[command(subcommand)]
    Piece(pieces::Piece),
}

fn main() -> ExitCode {
    match start(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> Outcome<()> {
    use tokio::runtime::Builder;
    if let Command::Piece(piece) = command {
        return Builder::new_current_thread().enable_all().build()?.block_on(pieces::run(piece));
    }
    Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let work = async {
            match command {
                Command::Run(args) => cases::run(args).await,
                Command::Million(args) => cases::million::run(args).await,
                Command::StandIns(args) => stand_ins::serve(args).await,
                Command::Lambda(args) => by_hand::lambda(args).await,
                Command::Catalog(args) => by_hand::catalog(&args),
                Command::Piece(piece) => pieces::run(piece).await,
            }
        };
        // Whoever is interrupted puts away its files, processes and control groups.
        tokio::select! {
            outcome = work => outcome,
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        }
    })
}
