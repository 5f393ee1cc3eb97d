//! The events that a bucket sends, in process.

use async_trait::async_trait;
use bytes::Bytes;
use packshot_pipeline::{
    model::{etag::Etag, keys},
    ports::{Body, Object, ObjectMeta, Page, Precondition, Store, StoreError},
};
use tokio::sync::mpsc::UnboundedSender;

/// A store that tells the key of each write under `incoming/` and `results/`, as S3's events do.
pub struct Notifying<S> {
    store: S,
    events: UnboundedSender<String>,
}

impl<S: Store> Notifying<S> {
    /// Tells `events` of the writes to `store`.
    pub fn new(store: S, events: UnboundedSender<String>) -> Self {
        Self { store, events }
    }

    /// The store underneath.
    pub fn inner(&self) -> &S {
        &self.store
    }

    fn tell(&self, key: &str, outcome: &Result<Etag, StoreError>) {
        // A write that may have happened may have sent its event; one event too many is harmless.
        let written = matches!(outcome, Ok(_) | Err(StoreError::Unknown { .. }));
        if written && (key.starts_with(keys::INCOMING) || key.starts_with(keys::RESULTS)) {
            // Nobody listens any more when the host is ending; S3 does not fail a write for that either.
            let _ = self.events.send(key.to_owned());
        }
    }
}

#[async_trait]
impl<S: Store> Store for Notifying<S> {
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        self.store.head(key).await
    }

    async fn open(&self, key: &str, version: Option<&str>) -> Result<Option<Object>, StoreError> {
        self.store.open(key, version).await
    }

    async fn put(&self, key: &str, body: Bytes, precondition: Precondition) -> Result<Etag, StoreError> {
        let outcome = self.store.put(key, body, precondition).await;
        self.tell(key, &outcome);
        outcome
    }

    async fn put_stream(&self, key: &str, body: Body<'_>, precondition: Precondition) -> Result<Etag, StoreError> {
        let outcome = self.store.put_stream(key, body, precondition).await;
        self.tell(key, &outcome);
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
    async fn writes_are_told_and_nothing_else() {
        let (events, mut arriving) = unbounded_channel();
        let store = Notifying::new(MemoryStore::new(Arc::new(StoppedClock)), events);
        for key in
            ["incoming/a.csv", "results/1/a", "control/a", "manifests/a", "ledger/results/a", "images/incoming/a"]
        {
            store.put(key, "x".into(), Precondition::Absent).await.unwrap();
            store.put(key, "x".into(), Precondition::Absent).await.unwrap_err();
            store.put_stream(key, stream::empty().boxed(), Precondition::None).await.unwrap();
            store.put_stream(key, stream::empty().boxed(), Precondition::Absent).await.unwrap_err();
            store.head(key).await.unwrap().unwrap();
        }
        let told: Vec<String> = std::iter::from_fn(|| arriving.try_recv().ok()).collect();
        assert_eq!(told, ["incoming/a.csv", "incoming/a.csv", "results/1/a", "results/1/a"]);
        drop(arriving);
        store.put("results/1/a", "y".into(), Precondition::None).await.unwrap();
    }
}
