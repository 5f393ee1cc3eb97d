//! The command line: its commands, and which module runs each.

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use crate::{
    commands::{check, export, redrive, review, run, status, stub_api, submit},
    environment::Environment,
    exit_status::{CommandResult, ExitStatus},
    output,
};

/// Generates product images and a manifest from a product CSV.
#[derive(Debug, Parser)]
#[command(
    name = "packshot",
    version,
    propagate_version = true,
    after_help = "\
Examples:
  packshot check shoes.csv     what a run would do and cost
  packshot run shoes.csv       the images and the manifest, under out/
  packshot review              the images in the browser"
)]
struct Cli {
    /// Log more on standard error: what fails and is retried.
    #[arg(long, short, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a catalog on this machine.
    Run(run::RunArgs),
    /// Say what a run would do and cost, without any call.
    Check(check::CheckArgs),
    /// Upload a catalog to a deployment and, with --wait, download its manifest.
    Submit(submit::SubmitArgs),
    /// Show the jobs of a deployment or of local runs.
    Status(status::StatusArgs),
    /// Run the failed rows of a deployment again.
    Redrive(redrive::RedriveArgs),
    /// Convert a manifest for Shopify, Akeneo, Google or a spreadsheet.
    Export(export::ExportArgs),
    /// Open the contact sheet of a run: its images next to the source photos.
    Review(review::ReviewArgs),
    /// Serve the demo API, which draws its images and charges nothing.
    StubApi(stub_api::StubApiArgs),
}

/// Runs the command that the arguments name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitStatus {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // It goes to standard output for --help, and a closed pipe is no error there either.
            let _ = error.print();
            return if error.use_stderr() { ExitStatus::Usage } else { ExitStatus::Done };
        }
    };
    output::start_log(cli.verbose);
    end(cli.command).unwrap_or_else(|error| {
        output::say(format_args!("error: {error}"));
        ExitStatus::CouldNotRun
    })
}

fn end(command: Command) -> CommandResult {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        match command {
            Command::Run(args) => run::run(args, Environment::of_process()).await,
            Command::Check(args) => check::run(args, Environment::of_process()).await,
            Command::Submit(args) => submit::run(args).await,
            Command::Status(args) => status::run(args).await,
            Command::Redrive(args) => redrive::run(args).await,
            Command::Export(args) => export::run(args),
            Command::Review(args) => review::run(&args),
            Command::StubApi(args) => stub_api::run(args).await,
        }
    });
    // Does not wait for blocking reads, for example of standard input.
    runtime.shutdown_background();
    ended
}
