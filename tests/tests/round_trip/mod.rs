//! Splitter, generator and merger together, in memory: any rows give one manifest line per row, with events and messages in any order
//! and repeated.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
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
    model::{job::Job, keys::Manifests, request::Request, result::RowResult, spreadsheet},
    ports::{
        ApiError, Clock, Delivery, FetchError, Generated, GeneratedImage, ImageApi, Ports, Precondition, Queue as _,
        Store as _,
    },
    settings::{GenerateSettings, SplitSettings},
    split::{SplitError, SplitInput, SplitReport, split},
};
use packshot_tests::clock::TestClock;
use proptest::prelude::*;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

mod forms;
mod notifications;
use notifications::Recorder;

const KEY: &str = "incoming/spring/shoes.csv";
const HEADER: [&str; 6] = ["sku", "title", "image_url", "brand", "n", "remark"];

/// An API that always succeeds, after a random delay.
struct SucceedingApi {
    clock: Arc<TestClock>,
    calls: AtomicUsize,
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
struct Harness {
    ports: Ports,
    settings: GenerateSettings,
    worker: Worker,
    rows: Arc<MemoryQueue>,
    api: Arc<SucceedingApi>,
    clock: Arc<TestClock>,
    events: UnboundedReceiver<String>,
    recorder: Arc<Recorder>,
}

impl Harness {
    async fn with(csv: &[u8], seed: u64) -> Self {
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

    async fn split(&self) -> Job {
        match self.try_split().await.unwrap() {
            SplitReport::Split(job) => *job,
            other => panic!("{other:?}"),
        }
    }

    async fn try_split(&self) -> Result<SplitReport, SplitError> {
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

    fn deadline(&self) -> jiff::Timestamp {
        self.clock.now() + Duration::from_secs(900)
    }

    async fn generate(&self, batch: Vec<Delivery>) {
        let receipts: BTreeMap<String, String> = batch.iter().map(|d| (d.id.clone(), d.receipt.clone())).collect();
        let back = generate(&self.ports, &self.settings, &self.worker, batch, self.deadline()).await;
        for (_, receipt) in receipts.iter().filter(|(id, _)| !back.contains(id)) {
            self.rows.delete(receipt);
        }
    }

    async fn generate_all(&self) {
        while !self.rows.is_empty() {
            self.generate(self.rows.receive(10).await).await;
        }
    }

    /// The events since the last call.
    fn changed(&mut self) -> Vec<Changed> {
        let keys = std::iter::from_fn(|| self.events.try_recv().ok());
        keys.enumerate().map(|(id, key)| Changed { id: id.to_string(), keys: vec![key] }).collect()
    }

    async fn merge(&self, batch: Vec<Changed>) {
        assert_eq!(merge(&self.ports, batch).await, [""; 0]);
    }

    async fn read(&self, key: &str) -> String {
        let object = self.ports.store.open(key, None).await.unwrap().unwrap_or_else(|| panic!("no {key}"));
        let chunks: Vec<Bytes> = object.body.try_collect().await.unwrap();
        String::from_utf8(chunks.concat()).unwrap()
    }
}

/// The content of a field.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[A-Z]{2}-[0-9]{2}",
        2 => "\\PC{0,8}",
        1 => "[a-z \t\r\n\"',;/.%\u{feff}\u{fffe}é👟]{0,8}",
        1 => ".{100,300}",
        1 => Just("../../x".to_owned()),
        1 => Just(String::new()),
    ]
}

fn row() -> impl Strategy<Value = Vec<String>> {
    let url = prop_oneof![
        9 => "https://cdn\\.example\\.com/[a-c]\\.png",
        1 => Just("ftp://cdn.example.com/a.png".to_owned()),
        1 => Just(String::new()),
    ];
    let n = prop_oneof![Just(""), Just("1"), Just("4"), Just("5"), Just("two")];
    // Few titles and images, so that some rows have the same request.
    let title = prop_oneof![3 => "(mug|shoe|bag)", 1 => text()];
    (text(), title, url, n, text(), prop_oneof![8 => Just(6usize), 1 => Just(3), 1 => Just(8)]).prop_map(
        |(sku, title, url, n, remark, fields)| {
            let mut row = vec![sku, title, url, "Northline".into(), n.into(), remark];
            row.resize(fields, "too much".into());
            row
        },
    )
}

/// A catalog in which some rows are repeated, unchanged or with another title.
fn catalog() -> impl Strategy<Value = Vec<Vec<String>>> {
    let again =
        prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>()), 0..6);
    (prop::collection::vec(row(), 0..30), again).prop_map(|(mut rows, again)| {
        rows.retain(|row| !is_blank(row));
        for (from, to, other) in again.into_iter().filter(|_| !rows.is_empty()).collect::<Vec<_>>() {
            let mut row = from.get(&rows).clone();
            if other {
                row[1] = "another".into();
            }
            rows.insert(to.index(rows.len() + 1), row);
        }
        rows
    })
}

fn csv_of(rows: &[Vec<String>]) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
    writer.write_record(HEADER).unwrap();
    rows.iter().for_each(|row| writer.write_record(row).unwrap());
    writer.into_inner().unwrap()
}

/// Invisible characters, which a SKU may not have.
fn hidden(c: char) -> bool {
    "\u{ad}\u{200b}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{feff}".contains(c)
        || ('\u{2060}'..='\u{2069}').contains(&c)
        || matches!(u32::from(c) % 0x1_0000, 0xfffe | 0xffff)
}

/// An empty record is no row.
fn is_blank(row: &[String]) -> bool {
    row.iter().all(|field| field.trim_matches(|c: char| c.is_whitespace() || c == '\u{1a}').is_empty())
}

/// For each row its SKU, and whether it is valid: a second implementation of the rules.
fn expected(rows: &[Vec<String>]) -> Vec<(String, bool)> {
    let mut first: BTreeMap<String, Vec<String>> = BTreeMap::new();
    rows.iter()
        .map(|row| {
            let fields: Vec<String> = row.iter().map(|field| field.trim().to_owned()).collect();
            let sku = fields[0].clone();
            let sound = fields.len() == HEADER.len()
                && !sku.is_empty()
                && !sku.chars().any(|c| c.is_control() || hidden(c))
                && !spreadsheet::is_defused(&sku)
                && !fields[..5].iter().any(|field| field.chars().any(|c| c.is_control() && !"\t\r\n".contains(c)))
                && !fields[1].is_empty()
                && fields[2].starts_with("https://")
                && ["", "1", "4"].contains(&&*fields[4]);
            // The fields that the request depends on; an absent `n` is 4.
            let asked = || vec![fields[1].clone(), fields[2].clone(), fields[4].replace('4', "")];
            let good = sound && *first.entry(sku.clone()).or_insert_with(asked) == asked();
            (sku, good)
        })
        .collect()
}

/// The lines without the fields that depend on time, or on which of the rows with the same request was first.
fn timeless(manifest: &str) -> Vec<Value> {
    let mut paid = BTreeSet::new();
    let lines: Vec<Value> = manifest
        .lines()
        .map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            let fields = line.as_object_mut().unwrap();
            for time in ["completed_at", "failed_at", "latency_ms"] {
                fields.remove(time);
            }
            if fields["status"] == "completed" {
                let (reused, attempts) = (fields.remove("reused").unwrap(), fields.remove("attempts").unwrap());
                assert_eq!(reused == Value::Bool(true), attempts == 0);
                if reused == Value::Bool(false) {
                    assert!(paid.insert(fields["fingerprint"].to_string()), "two rows with the same request have paid");
                }
            }
            line
        })
        .collect();
    let completed = lines.iter().filter(|line| line["status"] == "completed");
    assert_eq!(completed.map(|line| line["fingerprint"].to_string()).collect::<BTreeSet<_>>(), paid);
    lines
}

/// Runs with Tokio's clock paused, so that waits take no time.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

/// Runs each stage once, in order.
async fn run_in_order(csv: &[u8]) -> (Harness, Job, Manifests) {
    let mut harness = Harness::with(csv, 1).await;
    let job = harness.split().await;
    harness.generate_all().await;
    let changed = harness.changed();
    harness.merge(changed).await;
    let files = Manifests::of(&job.catalog, &job.job);
    (harness, job, files)
}

fn shuffle<T>(items: &mut [T], clock: &dyn Clock) {
    for end in (1..items.len()).rev() {
        items.swap(end, (clock.random() % (end as u64 + 1)) as usize);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_rows_in_one_line_per_row_out(rows in catalog()) {
        block_on(async {
            let (harness, job, files) = run_in_order(&csv_of(&rows)).await;
            let expected = expected(&rows);
            let manifest = harness.read(&files.manifest()).await;
            assert!(manifest.is_empty() || manifest.ends_with('\n'));
            let results: Vec<RowResult> = manifest.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let found: Vec<(String, bool)> = results
                .iter()
                .map(|result| match result {
                    RowResult::Completed(row) => (row.sku.clone(), true),
                    RowResult::Failed(row) => (row.sku.clone(), false),
                })
                .collect();
            assert_eq!(found, expected);
            assert_eq!(results.iter().map(RowResult::row).collect::<Vec<_>>(), (1..=rows.len() as u64).collect::<Vec<_>>());

            let completed = expected.iter().filter(|(_, good)| *good).count();
            assert_eq!((job.rows, job.valid), (rows.len() as u64, completed as u64));
            let fingerprints: BTreeSet<_> = results
                .iter()
                .filter_map(|result| match result {
                    RowResult::Completed(row) => Some(row.fingerprint.clone()),
                    RowResult::Failed(_) => None,
                })
                .collect();
            assert_eq!(harness.api.calls.load(Ordering::Relaxed), fingerprints.len());
            timeless(&manifest);

            // failed.csv has all failed rows, unchanged, so that they can be fixed and uploaded again.
            let failed = harness.read(&files.failed_csv()).await;
            let failed: Vec<csv::StringRecord> = csv::ReaderBuilder::new()
                .flexible(true)
                .from_reader(failed.as_bytes())
                .records()
                .collect::<Result<_, _>>()
                .unwrap();
            let bad = rows.iter().zip(&expected).filter(|(_, (_, good))| !good).map(|(row, _)| row);
            for (line, row) in failed.iter().zip(bad) {
                let kept: Vec<&str> = line.iter().take(row.len().min(HEADER.len())).collect();
                let kept: Vec<&str> = kept.into_iter().map(spreadsheet::restore).collect();
                assert_eq!(kept, row[..kept.len()]);
            }
            assert_eq!(failed.len(), rows.len() - completed);

            let summary: Value = serde_json::from_str(&harness.read(&files.summary()).await).unwrap();
            let status = match (completed, rows.len()) {
                (completed, all) if completed == all => "complete",
                (0, _) => "failed",
                _ => "complete_with_failures",
            };
            assert_eq!(summary["status"], status);
        });
    }

    /// If `failed.csv` is uploaded unchanged, its rows have the same input as in the first catalog, also the second time. Only rows
    /// that contradicted another row may be valid without it.
    #[test]
    fn failed_rows_uploaded_again_are_the_same_rows(rows in catalog()) {
        block_on(async {
            let (harness, job, files) = run_in_order(&csv_of(&rows)).await;
            let failed = harness.read(&files.failed_csv()).await;
            let (again, job_again, files_again) = run_in_order(failed.as_bytes()).await;
            let names: Vec<&str> = spreadsheet::own_columns(&job_again.columns).collect();
            assert_eq!(names, job.columns);
            let inputs = |manifest: String| -> Vec<Value> {
                let lines = manifest.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
                let failed = lines.filter(|line| line["status"] == "failed" && line["error_code"] != "field_count");
                failed.filter(|line| line["error_code"] != "duplicate_sku").map(|mut line| {
                    let input = line["input"].as_object_mut().unwrap();
                    input.retain(|name, _| !spreadsheet::ERROR_COLUMNS.contains(&name.as_str()));
                    line["input"].take()
                }).collect()
            };
            let first = inputs(harness.read(&files.manifest()).await);
            let second = inputs(again.read(&files_again.manifest()).await);
            // Rows with a wrong number of fields now have the right one, so they may fail for another reason; no row is lost.
            let mut rest = second.iter();
            assert!(first.iter().all(|row| rest.any(|other| other == row)), "{first:?} in {second:?}");
            assert_eq!(job_again.rows, job.rows - job.valid);
            let third = again.read(&files_again.failed_csv()).await;
            assert_eq!(third.lines().next(), failed.lines().next());
        });
    }

    #[test]
    fn order_and_repetition_do_not_change_the_outcome(rows in catalog(), seed in any::<u64>()) {
        block_on(async {
            let csv = csv_of(&rows);
            let (in_order, _, files) = run_in_order(&csv).await;

            let mut harness = Harness::with(&csv, seed).await;
            let job = harness.split().await;
            assert_eq!(harness.split().await, job);
            harness.rows.send(&harness.rows.contents()).await.unwrap();
            let mut deliveries = harness.rows.try_receive(usize::MAX);
            assert_eq!(deliveries.len() as u64, 2 * job.valid);
            shuffle(&mut deliveries, &*harness.clock);
            let mut events = Vec::new();
            while !deliveries.is_empty() {
                let size = 1 + harness.clock.random() as usize % 7;
                let batch = deliveries.split_off(deliveries.len().saturating_sub(size));
                harness.generate(batch).await;
                events.extend(harness.changed());
                if harness.clock.random().is_multiple_of(3) {
                    harness.merge(events.clone()).await;
                }
            }
            harness.generate_all().await;
            events.extend(harness.changed());
            let again = events.clone();
            events.extend(again);
            shuffle(&mut events, &*harness.clock);
            let second = events.split_off(events.len() / 2);
            futures::join!(harness.merge(events), harness.merge(second));

            assert_eq!(
                timeless(&harness.read(&files.manifest()).await),
                timeless(&in_order.read(&files.manifest()).await)
            );
            assert_eq!(harness.read(&files.failed_csv()).await, in_order.read(&files.failed_csv()).await);
            let calls = |harness: &Harness| harness.api.calls.load(Ordering::Relaxed);
            assert_eq!(calls(&harness), calls(&in_order));
        });
    }
}
