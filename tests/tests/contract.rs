//! Every adapter of a port keeps the port's contract; and what is split, generated and merged is what was dropped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of this is test code")]

use std::{sync::Arc, time::Duration};

use packshot::adapters::{DirectoryStore, MemoryQueue, MemoryStore, Notifying};
use packshot_tests::{
    clock::TestClock,
    contract::{queue::QueueUnderTest, store::Bucket},
    queue_contract,
    stack::Stack,
    store_contract,
};

mod inputs;
mod round_trip;

store_contract!(store_memory, [], async { Bucket::new(Arc::new(MemoryStore::new(clock()))) });
store_contract!(store_memory_versioned, [], async {
    let store = Arc::new(MemoryStore::versioned(clock()));
    Bucket::new(store.clone()).with_versions(store)
});
store_contract!(store_directory, [], async {
    let directory = tempfile::tempdir().unwrap();
    // Not there yet, as on a first run.
    Bucket::new(Arc::new(DirectoryStore::new(directory.path().join("out")))).with_guard(directory)
});
store_contract!(store_notifying, [], async {
    let (events, arriving) = tokio::sync::mpsc::unbounded_channel();
    Bucket::new(Arc::new(Notifying::new(MemoryStore::new(clock()), events))).with_guard(arriving)
});
store_contract!(store_s3, [ignore = "wants a local AWS; `make test` starts one"], async {
    Stack::of_this_run().bucket().await
});

queue_contract!(queue_memory, [], async {
    tokio::time::pause();
    let queue = Arc::new(MemoryQueue::new(VISIBILITY, None, None));
    QueueUnderTest::new(queue.clone(), queue, VISIBILITY)
});
queue_contract!(queue_sqs, [ignore = "wants a local AWS; `make test` starts one"], async {
    Stack::of_this_run().queue(VISIBILITY).await
});

const VISIBILITY: Duration = Duration::from_secs(2);

fn clock() -> Arc<TestClock> {
    Arc::new(TestClock::new(0))
}
