//! The three stages of one process, and what they share.
//!
//! The splitter's task sends every row to a bounded queue in memory. Each generator task takes one message at a time and deletes
//! it when the row has its result; otherwise the message becomes visible again. The store reports the key of each result, and
//! the merger is called with these keys. The work stops when all rows are sent and the queue is empty, when the breaker opens,
//! or when the runner says so.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use packshot_aws::{clock::SystemClock, images_api::ImagesApi};
use packshot_local::{DirectoryStore, MemoryQueue, NotifyingStore};
use packshot_pipeline::{
    generate::{generate, worker::Worker},
    merge::{Changed, merge},
    model::{job::Job, keys},
    ports::{NoopNotifier, NoopRecorder, Ports, StoreError},
    settings::GenerateSettings,
    split::{self, SplitError, SplitInput},
};
use tokio::sync::mpsc;

use super::{
    api::{Api, ApiError},
    discard_queue::DiscardQueue,
    error::RunError,
    options::RunOptions,
};

/// A message in flight is never delivered again, because this process is the only consumer.
const VISIBILITY: Duration = Duration::from_secs(365 * 24 * 3600);
/// A message that was received this often will not be handled in this run.
const MAX_RECEIVES: u32 = 100;
/// A row that requests the same as another row checks once a second whether that row's call has ended. It may wait for this
/// many calls of full length.
const CALLS_WAITED_FOR: u32 = 8;
/// Messages in memory: enough that no worker waits for the splitter.
const QUEUE: usize = 1024;
const QUEUE_PER_WORKER: usize = 4;

/// What the tasks of a run share.
pub(super) struct Stages {
    pub(super) ports: Ports,
    pub(super) worker: Worker,
    rows: Arc<MemoryQueue>,
    dead: Arc<MemoryQueue>,
    settings: GenerateSettings,
    /// The splitter has sent every row: an empty queue is the end.
    all_sent: AtomicBool,
    /// Messages that have been handled.
    handled: AtomicU64,
    /// No worker receives another message.
    stopping: AtomicBool,
}

impl Stages {
    /// `changes` receives the key of every result that is written.
    pub(super) fn new(
        options: &RunOptions,
        api: &Api,
        changes: mpsc::UnboundedSender<String>,
    ) -> Result<Self, RunError> {
        let settings = options.generate.clone();
        let clock = Arc::new(SystemClock);
        let images = ImagesApi::new(&api.url, settings.request_timeout, Arc::new(api.key.clone()), clock.clone())
            .map_err(|error| ApiError::Unusable(error.to_string()))?;
        let dead = Arc::new(MemoryQueue::new(VISIBILITY, None, None));
        let checks = u32::try_from(settings.request_timeout.as_secs()).unwrap_or(u32::MAX);
        let receives = MAX_RECEIVES.saturating_add(checks.saturating_mul(CALLS_WAITED_FOR));
        let rows = MemoryQueue::new(VISIBILITY, Some(receives), Some(dead.clone()));
        let rows = Arc::new(rows.bounded(QUEUE.max(QUEUE_PER_WORKER * usize::from(options.concurrency))));
        let worker = Worker::new(&*clock, &settings);
        let directory = DirectoryStore::new(options.out.clone());
        // The lock is held, so half-written files are those of a killed run.
        directory.sweep()?;
        let ports = Ports {
            store: Arc::new(NotifyingStore::new(directory, changes)),
            rows: rows.clone(),
            retry: Arc::new(DiscardQueue),
            images: Arc::new(images),
            clock,
            metrics: Arc::new(NoopRecorder),
            notifier: Arc::new(NoopNotifier),
        };
        Ok(Self {
            ports,
            worker,
            rows,
            dead,
            settings,
            all_sent: AtomicBool::new(false),
            handled: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        })
    }

    /// Sends every row of the job to the queue.
    pub(super) async fn send(self: Arc<Self>, job: Job, source: SplitInput) -> Result<(), SplitError> {
        split::send(&self.ports, &job, &source, Timestamp::MAX).await?;
        self.all_sent.store(true, Ordering::Relaxed);
        self.stop_if_done();
        Ok(())
    }

    /// Handles one message after the other, until the work stops.
    pub(super) async fn generate(self: Arc<Self>) -> Result<(), SplitError> {
        while !self.is_stopping() {
            for delivery in self.rows.receive(1).await {
                let receipt = delivery.receipt.clone();
                let back = generate(&self.ports, &self.settings, &self.worker, vec![delivery], Timestamp::MAX).await;
                if back.is_empty() {
                    self.rows.delete(&receipt);
                    self.handled.fetch_add(1, Ordering::Relaxed);
                }
            }
            self.stop_if_done();
        }
        Ok(())
    }

    /// Merges the parts of these results. Errors are ignored, because [`Self::merge_all`] merges everything at the end.
    pub(super) async fn merge(&self, keys: BTreeSet<String>) {
        let changed = Changed { id: "local".into(), keys: keys.into_iter().collect() };
        let failed = merge(&self.ports, vec![changed]).await;
        tracing::debug!(?failed, "merged");
    }

    /// Merges every part of the job.
    pub(super) async fn merge_all(&self, job: &Job) -> Result<(), StoreError> {
        let first_rows = (0..keys::parts(job.rows)).map(|part| *keys::rows_of_part(part, job.rows).start());
        let keys = std::iter::once(keys::job(&job.job)).chain(first_rows.map(|row| keys::result(&job.job, row, "")));
        let changed = Changed { id: job.job.to_string(), keys: keys.collect() };
        if merge(&self.ports, vec![changed]).await.is_empty() {
            return Ok(());
        }
        Err(StoreError::Unavailable { detail: "the results could not be merged".into() })
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.rows.wake();
    }

    /// Stops when every row has been handled, or when the account cannot be charged.
    pub(super) fn stop_if_done(&self) {
        let done = self.all_sent.load(Ordering::Relaxed) && self.rows.is_empty();
        if done || self.worker.breaker.opened().is_some() {
            self.stop();
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Messages that have been handled.
    pub(super) fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    /// Messages that were received too often.
    pub(super) fn given_up(&self) -> u64 {
        self.dead.len() as u64
    }
}
