//! `bench`: the real binaries beside their floors, in one run. See benches/README.md.

mod baselines;
mod cases;
mod events;
mod fake_services;
mod lambda;
mod manual;
mod plot;
mod process;
mod report;

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
    #[command(alias = "stand-ins")]
    FakeServices(fake_services::FakeServicesArgs),
    /// Invoke one function, with the environment of this process, and say what it used.
    Lambda(manual::LambdaArgs),
    /// Write a catalog.
    Catalog(manual::CatalogArgs),
    /// Do the work of one baseline and end; the harness measures the process.
    #[command(subcommand, alias = "piece")]
    Baseline(baselines::Baseline),
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
    if let Command::Baseline(baseline) = command {
        return Builder::new_current_thread().enable_all().build()?.block_on(baselines::run(baseline));
    }
    Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let work = async {
            match command {
                Command::Run(args) => cases::run(args).await,
                Command::Million(args) => cases::million::run(args).await,
                Command::FakeServices(args) => fake_services::serve(args).await,
                Command::Lambda(args) => manual::lambda(args).await,
                Command::Catalog(args) => manual::catalog(&args),
                Command::Baseline(baseline) => baselines::run(baseline).await,
            }
        };
        // Whoever is interrupted puts away its files, processes and control groups.
        tokio::select! {
            outcome = work => outcome,
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        }
    })
}
