//! `packshot status`: how far the jobs of a bucket are.

use std::time::Duration;

use clap::Args;
use indicatif::HumanDuration;
use packshot_aws::redrive::{find_queues, waiting};
use packshot_pipeline::{
    generate::breaker::BreakerFile,
    model::{
        json,
        summary::{Status, Summary},
    },
    ports::StoreError,
};
use serde::Serialize;

use crate::{
    exit_status::{CommandResult, ExitStatus},
    job_progress::{JobFollower, JobProgress},
    jobs,
    output::{self, Fields, first_line},
    target::{Target, TargetArgs},
};

/// Arguments of `packshot status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  packshot status                              the jobs of local runs in out/
  packshot status --bucket BUCKET              the jobs of a deployment, the newest first
  packshot status 7b8bea --bucket BUCKET       one job, by the first characters of its id
  packshot status --bucket BUCKET --json")]
pub(crate) struct StatusArgs {
    /// Show only this job, in detail.
    job: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
    /// Print one JSON object: `jobs` are summaries (schemas/summary.schema.json).
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct StatusOutput {
    v: u32,
    jobs: Vec<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<JobProgress>,
    /// Present while it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    breaker: Option<BreakerFile>,
    /// The approximate number of rows in the retry queue; absent for a directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_queue: Option<usize>,
}

/// Prints the jobs, or one of them.
pub(crate) async fn run(args: StatusArgs) -> CommandResult {
    let target = args.target.open().await;
    let (jobs, progress) = match &args.job {
        None => (jobs::list(&target.ports, None).await?, None),
        Some(id) => {
            let job = jobs::find(&target.ports, id, &target.name).await?;
            let progress = progress(&target, &job).await?;
            (vec![job], progress)
        }
    };
    let breaker = jobs::open_breaker(&target.ports).await?;
    let status = StatusOutput { v: 1, jobs, progress, breaker, retry_queue: retry_queue(&target).await };
    if args.json {
        output::print(String::from_utf8_lossy(&json::to_pretty(&status)))?;
        return Ok(ExitStatus::Done);
    }
    match status.jobs.as_slice() {
        [job] if args.job.is_some() => output::print(detail(job, status.progress))?,
        [] => output::print(format_args!("No job yet in {}.", target.name))?,
        jobs => output::print(table(jobs))?,
    }
    if let Some(breaker) = &status.breaker {
        output::print(format_args!(
            "No calls since {}: the API account cannot be charged ({}). The next attempt is at {}.",
            time(breaker.since),
            first_line(&breaker.reason),
            time(breaker.next_probe)
        ))?;
    }
    if let Some(waiting) = status.retry_queue.filter(|&waiting| waiting > 0) {
        let bucket = target.name;
        output::print(format_args!(
            "{waiting} messages are in the retry queue; `packshot redrive --bucket {bucket}` runs them again."
        ))?;
    }
    Ok(ExitStatus::Done)
}

/// The progress of a running job.
async fn progress(target: &Target, job: &Summary) -> Result<Option<JobProgress>, StoreError> {
    if job.status != Status::Running {
        return Ok(None);
    }
    let mut follower = JobFollower::default();
    Ok(Some(follower.poll(&target.ports, &job.job, job.counts.rows, Some(job)).await?))
}

/// A status without the queue is better than none: the queues may be missing, or the user may not be permitted to read them.
async fn retry_queue(target: &Target) -> Option<usize> {
    let sqs = target.aws.as_ref()?.sqs();
    let queues = find_queues(sqs, &target.name).await.ok()?;
    waiting(sqs, &queues.retry).await.ok()
}

fn table(jobs: &[Summary]) -> String {
    let heads = ["DROPPED AT", "CATALOG", "JOB", "STATUS", "ROWS", "COMPLETED", "FAILED"].map(str::to_owned);
    let rows = jobs.iter().map(|job| {
        let (completed, failed) = match job.status {
            // Only full parts are counted; "0" would claim that all were.
            Status::Running if job.rows_merged == 0 => ("-".to_owned(), "-".to_owned()),
            _ => (job.counts.completed.to_string(), job.counts.failed.to_string()),
        };
        let (catalog, id, rows) = (job.catalog.to_string(), job.job.to_string(), job.counts.rows.to_string());
        [time(job.source.last_modified), catalog, id, job.status.as_str().to_owned(), rows, completed, failed]
    });
    output::table(&std::iter::once(heads).chain(rows).collect::<Vec<_>>(), 4)
}

fn detail(job: &Summary, progress: Option<JobProgress>) -> String {
    let counts = &job.counts;
    let mut fields = Fields::new(format_args!("{}, job {}: {}", job.catalog, job.job, job.status.as_str()));
    let source = &job.source;
    fields.add("dropped", format_args!("{} as {}, {} bytes", time(source.last_modified), source.key, source.bytes));
    if let Some(problem) = &job.rejected {
        fields.add("rejected", format_args!("{problem}. No call was made"));
    }
    match progress {
        Some(progress) => fields.add("so far", so_far(progress, job)),
        None if job.status == Status::Rejected => {}
        None => {
            let (rows, completed, failed) = (counts.rows, counts.completed, counts.failed);
            let rejected = counts.rows_rejected;
            fields.add(
                "rows",
                format_args!("{rows}: {completed} completed, {failed} failed, {rejected} of these without a call"),
            );
            fields.add("images", format_args!("{} of {} requested", counts.images, job.images_requested));
            fields.add(
                "calls",
                format_args!(
                    "{}, of them {} retries and {} with unknown outcome; {} rows share the call of another row",
                    counts.calls, counts.retries, counts.unknown_outcomes, counts.reused
                ),
            );
        }
    }
    if let Some(finished) = job.finished_at {
        let took = Duration::try_from(finished.duration_since(job.created_at)).unwrap_or_default();
        fields.add("finished", format_args!("{}, after {}", time(finished), HumanDuration(took)));
    }
    if let Some(manifest) = &job.manifest {
        fields.add("manifest", &manifest.key);
    }
    for error in &job.top_errors {
        let (count, code, example) = (error.count, &error.error_code, first_line(&error.example));
        fields.add("failed", format_args!("{count} × {code}, for example {example}"));
    }
    fields.to_string()
}

fn so_far(progress: JobProgress, job: &Summary) -> String {
    let JobProgress { done, failed, images, .. } = progress;
    let (rows, requested) = (job.counts.rows, job.images_requested);
    format!("{done} of {rows} rows, {failed} failed, {images} of {requested} images{}", progress.caveat())
}

fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}
