//! What can be typed, and the exit status that answers it.

use std::{io::Write as _, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{check, environment::Environment, export, redrive, review, run, status, stub_api, submit};

/// From a product CSV to generated pictures and a manifest.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
pub struct Cli {
    /// Say more on standard error about what goes wrong and is tried again.
    #[arg(long, short, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a catalog on this machine: a directory is the bucket.
    Run(run::RunArgs),
    /// Say what a run would do and cost, without any call.
    Check(check::CheckArgs),
    /// Drop a catalog into the bucket of a deployment and, with --wait, fetch its manifest.
    Submit(submit::SubmitArgs),
    /// Show the jobs of a bucket, or one of them.
    Status(status::StatusArgs),
    /// Have the failed rows of a deployment run again.
    Redrive(redrive::RedriveArgs),
    /// Turn a manifest into what Shopify, Akeneo, Google or a spreadsheet reads.
    Export(export::ExportArgs),
    /// Look at the pictures of a run, beside their sources.
    Review(review::ReviewArgs),
    /// Serve the demo API, which draws its pictures itself and costs nothing.
    StubApi(stub_api::StubApiArgs),
}

/// Everything was done.
pub const EXIT_DONE: u8 = 0;
/// The catalog cannot be a catalog, or the command could not run.
pub const EXIT_COULD_NOT: u8 = 1;
/// The catalog was run; some rows failed.
pub const EXIT_SOME_FAILED: u8 = 3;
/// The API account cannot pay or the key is wrong; what is done is kept.
pub const EXIT_ACCOUNT: u8 = 4;
/// Stopped by the user; the same command goes on.
pub const EXIT_INTERRUPTED: u8 = 130;

/// Runs a command to its end.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let level = if cli.verbose { tracing::Level::DEBUG } else { tracing::Level::ERROR };
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    let ended: Result<u8, String> = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(args, Environment::of_process()).await.map_err(|error| error.to_string()),
            Command::Check(args) => {
                check::run(args, Environment::of_process()).await.map_err(|error| error.to_string())
            }
            Command::Submit(args) => submit::run(args).await.map_err(|error| error.to_string()),
            Command::Status(args) => status::run(args).await.map(|()| EXIT_DONE).map_err(|error| error.to_string()),
            Command::Export(args) => export::run(&args).map(|()| EXIT_DONE).map_err(|error| error.to_string()),
            Command::Redrive(args) => redrive::run(args).await.map(|()| EXIT_DONE).map_err(|error| error.to_string()),
            Command::Review(args) => review::run(&args).map(|()| EXIT_DONE).map_err(|error| error.to_string()),
            Command::StubApi(args) => stub_api::run(args).await.map(|()| EXIT_DONE).map_err(|error| error.to_string()),
        }
    });
    // Reads of standard input and the like must not keep the process.
    runtime.shutdown_background();
    ended.map_or_else(|error| fail(&error), ExitCode::from)
}

fn fail(error: &str) -> ExitCode {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::from(EXIT_COULD_NOT)
}
