//! `packshot submit`: runs a catalog on a deployment.
//!
//! The command first checks the file as the splitter would, and refuses one that cannot be a catalog. It then uploads the file
//! under `incoming/`, which starts the job. With `--wait` it polls the bucket for the job's results and its summary, shows the
//! progress, and downloads the manifest when the summary says that the job has ended. If it is interrupted, the job goes on.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use indicatif::HumanDuration;
use packshot_pipeline::{
    model::{catalog_error::CatalogError, keys::Catalog, summary::Summary},
    ports::StoreError,
};
use tokio::time::Instant;

use crate::{
    catalog_file,
    estimate::{builder::Assumptions, check::CatalogReport, inspect::inspect, report::rejects},
    exit_status::{CommandResult, ExitStatus},
    job_progress::JobProgress,
    output::{self, Progress, first_line},
    overrides::Overrides,
    submission::Submission,
    summary_report::{print_done, say_top_errors},
};

/// Time between two polls of the bucket: in the first minute, and later.
const POLL_EVERY: Duration = Duration::from_secs(1);
const LATER_POLL_EVERY: Duration = Duration::from_secs(5);
/// A working deployment has read a catalog by then; if not, the user is warned.
const WARN_AFTER: Duration = Duration::from_secs(60);

/// Arguments of `packshot submit`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  packshot submit shoes.csv --bucket BUCKET           check, upload, and print the id of the job
  packshot submit shoes.csv --bucket BUCKET --wait    download the manifest, too

The file is uploaded as incoming/shoes.csv, and the manifest is written to shoes-manifest.jsonl. The deployment has its own \
--n, --model, --size and so on. Give the same values here, so that the check before the upload uses them. Region and account \
come from the AWS configuration (AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL).

Exit status:
  0  uploaded; with --wait: every row is completed
  1  the file cannot be a catalog, or the bucket cannot be used
  3  with --wait: some rows failed")]
pub(crate) struct SubmitArgs {
    /// The catalog: a CSV with the columns sku, title, image_url, or an export of a shop system.
    catalog: PathBuf,
    /// Bucket of the deployment.
    #[arg(long)]
    bucket: String,
    /// Wait until the job has ended, and download its manifest.
    #[arg(long)]
    wait: bool,
    /// Where to write the manifest (default NAME-manifest.jsonl).
    #[arg(long, value_name = "FILE", requires = "wait")]
    output: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

/// Why a catalog was refused. The other errors are those of the modules that do the work.
#[derive(Debug, thiserror::Error)]
enum SubmitError {
    #[error("{path} cannot be a catalog and was not uploaded: {problem}")]
    InvalidCatalog { path: String, problem: CatalogError },
    /// The settings of the deployment may differ from those of the check.
    #[error("{path} was uploaded, and the deployment rejected it: {problem}\nNo call was made. See {summary}")]
    Rejected { path: String, problem: CatalogError, summary: String },
    #[error("{path} cannot be written: {error}; nothing was uploaded")]
    Directory { path: String, error: io::Error },
}

/// Checks and uploads a catalog, and waits for its manifest if asked to.
pub(crate) async fn run(args: SubmitArgs) -> CommandResult {
    let path = args.catalog.display().to_string();
    let key = catalog_file::key(&args.catalog);
    // The estimate is not shown, so its assumptions do not matter.
    let assumptions = Assumptions { price_per_image: 0.0, concurrency: 1, seconds_per_call: 0 };
    let check = inspect(&args.catalog, &args.overrides.settings(false), None, assumptions).await?;
    let (Some(found), Some(catalog)) = (&check.found, Catalog::of(&key)) else {
        let unnamed = || CatalogError::new("not_a_catalog", "its name is not the name of a catalog");
        let problem = check.problem.unwrap_or_else(unnamed);
        return Err(SubmitError::InvalidCatalog { path, problem }.into());
    };
    say_found(found);
    let manifest = args.output.unwrap_or_else(|| default_output(&catalog));
    if args.wait {
        let unwritable = |error| SubmitError::Directory { path: manifest.display().to_string(), error };
        read_directory(&manifest).map_err(unwritable)?;
    }
    let mut submission = Submission::upload(&args.bucket, &args.catalog, &key, &catalog).await?;
    let job = submission.job.clone();
    output::say(format_args!("Uploaded as s3://{}/{key}; job {job}", args.bucket));
    if !args.wait {
        output::print(&job)?;
        output::say(format_args!("To see its progress: packshot status {job} --bucket {}", args.bucket));
        return Ok(ExitStatus::Done);
    }
    let summary = wait(&mut submission).await?;
    if let Some(problem) = summary.rejected {
        let summary = format!("s3://{}/{}", args.bucket, submission.files.summary());
        return Err(SubmitError::Rejected { path, problem, summary }.into());
    }
    submission.download(&manifest).await?;
    say_top_errors(&summary);
    if summary.counts.failed > 0 {
        output::say(format_args!(
            "The failed rows are in s3://{0}/{1}: correct them and submit the file. `packshot redrive --bucket {0}` retries \
             those that can succeed.",
            args.bucket,
            submission.files.failed_csv()
        ));
    }
    print_done(&summary, &manifest)
}

fn say_found(found: &CatalogReport) {
    output::say(format_args!("{} rows, {} images to make", found.rows, found.images));
    if found.rejected > 0 {
        output::say(rejects(found, 1));
    }
}

fn default_output(catalog: &Catalog) -> PathBuf {
    let name = catalog.as_str().rsplit('/').next().unwrap_or_default();
    PathBuf::from(format!("{name}-manifest.jsonl"))
}

/// Finds a missing directory before the upload, and not after an hour of waiting.
fn read_directory(manifest: &Path) -> io::Result<()> {
    let directory = manifest.parent().filter(|parent| !parent.as_os_str().is_empty());
    directory.map_or(Ok(()), |directory| std::fs::read_dir(directory).map(drop))
}

/// Shows the progress until the job has ended.
async fn wait(submission: &mut Submission) -> Result<Summary, StoreError> {
    let began = Instant::now();
    let mut progress = Progress::new();
    progress.say("Waiting for the manifest. Ctrl-C ends the waiting, not the job.");
    let (mut warned, mut suspended) = (false, false);
    // Where parts are counted, the rows rise in leaps; between two of them, the rate is what it was at the last one.
    let mut last_change = (0, Duration::ZERO);
    loop {
        let now = submission.poll().await?;
        if let Some(summary) = now.ended {
            progress.finish();
            return Ok(summary);
        }
        match now.progress {
            Some((job, rows)) => {
                if !job.by_part || job.done != last_change.0 {
                    last_change = (job.done, began.elapsed());
                }
                progress.update(job.done, rows, &progress_text(job, rows, last_change.1));
            }
            None if !warned && began.elapsed() > WARN_AFTER => {
                warned = true;
                progress.say("The catalog has not been read yet. Is packshot deployed on this bucket? Still waiting.");
            }
            None => {}
        }
        if now.breaker.is_some() != suspended {
            suspended = now.breaker.is_some();
            match now.breaker {
                Some(breaker) => progress.say(format_args!(
                    "No calls: the API account cannot be charged ({}). They continue by themselves once it is topped up.",
                    first_line(&breaker.reason)
                )),
                None => progress.say("The account can be charged again; the calls continue."),
            }
        }
        let pause = if began.elapsed() < WARN_AFTER { POLL_EVERY } else { LATER_POLL_EVERY };
        tokio::time::sleep(pause).await;
    }
}

/// What the bar does not show: failures, images, rate and, computed from it, the time left.
fn progress_text(now: JobProgress, rows: u64, elapsed: Duration) -> String {
    let mut text = format!("{} failed, {} images", now.failed, now.images);
    let per_minute = now.done as f64 * 60.0 / elapsed.as_secs_f64().max(1.0);
    if now.done > 0 {
        let left = (rows - now.done.min(rows)) as f64 / per_minute * 60.0;
        let left = HumanDuration(Duration::from_secs_f64(left));
        text.push_str(&format!(", {per_minute:.0} rows a minute, about {left} left"));
    }
    text + &now.caveat()
}
