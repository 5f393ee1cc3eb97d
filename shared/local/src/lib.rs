//! The ports in one process: a directory or memory as the bucket, and a queue with SQS's semantics.
//!
//! The contract suite in `tests/` holds them to the same behaviour as S3 and SQS.

use packshot_pipeline::model::etag::Etag;
use sha2::{Digest, Sha256};

pub mod directory;
pub mod memory_queue;
pub mod memory_store;
pub mod notify;

pub use self::{directory::DirectoryStore, memory_queue::MemoryQueue, memory_store::MemoryStore, notify::Notifying};

/// Objects in one page of a listing, as S3 gives them.
const PAGE: usize = 1_000;
/// Bytes of an object that are handed to a reader at once.
const CHUNK: usize = 64 * 1024;

/// The identity of the bytes that were hashed: as on S3, the same bytes have the same ETag whenever they are written.
fn etag(hash: Sha256) -> Etag {
    let digest = hash.finalize();
    let head = digest.iter().take(16).fold(0, |number, &byte| number << 8 | u128::from(byte));
    Etag(format!("{head:032x}"))
}

fn etag_of(bytes: &[u8]) -> Etag {
    etag(Sha256::new_with_prefix(bytes))
}
