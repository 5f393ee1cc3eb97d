//! The contract of each port against every adapter (`tests/src/contract`); the input files (`inputs`); and all stages together in
//! memory (`round_trip`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this is test code")]

use std::{sync::Arc, time::Duration};

use packshot_local::{DirectoryStore, MemoryQueue, MemoryStore, NotifyingStore};
use packshot_pipeline::{model::notification::Notification, ports::NotifyError};
use packshot_tests::{
    clock::TestClock,
    contract::{queue::QueueUnderTest, store::Bucket},
    queue_contract,
    stack::Stack,
    store_contract,
};
use serde_json::json;

mod inputs;
mod round_trip;

store_contract!(store_memory, [], async { Bucket::new(Arc::new(MemoryStore::new(clock()))) });
store_contract!(store_memory_versioned, [], async {
    let store = Arc::new(MemoryStore::versioned(clock()));
    Bucket::new(store.clone()).with_versions(store)
});
store_contract!(store_directory, [], async {
    let directory = tempfile::tempdir().unwrap();
    // Does not exist yet, as in a first run.
    Bucket::new(Arc::new(DirectoryStore::new(directory.path().join("out")))).with_guard(directory)
});
store_contract!(store_notifying, [], async {
    let (events, arriving) = tokio::sync::mpsc::unbounded_channel();
    Bucket::new(Arc::new(NotifyingStore::new(MemoryStore::new(clock()), events))).with_guard(arriving)
});
store_contract!(store_s3, [ignore = "needs a local AWS; `make test` starts one"], async {
    Stack::of_this_run().bucket().await
});

queue_contract!(queue_memory, [], async {
    tokio::time::pause();
    let queue = Arc::new(MemoryQueue::new(VISIBILITY, None, None));
    QueueUnderTest::new(queue.clone(), queue, VISIBILITY)
});
queue_contract!(queue_sqs, [ignore = "needs a local AWS; `make test` starts one"], async {
    Stack::of_this_run().queue(VISIBILITY).await
});

/// SNS delivers the JSON, and a subscription can filter by status.
#[tokio::test]
#[ignore = "needs a local AWS; `make test` starts one"]
async fn notifier_sns() {
    let topic = Stack::of_this_run().topic().await;
    let notification = |status: &str| -> Notification {
        let value = json!({
            "v": 1, "job": "0123456789abcdef", "catalog": "Frühling/shoes", "status": status, "bucket": "b", "rows": 2,
            "completed": 1, "failed": 1, "rows_rejected": 0, "images": 4, "calls": 2, "retries": 0, "reused": 0,
            "unknown_outcomes": 0, "latency_ms": 1, "top_error": {"error_code": "x", "rows": 1, "line": 3},
            "manifest": "m", "summary": "s", "ended_at": "2026-03-01T00:00:00Z"
        });
        serde_json::from_value(value).unwrap()
    };
    for status in ["complete", "complete_with_failures"] {
        topic.notifier.publish(&notification(status)).await.unwrap();
    }
    let envelope = topic.receive().await;
    assert_eq!(envelope["Subject"], "packshot: complete with failures (1 of 2): Fr?hling/shoes");
    let received: Notification = serde_json::from_str(envelope["Message"].as_str().unwrap()).unwrap();
    assert_eq!(received, notification("complete_with_failures"), "the queue is subscribed to failures only");
    let deleted =
        Stack::of_this_run().notifier(&format!("{}-gone", topic.arn)).await.publish(&notification("complete")).await;
    assert!(matches!(deleted, Err(NotifyError::Refused { .. })), "{deleted:?}");
}

const VISIBILITY: Duration = Duration::from_secs(2);

fn clock() -> Arc<TestClock> {
    Arc::new(TestClock::new(0))
}
