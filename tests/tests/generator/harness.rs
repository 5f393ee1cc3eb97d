//! The test harness of the generator: ports in memory, an images API that follows a script, and a host that receives, deletes
//! and redelivers messages as Lambda does with SQS.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use packshot_local::{Depth, MemoryQueue, MemoryStore};
use packshot_pipeline::{
    generate::{generate, worker::Worker},
    ledger::Entry,
    model::{
        etag::Etag,
        event::MetricEvent,
        json,
        keys::{self, Catalog, JobId},
        message::RowMessage,
        request::Request,
        result::{Completed, Failed, RowResult},
    },
    ports::{
        ApiError, Body, Clock, Delivery, FetchError, Generated, GeneratedImage, ImageApi, MetricsRecorder,
        NoopNotifier, Object, ObjectMeta, OutgoingMessage, Page, Ports, Precondition, Queue as _, Store, StoreError,
    },
    settings::GenerateSettings,
};
use serde_json::Map;
use tokio::time::{Instant, sleep};

/// The queue's own visibility timeout: far longer than any delay that the generator sets.
pub(crate) const VISIBILITY: Duration = Duration::from_secs(6 * 900);
/// The time limit of an invocation.
pub(crate) const INVOCATION: Duration = Duration::from_secs(900);
/// The duration of a successful call.
pub(crate) const CALL: Duration = Duration::from_secs(40);

pub(crate) const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn request(product: &str) -> Request {
    Request {
        model: "gpt-image-1".into(),
        prompt: format!("A photo of {product}"),
        image_url: format!("https://shop.test/{product}.png"),
        size: "1024x1024".into(),
        quality: "high".into(),
        n: 2,
        background: None,
        revision: None,
    }
}

pub(crate) fn job(name: &str) -> JobId {
    JobId::of("bucket", name, "1", "")
}

/// A message of job `a`.
pub(crate) fn message(row: u64, product: &str) -> RowMessage {
    let request = request(product);
    RowMessage {
        v: 1,
        job: job("a"),
        catalog: Catalog::of("incoming/spring/shoes.csv").unwrap(),
        row,
        line: row + 1,
        sku: format!("SKU-{row}"),
        fingerprint: request.fingerprint(),
        round: 0,
        request,
        input: Map::from_iter([("sku".to_owned(), format!("SKU-{row}").into())]),
    }
}

/// The outcome of one call in the API's script.
#[derive(Clone)]
pub(crate) enum Answer {
    Images(Vec<GeneratedImage>),
    Error(ApiError),
    Panic,
    Never,
}

/// An error answer with this status and `error.code`.
pub(crate) fn status(status: u16, code: Option<&str>) -> Answer {
    retry_after(status, code, None)
}

pub(crate) fn retry_after(status: u16, code: Option<&str>, retry_after: Option<Duration>) -> Answer {
    let code = code.map(str::to_owned);
    Answer::Error(ApiError::Answered { status, code, body: format!("no {status}"), retry_after })
}

pub(crate) fn unknown(code: &'static str, status: Option<u16>) -> Answer {
    Answer::Error(ApiError::Unknown { code, status, detail: format!("bad: {code}") })
}

pub(crate) fn not_sent() -> Answer {
    Answer::Error(ApiError::NotSent { detail: "connection refused".into() })
}

pub(crate) fn urls(urls: &[&str]) -> Answer {
    Answer::Images(urls.iter().map(|url| GeneratedImage::Url((*url).to_owned())).collect())
}

/// A call that the API received.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) at: Instant,
    pub(crate) prompt: String,
    pub(crate) key: String,
}

/// Answers the calls for each product with the next outcome of its script. After the script, answers with the default answer, or
/// else with the requested number of images.
#[derive(Default)]
pub(crate) struct ScriptedApi {
    script: Mutex<BTreeMap<String, VecDeque<Answer>>>,
    default_answer: Mutex<Option<Answer>>,
    calls: Mutex<Vec<Call>>,
    images: Mutex<BTreeMap<String, Result<Bytes, FetchError>>>,
    fetches: AtomicU64,
    fetching: AtomicU64,
    most_fetching: AtomicU64,
}

#[async_trait]
impl ImageApi for ScriptedApi {
    async fn generate(&self, request: &Request, idempotency_key: &str) -> Result<Generated, ApiError> {
        let number = {
            let mut calls = self.calls.lock().unwrap();
            let (prompt, key) = (request.prompt.clone(), idempotency_key.to_owned());
            calls.push(Call { at: Instant::now(), prompt, key });
            calls.len()
        };
        // Makes the calls of a batch overlap, even if no time passes.
        tokio::task::yield_now().await;
        let next = self.script.lock().unwrap().get_mut(&request.prompt).and_then(VecDeque::pop_front);
        let default_answer = self.default_answer.lock().unwrap().clone();
        let images = match next.or(default_answer) {
            Some(Answer::Error(error)) => return Err(error),
            Some(Answer::Panic) => panic!("as scripted"),
            Some(Answer::Never) => std::future::pending().await,
            Some(Answer::Images(images)) => images,
            None => {
                let url = |n| GeneratedImage::Url(format!("https://images.test/{number}/{n}.png"));
                (1..=request.n).map(url).collect()
            }
        };
        sleep(CALL).await;
        Ok(Generated { request_id: Some(format!("call-{number}")), model_actual: None, images })
    }

    async fn fetch(&self, url: &str, _max_bytes: usize) -> Result<Bytes, FetchError> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let fetching = self.fetching.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_fetching.fetch_max(fetching, Ordering::Relaxed);
        // Makes the fetches of a batch overlap, even if no time passes.
        tokio::task::yield_now().await;
        self.fetching.fetch_sub(1, Ordering::Relaxed);
        let image = self.images.lock().unwrap().get(url).cloned();
        image.unwrap_or_else(|| Err(FetchError::Refused { detail: format!("nothing at {url}") }))
    }
}

/// Keeps all metric events in order.
#[derive(Default)]
struct RecordedMetrics(Mutex<Vec<MetricEvent>>);

impl MetricsRecorder for RecordedMetrics {
    fn record(&self, event: MetricEvent) {
        self.0.lock().unwrap().push(event);
    }
}

/// Derives the time of day from Tokio's clock; its random numbers are the same in every run.
struct TestClock {
    began: Instant,
    random_state: AtomicU64,
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        "2026-03-01T00:00:00Z".parse::<Timestamp>().unwrap() + self.began.elapsed()
    }

    fn random(&self) -> u64 {
        // splitmix64
        let mut z = self.random_state.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// What happens to the write whose answer is lost.
#[derive(Clone, Copy)]
pub(crate) enum Effect {
    /// It takes effect at once.
    AtOnce,
    /// It takes effect after the next read, just before the next write.
    Late,
    /// It takes effect at once, but this number of reads of the ledger fail.
    AtOnceUnreadable(u32),
    /// It takes effect at once; before the next read another worker replaces the entry with the result of this function.
    ThenOverwritten(fn(Entry) -> Entry),
    /// It fails, after such a long time that every lease has expired and another worker has replaced the entry with the result of
    /// this function.
    Never(fn(Entry) -> Entry),
}

type Put = (String, Bytes, Precondition);

/// A store that loses the answer to one write of the ledger.
pub(crate) struct LossyStore {
    store: Arc<dyn Store>,
    number: u32,
    answer: StoreError,
    effect: Effect,
    writes: AtomicU32,
    delayed: Mutex<Option<Put>>,
    unreadable: AtomicU32,
}

impl LossyStore {
    /// Puts itself between a harness and its store. The write with this number, from 0, gets this answer.
    pub(crate) fn install(harness: &mut Harness, number: u32, answer: StoreError, effect: Effect) -> Arc<Self> {
        let lossy = Arc::new(Self {
            store: harness.ports.store.clone(),
            number,
            answer,
            effect,
            writes: AtomicU32::new(0),
            delayed: Mutex::default(),
            unreadable: AtomicU32::new(0),
        });
        harness.ports.store = lossy.clone();
        lossy
    }

    /// The number of writes to the ledger so far.
    pub(crate) fn writes(&self) -> u32 {
        self.writes.load(Ordering::Relaxed)
    }

    async fn overwrite(&self, key: &str, change: fn(Entry) -> Entry) -> Result<Etag, StoreError> {
        let mut object = self.store.open(key, None).await?.unwrap();
        let bytes = object.body.next().await.unwrap()?;
        let changed = change(serde_json::from_slice(&bytes).unwrap());
        self.store.put(key, json::to_vec(&changed).into(), Precondition::None).await
    }
}

#[async_trait]
impl Store for LossyStore {
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        self.store.head(key).await
    }

    async fn open(&self, key: &str, version: Option<&str>) -> Result<Option<Object>, StoreError> {
        let fails = |left: u32| left.checked_sub(1);
        let ledger = key.starts_with("ledger/");
        if ledger && self.unreadable.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fails).is_ok() {
            return Err(StoreError::Unavailable { detail: "as scripted".into() });
        }
        self.store.open(key, version).await
    }

    async fn put(&self, key: &str, body: Bytes, precondition: Precondition) -> Result<Etag, StoreError> {
        if !key.starts_with("ledger/") {
            return self.store.put(key, body, precondition).await;
        }
        let delayed = self.delayed.lock().unwrap().take();
        if let Some((key, body, precondition)) = delayed {
            self.store.put(&key, body, precondition).await.unwrap();
        }
        if self.writes.fetch_add(1, Ordering::Relaxed) != self.number {
            return self.store.put(key, body, precondition).await;
        }
        match self.effect {
            Effect::Late => *self.delayed.lock().unwrap() = Some((key.to_owned(), body, precondition)),
            Effect::Never(change) => {
                sleep(seconds(400)).await;
                self.overwrite(key, change).await.unwrap();
            }
            Effect::AtOnce | Effect::AtOnceUnreadable(_) | Effect::ThenOverwritten(_) => {
                self.store.put(key, body, precondition).await.unwrap();
            }
        }
        match self.effect {
            Effect::AtOnceUnreadable(tries) => self.unreadable.store(tries, Ordering::Relaxed),
            Effect::ThenOverwritten(change) => {
                self.overwrite(key, change).await.unwrap();
            }
            Effect::AtOnce | Effect::Late | Effect::Never(_) => {}
        }
        Err(self.answer.clone())
    }

    async fn put_stream(&self, key: &str, body: Body<'_>, precondition: Precondition) -> Result<Etag, StoreError> {
        self.store.put_stream(key, body, precondition).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, StoreError> {
        self.store.list(prefix, after).await
    }
}

/// The outcome of one invocation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) took: Duration,
    /// Ids of the messages that are delivered again.
    pub(crate) back: Vec<String>,
}

/// One process of the generator, with the ports that it shares with other processes.
pub(crate) struct Harness {
    pub(crate) ports: Ports,
    pub(crate) settings: GenerateSettings,
    pub(crate) worker: Worker,
    pub(crate) api: Arc<ScriptedApi>,
    pub(crate) rows: Arc<MemoryQueue>,
    pub(crate) retry: Arc<MemoryQueue>,
    metrics: Arc<RecordedMetrics>,
}

impl Harness {
    /// Uses the default settings, except that images are not archived.
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(crate) fn with(change: impl FnOnce(&mut GenerateSettings)) -> Self {
        let mut settings = GenerateSettings { archive: false, ..GenerateSettings::default() };
        change(&mut settings);
        let clock: Arc<dyn Clock> = Arc::new(TestClock { began: Instant::now(), random_state: AtomicU64::new(1) });
        let api = Arc::new(ScriptedApi::default());
        let rows = Arc::new(MemoryQueue::new(VISIBILITY, None, None));
        let retry = Arc::new(MemoryQueue::new(VISIBILITY, None, None));
        let metrics = Arc::new(RecordedMetrics::default());
        let ports = Ports {
            store: Arc::new(MemoryStore::new(clock.clone())),
            rows: rows.clone(),
            retry: retry.clone(),
            images: api.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            notifier: Arc::new(NoopNotifier),
        };
        let worker = Worker::new(&*clock, &settings);
        Self { ports, settings, worker, api, rows, retry, metrics }
    }

    /// Another process with the same ports.
    pub(crate) fn another_process(&self) -> Self {
        Self {
            ports: self.ports.clone(),
            settings: self.settings.clone(),
            worker: Worker::new(&*self.ports.clock, &self.settings),
            api: self.api.clone(),
            rows: self.rows.clone(),
            retry: self.retry.clone(),
            metrics: self.metrics.clone(),
        }
    }

    pub(crate) fn script(&self, product: &str, answers: impl IntoIterator<Item = Answer>) {
        let prompt = request(product).prompt;
        self.api.script.lock().unwrap().entry(prompt).or_default().extend(answers);
    }

    /// Sets the API's answer to the calls that no script answers.
    pub(crate) fn answer_all(&self, answer: Option<Answer>) {
        *self.api.default_answer.lock().unwrap() = answer;
    }

    /// Sets the answer of the API to a fetch of this URL.
    pub(crate) fn serve_image(&self, url: &str, image: Result<Bytes, FetchError>) {
        self.api.images.lock().unwrap().insert(url.to_owned(), image);
    }

    pub(crate) async fn send(&self, messages: &[RowMessage]) {
        for message in messages {
            self.send_text(message.encode()).await;
        }
    }

    pub(crate) async fn send_text(&self, body: String) {
        self.rows.send(&[OutgoingMessage { body, attributes: BTreeMap::new() }]).await.unwrap();
    }

    /// Invokes the generator with the messages that are visible now.
    pub(crate) async fn batch(&self) -> Batch {
        self.batch_within(INVOCATION).await
    }

    pub(crate) async fn batch_within(&self, time: Duration) -> Batch {
        let deliveries = self.rows.try_receive(10);
        assert!(!deliveries.is_empty(), "nothing is visible");
        self.handle(deliveries, time).await
    }

    async fn handle(&self, deliveries: Vec<Delivery>, time: Duration) -> Batch {
        let (began, deadline) = (Instant::now(), self.ports.clock.now() + time);
        let back = generate(&self.ports, &self.settings, &self.worker, deliveries.clone(), deadline).await;
        assert!(self.ports.clock.now() <= deadline, "the invocation outlived its deadline");
        for delivery in deliveries.iter().filter(|delivery| !back.contains(&delivery.id)) {
            self.rows.delete(&delivery.receipt);
        }
        Batch { took: began.elapsed(), back }
    }

    /// Invokes the generator until the queue is empty.
    pub(crate) async fn drain(&self) {
        for _ in 0..200 {
            if self.rows.is_empty() {
                return;
            }
            let deliveries = self.rows.receive(10).await;
            self.handle(deliveries, INVOCATION).await;
        }
        panic!("the queue does not become empty: {:?}", self.rows.depth());
    }

    /// Sends messages and invokes the generator until the queue is empty.
    pub(crate) async fn run(&self, messages: &[RowMessage]) {
        self.send(messages).await;
        self.drain().await;
    }

    /// Invokes the generator, and kills its process after `alive`.
    pub(crate) async fn batch_killed_after(&self, alive: Duration) {
        let deliveries = self.rows.try_receive(10);
        assert!(!deliveries.is_empty(), "nothing is visible");
        let batch = self.handle(deliveries, INVOCATION);
        let killed = tokio::time::timeout(alive, batch).map(|ended| ended.is_err()).await;
        assert!(killed, "the batch ended before it was killed");
    }

    /// The metric events of all processes, in order.
    pub(crate) fn metrics(&self) -> Vec<MetricEvent> {
        self.metrics.0.lock().unwrap().clone()
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.api.calls.lock().unwrap().clone()
    }

    /// The number of calls for a product.
    pub(crate) fn calls_for(&self, product: &str) -> usize {
        let prompt = request(product).prompt;
        self.calls().iter().filter(|call| call.prompt == prompt).count()
    }

    /// The times between the starts of successive calls.
    pub(crate) fn gaps(&self) -> Vec<Duration> {
        self.calls().windows(2).map(|pair| pair[1].at - pair[0].at).collect()
    }

    pub(crate) fn fetches(&self) -> u64 {
        self.api.fetches.load(Ordering::Relaxed)
    }

    pub(crate) fn most_fetches_at_once(&self) -> u64 {
        self.api.most_fetching.load(Ordering::Relaxed)
    }

    pub(crate) async fn read(&self, key: &str) -> Option<Bytes> {
        let seen = packshot_pipeline::storage::read(&self.ports, key).await.unwrap();
        seen.map(|seen| seen.value)
    }

    pub(crate) async fn put(&self, key: &str, body: impl Into<Bytes>) {
        self.ports.store.put(key, body.into(), Precondition::None).await.unwrap();
    }

    pub(crate) async fn result(&self, message: &RowMessage) -> Option<RowResult> {
        let bytes = self.read(&keys::result(&message.job, message.row, &message.sku)).await?;
        Some(serde_json::from_slice(&bytes).unwrap())
    }

    pub(crate) async fn completed(&self, message: &RowMessage) -> Completed {
        match self.result(message).await {
            Some(RowResult::Completed(completed)) => *completed,
            other => panic!("not completed: {other:?}"),
        }
    }

    pub(crate) async fn failed(&self, message: &RowMessage) -> Failed {
        match self.result(message).await {
            Some(RowResult::Failed(failed)) => *failed,
            other => panic!("not failed: {other:?}"),
        }
    }

    pub(crate) async fn entry(&self, message: &RowMessage) -> Entry {
        let bytes = self.read(&keys::ledger(&message.fingerprint)).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    pub(crate) async fn put_entry(&self, entry: &Entry) {
        self.put(&keys::ledger(&entry.fingerprint), json::to_vec(entry)).await;
    }

    /// The messages in the retry queue, each with its error code and class.
    pub(crate) fn retried(&self) -> Vec<(String, String, RowMessage)> {
        let contents = self.retry.contents().into_iter();
        contents
            .map(|OutgoingMessage { body, mut attributes }| {
                let mut attribute = |name| attributes.remove(name).unwrap();
                (attribute("error_code"), attribute("error_class"), RowMessage::decode(&body).unwrap())
            })
            .collect()
    }

    pub(crate) fn depth(&self) -> Depth {
        self.rows.depth()
    }

    /// Waits until a message is visible; returns how long that took.
    pub(crate) async fn until_visible(&self) -> Duration {
        let began = Instant::now();
        while self.rows.depth().visible == 0 {
            sleep(Duration::from_millis(100)).await;
        }
        began.elapsed()
    }
}
