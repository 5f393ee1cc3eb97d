//! The summary of a running job that is too large to be followed row by row: it counts the full parts, and reads each part once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this is test code")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use packshot::job_progress::{JobFollower, JobProgress};
use packshot_local::{MemoryQueue, MemoryStore};
use packshot_pipeline::{
    merge::{Changed, merge},
    model::{
        error_class::ErrorClass,
        etag::Etag,
        job::Job,
        keys::{self, Manifests},
        message::RowMessage,
        request::Request,
        result::{Completed, CompletedStatus, Failed, FailedStatus, RowResult},
        summary::{Status, Summary},
    },
    ports::{
        ApiError, Body, Clock, FetchError, Generated, ImageApi, NoopNotifier, NoopRecorder, Object, ObjectMeta, Page,
        Ports, Precondition, Store, StoreError,
    },
    settings::SplitSettings,
    split::{SplitInput, SplitReport, split},
    storage,
};
use packshot_tests::{clock::TestClock, schema::Schema};

const ROWS: u64 = 10_500;
const PARTS: u64 = 11;

/// A store that counts how often a part of a manifest is opened.
struct Counting {
    store: MemoryStore,
    parts_read: AtomicUsize,
}

#[async_trait]
impl Store for Counting {
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        self.store.head(key).await
    }

    async fn open(&self, key: &str, version: Option<&str>) -> Result<Option<Object>, StoreError> {
        self.parts_read.fetch_add(usize::from(key.contains("/parts/")), Ordering::Relaxed);
        self.store.open(key, version).await
    }

    async fn put(&self, key: &str, body: Bytes, precondition: Precondition) -> Result<Etag, StoreError> {
        self.store.put(key, body, precondition).await
    }

    async fn put_stream(&self, key: &str, body: Body<'_>, precondition: Precondition) -> Result<Etag, StoreError> {
        self.store.put_stream(key, body, precondition).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, StoreError> {
        self.store.list(prefix, after).await
    }
}

struct NoApi;

#[async_trait]
impl ImageApi for NoApi {
    async fn generate(&self, _: &Request, _: &str) -> Result<Generated, ApiError> {
        panic!("the merger must not call the API")
    }

    async fn fetch(&self, _: &str, _: usize) -> Result<Bytes, FetchError> {
        panic!("the merger must not call the API")
    }
}

/// A job that has been split, and the counts that its summary must have.
struct Split {
    ports: Ports,
    store: Arc<Counting>,
    job: Job,
    messages: BTreeMap<u64, RowMessage>,
    files: Manifests,
    /// Completed rows, failed rows and images of each full part.
    full: BTreeMap<u64, (u64, u64, u64)>,
}

impl Split {
    async fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TestClock::new(1));
        let store = MemoryStore::new(clock.clone());
        let store = Arc::new(Counting { store, parts_read: AtomicUsize::new(0) });
        let queue = || Arc::new(MemoryQueue::new(Duration::from_secs(60), None, None));
        let rows = queue();
        let ports = Ports {
            store: store.clone(),
            rows: rows.clone(),
            retry: queue(),
            images: Arc::new(NoApi),
            clock: clock.clone(),
            metrics: Arc::new(NoopRecorder),
            notifier: Arc::new(NoopNotifier),
        };
        let row = |n| format!("S-{n:05},Product {n},https://shop.test/{n}.png\n");
        let csv: String = std::iter::once("sku,title,image_url\n".to_owned()).chain((1..=ROWS).map(row)).collect();
        let key = "incoming/large.csv";
        storage::write(&ports, key, csv.into(), Precondition::None).await.unwrap();
        let input = SplitInput {
            bucket: "bucket".into(),
            key: key.into(),
            version_id: None,
            etag: None,
            edition: String::new(),
            round: 0,
        };
        let deadline = clock.now() + Duration::from_secs(900);
        let SplitReport::Split(job) = split(&ports, &SplitSettings::default(), input, deadline).await.unwrap() else {
            panic!("not split")
        };
        assert_eq!((job.rows, keys::parts(job.rows)), (ROWS, PARTS));
        let messages = rows.contents().into_iter().map(|message| RowMessage::decode(&message.body).unwrap());
        let files = Manifests::of(&job.catalog, &job.job);
        let messages = messages.map(|message| (message.row, message)).collect();
        Self { ports, store, job: *job, messages, files, full: BTreeMap::new() }
    }

    fn completed(&self, row: u64) -> RowResult {
        let message = &self.messages[&row];
        let images = if row.is_multiple_of(7) { 3 } else { 4 };
        RowResult::Completed(Box::new(Completed {
            sku: message.sku.clone(),
            status: CompletedStatus::Completed,
            image_count: images,
            image_urls: (1..=images).map(|n| format!("https://images.test/{row}/{n}.png")).collect(),
            request_id: None,
            model_actual: None,
            row,
            job: self.job.job.clone(),
            fingerprint: message.fingerprint.clone(),
            attempts: 2,
            reused: false,
            model: "gpt-image-1".into(),
            latency_ms: 10,
            completed_at: self.ports.clock.now(),
            assets: Vec::new(),
            short: images < 4,
            unknown_outcomes: 0,
            archive_error: None,
            image_url: None,
            prompt: None,
        }))
    }

    fn failed(&self, row: u64) -> RowResult {
        let message = &self.messages[&row];
        RowResult::Failed(Box::new(Failed {
            sku: message.sku.clone(),
            status: FailedStatus::Failed,
            error: "HTTP 503: busy".into(),
            row,
            job: self.job.job.clone(),
            fingerprint: Some(message.fingerprint.clone()),
            attempts: 3,
            reused: false,
            model: None,
            latency_ms: None,
            failed_at: self.ports.clock.now(),
            error_code: "http_503".into(),
            error_class: ErrorClass::Transient,
            http_status: Some(503),
            line: message.line,
            unknown_outcomes: 0,
            round: 0,
            input: message.input.clone(),
        }))
    }

    /// Writes the result and returns its key.
    async fn put(&self, result: &RowResult) -> String {
        let key = keys::result(&self.job.job, result.row(), &self.messages[&result.row()].sku);
        let line = format!("{}\n", serde_json::to_string(result).unwrap());
        storage::write(&self.ports, &key, line.into(), Precondition::None).await.unwrap();
        key
    }

    /// Writes the results of all rows of a part; every tenth row fails. Returns the key of one result.
    async fn fill(&mut self, part: u64) -> String {
        let (mut counts, mut key) = ((0, 0, 0), String::new());
        for row in keys::rows_of_part(part, ROWS) {
            let result = if row.is_multiple_of(10) { self.failed(row) } else { self.completed(row) };
            match &result {
                RowResult::Completed(row) => (counts.0, counts.2) = (counts.0 + 1, counts.2 + row.image_count as u64),
                RowResult::Failed(_) => counts.1 += 1,
            }
            key = self.put(&result).await;
        }
        self.full.insert(part, counts);
        key
    }

    async fn merge(&self, key: &str) {
        let changed = Changed { id: "m".into(), keys: vec![key.to_owned()] };
        assert_eq!(merge(&self.ports, vec![changed]).await, Vec::<String>::new());
    }

    async fn summary(&self) -> (Summary, Etag) {
        let seen = storage::read(&self.ports, &self.files.summary()).await.unwrap().unwrap();
        Schema::Summary.assert(std::str::from_utf8(&seen.value).unwrap());
        (serde_json::from_slice(&seen.value).unwrap(), seen.etag)
    }

    /// Fails unless the summary and the progress of the job count exactly the rows of the full parts.
    #[track_caller]
    fn assert_running(&self, summary: &Summary, progress: JobProgress) {
        let sum = |of: fn(&(u64, u64, u64)) -> u64| self.full.values().map(of).sum::<u64>();
        let (completed, failed, images) = (sum(|part| part.0), sum(|part| part.1), sum(|part| part.2));
        let counts = &summary.counts;
        assert_eq!(summary.status, Status::Running);
        assert_eq!((counts.rows, summary.rows_merged), (ROWS, completed + failed));
        assert_eq!((counts.completed, counts.failed, counts.images), (completed, failed, images));
        assert_eq!(counts.calls, 2 * completed + 3 * failed);
        let errors: Vec<_> = summary.top_errors.iter().map(|error| (error.error_code.as_str(), error.count)).collect();
        assert_eq!(errors, if failed > 0 { vec![("http_503", failed)] } else { vec![] });
        assert_eq!((progress.done, progress.failed, progress.images), (completed + failed, failed, images));
        assert!(progress.by_part);
    }

    async fn assert_honest(&self) -> Etag {
        let (summary, etag) = self.summary().await;
        let progress = JobFollower::default().poll(&self.ports, &self.job.job, ROWS, Some(&summary)).await.unwrap();
        self.assert_running(&summary, progress);
        etag
    }

    fn parts_read(&self) -> usize {
        self.store.parts_read.swap(0, Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn a_summary_counts_the_parts_that_are_full_and_reads_each_once() {
    let mut split = Split::new().await;
    split.put(&split.completed(1)).await;
    split.merge(&keys::job(&split.job.job)).await;
    split.assert_honest().await;
    // Out of order; the short last part is among the first.
    for part in [7, 2, 10, 0, 9, 4, 1, 8, 3] {
        let key = split.fill(part).await;
        split.merge(&key).await;
        let etag = split.assert_honest().await;
        assert_eq!(split.parts_read(), 1, "part {part}");
        // A repeated event reads and writes nothing.
        split.merge(&key).await;
        assert_eq!((split.assert_honest().await, split.parts_read()), (etag, 0));
    }
    let running_tally_key = keys::running_tally(&split.job.job);
    let old = storage::read(&split.ports, &running_tally_key).await.unwrap();
    // Two mergers at once, each for another part.
    let (five, six) = (split.fill(5).await, split.put(&split.completed(6_001)).await);
    tokio::join!(split.merge(&five), split.merge(&six));
    split.assert_honest().await;
    split.parts_read();

    // A failed row of a merged part is completed, so the stored counts are out of date.
    let healed = split.put(&split.completed(2_010)).await;
    let counts = split.full.get_mut(&2).unwrap();
    *counts = (counts.0 + 1, counts.1 - 1, counts.2 + 4);
    split.merge(&healed).await;
    let etag = split.assert_honest().await;
    assert_eq!(split.parts_read(), 10, "all parts are read again");

    // The stored counts are lost, or are those of a slower merger. They only save work.
    split.store.store.remove(&running_tally_key);
    split.merge(&five).await;
    assert_eq!((split.assert_honest().await, split.parts_read()), (etag.clone(), 10));
    for old in [old.unwrap().value, "half".into()] {
        storage::write(&split.ports, &running_tally_key, old, Precondition::None).await.unwrap();
        split.merge(&five).await;
        assert_eq!(split.assert_honest().await, etag);
    }

    let last = split.fill(6).await;
    split.merge(&last).await;
    let (summary, _) = split.summary().await;
    assert_eq!((summary.status, summary.rows_merged), (Status::CompleteWithFailures, 0));
    assert_eq!((summary.counts.completed, summary.counts.failed), (ROWS - ROWS / 10 + 1, ROWS / 10 - 1));
}
