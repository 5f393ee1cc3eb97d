//! All stages with ports in memory, and what the tests of this directory do with them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt as _;
use packshot_local::{MemoryQueue, MemoryStore, NotifyingStore};
use packshot_pipeline::{
    generate::{generate, worker::Worker},
    merge::{Changed, merge},
    model::{
        event::MetricEvent, job::Job, keys::Manifests, notification::Notification, request::Request, summary::Status,
    },
    ports::{
        ApiError, Clock as _, Delivery, FetchError, Generated, GeneratedImage, ImageApi, MetricsRecorder, Notifier,
        NotifyError, Ports, Precondition, Store as _,
    },
    settings::{GenerateSettings, SplitSettings},
    split::{SplitError, SplitInput, SplitReport, split},
};
use packshot_tests::clock::TestClock;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const KEY: &str = "incoming/spring/shoes.csv";

/// An API that always succeeds, after a random delay.
pub(super) struct SucceedingApi {
    clock: Arc<TestClock>,
    pub(super) calls: AtomicUsize,
}

#[async_trait]
impl ImageApi for SucceedingApi {
    async fn generate(&self, request: &Request, idempotency_key: &str) -> Result<Generated, ApiError> {
        tokio::time::sleep(Duration::from_millis(self.clock.random() % 5_000)).await;
        self.calls.fetch_add(1, Ordering::Relaxed);
        let image = |number| GeneratedImage::Url(format!("https://images.example.com/{idempotency_key}/{number}.png"));
        Ok(Generated {
            request_id: Some(idempotency_key.to_owned()),
            model_actual: Some(request.model.clone()),
            images: (0..request.n).map(image).collect(),
        })
    }

    async fn fetch(&self, url: &str, _max_bytes: usize) -> Result<Bytes, FetchError> {
        Err(FetchError::Refused { detail: format!("unexpected fetch of {url}") })
    }
}

/// All stages with ports in memory. Nothing runs by itself: a test calls each step.
pub(super) struct Harness {
    pub(super) ports: Ports,
    settings: GenerateSettings,
    worker: Worker,
    pub(super) rows: Arc<MemoryQueue>,
    pub(super) api: Arc<SucceedingApi>,
    pub(super) clock: Arc<TestClock>,
    events: UnboundedReceiver<String>,
    pub(super) recorder: Arc<Recorder>,
}

impl Harness {
    pub(super) async fn with(csv: &[u8], seed: u64) -> Self {
        let clock = Arc::new(TestClock::new(seed));
        let (sender, mut events) = unbounded_channel();
        let store = Arc::new(NotifyingStore::new(MemoryStore::new(clock.clone()), sender));
        store.put(KEY, Bytes::copy_from_slice(csv), Precondition::Absent).await.unwrap();
        assert_eq!(events.try_recv().unwrap(), KEY, "the event of the upload");
        let rows = Arc::new(MemoryQueue::new(Duration::from_secs(3_600), None, None));
        let retry = Arc::new(MemoryQueue::new(Duration::from_secs(3_600), None, None));
        let api = Arc::new(SucceedingApi { clock: clock.clone(), calls: AtomicUsize::new(0) });
        let settings = GenerateSettings { archive: false, ..GenerateSettings::default() };
        let worker = Worker::new(&*clock, &settings);
        let recorder = Arc::new(Recorder::default());
        let ports = Ports {
            store,
            rows: rows.clone(),
            retry,
            images: api.clone(),
            clock: clock.clone(),
            metrics: recorder.clone(),
            notifier: recorder.clone(),
        };
        Self { ports, settings, worker, rows, api, clock, events, recorder }
    }

    pub(super) async fn split(&self) -> Job {
        match self.try_split().await.unwrap() {
            SplitReport::Split(job) => *job,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn try_split(&self) -> Result<SplitReport, SplitError> {
        let source = SplitInput {
            bucket: "memory".into(),
            key: KEY.into(),
            version_id: None,
            etag: None,
            edition: String::new(),
            round: 0,
        };
        split(&self.ports, &SplitSettings::default(), source, self.deadline()).await
    }

    pub(super) fn deadline(&self) -> jiff::Timestamp {
        self.clock.now() + Duration::from_secs(900)
    }

    pub(super) async fn generate(&self, batch: Vec<Delivery>) {
        let receipts: BTreeMap<String, String> = batch.iter().map(|d| (d.id.clone(), d.receipt.clone())).collect();
        let back = generate(&self.ports, &self.settings, &self.worker, batch, self.deadline()).await;
        for (_, receipt) in receipts.iter().filter(|(id, _)| !back.contains(id)) {
            self.rows.delete(receipt);
        }
    }

    pub(super) async fn generate_all(&self) {
        while !self.rows.is_empty() {
            self.generate(self.rows.receive(10).await).await;
        }
    }

    /// The events since the last call.
    pub(super) fn changed(&mut self) -> Vec<Changed> {
        let keys = std::iter::from_fn(|| self.events.try_recv().ok());
        keys.enumerate().map(|(id, key)| Changed { id: id.to_string(), keys: vec![key] }).collect()
    }

    pub(super) async fn merge(&self, batch: Vec<Changed>) {
        assert_eq!(merge(&self.ports, batch).await, [""; 0]);
    }

    pub(super) async fn read(&self, key: &str) -> String {
        let object = self.ports.store.open(key, None).await.unwrap().unwrap_or_else(|| panic!("no {key}"));
        let chunks: Vec<Bytes> = object.body.try_collect().await.unwrap();
        String::from_utf8(chunks.concat()).unwrap()
    }
}

/// Records metric events and notifications. Can be made unreachable for notifications.
#[derive(Default)]
pub(super) struct Recorder {
    pub(super) metrics: Mutex<Vec<MetricEvent>>,
    published: Mutex<Vec<Notification>>,
    pub(super) unreachable: AtomicBool,
}

impl MetricsRecorder for Recorder {
    fn record(&self, event: MetricEvent) {
        self.metrics.lock().unwrap().push(event);
    }
}

#[async_trait]
impl Notifier for Recorder {
    async fn publish(&self, notification: &Notification) -> Result<(), NotifyError> {
        if self.unreachable.load(Ordering::Relaxed) {
            return Err(NotifyError::Unsent { detail: "unreachable".into() });
        }
        self.published.lock().unwrap().push(notification.clone());
        Ok(())
    }
}

impl Recorder {
    pub(super) fn published(&self) -> Vec<(Status, u64)> {
        self.published
            .lock()
            .unwrap()
            .iter()
            .map(|notification| (notification.status, notification.counts.completed))
            .collect()
    }

    /// The age of the oldest unfinished job at each sweep, in seconds.
    pub(super) fn ages(&self) -> Vec<u64> {
        let metrics = self.metrics.lock().unwrap();
        let age =
            |event: &MetricEvent| if let MetricEvent::Swept { oldest } = event { Some(oldest.as_secs()) } else { None };
        metrics.iter().filter_map(age).collect()
    }

    pub(super) fn count(&self, event: MetricEvent) -> usize {
        self.metrics.lock().unwrap().iter().filter(|recorded| **recorded == event).count()
    }
}

/// Runs with Tokio's clock paused, so that waits take no time.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

/// Runs each stage once, in order.
pub(super) async fn run_in_order(csv: &[u8]) -> (Harness, Job, Manifests) {
    let mut harness = Harness::with(csv, 1).await;
    let job = harness.split().await;
    harness.generate_all().await;
    let changed = harness.changed();
    harness.merge(changed).await;
    let files = Manifests::of(&job.catalog, &job.job);
    (harness, job, files)
}
