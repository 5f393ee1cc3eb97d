//! What both stores share: the ETag of some bytes, and the sizes in which S3 lists and reads.

use packshot_pipeline::model::etag::Etag;
use sha2::{Digest, Sha256};

/// Objects in one page of a listing, as on S3.
pub(crate) const PAGE: usize = 1_000;
/// The most bytes of an object that a reader gets at once.
pub(crate) const CHUNK: usize = 64 * 1024;

/// An ETag that depends on the bytes only: as on S3, writing the same bytes again gives the same ETag.
pub(crate) fn etag(hash: Sha256) -> Etag {
    Etag(hex::encode(&hash.finalize()[..16]))
}

pub(crate) fn etag_of(bytes: &[u8]) -> Etag {
    etag(Sha256::new_with_prefix(bytes))
}
