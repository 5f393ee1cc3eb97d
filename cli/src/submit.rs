//! `packshot submit`: a catalog into the bucket of a deployment, and the manifest back.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _};
use indicatif::HumanDuration;
use packshot_aws::clients::Aws;
use packshot_pipeline::{
    check::{Assumed, Found},
    model::{
        catalog_error::NotACatalog,
        keys::{Catalog, JobId, Manifests},
        summary::{Status, Summary},
    },
    ports::{Ports, Precondition, StoreError},
    storage,
};
use tokio::time::Instant;

use crate::{
    check::{CheckError, incoming_key, inspect, rejects},
    command::EXIT_DONE,
    overrides::Overrides,
    place::Place,
    progress::Progress,
    run::{say_done, say_top_errors},
    status::{self, Follower, open_breaker, read_job},
};

/// Between two looks, in the first minute and later.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LATER_LOOK_EVERY: Duration = Duration::from_secs(5);
/// A deployment that is well has read a catalog by then.
const WORRY_AFTER: Duration = Duration::from_secs(60);

/// Arguments of `packshot submit`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  packshot submit shoes.csv --bucket BUCKET            checks, drops it as incoming/shoes.csv, and ends
  packshot submit shoes.csv --bucket BUCKET --wait     … and fetches the manifest as shoes-manifest.jsonl

The options for rows that do not say (--n, --model …) are the deployment's own; those given here only tell the check before the
upload what they are. Region and account are those of the AWS configuration (AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL).

Exit status: 0 dropped, or with --wait all rows completed; 1 the file cannot be a catalog or the bucket does not do as asked; 3
with --wait, some rows failed.")]
pub struct SubmitArgs {
    /// The catalog.
    pub catalog: PathBuf,
    /// The bucket of the deployment.
    #[arg(long)]
    pub bucket: String,
    /// Wait for the manifest and fetch it.
    #[arg(long)]
    pub wait: bool,
    /// Where the manifest is written (default NAME-manifest.jsonl).
    #[arg(long, value_name = "FILE", requires = "wait")]
    pub output: Option<PathBuf>,
    /// What the deployment asks for.
    #[command(flatten)]
    pub overrides: Overrides,
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The file cannot be read.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// It is no catalog; nothing was uploaded.
    #[error("{path} cannot be a catalog and was not uploaded: {problem}")]
    NotACatalog {
        /// The file.
        path: String,
        /// Why.
        problem: NotACatalog,
    },
    /// The deployment, whose settings are its own, says that it is no catalog.
    #[error("{path} was uploaded and is rejected there: {problem}\nNo call was made. See {summary}")]
    Rejected {
        /// The file.
        path: String,
        /// Why.
        problem: NotACatalog,
        /// Where the summary stands.
        summary: String,
    },
    /// The manifest could not be written; nothing was uploaded.
    #[error("{path} cannot be written: {error}; nothing was uploaded")]
    Directory {
        /// The file.
        path: String,
        /// What the system says of its directory.
        error: std::io::Error,
    },
    /// The manifest cannot be written here.
    #[error("{path}: {error}; the manifest stays at {manifest}")]
    Output {
        /// The file.
        path: String,
        /// What the system says.
        error: std::io::Error,
        /// Its key in the bucket.
        manifest: String,
    },
    /// The bucket does not do as asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Checks, uploads, and waits if asked to; answers with the exit status.
#[expect(clippy::print_stdout, reason = "where the catalog went is what the command is for")]
pub async fn run(args: SubmitArgs) -> Result<u8, SubmitError> {
    let path = args.catalog.display().to_string();
    // Nobody asked for an estimate, so what it assumes is not shown.
    let assumed = Assumed { price_per_image: 0.0, concurrency: 1, seconds_per_call: 0 };
    let check = inspect(&args.catalog, &args.overrides.settings(false), None, assumed).await?;
    let (Some(found), Some(catalog)) = (&check.found, Catalog::of(&incoming_key(&args.catalog))) else {
        let problem = check.problem.unwrap_or_else(|| NotACatalog::new("not_a_catalog", "its name is none"));
        return Err(SubmitError::NotACatalog { path, problem });
    };
    say_found(found);
    let output = args.output.clone().unwrap_or_else(|| default_output(&catalog));
    if args.wait {
        // Better now than after an hour of waiting.
        let directory = output.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(error) = directory.and_then(|directory| std::fs::read_dir(directory).err()) {
            return Err(SubmitError::Directory { path: output.display().to_string(), error });
        }
    }
    let aws = Aws::load().await;
    let key = incoming_key(&args.catalog);
    let written = {
        let file = tokio::fs::File::open(&args.catalog).await;
        let file = file.map_err(|error| CheckError::File { path: path.clone(), error })?;
        let body = tokio_util::io::ReaderStream::with_capacity(file, 256 * 1024)
            .map_err(|error| StoreError::Refused { detail: error.to_string() });
        aws.store(&args.bucket).upload(&key, body.boxed(), &Precondition::None).await?
    };
    let version = written.version_id.unwrap_or(written.etag.0);
    let job = JobId::of(&args.bucket, &key, &version, "");
    eprintln!("Dropped as s3://{}/{key}; job {job}", args.bucket);
    if !args.wait {
        println!("{job}");
        eprintln!("How far it is: packshot status {job} --bucket {}", args.bucket);
        return Ok(EXIT_DONE);
    }
    let place = Place::on_aws(aws, &args.bucket);
    let files = Manifests::of(&catalog, &job);
    let summary = wait(&place.ports, &job, &files).await?;
    if let Some(problem) = summary.rejected {
        let summary = format!("s3://{}/{}", args.bucket, files.summary());
        return Err(SubmitError::Rejected { path, problem, summary });
    }
    fetch(&place.ports, &files.manifest(), &output).await?;
    say_top_errors(&summary);
    if summary.counts.failed > 0 {
        eprintln!(
            "The failed rows stand in s3://{0}/{1}: mend them and drop the file. `packshot redrive --bucket {0}` tries again \
             those that can heal by themselves.",
            args.bucket,
            files.failed_csv()
        );
    }
    Ok(say_done(&summary, &output))
}

fn say_found(found: &Found) {
    eprintln!("{} rows, {} pictures to make", found.rows, found.images);
    eprint!("{}", rejects(found, 1));
}

/// Shows how far the job is until its manifest is there, or it is rejected.
async fn wait(ports: &Ports, job: &JobId, files: &Manifests) -> Result<Summary, SubmitError> {
    let began = Instant::now();
    let mut progress = Progress::new();
    progress.say("Waiting for the manifest. Ctrl-C ends the waiting, not the job.");
    let (mut follower, mut worried, mut paused, mut rows) = (Follower::default(), false, false, None);
    // Where parts are counted, the rows come in leaps; in between, the rate is what it was at the last one.
    let mut moved = (0, Duration::ZERO);
    loop {
        let seen = storage::read(ports, &files.summary()).await?;
        let summary: Option<Summary> = seen.and_then(|seen| serde_json::from_slice(&seen.bytes).ok());
        if let Some(summary) = summary.as_ref().filter(|summary| summary.status != Status::Running) {
            progress.finish();
            return Ok(summary.clone());
        }
        if rows.is_none() {
            rows = read_job(ports, job).await?.map(|job| job.rows);
        }
        match rows {
            Some(rows) => {
                let now = follower.look(ports, job, rows, summary.as_ref()).await?;
                if !now.by_part || now.done != moved.0 {
                    moved = (now.done, began.elapsed());
                }
                progress.update(now.done, rows, &note(now, rows, moved.1));
            }
            None if !worried && began.elapsed() > WORRY_AFTER => {
                worried = true;
                progress.say("The catalog has not been read yet. Is packshot deployed on this bucket? Still waiting.");
            }
            None => {}
        }
        let open = open_breaker(ports).await?;
        if open.is_some() != paused {
            paused = open.is_some();
            progress.say(&match open {
                Some(open) => format!(
                    "No calls: the API account cannot be charged ({}). They go on by themselves once it is topped up.",
                    open.reason.lines().next().unwrap_or_default()
                ),
                None => "The account is well again; the calls go on.".into(),
            });
        }
        let pause = if began.elapsed() < WORRY_AFTER { LOOK_EVERY } else { LATER_LOOK_EVERY };
        tokio::time::sleep(pause).await;
    }
}

/// What the bar does not show: failures, pictures, rate and, from it, the time left.
fn note(now: status::Progress, rows: u64, elapsed: Duration) -> String {
    let mut note = format!("{} failed, {} pictures", now.failed, now.images);
    let per_minute = now.done as f64 * 60.0 / elapsed.as_secs_f64().max(1.0);
    if now.done > 0 {
        note.push_str(&format!(", {per_minute:.0} rows a minute"));
        let left = (rows - now.done.min(rows)) as f64 / per_minute * 60.0;
        note.push_str(&format!(", about {} left", HumanDuration(Duration::from_secs_f64(left))));
    }
    note + &now.caveat()
}

fn default_output(catalog: &Catalog) -> PathBuf {
    let name = catalog.as_str().rsplit('/').next().unwrap_or_default();
    PathBuf::from(format!("{name}-manifest.jsonl"))
}

/// Fetches the manifest so that nobody sees half of it.
async fn fetch(ports: &Ports, key: &str, output: &Path) -> Result<(), SubmitError> {
    let local = |error| SubmitError::Output { path: output.display().to_string(), error, manifest: key.to_owned() };
    let opened = storage::repeat_read(ports, || ports.store.open(key, None)).await?;
    let mut object = opened.ok_or_else(|| StoreError::Unavailable { detail: format!("{key} is not there") })?;
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = output.with_file_name(name);
    let mut file = std::fs::File::create(&part).map_err(local)?;
    while let Some(chunk) = object.body.try_next().await? {
        file.write_all(&chunk).map_err(local)?;
    }
    std::fs::rename(&part, output).map_err(local)
}
