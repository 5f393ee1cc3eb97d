//! `packshot status`: how far the jobs of a bucket are.

use std::collections::BTreeMap;

use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::HumanDuration;
use packshot_aws::redrive::{find_queues, waiting};
use packshot_pipeline::{
    generate::breaker::BreakerFile,
    model::{
        etag::Etag,
        job::Job,
        json,
        keys::{self, JobId, ResultsKey},
        result::RowResult,
        summary::{Status, Summary, Tally},
    },
    ports::{Ports, StoreError},
    storage,
};
use serde::Serialize;

use crate::place::{Place, PlaceArgs};

/// Objects read at once.
const READS_AT_ONCE: usize = 32;
/// A job with more rows is followed by its summary, which counts whole parts: reading every result costs a request each.
const COUNTED_BY_ROW: u64 = 10_000;

/// Arguments of `packshot status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  packshot status --bucket BUCKET                      every job, the newest first
  packshot status 7b8bea91220e78be --bucket BUCKET     one job; the beginning of its id is enough
  packshot status --out out                            the jobs of local runs
  packshot status --bucket BUCKET --json")]
pub struct StatusArgs {
    /// Only this job, in detail.
    pub job: Option<String>,
    /// Where to look.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Print one JSON object: `jobs` are summaries (schemas/summary.schema.json).
    #[arg(long)]
    pub json: bool,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The bucket does not do as asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No job has this id.
    #[error(
        "no job in {place} has an id that begins with `{job}`; `packshot status` without a job lists them. A catalog that was \
         dropped a moment ago is a job once it has been read: try again"
    )]
    NoSuchJob {
        /// What was typed.
        job: String,
        /// Where it was looked for.
        place: String,
    },
    /// More than one has.
    #[error("more than one job has an id that begins with `{0}`; type more of it")]
    Ambiguous(String),
    /// A summary that is none.
    #[error("{key} cannot be read: {error}")]
    Unreadable {
        /// Its key.
        key: String,
        /// Why.
        error: serde_json::Error,
    },
}

/// What `--json` prints.
#[derive(Serialize)]
struct Shown {
    v: u32,
    jobs: Vec<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<Progress>,
    /// Open, or absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    breaker: Option<BreakerFile>,
    /// About how many rows wait in the retry queue; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_queue: Option<usize>,
}

/// Prints the jobs, or one of them.
#[expect(clippy::print_stdout, reason = "the status is what the command is for")]
pub async fn run(args: StatusArgs) -> Result<(), StatusError> {
    let place = args.place.open().await;
    let mut jobs = summaries(&place.ports, args.job.as_deref()).await?;
    // Between the splitter's last look and the merger's first.
    if jobs.is_empty()
        && let Some(id) = args.job.as_deref().and_then(JobId::parse)
        && let Some(job) = read_job(&place.ports, &id).await?
    {
        jobs.push(Tally::default().so_far(&job));
    }
    jobs.sort_by(|a, b| b.order().cmp(&a.order()));
    let mut progress = None;
    if let Some(job) = &args.job {
        match jobs.as_slice() {
            [] => return Err(StatusError::NoSuchJob { job: job.clone(), place: place.name }),
            [one] if one.status == Status::Running => {
                progress = Some(Follower::default().look(&place.ports, &one.job, one.counts.rows, Some(one)).await?);
            }
            [_] => {}
            _ => return Err(StatusError::Ambiguous(job.clone())),
        }
    }
    let breaker = open_breaker(&place.ports).await?;
    let shown = Shown { v: 1, jobs, progress, breaker, retry_queue: retry_queue(&place).await };
    if args.json {
        print!("{}", String::from_utf8_lossy(&json::to_pretty(&shown)));
        return Ok(());
    }
    match (&args.job, shown.jobs.as_slice()) {
        (Some(_), [job]) => print!("{}", detail(job, shown.progress)),
        (_, []) => println!("No job yet in {}.", place.name),
        (_, jobs) => print!("{}", table(jobs)),
    }
    if let Some(open) = &shown.breaker {
        println!(
            "No call is made since {}: the API account cannot be charged ({}). The next try is at {}.",
            short(open.since),
            open.reason.lines().next().unwrap_or_default(),
            short(open.next_probe)
        );
    }
    if let Some(waiting) = shown.retry_queue.filter(|&waiting| waiting > 0) {
        println!(
            "{waiting} messages wait in the retry queue; `packshot redrive --bucket {}` runs them again.",
            place.name
        );
    }
    Ok(())
}

/// The summaries of all jobs, or of those whose id begins so.
async fn summaries(ports: &Ports, job: Option<&str>) -> Result<Vec<Summary>, StatusError> {
    let listed = storage::list(ports, "manifests/").await?;
    let wanted = listed.into_iter().filter_map(|object| {
        let id = object.key.strip_suffix("/summary.json")?.rsplit('/').next()?;
        JobId::parse(id)?;
        job.is_none_or(|job| id.starts_with(job)).then_some(object.key)
    });
    let read = |key: String| async move {
        let Some(seen) = storage::read(ports, &key).await? else { return Ok(None) };
        serde_json::from_slice::<Summary>(&seen.bytes).map(Some).map_err(|error| StatusError::Unreadable { key, error })
    };
    let reads: Vec<_> = wanted.map(read).collect();
    stream::iter(reads)
        .buffer_unordered(READS_AT_ONCE)
        .boxed()
        .try_filter_map(|found| async { Ok(found) })
        .try_collect()
        .await
}

/// The breaker, if no calls are made.
pub async fn open_breaker(ports: &Ports) -> Result<Option<BreakerFile>, StoreError> {
    let seen = storage::read(ports, keys::BREAKER).await?;
    Ok(seen.and_then(|seen| serde_json::from_slice::<BreakerFile>(&seen.bytes).ok()).filter(|file| file.open))
}

/// A deployment whose queues cannot be found, or a person who may not look, still has a status.
async fn retry_queue(place: &Place) -> Option<usize> {
    let sqs = place.aws.as_ref()?.sqs();
    let queues = find_queues(sqs, &place.name).await.ok()?;
    waiting(sqs, &queues.retry).await.ok()
}

/// How far a running job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Rows that have ended.
    pub done: u64,
    /// Of them without pictures.
    pub failed: u64,
    /// Pictures made.
    pub images: u64,
    /// Only whole parts are counted, because the job is large.
    pub by_part: bool,
}

impl Progress {
    /// For people: without it, a bar that stands still looks like a job that does.
    #[must_use]
    pub fn caveat(self) -> String {
        if self.by_part { format!(" (in whole parts of {} rows)", keys::ROWS_PER_PART) } else { String::new() }
    }
}

/// Follows a job: reads each result once, however often it looks.
#[derive(Debug, Default)]
pub struct Follower {
    seen: BTreeMap<u64, (Etag, Option<u64>)>,
}

impl Follower {
    /// Looks at what has changed since the last time.
    pub async fn look(
        &mut self,
        ports: &Ports,
        job: &JobId,
        rows: u64,
        summary: Option<&Summary>,
    ) -> Result<Progress, StoreError> {
        if rows > COUNTED_BY_ROW {
            let done = summary.map_or(0, |summary| summary.rows_merged);
            let (failed, images) = summary.map_or((0, 0), |summary| (summary.counts.failed, summary.counts.images));
            return Ok(Progress { done, failed, images, by_part: true });
        }
        for part in 0..keys::parts(rows) {
            if keys::rows_of_part(part, rows).all(|row| self.seen.contains_key(&row)) {
                continue;
            }
            let listed = storage::list(ports, &keys::part_results(job, part)).await?;
            let reads: Vec<_> = listed
                .into_iter()
                .filter_map(|object| match ResultsKey::parse(&object.key)? {
                    ResultsKey::Row { row, .. } => Some((row, object)),
                    ResultsKey::Job(_) => None,
                })
                .filter(|(row, object)| self.seen.get(row).is_none_or(|(etag, _)| *etag != object.etag))
                .map(|(row, object)| async move {
                    let seen = storage::read(ports, &object.key).await?;
                    Ok::<_, StoreError>((row, object.etag, seen.and_then(|seen| images(&seen.bytes))))
                })
                .collect();
            let new: Vec<_> = stream::iter(reads).buffer_unordered(READS_AT_ONCE).boxed().try_collect().await?;
            self.seen.extend(new.into_iter().map(|(row, etag, images)| (row, (etag, images))));
        }
        let completed = || self.seen.values().filter_map(|(_, images)| *images);
        let done = self.seen.len() as u64;
        Ok(Progress { done, failed: done - completed().count() as u64, images: completed().sum(), by_part: false })
    }
}

/// The pictures of a completed row; `None` for a failed one.
fn images(line: &[u8]) -> Option<u64> {
    match serde_json::from_slice(line) {
        Ok(RowResult::Completed(row)) => Some(row.image_count as u64),
        _ => None,
    }
}

/// The job itself, once the splitter has read the file.
pub async fn read_job(ports: &Ports, job: &JobId) -> Result<Option<Job>, StoreError> {
    let seen = storage::read(ports, &keys::job(job)).await?;
    Ok(seen.and_then(|seen| serde_json::from_slice(&seen.bytes).ok()))
}

fn table(jobs: &[Summary]) -> String {
    let heads = ["DROPPED AT", "CATALOG", "JOB", "STATUS", "ROWS", "COMPLETED", "FAILED"].map(str::to_owned);
    let rows = jobs.iter().map(|job| {
        let (completed, failed) = match job.status {
            // Rows of parts that are not full are not counted, and a nought would say that they are.
            Status::Running if job.rows_merged == 0 => ("-".to_owned(), "-".to_owned()),
            _ => (job.counts.completed.to_string(), job.counts.failed.to_string()),
        };
        let dropped = short(job.source.last_modified);
        let (catalog, id) = (job.catalog.to_string(), job.job.to_string());
        [dropped, catalog, id, word(job.status), job.counts.rows.to_string(), completed, failed]
    });
    let lines: Vec<_> = std::iter::once(heads).chain(rows).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            // Numbers to the right.
            let padded = if column < 4 { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
            text.push_str(if column == 0 { "" } else { "  " });
            text.push_str(&padded);
        }
        text.push('\n');
    }
    text
}

fn detail(job: &Summary, progress: Option<Progress>) -> String {
    let counts = &job.counts;
    let mut text = format!("{}, job {}: {}\n", job.catalog, job.job, word(job.status));
    let mut line = |name: &str, what: String| text.push_str(&format!("  {name:<10} {what}\n"));
    line("dropped", format!("{} as {}, {} bytes", short(job.source.last_modified), job.source.key, job.source.bytes));
    if let Some(problem) = &job.rejected {
        line("rejected", format!("{problem}. No call was made"));
    }
    match progress {
        Some(progress) => line("so far", so_far(progress, job)),
        None if job.status == Status::Rejected => {}
        None => {
            let rejected = counts.rows_rejected;
            let (rows, completed, failed) = (counts.rows, counts.completed, counts.failed);
            line("rows", format!("{rows}: {completed} completed, {failed} failed, {rejected} of these without a call"));
            line("pictures", format!("{} of {} asked for", counts.images, job.images_requested));
            line(
                "calls",
                format!(
                    "{}, of them {} retries and {} with unknown outcome; {} rows share another's",
                    counts.calls, counts.retries, counts.unknown_outcomes, counts.reused
                ),
            );
        }
    }
    if let Some(finished) = job.finished_at {
        let took = std::time::Duration::try_from(finished.duration_since(job.created_at)).unwrap_or_default();
        line("finished", format!("{}, after {}", short(finished), HumanDuration(took)));
    }
    if let Some(manifest) = &job.manifest {
        line("manifest", manifest.key.clone());
    }
    for error in &job.top_errors {
        let example = error.example.lines().next().unwrap_or_default();
        line("failed", format!("{} × {}, for example {example}", error.count, error.error_code));
    }
    text
}

fn so_far(progress: Progress, job: &Summary) -> String {
    let Progress { done, failed, images, .. } = progress;
    let (rows, wanted) = (job.counts.rows, job.images_requested);
    format!("{done} of {rows} rows, {failed} failed, {images} of {wanted} pictures{}", progress.caveat())
}

/// As it stands in the JSON.
fn word(status: Status) -> String {
    json::to_string(&status).trim_matches('"').to_owned()
}

fn short(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}
