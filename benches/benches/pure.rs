//! The parts that do no I/O: `cargo bench -p packshot-benches`.

#![expect(clippy::unwrap_used, reason = "a bench that cannot run has to stop")]

use std::{hint::black_box, sync::Arc};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures::{StreamExt as _, stream};
use packshot_aws::{clock::SystemClock, unused::Unused};
use packshot_benches::samples;
use packshot_local::{MemoryQueue, MemoryStore};
use packshot_pipeline::{
    catalog::reader::CatalogReader,
    merge::{Changed, merge},
    model::{
        etag::Etag,
        job::Source,
        json,
        keys::{self, Catalog, ROWS_PER_PART},
        message::RowMessage,
    },
    ports::{Nobody, Ports},
    settings::SplitSettings,
    split::validate,
};

criterion_group!(benches, intake, message, result, part);
criterion_main!(benches);

const ROWS: u64 = 10_000;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// In chunks as the SDK hands them over.
fn reader(file: &Bytes) -> CatalogReader {
    let file = file.clone();
    let chunks = (0..file.len()).step_by(16_384).map(move |at| Ok(file.slice(at..(at + 16_384).min(file.len()))));
    CatalogReader::new(stream::iter(chunks).boxed())
}

fn intake(criterion: &mut Criterion) {
    let mut file = Vec::new();
    samples::catalog(&mut file, ROWS).unwrap();
    let file = Bytes::from(file);
    let mut group = criterion.benchmark_group("intake");
    group.throughput(Throughput::Elements(ROWS));
    group.bench_function("csv (floor)", |bencher| {
        bencher.iter(|| {
            let (mut reader, mut record) = (csv::Reader::from_reader(&*file), csv::ByteRecord::new());
            while reader.read_byte_record(&mut record).unwrap() {
                black_box(record.len());
            }
        });
    });
    let runtime = runtime();
    group.bench_function("records", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let mut reader = reader(&file);
                while let Some(record) = reader.next().await.unwrap() {
                    black_box(record.len());
                }
            });
        });
    });
    group.bench_function("validate", |bencher| {
        let (catalog, settings) = (Catalog::of("incoming/bench.csv").unwrap(), SplitSettings::default());
        bencher.iter(|| {
            let job = samples::job();
            let validated =
                validate(reader(&file), &settings, &job, &catalog, source(), jiff::Timestamp::UNIX_EPOCH, |_, _, _| ());
            black_box(runtime.block_on(validated).unwrap().valid);
        });
    });
}

fn source() -> Source {
    Source {
        bucket: "bench".into(),
        key: "incoming/bench.csv".into(),
        version_id: None,
        etag: Etag("1".into()),
        bytes: 1,
        last_modified: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn message(criterion: &mut Criterion) {
    let message = samples::message(&samples::job(), 4711);
    let text = message.encode();
    let mut group = criterion.benchmark_group("message");
    group.bench_function("fingerprint", |bencher| bencher.iter(|| black_box(&message.request).fingerprint()));
    group.bench_function("encode", |bencher| bencher.iter(|| black_box(&message).encode()));
    group.bench_function("decode", |bencher| bencher.iter(|| RowMessage::decode(black_box(&text)).unwrap()));
}

fn result(criterion: &mut Criterion) {
    let result = samples::result(&samples::job(), 4711);
    criterion.bench_function("result line", |bencher| bencher.iter(|| json::to_line(black_box(&result))));
}

/// A thousand results in memory become a part and a manifest.
fn part(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("merge");
    group.throughput(Throughput::Elements(ROWS_PER_PART));
    group.bench_function("a part", |bencher| {
        bencher.iter_batched(
            || runtime.block_on(results()),
            |(ports, changed)| runtime.block_on(async { assert!(merge(&ports, vec![changed]).await.is_empty()) }),
            BatchSize::PerIteration,
        );
    });
}

/// A job of one part whose results stand, and the event of the last.
async fn results() -> (Ports, Changed) {
    let clock = Arc::new(SystemClock);
    let store = Arc::new(MemoryStore::new(clock.clone()));
    let mut file = Vec::new();
    samples::catalog(&mut file, ROWS_PER_PART).unwrap();
    let (catalog, settings) = (Catalog::of("incoming/bench.csv").unwrap(), SplitSettings::default());
    let id = samples::job();
    let now = jiff::Timestamp::UNIX_EPOCH;
    let job = validate(reader(&file.into()), &settings, &id, &catalog, source(), now, |_, _, _| ()).await.unwrap();
    store.put_version(&keys::job(&id), json::to_pretty(&job).into()).unwrap();
    for row in 1..=ROWS_PER_PART {
        let key = keys::result(&id, row, &samples::sku(row));
        store.put_version(&key, json::to_line(&samples::result(&id, row)).into()).unwrap();
    }
    let key = keys::result(&id, ROWS_PER_PART, &samples::sku(ROWS_PER_PART));
    let queue = Arc::new(MemoryQueue::new(std::time::Duration::from_secs(60), None, None));
    let (images, nobody) = (Arc::new(Unused), Arc::new(Nobody));
    let ports =
        Ports { store, rows: queue.clone(), retry: queue, images, clock, journal: nobody.clone(), notices: nobody };
    (ports, Changed { id: "1".into(), keys: vec![key] })
}
