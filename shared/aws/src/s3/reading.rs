//! Reading an object to its end, over broken connections.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use packshot_pipeline::{model::etag::Etag, ports::StoreError};

use super::{
    S3Store,
    wire::{Access, quoted, store_error},
};
use crate::chain;

/// Breaks in a row, without a byte between them, after which a read gives up.
const READ_TRIES: u32 = 4;
const READ_PAUSE: Duration = Duration::from_millis(200);

/// The body of an object that is being read. It survives broken connections: the rest is asked for again, of exactly the
/// same content.
pub(super) struct Reading {
    pub(super) store: S3Store,
    pub(super) key: String,
    pub(super) version: Option<String>,
    pub(super) etag: Etag,
    pub(super) bytes: u64,
    pub(super) offset: u64,
    pub(super) wire: Option<ByteStream>,
}

impl Reading {
    /// The next chunk; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let mut tries = 0;
        while self.offset < self.bytes {
            let problem = match self.try_next().await {
                Ok(chunk) => {
                    self.offset += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                Err(StoreError::Unavailable { detail }) => detail,
                Err(error) => return Err(error),
            };
            self.wire = None;
            tries += 1;
            if tries >= READ_TRIES {
                let detail = format!("reading {} broke off at byte {}: {problem}", self.key, self.offset);
                return Err(StoreError::Unavailable { detail });
            }
            tokio::time::sleep(READ_PAUSE * 2_u32.pow(tries)).await;
        }
        Ok(None)
    }

    async fn try_next(&mut self) -> Result<Bytes, StoreError> {
        let wire = match self.wire.take() {
            Some(wire) => self.wire.insert(wire),
            None => {
                let rest = self.reopen().await?;
                self.wire.insert(rest)
            }
        };
        match wire.next().await {
            Some(Ok(chunk)) => Ok(chunk),
            Some(Err(error)) => Err(StoreError::Unavailable { detail: chain(&error) }),
            None => Err(StoreError::Unavailable { detail: "the connection ended early".into() }),
        }
    }

    async fn reopen(&self) -> Result<ByteStream, StoreError> {
        let answer = self
            .store
            .client
            .get_object()
            .bucket(&*self.store.bucket)
            .key(&self.key)
            .set_version_id(self.version.clone())
            .if_match(quoted(&self.etag))
            .range(format!("bytes={}-", self.offset))
            .send()
            .await
            .map_err(|error| store_error(&error, Access::Read, &self.key))?;
        Ok(answer.body)
    }
}
