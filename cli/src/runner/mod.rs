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
    split::{self, SplitError, SplitInput, SplitReport},
    storage::Document,
};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};

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
    /// Keeps other runs out of the directory until this value is dropped: what the run wrote can still be copied.
    _lock: File,
}

/// Why the work ended.
enum WorkEnd {
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
    /// Held until the run has ended and its files have been copied.
    lock: File,
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
        Ok(Self { options, catalog, api, stages, changes, lock })
    }

    /// Runs the catalog until every row has its result, or something ends the run before.
    pub(crate) async fn run(self, mut report: impl FnMut(RunEvent<'_>)) -> Result<RunOutcome, RunError> {
        let Self { options, catalog, api, stages, changes, lock } = self;
        let source = upload::upload(&stages.ports, &options.catalog, catalog, &options.split).await?;
        // The user asks for calls now, whatever an earlier run has found about the account.
        stages.worker.breaker.close(&stages.ports).await?;
        let ended = work(&stages, source, &options, changes, &mut report).await;
        api.shutdown().await;
        match ended? {
            WorkEnd::Interrupted => Ok(RunOutcome::Interrupted),
            WorkEnd::AccountSuspended(job) => {
                let reason = stages.worker.breaker.opened().map(|breaker| breaker.reason).unwrap_or_default();
                Ok(RunOutcome::AccountSuspended { reason, done: stages.handled(), valid: job.valid })
            }
            WorkEnd::Done(job) => {
                Ok(RunOutcome::Finished(Box::new(finished(&stages, &options.out, &job, lock).await?)))
            }
        }
    }
}

/// Splits, generates and merges.
async fn work(
    stages: &Arc<Stages>,
    source: SplitInput,
    options: &RunOptions,
    changes: mpsc::UnboundedReceiver<String>,
    report: &mut impl FnMut(RunEvent<'_>),
) -> Result<WorkEnd, RunError> {
    let job = admit(stages, &source, options).await?;
    report(RunEvent::Admitted(&job));
    let mut tasks = JoinSet::new();
    for _ in 0..options.concurrency {
        tasks.spawn(stages.clone().generate());
    }
    let sender = tasks.spawn(stages.clone().send((*job).clone(), source));
    let mut run = ActiveRun::new(stages, &job, tasks, changes);
    // One listener for the whole time: a new one would miss a Ctrl-C that was pressed during a merge.
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    while !run.tasks.is_empty() {
        tokio::select! {
            biased;
            _ = &mut interrupt => {
                interrupt.set(tokio::signal::ctrl_c());
                run.on_interrupt(report);
            }
            Some(ended) = run.tasks.join_next() => run.on_task_end(ended),
            () = tokio::time::sleep(TICK) => run.on_tick(report).await,
        }
        if stages.is_stopping() {
            // It may wait for room in a queue from which no worker receives any more.
            sender.abort();
        }
    }
    let ActiveRun { failed, mut interrupts, .. } = run;
    if let Some(error) = failed {
        return Err(error.into());
    }
    tokio::select! {
        biased;
        merged = stages.merge_all(&job) => merged?,
        _ = &mut interrupt => interrupts += 1,
    }
    if interrupts > 0 {
        return Ok(WorkEnd::Interrupted);
    }
    if stages.worker.breaker.opened().is_some() {
        return Ok(WorkEnd::AccountSuspended(job));
    }
    Ok(WorkEnd::Done(job))
}

/// The tasks of a run, and what has happened since they started.
struct ActiveRun<'a> {
    stages: &'a Stages,
    job: &'a Job,
    tasks: JoinSet<Result<(), SplitError>>,
    /// The keys of new results.
    changes: mpsc::UnboundedReceiver<String>,
    /// The keys of results that have not been merged.
    changed: BTreeSet<String>,
    ticks: u32,
    interrupts: u32,
    /// The first error of a task.
    failed: Option<SplitError>,
}

impl<'a> ActiveRun<'a> {
    fn new(
        stages: &'a Stages,
        job: &'a Job,
        tasks: JoinSet<Result<(), SplitError>>,
        changes: mpsc::UnboundedReceiver<String>,
    ) -> Self {
        Self { stages, job, tasks, changes, changed: BTreeSet::new(), ticks: 0, interrupts: 0, failed: None }
    }

    /// The first Ctrl-C lets the calls in flight end; the second one cuts them off.
    fn on_interrupt(&mut self, report: &mut impl FnMut(RunEvent<'_>)) {
        self.interrupts += 1;
        if self.interrupts > 1 {
            self.tasks.abort_all();
        } else {
            self.stages.stop();
            report(RunEvent::Stopping);
        }
    }

    /// Stops the other tasks if this one failed.
    fn on_task_end(&mut self, ended: Result<Result<(), SplitError>, JoinError>) {
        if !matches!(ended, Ok(Ok(()))) {
            self.failed = self.failed.take().or(ended.ok().and_then(Result::err));
            self.stages.stop();
        }
    }

    /// Reports the progress and, every few ticks, merges the parts with new results.
    async fn on_tick(&mut self, report: &mut impl FnMut(RunEvent<'_>)) {
        self.ticks += 1;
        while let Ok(key) = self.changes.try_recv() {
            self.changed.insert(key);
        }
        if self.ticks.is_multiple_of(MERGE_EVERY) && !self.changed.is_empty() {
            self.stages.merge(std::mem::take(&mut self.changed)).await;
        }
        report(RunEvent::Progress { done: self.job.rejected + self.stages.handled(), rows: self.job.rows });
        self.stages.stop_if_done();
    }
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

async fn finished(stages: &Stages, out: &Path, job: &Job, lock: File) -> Result<FinishedRun, RunError> {
    let files = Manifests::of(&job.catalog, &job.job);
    let summary = Document::summary(&files).read_or_discard(&stages.ports).await?.value;
    let summary = summary.filter(|summary| summary.status != Status::Running);
    let images = out.join("images").join(job.catalog.as_str());
    Ok(FinishedRun {
        summary: summary.ok_or_else(|| RunError::Stuck(stages.given_up()))?,
        manifest: out.join(files.manifest()),
        failed_csv: out.join(files.failed_csv()),
        images: images.is_dir().then_some(images),
        _lock: lock,
    })
}
