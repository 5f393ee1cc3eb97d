//! Tests of the documents and of the repeated calls, over a store that fails and is written by others on demand.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;

use super::*;
use crate::{
    model::request::Request,
    ports::{
        ApiError, Body, Clock, FetchError, Generated, ImageApi, NoopNotifier, NoopRecorder, Object, ObjectMeta,
        OutgoingMessage, Page, Queue, QueueError,
    },
};

const KEY: &str = "control/count.json";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Count {
    by: String,
    count: u32,
}

fn count(by: &str, count: u32) -> Count {
    Count { by: by.into(), count }
}

fn document() -> Document<Count> {
    Document::compact(KEY)
}

/// What happens to a write.
#[derive(Debug, Clone)]
enum Fault {
    /// It happens, and the answer says that its precondition failed, or no answer comes.
    Own(StoreError),
    /// Another writer is first.
    Other(&'static str),
}

/// One object, and faults for the next writes. An ETag is the content.
#[derive(Default)]
struct OneObject {
    object: Mutex<Option<Bytes>>,
    faults: Mutex<Vec<Fault>>,
    writes: Mutex<u32>,
}

impl OneObject {
    fn etag(bytes: &Bytes) -> Etag {
        Etag(String::from_utf8_lossy(bytes).into_owned())
    }
}

#[async_trait]
impl Store for OneObject {
    async fn head(&self, _: &str) -> Result<Option<ObjectMeta>, StoreError> {
        Ok(self.open(KEY, None).await?.map(|object| object.meta))
    }

    async fn open(&self, _: &str, _: Option<&str>) -> Result<Option<Object>, StoreError> {
        let Some(bytes) = self.object.lock().clone() else { return Ok(None) };
        let meta =
            ObjectMeta { etag: Self::etag(&bytes), bytes: bytes.len() as u64, last_modified: Timestamp::UNIX_EPOCH };
        Ok(Some(Object { meta, body: futures::stream::iter([Ok(bytes)]).boxed() }))
    }

    async fn put(&self, key: &str, body: Bytes, precondition: Precondition) -> Result<Etag, StoreError> {
        *self.writes.lock() += 1;
        let fault = self.faults.lock().pop();
        if let Some(Fault::Other(text)) = fault {
            *self.object.lock() = Some(text.into());
        }
        let etag = self.object.lock().as_ref().map(Self::etag);
        if precondition != Precondition::None && precondition != Precondition::unchanged(etag) {
            return Err(conflict(key));
        }
        *self.object.lock() = Some(body.clone());
        match fault {
            Some(Fault::Own(error)) => Err(error),
            _ => Ok(Self::etag(&body)),
        }
    }

    async fn put_stream(&self, key: &str, _: Body<'_>, _: Precondition) -> Result<Etag, StoreError> {
        Err(conflict(key))
    }

    async fn list(&self, _: &str, _: Option<&str>) -> Result<Page, StoreError> {
        Ok(Page::default())
    }
}

struct Unused;

#[async_trait]
impl Queue for Unused {
    async fn send(&self, _: &[OutgoingMessage]) -> Result<(), QueueError> {
        Ok(())
    }

    async fn delay(&self, _: &str, _: Duration) -> Result<(), QueueError> {
        Ok(())
    }
}

#[async_trait]
impl ImageApi for Unused {
    async fn generate(&self, _: &Request, _: &str) -> Result<Generated, ApiError> {
        Err(ApiError::NotSent { detail: String::new() })
    }

    async fn fetch(&self, _: &str, _: usize) -> Result<Bytes, FetchError> {
        Err(FetchError::Refused { detail: String::new() })
    }
}

impl Clock for Unused {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn random(&self) -> u64 {
        0
    }
}

fn ports(object: Option<&'static str>, faults: Vec<Fault>) -> (Ports, Arc<OneObject>) {
    let object = object.map(|text| Bytes::from_static(text.as_bytes()));
    let store = Arc::new(OneObject { object: Mutex::new(object), faults: Mutex::new(faults), writes: Mutex::new(0) });
    let ports = Ports {
        store: store.clone(),
        rows: Arc::new(Unused),
        retry: Arc::new(Unused),
        images: Arc::new(Unused),
        clock: Arc::new(Unused),
        metrics: Arc::new(NoopRecorder),
        notifier: Arc::new(NoopNotifier),
    };
    (ports, store)
}

fn conflict(key: &str) -> StoreError {
    StoreError::Conflict { key: key.into() }
}

fn lost_answers() -> [Fault; 2] {
    [Fault::Own(conflict(KEY)), Fault::Own(StoreError::Unknown { detail: "reset".into() })]
}

#[tokio::test]
async fn absent_and_unreadable_are_told_apart() {
    let (empty, _) = ports(None, vec![]);
    assert_eq!(document().read(&empty).await, Ok(None));
    assert!(!document().read_or_discard(&empty).await.unwrap().exists());

    let (unreadable, store) = ports(Some("{\"by\":1}"), vec![]);
    let error = document().read(&unreadable).await.unwrap_err();
    assert!(matches!(&error, StoreError::Refused { detail } if detail.contains(KEY)), "{error}");
    let current = document().read_or_discard(&unreadable).await.unwrap();
    assert!(current.exists() && current.value.is_none());
    document().write(&unreadable, &count("a", 1), current.unchanged).await.unwrap();
    assert_eq!(store.object.lock().as_deref(), Some(&b"{\"by\":\"a\",\"count\":1}"[..]));
}

#[tokio::test]
async fn a_create_returns_what_exists() {
    let theirs = r#"{"by":"b","count":7}"#;
    let (existing, _) = ports(Some(theirs), vec![]);
    assert_eq!(document().create(&existing, count("a", 1)).await, Ok(count("b", 7)));
    let (raced, _) = ports(None, vec![Fault::Other(theirs)]);
    assert_eq!(document().create(&raced, count("a", 1)).await, Ok(count("b", 7)));
    for fault in lost_answers() {
        let (lost, _) = ports(None, vec![fault]);
        assert_eq!(document().create(&lost, count("a", 1)).await, Ok(count("a", 1)));
    }
    let (unreadable, _) = ports(Some("half"), vec![]);
    assert!(matches!(document().create(&unreadable, count("a", 1)).await, Err(StoreError::Refused { .. })));
}

#[tokio::test]
async fn a_replace_recognises_its_own_write() {
    let before = r#"{"by":"b","count":7}"#;
    for fault in lost_answers() {
        let (ports, _) = ports(Some(before), vec![fault]);
        let current = document().read_or_discard(&ports).await.unwrap();
        let written = document().replace(&ports, &count("a", 8), current.unchanged, |found| found.by == "a").await;
        assert!(matches!(written, Ok(Written::Own(_))), "{written:?}");
    }
    let (ports, _) = ports(Some(before), vec![Fault::Other(r#"{"by":"c","count":9}"#)]);
    let current = document().read_or_discard(&ports).await.unwrap();
    let written = document().replace(&ports, &count("a", 8), current.unchanged, |found| found.by == "a").await;
    assert!(matches!(written, Ok(Written::Other(Current { value: Some(found), .. })) if found.by == "c"));
}

#[tokio::test]
async fn an_update_reads_again_after_a_conflict() {
    let increment = |nonce: &'static str| {
        move |current: Option<&Count>| match current {
            Some(current) if current.by == nonce => None,
            current => Some(count(nonce, current.map_or(0, |current| current.count) + 1)),
        }
    };
    let (raced, store) = ports(Some(r#"{"by":"b","count":7}"#), vec![Fault::Other(r#"{"by":"c","count":9}"#)]);
    // The key is not free, and another writer changes what it holds before the first attempt.
    let updated = document().update(&raced, Current::absent(), increment("a")).await;
    assert_eq!(updated, Ok(Some(count("a", 10))));
    assert_eq!(*store.writes.lock(), 2);
    for fault in lost_answers() {
        let (lost, store) = ports(None, vec![fault]);
        let updated = document().update(&lost, Current::absent(), increment("a")).await;
        assert_eq!(updated, Ok(Some(count("a", 1))), "its own write is not counted twice");
        assert_eq!(*store.writes.lock(), 1);
    }
    let (contended, _) =
        ports(None, [Fault::Other("1"), Fault::Other("2")].iter().cycle().take(UPDATE_ATTEMPTS).cloned().collect());
    let error = document().update(&contended, Current::absent(), increment("a")).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable { detail } if detail.contains(KEY)), "{error}");
}
