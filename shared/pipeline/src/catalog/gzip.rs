//! Unpacks gzip, also files of several members, and refuses decompression bombs.
//!
//! Both sides of the decoder are counted. Unpacking stops when the text is too long, or too long for the packed bytes that
//! were read.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_compression::tokio::bufread::GzipDecoder;
use futures::{StreamExt as _, stream::BoxStream};
use tokio_util::io::{ReaderStream, StreamReader};

use bytes::Bytes;

use super::read_error::ReadError;
use crate::{
    model::catalog_error::CatalogError,
    ports::{Body, StoreError},
};

/// The longest text that a packed file may unpack to, in bytes.
const MAX_UNPACKED_BYTES: u64 = 16 * 1024 * 1024 * 1024;
/// The largest allowed ratio of text to packed bytes. Catalogs reach 20; gzip itself can reach 1,000.
const MAX_RATIO: u64 = 200;
/// Up to this length in bytes a text may have any ratio.
const ANY_RATIO_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes of text per chunk.
const CHUNK: usize = 64 * 1024;

pub(super) fn unpack(body: Body<'static>) -> BoxStream<'static, Result<Bytes, ReadError>> {
    let packed = Arc::new(AtomicU64::new(0));
    let counter = packed.clone();
    let counted = body.map(move |chunk| {
        let chunk = chunk.map_err(io::Error::other)?;
        counter.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        Ok::<_, io::Error>(chunk)
    });
    let mut decoder = GzipDecoder::new(StreamReader::new(counted));
    decoder.multiple_members(true);
    let mut unpacked = 0;
    let text = ReaderStream::with_capacity(decoder, CHUNK).map(move |chunk| {
        let chunk = chunk.map_err(failure)?;
        unpacked += chunk.len() as u64;
        let ratio = unpacked / packed.load(Ordering::Relaxed).max(1);
        if unpacked > MAX_UNPACKED_BYTES || (unpacked > ANY_RATIO_BYTES && ratio > MAX_RATIO) {
            let what = format!(
                "the gzip file unpacks to more than {MAX_RATIO} times its size, or to more than {} GiB; no catalog does. \
                 Drop it unpacked, or cut it into several files",
                MAX_UNPACKED_BYTES >> 30
            );
            return Err(CatalogError::new("gzip_too_large", what).into());
        }
        Ok(chunk)
    });
    text.boxed()
}

fn failure(error: io::Error) -> ReadError {
    let how = match error.downcast::<StoreError>() {
        Ok(store) => return store.into(),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => "ends in the middle",
        Err(_) => "is damaged",
    };
    CatalogError::new("damaged_gzip", format!("the gzip file {how}; pack it again, upload it whole, and drop it again"))
        .into()
}
