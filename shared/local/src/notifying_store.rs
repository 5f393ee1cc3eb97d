//! A store that sends the events of a bucket, in process.
//!
//! Every call goes to the wrapped store. After a write under `incoming/` or `results/` that happened, or whose outcome is
//! unknown, the key goes into an unbounded channel; a write that certainly did not happen sends nothing.

use async_trait::async_trait;
use bytes::Bytes;
use packshot_pipeline::{
    model::{etag::Etag, keys},
    ports::{Body, Object, ObjectMeta, Page, Precondition, Store, StoreError},
};
use tokio::sync::mpsc::UnboundedSender;

/// Wraps a store and sends the key of each write under `incoming/` and `results/`, as S3's event notifications do.
pub struct NotifyingStore<S> {
    store: S,
    events: UnboundedSender<String>,
}

impl<S: Store> NotifyingStore<S> {
    /// Sends the keys of the writes to `store` into `events`.
    pub fn new(store: S, events: UnboundedSender<String>) -> Self {
        Self { store, events }
    }

    /// The wrapped store.
    pub fn inner(&self) -> &S {
        &self.store
    }

    fn notify(&self, key: &str, outcome: &Result<Etag, StoreError>) {
        // A write with an unknown outcome may have happened. Consumers are idempotent, so one event too many is harmless.
        let written = matches!(outcome, Ok(_) | Err(StoreError::Unknown { .. }));
        if written && (key.starts_with(keys::INCOMING) || key.starts_with(keys::RESULTS)) {
            // The receiver is gone when the host is ending. The write did happen, so it does not fail for that.
            let _ = self.events.send(key.to_owned());
        }
    }
}

#[async_trait]
impl<S: Store> Store for NotifyingStore<S> {
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        self.store.head(key).await
    }

    async fn open(&self, key: &str, version: Option<&str>) -> Result<Option<Object>, StoreError> {
        self.store.open(key, version).await
    }

    async fn put(&self, key: &str, body: Bytes, precondition: Precondition) -> Result<Etag, StoreError> {
        let outcome = self.store.put(key, body, precondition).await;
        self.notify(key, &outcome);
        outcome
    }

    async fn put_stream(&self, key: &str, body: Body<'_>, precondition: Precondition) -> Result<Etag, StoreError> {
        let outcome = self.store.put_stream(key, body, precondition).await;
        self.notify(key, &outcome);
        outcome
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, StoreError> {
        self.store.list(prefix, after).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::{StreamExt as _, stream};
    use jiff::Timestamp;
    use packshot_pipeline::ports::Clock;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::MemoryStore;

    struct StoppedClock;

    impl Clock for StoppedClock {
        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn random(&self) -> u64 {
            0
        }
    }

    #[tokio::test]
    async fn only_writes_that_may_have_happened_send_an_event() {
        let (events, mut arriving) = unbounded_channel();
        let store = NotifyingStore::new(MemoryStore::new(Arc::new(StoppedClock)), events);
        for key in
            ["incoming/a.csv", "results/1/a", "control/a", "manifests/a", "ledger/results/a", "images/incoming/a"]
        {
            store.put(key, "x".into(), Precondition::Absent).await.unwrap();
            store.put(key, "x".into(), Precondition::Absent).await.unwrap_err();
            store.put_stream(key, stream::empty().boxed(), Precondition::None).await.unwrap();
            store.put_stream(key, stream::empty().boxed(), Precondition::Absent).await.unwrap_err();
            store.head(key).await.unwrap().unwrap();
        }
        let sent: Vec<String> = std::iter::from_fn(|| arriving.try_recv().ok()).collect();
        assert_eq!(sent, ["incoming/a.csv", "incoming/a.csv", "results/1/a", "results/1/a"]);
        drop(arriving);
        store.put("results/1/a", "y".into(), Precondition::None).await.unwrap();
    }
}
