//! The contract of [`Store`]: reads, conditional writes, races between writers, streams, keys, lists and versions.

use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, future::join_all, stream};
use jiff::{Timestamp, ToSpan as _};
use packshot_local::MemoryStore;
use packshot_pipeline::{
    model::etag::Etag,
    ports::{Body, Object, Precondition, Store, StoreError},
};
use tokio::runtime::Runtime;

use Precondition::{Absent, Matches};

/// Expands to a module with one test per case: `store_contract!(memory, [], async { Bucket::new(store) })`.
#[macro_export]
macro_rules! store_contract {
    ($adapter:ident, $attributes:tt, $make:expr) => {
        $crate::contract_cases!(store, $adapter, $attributes, $make, [
            a_missing_object_is_not_an_error
            a_written_object_can_be_read
            an_empty_object_is_an_object
            the_last_writer_wins
            absent_creates_only
            matches_replaces_only_the_version_read
            one_of_many_creators_wins
            one_of_many_updaters_wins
            no_increment_is_lost
            a_reader_sees_one_write_or_the_other
            a_stream_is_written
            a_stream_keeps_preconditions
            a_broken_stream_writes_nothing
            keys_are_not_changed
            keys_are_listed_in_byte_order
            long_lists_come_in_pages
            a_prefix_may_end_anywhere
            old_versions_can_be_read
        ]);
    };
}

/// A store for one case.
pub struct Bucket {
    store: Arc<dyn Store>,
    prefix: String,
    versions: Option<Arc<dyn Versions>>,
    _guard: Option<Box<dyn Any + Send>>,
}

/// Writes to a bucket with versions. The port does not return version ids.
#[async_trait]
pub trait Versions: Send + Sync {
    /// Writes an object and returns the id of its version.
    async fn put(&self, key: &str, body: Bytes) -> String;
}

#[async_trait]
impl Versions for MemoryStore {
    async fn put(&self, key: &str, body: Bytes) -> String {
        self.put_version(key, body).unwrap()
    }
}

impl Bucket {
    /// An empty store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, prefix: String::new(), versions: None, _guard: None }
    }

    /// A store that other tests use, too; this case uses only keys below the prefix.
    #[must_use]
    pub fn with_prefix(self, prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), ..self }
    }

    /// A store with versions.
    #[must_use]
    pub fn with_versions(self, versions: Arc<dyn Versions>) -> Self {
        Self { versions: Some(versions), ..self }
    }

    /// Drops `guard` after the store, for example the store's directory.
    #[must_use]
    pub fn with_guard(self, guard: impl Any + Send) -> Self {
        Self { _guard: Some(Box::new(guard)), ..self }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn put(&self, name: &str, body: &str, precondition: Precondition) -> Result<Etag, StoreError> {
        write(&*self.store, &self.key(name), Bytes::from(body.to_owned()), precondition).await
    }

    async fn read(&self, name: &str) -> Option<Bytes> {
        let object = self.store.open(&self.key(name), None).await.unwrap()?;
        Some(read_all(object).await.unwrap())
    }

    fn conflict(&self, name: &str) -> Result<Etag, StoreError> {
        Err(StoreError::Conflict { key: self.key(name) })
    }

    /// All names below a prefix, and the length of each page.
    async fn list(&self, prefix: &str, after: Option<&str>) -> (Vec<String>, Vec<usize>) {
        let (mut names, mut pages) = (Vec::new(), Vec::new());
        let mut after = after.map(|name| self.key(name));
        loop {
            let page = self.store.list(&self.key(prefix), after.as_deref()).await.unwrap();
            if let Some(next) = &page.next {
                assert_eq!(Some(next), page.objects.last().map(|object| &object.key));
            }
            pages.push(page.objects.len());
            names.extend(page.objects.into_iter().map(|object| object.key[self.prefix.len()..].to_owned()));
            match page.next {
                Some(next) => after = Some(next),
                None => return (names, pages),
            }
        }
    }
}

/// Has several threads, because some cases race.
#[must_use]
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap()
}

/// Writes as the use cases do: retries an error that means "did not happen".
async fn write(store: &dyn Store, key: &str, body: Bytes, precondition: Precondition) -> Result<Etag, StoreError> {
    loop {
        match store.put(key, body.clone(), precondition.clone()).await {
            Err(StoreError::Unavailable { .. }) => tokio::task::yield_now().await,
            settled => return settled,
        }
    }
}

async fn read_all(object: Object) -> Result<Bytes, StoreError> {
    let chunks: Vec<Bytes> = object.body.try_collect().await?;
    Ok(chunks.concat().into())
}

fn body_of<'a>(chunks: impl IntoIterator<Item = Result<Bytes, StoreError>, IntoIter: Send + 'a>) -> Body<'a> {
    stream::iter(chunks).boxed()
}

/// Returns bytes that encode their position, so that a lost or exchanged part is detected.
fn chunk(number: u64, bytes: usize) -> Bytes {
    let mut chunk = vec![b'.'; bytes];
    for (place, page) in (0u64..).zip(chunk.chunks_exact_mut(1_000)) {
        page[..16].copy_from_slice(&(u128::from(number) << 64 | u128::from(place)).to_le_bytes());
    }
    chunk.into()
}

/// A key that was never written is `None`, not an error.
pub async fn a_missing_object_is_not_an_error(bucket: Bucket) {
    for name in ["nothing", "a/b/c", "nothing.json"] {
        assert_eq!(bucket.store.head(&bucket.key(name)).await, Ok(None));
        assert!(bucket.store.open(&bucket.key(name), None).await.unwrap().is_none());
    }
    assert_eq!(bucket.list("", None).await, (vec![], vec![0]));
    bucket.put("a/b/c", "x", Absent).await.unwrap();
    assert_eq!(bucket.store.head(&bucket.key("a/b")).await, Ok(None), "a prefix of a key is not an object");
    assert!(bucket.store.open(&bucket.key("a/b"), None).await.unwrap().is_none());
    assert_eq!(bucket.store.head(&bucket.key("a/b/c/d")).await, Ok(None));
    assert!(bucket.store.open(&bucket.key("a/b/c/d"), None).await.unwrap().is_none());
}

/// A write is visible at once to `head`, `open` and `list`, with the same ETag.
pub async fn a_written_object_can_be_read(bucket: Bucket) {
    let before = bucket.put("clock", "", Precondition::None).await.unwrap();
    let before_meta = bucket.store.head(&bucket.key("clock")).await.unwrap().unwrap();
    assert_eq!(before_meta.etag, before);
    let etag = bucket.put("results/a.json", "{\"a\":1}\n", Precondition::None).await.unwrap();
    let meta = bucket.store.head(&bucket.key("results/a.json")).await.unwrap().unwrap();
    assert_eq!((&meta.etag, meta.bytes), (&etag, 8));
    assert!(meta.last_modified >= before_meta.last_modified);
    assert!(meta.last_modified < before_meta.last_modified + 1.minute());
    assert!(meta.last_modified > "2025-01-01T00:00:00Z".parse::<Timestamp>().unwrap());
    let object = bucket.store.open(&bucket.key("results/a.json"), None).await.unwrap().unwrap();
    assert_eq!(object.meta, meta);
    assert_eq!(read_all(object).await.unwrap(), "{\"a\":1}\n");
    let page = bucket.store.list(&bucket.key("results/"), None).await.unwrap();
    let listed: Vec<_> = page.objects.iter().map(|object| (&*object.key, &object.etag, object.bytes)).collect();
    assert_eq!(listed, [(&*bucket.key("results/a.json"), &etag, 8)]);
}

/// An object without bytes exists.
pub async fn an_empty_object_is_an_object(bucket: Bucket) {
    for name in ["put", "stream"] {
        let etag = match name {
            "put" => bucket.put(name, "", Absent).await.unwrap(),
            _ => bucket.store.put_stream(&bucket.key(name), body_of([]), Absent).await.unwrap(),
        };
        let meta = bucket.store.head(&bucket.key(name)).await.unwrap().unwrap();
        assert_eq!((meta.bytes, &meta.etag), (0, &etag));
        assert_eq!(bucket.read(name).await.unwrap(), "");
        assert_eq!(bucket.put(name, "x", Absent).await, bucket.conflict(name));
    }
    assert_eq!(bucket.list("", None).await.0, ["put", "stream"]);
}

/// Without a precondition a write replaces the object, and another content has another ETag.
pub async fn the_last_writer_wins(bucket: Bucket) {
    let mut etags = Vec::new();
    // Of the same length and within a moment, so that neither size nor time distinguishes them.
    for text in ["first", "after", "third"] {
        let etag = bucket.put("a", text, Precondition::None).await.unwrap();
        assert_eq!(bucket.read("a").await.unwrap(), text);
        assert_eq!(bucket.store.head(&bucket.key("a")).await.unwrap().unwrap().etag, etag);
        assert!(!etags.contains(&etag));
        etags.push(etag);
    }
    assert_eq!(bucket.list("", None).await.0, ["a"]);
}

/// `Absent` creates an object and never replaces one.
pub async fn absent_creates_only(bucket: Bucket) {
    let etag = bucket.put("a", "first", Absent).await.unwrap();
    assert_eq!(bucket.put("a", "second", Absent).await, bucket.conflict("a"));
    assert_eq!(bucket.put("a", "first", Absent).await, bucket.conflict("a"), "the same content is no exception");
    assert_eq!(bucket.read("a").await.unwrap(), "first");
    assert_eq!(bucket.store.head(&bucket.key("a")).await.unwrap().unwrap().etag, etag);
}

/// `Matches` replaces the object only if it still has this ETag.
pub async fn matches_replaces_only_the_version_read(bucket: Bucket) {
    let first = bucket.put("a", "first", Absent).await.unwrap();
    assert_eq!(bucket.put("missing", "x", Matches(first.clone())).await, bucket.conflict("missing"));
    assert_eq!(bucket.read("missing").await, None);
    let second = bucket.put("a", "second", Matches(first.clone())).await.unwrap();
    assert_eq!(bucket.put("a", "third", Matches(first)).await, bucket.conflict("a"));
    assert_eq!(bucket.read("a").await.unwrap(), "second");
    bucket.put("a", "third", Matches(second)).await.unwrap();
    assert_eq!(bucket.read("a").await.unwrap(), "third");
}

/// Sixteen tasks write different contents to a key under one precondition: exactly one succeeds, and its content is stored.
async fn race(bucket: &Bucket, name: &str, precondition: Precondition) {
    let racers = (0..16).map(|racer| {
        let (store, key, precondition) = (bucket.store.clone(), bucket.key(name), precondition.clone());
        tokio::spawn(async move { write(&*store, &key, Bytes::from(format!("racer {racer}")), precondition).await })
    });
    let outcomes: Vec<_> = join_all(racers).await.into_iter().map(Result::unwrap).collect();
    let winners: Vec<usize> = (0..16).filter(|&racer| outcomes[racer].is_ok()).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    for (racer, outcome) in outcomes.iter().enumerate() {
        if racer == winners[0] {
            assert_eq!(bucket.read(name).await.unwrap(), format!("racer {racer}"));
            assert_eq!(&bucket.store.head(&bucket.key(name)).await.unwrap().unwrap().etag, outcome.as_ref().unwrap());
        } else {
            assert_eq!(outcome, &bucket.conflict(name));
        }
    }
}

/// Of many concurrent creations, one succeeds.
pub async fn one_of_many_creators_wins(bucket: Bucket) {
    for round in 0..8 {
        race(&bucket, &format!("new/{round}"), Absent).await;
    }
}

/// Of many concurrent updates, one succeeds.
pub async fn one_of_many_updaters_wins(bucket: Bucket) {
    for round in 0..8 {
        let name = format!("old/{round}");
        let etag = bucket.put(&name, "before", Absent).await.unwrap();
        race(&bucket, &name, Matches(etag)).await;
    }
}

/// A read and a write with its ETag as precondition are one transaction.
pub async fn no_increment_is_lost(bucket: Bucket) {
    const COUNTERS: usize = 8;
    const TIMES: usize = 5;
    bucket.put("count", "0", Absent).await.unwrap();
    let counters = (0..COUNTERS).map(|_| {
        let (store, key) = (bucket.store.clone(), bucket.key("count"));
        tokio::spawn(async move {
            for _ in 0..TIMES {
                loop {
                    let object = store.open(&key, None).await.unwrap().unwrap();
                    let etag = object.meta.etag.clone();
                    let count: usize = std::str::from_utf8(&read_all(object).await.unwrap()).unwrap().parse().unwrap();
                    match write(&*store, &key, Bytes::from((count + 1).to_string()), Matches(etag)).await {
                        Ok(_) => break,
                        Err(StoreError::Conflict { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        })
    });
    join_all(counters).await.into_iter().for_each(|counter| counter.unwrap());
    assert_eq!(bucket.read("count").await.unwrap(), (COUNTERS * TIMES).to_string());
}

/// A reader never gets half a write, or the bytes of one write with the ETag of another.
pub async fn a_reader_sees_one_write_or_the_other(bucket: Bucket) {
    const BYTES: usize = 300_000;
    let bodies = ['a', 'b'].map(|letter| letter.to_string().repeat(BYTES));
    let etags = [
        bucket.put("a", &bodies[0], Precondition::None).await.unwrap(),
        bucket.put("a", &bodies[1], Precondition::None).await.unwrap(),
    ];
    let (store, key) = (bucket.store.clone(), bucket.key("a"));
    let writing = tokio::spawn({
        let (store, key, bodies) = (store.clone(), key.clone(), bodies.clone());
        async move {
            for round in 0..40 {
                let body = Bytes::from(bodies[round % 2].clone());
                if round % 4 < 2 {
                    write(&*store, &key, body, Precondition::None).await.unwrap();
                } else {
                    let halves = [body.slice(..BYTES / 2), body.slice(BYTES / 2..)];
                    store.put_stream(&key, body_of(halves.map(Ok)), Precondition::None).await.unwrap();
                }
            }
        }
    });
    let mut reads = 0;
    while !writing.is_finished() || reads == 0 {
        let object = store.open(&key, None).await.unwrap().unwrap();
        let etag = object.meta.etag.clone();
        // An error only means that the read must start again.
        if let Ok(bytes) = read_all(object).await {
            let which = usize::from(bytes[0] == b'b');
            assert!(bytes == bodies[which], "a mixture of two writes");
            assert_eq!(etag, etags[which]);
            reads += 1;
        }
    }
    writing.await.unwrap();
}

/// Streams of every length are stored unchanged.
pub async fn a_stream_is_written(bucket: Bucket) {
    let small = [Ok(Bytes::from_static(b"two ")), Ok(Bytes::new()), Ok(Bytes::from_static(b"chunks"))];
    bucket.store.put_stream(&bucket.key("small"), body_of(small), Absent).await.unwrap();
    assert_eq!(bucket.read("small").await.unwrap(), "two chunks");

    // Longer than two of S3's smallest parts, with an odd end.
    let sizes = [5_000_000, 1, 0, 7_000_000, 64 * 1024, 5_500_003];
    let chunks: Vec<Bytes> = sizes.iter().zip(0..).map(|(&bytes, number)| chunk(number, bytes)).collect();
    let sent: Bytes = chunks.concat().into();
    let etag =
        bucket.store.put_stream(&bucket.key("large"), body_of(chunks.into_iter().map(Ok)), Absent).await.unwrap();
    let object = bucket.store.open(&bucket.key("large"), None).await.unwrap().unwrap();
    assert_eq!((object.meta.bytes, &object.meta.etag), (sent.len() as u64, &etag));
    assert!(read_all(object).await.unwrap() == sent, "the bytes differ");
    let listed = bucket.store.list(&bucket.key("large"), None).await.unwrap().objects;
    assert_eq!((&listed[0].etag, listed[0].bytes), (&etag, sent.len() as u64));
}

fn megabytes(count: u64) -> Vec<Result<Bytes, StoreError>> {
    (0..count).map(|number| Ok(chunk(number, 1 << 20))).collect()
}

/// The preconditions of short and long streams are checked when the object becomes visible.
pub async fn a_stream_keeps_preconditions(bucket: Bucket) {
    for (name, length) in [("short", 1), ("long", 17)] {
        let key = bucket.key(name);
        let stream = |precondition| bucket.store.put_stream(&key, body_of(megabytes(length)), precondition);
        let unknown = Etag("0123456789abcdef0123456789abcdef".into());
        assert_eq!(stream(Matches(unknown)).await, bucket.conflict(name), "there is no object to match");
        let first = bucket.put(name, "first", Absent).await.unwrap();
        assert_eq!(stream(Absent).await, bucket.conflict(name));
        assert_eq!(bucket.read(name).await.unwrap(), "first");
        let second = stream(Matches(first.clone())).await.unwrap();
        assert_eq!(stream(Matches(first)).await, bucket.conflict(name));
        assert_eq!(bucket.store.head(&key).await.unwrap().unwrap().etag, second);

        // Another writer creates the object during the stream.
        let name = format!("{name}, overtaken");
        let (store, key) = (bucket.store.clone(), bucket.key(&name));
        let last = stream::once(async {
            store.put(&key, "overtaking".into(), Absent).await?;
            Ok(Bytes::from_static(b"end"))
        });
        let body = body_of(megabytes(length)).chain(last).boxed();
        assert_eq!(bucket.store.put_stream(&key, body, Absent).await, bucket.conflict(&name));
        assert_eq!(bucket.read(&name).await.unwrap(), "overtaking");
    }
}

/// An error in the body is returned to the caller, and the object stays unchanged.
pub async fn a_broken_stream_writes_nothing(bucket: Bucket) {
    for (name, length) in [("at once", 0), ("soon", 1), ("late", 17)] {
        for error in [
            StoreError::Conflict { key: "somewhere else".into() },
            StoreError::Refused { detail: "a broken source".into() },
            StoreError::Unavailable { detail: "a broken source".into() },
        ] {
            let body = || body_of(megabytes(length).into_iter().chain([Err(error.clone())]));
            let key = bucket.key(name);
            assert_eq!(bucket.store.put_stream(&key, body(), Precondition::None).await, Err(error.clone()));
            assert_eq!(bucket.store.head(&key).await, Ok(None));
        }
    }
    assert_eq!(bucket.list("", None).await.0, [""; 0]);
    let etag = bucket.put("late", "before", Absent).await.unwrap();
    let error = StoreError::Refused { detail: "a broken source".into() };
    let body = body_of(megabytes(17).into_iter().chain([Err(error.clone())]));
    let key = bucket.key("late");
    assert_eq!(bucket.store.put_stream(&key, body, Matches(etag)).await, Err(error));
    assert_eq!(bucket.read("late").await.unwrap(), "before");
}

/// Names as people and encodings produce them; no two are the same key.
const NAMES: [&str; 16] = [
    "100%.jsonl",
    "a b/c d.csv",
    "a%20b/c%20d.csv",
    "a+b/c+d.csv",
    "%2E%2E",
    "..%2F..%2Fx.jsonl",
    "..hidden",
    ".hidden",
    "Frühling/Schühe.csv",
    "日本/靴.csv",
    "emoji/👟.json",
    "quote\"s and 'these'",
    "question?mark=1&b#c",
    "semi;colon:and,more",
    "~tilde~",
    "(round)[square]{curly}<angle>|^`$!@=*",
];

/// A store does not decode, encode or normalise keys.
pub async fn keys_are_not_changed(bucket: Bucket) {
    for name in NAMES {
        bucket.put(name, name, Absent).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    for name in NAMES {
        assert_eq!(bucket.read(name).await.as_deref(), Some(name.as_bytes()), "{name}");
        assert_eq!(bucket.list(name, None).await.0, [name]);
    }
    let mut sorted = NAMES.to_vec();
    sorted.sort_unstable();
    assert_eq!(bucket.list("", None).await.0, sorted);
}

/// Keys are ordered as bytes, not as paths, words or UTF-16.
pub async fn keys_are_listed_in_byte_order(bucket: Bucket) {
    // `-` and `.` are less than `/`, `0` is more; what begins with U+1F45F is more than what begins with U+FF01.
    let sorted = [
        "a-b-c", "a-b/d", "a-b0", "a.b", "a/b", "a/b-c/d", "a/b.c", "a/c/d", "a/c0", "a0", "a1/b", "aa", "b", "Z/c",
        "é", "！", "👟",
    ];
    let mut sorted = sorted.map(str::to_owned).to_vec();
    sorted.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    for name in sorted.iter().rev() {
        bucket.put(name, name, Absent).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert_eq!(bucket.list("", None).await, (sorted.clone(), vec![sorted.len()]));
    for (index, name) in sorted.iter().enumerate() {
        assert_eq!(bucket.list("", Some(name)).await.0, sorted[index + 1..], "after {name}");
    }
    // `after` need not exist.
    for after in ["a", "a-", "a/", "a/b-", "a/b-c/", "a/b-c/z", "a/zzz", "aZ", "zz", "\u{10ffff}"] {
        let expected: Vec<_> = sorted.iter().filter(|name| name.as_str() > after).cloned().collect();
        assert_eq!(bucket.list("", Some(after)).await.0, expected, "after {after}");
    }
    let below: Vec<_> =
        sorted.iter().filter(|name| name.starts_with("a/") && name.as_str() > "a/b-z").cloned().collect();
    assert_eq!(bucket.list("a/", Some("a/b-z")).await.0, below);
    assert_eq!(bucket.list("a/", Some("A")).await.0.len(), sorted.iter().filter(|name| name.starts_with("a/")).count());
    assert_eq!(bucket.list("a/", Some("b")).await.0, [""; 0]);
}

/// A page has at most 1,000 objects, and each object is in exactly one page.
pub async fn long_lists_come_in_pages(bucket: Bucket) {
    let names: Vec<String> =
        (1..=2_001).map(|row| format!("results/{:06}/{row:09}-SKU.jsonl", (row - 1) / 700)).collect();
    stream::iter(&names)
        .for_each_concurrent(16, |name| async {
            bucket.put(name, "{}", Absent).await.unwrap();
        })
        .await;
    let (listed, pages) = bucket.list("results/", None).await;
    assert!(listed == names, "{} of {}", listed.len(), names.len());
    assert_eq!(pages, [1_000, 1_000, 1]);
    assert_eq!(bucket.list("results/000001/", None).await, (names[700..1_400].to_vec(), vec![700]));
    assert_eq!(bucket.list("results/", Some(&names[1_000])).await, (names[1_001..].to_vec(), vec![1_000]));
}

/// A prefix may end anywhere in a key, and its case matters.
pub async fn a_prefix_may_end_anywhere(bucket: Bucket) {
    for name in ["results/1/a", "results/1/b", "results/10/a", "results/2/a", "Results/1/a", "resulta"] {
        bucket.put(name, "x", Absent).await.unwrap();
    }
    for (prefix, names) in [
        ("results/1", &["results/1/a", "results/1/b", "results/10/a"][..]),
        ("results/1/", &["results/1/a", "results/1/b"]),
        ("results/1/b", &["results/1/b"]),
        ("results/1/b/", &[]),
        ("results/3", &[]),
        ("result", &["resulta", "results/1/a", "results/1/b", "results/10/a", "results/2/a"]),
        ("esults", &[]),
    ] {
        assert_eq!(bucket.list(prefix, None).await.0, names, "{prefix}");
    }
}

/// A bucket with versions returns the requested one; any other bucket returns the current object.
pub async fn old_versions_can_be_read(bucket: Bucket) {
    let key = bucket.key("a");
    let open = async |version: &str| match bucket.store.open(&key, Some(version)).await.unwrap() {
        Some(object) => Some((object.meta.etag.clone(), read_all(object).await.unwrap())),
        None => None,
    };
    let Some(versions) = &bucket.versions else {
        let etag = bucket.put("a", "there", Absent).await.unwrap();
        assert_eq!(open("any").await, Some((etag, "there".into())));
        return;
    };
    let first = versions.put(&key, "first".into()).await;
    let first_etag = bucket.store.head(&key).await.unwrap().unwrap().etag;
    let second = versions.put(&key, "second".into()).await;
    let second_etag = bucket.store.head(&key).await.unwrap().unwrap().etag;
    assert_ne!(first, second);
    assert_eq!(open(&first).await, Some((first_etag, "first".into())));
    assert_eq!(open(&second).await, Some((second_etag, "second".into())));
    assert_eq!(bucket.read("a").await.unwrap(), "second");
}
