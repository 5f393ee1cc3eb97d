//! Adapters of one machine for the pipeline's ports: a directory or memory as the bucket, and a queue with SQS's semantics.
//!
//! The contract suite in `tests/` runs the same cases against these adapters and against S3 and SQS.

use packshot_pipeline::model::etag::Etag;
use sha2::{Digest, Sha256};

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

/// Objects in one page of a listing, as on S3.
const PAGE: usize = 1_000;
/// The most bytes of an object that a reader gets at once.
const CHUNK: usize = 64 * 1024;

/// An ETag that depends on the bytes only: as on S3, writing the same bytes again gives the same ETag.
fn etag(hash: Sha256) -> Etag {
    let digest = hash.finalize();
    let head = digest.iter().take(16).fold(0, |number, &byte| number << 8 | u128::from(byte));
    Etag(format!("{head:032x}"))
}

fn etag_of(bytes: &[u8]) -> Etag {
    etag(Sha256::new_with_prefix(bytes))
}
