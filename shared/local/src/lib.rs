//! Adapters of one machine for the pipeline's ports: a directory or memory as the bucket, and a queue with SQS's semantics.
//!
//! The contract suite in `tests/` runs the same cases against these adapters and against S3 and SQS.

mod content;
mod directory_store;
mod memory_queue;
mod memory_store;
mod notifying_store;

pub use self::{
    directory_store::DirectoryStore,
    memory_queue::{Depth, MemoryQueue},
    memory_store::MemoryStore,
    notifying_store::NotifyingStore,
};
