//! `packshot run`: runs a catalog on this machine.

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum};
use packshot_aws::clock::SystemClock;
use packshot_pipeline::{
    model::{format::Format, job::Job},
    ports::Clock as _,
    settings::{AccountPolicy, GenerateSettings},
};

use crate::{
    atomic_file,
    catalog_file::FileError,
    environment::Environment,
    estimate::report::{export_kind, renamed},
    exit_status::{CommandResult, ExitStatus},
    output::{self, Progress},
    overrides::Overrides,
    runner::{FinishedRun, LocalRunner, RunEvent, RunOptions, RunOutcome},
    summary_report::{print_done, say_top_errors},
};

/// Arguments of `packshot run`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  packshot run events/catalog.csv                with the built-in demo API, which charges nothing
  CREATIVEAI_API_KEY=… packshot run shoes.csv    with the real API
  packshot run shoes.csv --n 2 --concurrency 12 --output shoes.jsonl

Run the same command again to continue where it was stopped. It retries failed rows and makes no call for completed rows.

Environment:
  CREATIVEAI_API_KEY   the API key
  PACKSHOT_API_URL     base URL of the API (default https://api.creativeai.run)

Exit status:
    0  every row is completed
    1  the file cannot be a catalog, or the run was not possible
    2  the command line is wrong
    3  the run has ended; some rows failed
    4  the API account cannot pay, or the key is wrong; finished rows are kept
  130  stopped with Ctrl-C; the same command continues")]
pub(crate) struct RunArgs {
    /// The catalog: a CSV with the columns sku, title, image_url, or an export of a shop system.
    catalog: PathBuf,
    /// Directory for results and images: a bucket as files.
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
    /// Copy the manifest to this file.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Calls at once.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    #[command(flatten)]
    overrides: Overrides,
    /// Start at most N calls per minute.
    #[arg(long, value_name = "N")]
    rpm: Option<NonZeroU32>,
    /// Regenerate every row, and pay again for completed ones.
    #[arg(long, conflicts_with = "revision")]
    fresh: bool,
    /// What to do when the account cannot be charged.
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = OnAccountError::Pause)]
    account_errors: OnAccountError,
    /// Give up a call after this time. It may have been charged.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Do not store the images under DIR/images.
    #[arg(long)]
    no_archive: bool,
}

/// What to do when the account cannot be charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnAccountError {
    /// Stop calling and end with exit status 4; the next run continues with the remaining rows.
    Pause,
    /// Fail each row.
    Fail,
}

/// Runs a catalog to its end.
pub(crate) async fn run(args: RunArgs, environment: Environment) -> CommandResult {
    let demo = environment.uses_demo();
    let fresh = args.fresh.then(|| SystemClock.now().to_string());
    let overrides = Overrides { revision: args.overrides.revision.or(fresh.clone()), ..args.overrides };
    let split = overrides.settings(demo);
    let generate = GenerateSettings {
        request_timeout: Duration::from_secs(args.timeout),
        requests_per_minute: args.rpm,
        archive: !args.no_archive,
        account_errors: match args.account_errors {
            OnAccountError::Pause => AccountPolicy::Pause,
            OnAccountError::Fail => AccountPolicy::Fail,
        },
        sole_worker: true,
        ..GenerateSettings::default()
    };
    let options = RunOptions { catalog: args.catalog, out: args.out, concurrency: args.concurrency, split, generate };
    let runner = LocalRunner::new(options, environment).await?;
    let mut progress = Progress::new();
    if demo {
        progress.say(
            "No CREATIVEAI_API_KEY is set: using the built-in demo API. It draws its own images; nothing is charged.",
        );
    }
    if let Some(revision) = fresh {
        progress.say(format_args!("Every row is regenerated. To continue this run later: --revision {revision}"));
    }
    let outcome = runner
        .run(|event| match event {
            RunEvent::Admitted(job) => progress.say(announcement(job)),
            RunEvent::Progress { done, rows } => progress.update(done, rows, ""),
            RunEvent::Stopping => progress
                .say("Stopping: waiting for the calls in flight, which are charged. Ctrl-C again abandons them."),
        })
        .await;
    progress.finish();
    match outcome? {
        RunOutcome::Finished(finished) => finish(&finished, args.output.as_deref(), args.no_archive),
        RunOutcome::Interrupted => {
            output::say("Stopped. Finished rows are kept; the same command continues.");
            Ok(ExitStatus::Interrupted)
        }
        RunOutcome::AccountSuspended { reason, done, valid } => {
            output::say(format_args!(
                "The API account cannot be charged, so packshot stopped calling: {reason}\n\
                 {done} of {valid} valid rows have their result and are kept; no other row was called or failed.\n\
                 Top up the balance or correct the key, then run the same command again: it continues with the rest."
            ));
            Ok(ExitStatus::Account)
        }
    }
}

fn finish(run: &FinishedRun, output: Option<&Path>, no_archive: bool) -> CommandResult {
    if let Some(output) = output {
        atomic_file::copy(&run.manifest, output).map_err(|error| FileError::new(output, error))?;
    }
    say_top_errors(&run.summary);
    if run.summary.counts.failed > 0 {
        output::say(format_args!(
            "The failed rows are in {}; the same command retries those that can succeed.",
            run.failed_csv.display()
        ));
    }
    if let Some(images) = run.images.as_ref().filter(|_| !no_archive) {
        output::say(format_args!("The images are in {}", images.display()));
    }
    print_done(&run.summary, output.unwrap_or(&run.manifest))
}

fn announcement(job: &Job) -> String {
    let mut text = format!("{} rows, {} images to make", job.rows, job.images);
    if job.rejected > 0 {
        text.push_str(&format!("; {} rows are rejected", job.rejected));
    }
    if job.continuation_rows > 0 {
        text.push_str(&format!("; {} records belong to the product above", job.continuation_rows));
    }
    if let Some(recognised) = recognised(job) {
        text.push_str(&format!("\n{recognised}"));
    }
    text
}

/// How the file was read, unless it is a plain CSV with packshot's own columns.
fn recognised(job: &Job) -> Option<String> {
    let renamed = renamed(&job.mapping);
    if renamed.is_empty() && (Format { line_ending: None, ..job.format.clone() }) == Format::default() {
        return None;
    }
    let read_as = format!("Read as {}{}", job.format, export_kind(&job.export));
    Some(std::iter::once(read_as).chain(renamed).collect::<Vec<_>>().join(", "))
}
