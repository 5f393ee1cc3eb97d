//! A run on one machine: the three stages in one process, with a directory as the bucket and a queue in memory.
//!
//! The runner locks the directory and copies the catalog under `incoming/`. One task splits it into messages, `concurrency`
//! tasks generate, and every two seconds the parts with new results are merged. The run ends when every row has its result,
//! when the account cannot be charged, or when the user stops it: then no task receives another message, and the calls in
//! flight, which are charged, are waited for. Nothing is lost with the process: the directory has the ledger and the results,
//! and the next run sends every row without a completed result again.

mod api;
mod discard_queue;
mod error;
mod lock;
mod options;
mod stages;
mod upload;

use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use packshot_pipeline::{
    model::{
        catalog_error::CatalogError,
        job::Job,
        keys::Manifests,
        summary::{Status, Summary},
    },
    split::{self, SplitInput, SplitReport},
    storage::Document,
};
use tokio::{sync::mpsc, task::JoinSet};

pub(crate) use self::options::RunOptions;
use self::{api::Api, error::RunError, stages::Stages};
use crate::{catalog_file::FileError, environment::Environment};

/// How often the progress is reported.
const TICK: Duration = Duration::from_millis(500);
/// Ticks between two merges.
const MERGE_EVERY: u32 = 4;

/// What a run reports while it works.
pub(crate) enum RunEvent<'a> {
    /// The file is a catalog; its rows are sent.
    Admitted(&'a Job),
    /// `done` of `rows` rows have ended.
    Progress { done: u64, rows: u64 },
    /// The user asked to stop; calls in flight are waited for.
    Stopping,
}

/// How a run ended.
pub(crate) enum RunOutcome {
    /// Every row has a result.
    Finished(Box<FinishedRun>),
    /// The user stopped it.
    Interrupted,
    /// The account cannot be charged: `done` of `valid` valid rows have a result.
    AccountSuspended { reason: String, done: u64, valid: u64 },
}

/// A run whose rows all have a result.
pub(crate) struct FinishedRun {
    pub(crate) summary: Summary,
    pub(crate) manifest: PathBuf,
    pub(crate) failed_csv: PathBuf,
    /// The directory of the catalog's images, if it exists.
    pub(crate) images: Option<PathBuf>,
}

/// Why the work ended.
enum Ended {
    Done(Box<Job>),
    Interrupted,
    AccountSuspended(Box<Job>),
}

/// A run that is ready to start.
pub(crate) struct LocalRunner {
    options: RunOptions,
    catalog: File,
    api: Api,
    stages: Arc<Stages>,
    changes: mpsc::UnboundedReceiver<String>,
    /// Held until the run has ended.
    _lock: File,
}

impl LocalRunner {
    /// Opens the catalog, locks the directory and starts the demo API if it is used. Makes no call.
    pub(crate) async fn new(options: RunOptions, environment: Environment) -> Result<Self, RunError> {
        let file_error = |path: &Path, error| FileError::new(path, error);
        let catalog = File::open(&options.catalog).map_err(|error| file_error(&options.catalog, error))?;
        std::fs::create_dir_all(&options.out).map_err(|error| file_error(&options.out, error))?;
        let lock = lock::lock(&options.out)?;
        let api = Api::start(environment).await?;
        let (sender, changes) = mpsc::unbounded_channel();
        let stages = Arc::new(Stages::new(&options, &api, sender)?);
        Ok(Self { options, catalog, api, stages, changes, _lock: lock })
    }

    /// Runs the catalog until every row has its result, or something ends the run before.
    pub(crate) async fn run(self, mut report: impl FnMut(RunEvent<'_>)) -> Result<RunOutcome, RunError> {
        let Self { options, catalog, api, stages, changes, _lock } = self;
        let source = upload::upload(&stages.ports, &options.catalog, catalog, &options.split).await?;
        // The user asks for calls now, whatever an earlier run has found about the account.
        stages.worker.breaker.close(&stages.ports).await?;
        let ended = work(&stages, source, &options, changes, &mut report).await;
        api.shutdown().await;
        match ended? {
            Ended::Interrupted => Ok(RunOutcome::Interrupted),
            Ended::AccountSuspended(job) => {
                let reason = stages.worker.breaker.opened().map(|breaker| breaker.reason).unwrap_or_default();
                Ok(RunOutcome::AccountSuspended { reason, done: stages.handled(), valid: job.valid })
            }
            Ended::Done(job) => Ok(RunOutcome::Finished(Box::new(finished(&stages, &options.out, &job).await?))),
        }
    }
}

/// Splits, generates and merges.
async fn work(
    stages: &Arc<Stages>,
    source: SplitInput,
    options: &RunOptions,
    mut changes: mpsc::UnboundedReceiver<String>,
    report: &mut impl FnMut(RunEvent<'_>),
) -> Result<Ended, RunError> {
    let job = admit(stages, &source, options).await?;
    report(RunEvent::Admitted(&job));
    let mut tasks = JoinSet::new();
    for _ in 0..options.concurrency {
        tasks.spawn(stages.clone().generate());
    }
    let sender = tasks.spawn(stages.clone().send((*job).clone(), source));
    let (mut ticks, mut interrupts) = (0u32, 0u32);
    let mut changed = BTreeSet::new();
    let mut failed = None;
    // One listener for the whole time: a new one would miss a Ctrl-C that was pressed during a merge.
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    while !tasks.is_empty() {
        tokio::select! {
            biased;
            _ = &mut interrupt => {
                interrupt.set(tokio::signal::ctrl_c());
                interrupts += 1;
                if interrupts > 1 {
                    tasks.abort_all();
                } else {
                    stages.stop();
                    report(RunEvent::Stopping);
                }
            }
            Some(ended) = tasks.join_next() => {
                if !matches!(ended, Ok(Ok(()))) {
                    failed = failed.or(ended.ok().and_then(Result::err));
                    stages.stop();
                }
            }
            () = tokio::time::sleep(TICK) => {
                ticks += 1;
                while let Ok(key) = changes.try_recv() {
                    changed.insert(key);
                }
                if ticks.is_multiple_of(MERGE_EVERY) && !changed.is_empty() {
                    stages.merge(std::mem::take(&mut changed)).await;
                }
                report(RunEvent::Progress { done: job.rejected + stages.handled(), rows: job.rows });
                stages.stop_if_done();
            }
        }
        if stages.is_stopping() {
            // It may wait for room in a queue from which no worker receives any more.
            sender.abort();
        }
    }
    if let Some(error) = failed {
        return Err(error.into());
    }
    tokio::select! {
        biased;
        merged = stages.merge_all(&job) => merged?,
        _ = &mut interrupt => interrupts += 1,
    }
    if interrupts > 0 {
        return Ok(Ended::Interrupted);
    }
    if stages.worker.breaker.opened().is_some() {
        return Ok(Ended::AccountSuspended(job));
    }
    Ok(Ended::Done(job))
}

/// Creates the job, or says why the file cannot be a catalog.
async fn admit(stages: &Stages, source: &SplitInput, options: &RunOptions) -> Result<Box<Job>, RunError> {
    let (problem, summary) = match split::admit(&stages.ports, &options.split, source).await? {
        SplitReport::Split(job) => return Ok(job),
        SplitReport::Rejected { job, catalog, problem } => (problem, Manifests::of(&catalog, &job).summary()),
        SplitReport::Nothing(why) => (CatalogError::new("not_a_catalog", why), String::new()),
    };
    Err(RunError::Rejected {
        path: options.out.join(&source.key).display().to_string(),
        problem: Box::new(problem),
        summary: options.out.join(summary).display().to_string(),
    })
}

async fn finished(stages: &Stages, out: &Path, job: &Job) -> Result<FinishedRun, RunError> {
    let files = Manifests::of(&job.catalog, &job.job);
    let summary = Document::summary(&files).read_or_discard(&stages.ports).await?.value;
    let summary = summary.filter(|summary| summary.status != Status::Running);
    let images = out.join("images").join(job.catalog.as_str());
    Ok(FinishedRun {
        summary: summary.ok_or_else(|| RunError::Stuck(stages.given_up()))?,
        manifest: out.join(files.manifest()),
        failed_csv: out.join(files.failed_csv()),
        images: images.is_dir().then_some(images),
    })
}
