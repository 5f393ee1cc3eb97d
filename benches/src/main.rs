//! `bench`: measures the real binaries and their baselines in the same run. See benches/README.md.
//!
//! Imports run one way: this file and [`cases`] use everything below; [`manual`], [`baselines`] and [`fake_services`] do not
//! know each other; [`lambda`], [`process`], [`events`], [`report`] and [`plot`] are at the bottom.

mod baselines;
mod cases;
mod events;
mod fake_services;
mod lambda;
mod manual;
mod outcome;
mod plot;
mod process;
mod report;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::outcome::Outcome;

/// Measures packshot and compares it with its baselines.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure all cases, print a table, write it as JSON.
    Run(cases::RunArgs),
    /// Process one large catalog with all three functions; print what each stage took, draw memory and CPU over time.
    Million(cases::million::MillionArgs),
    /// Serve fake S3, SQS and images API on loopback until the process is ended; print the environment that points to them.
    FakeServices(fake_services::FakeServicesArgs),
    /// Invoke one function in the environment of this process, and print what it used.
    Lambda(manual::LambdaArgs),
    /// Write a sample catalog.
    Catalog(manual::CatalogArgs),
    /// Run one baseline and print its CPU and wall-clock time; the harness uses this.
    #[command(subcommand)]
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
        // An interrupt ends the work by dropping it, which removes temporary files, child processes and control groups.
        tokio::select! {
            outcome = work => outcome,
            _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        }
    })
}
