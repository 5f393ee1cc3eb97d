//! Reads an object to its end over connections that break. After a break the rest is requested from the offset reached, with
//! `If-Match` on the ETag, so that all bytes come from the same content.

use std::{sync::Arc, time::Duration};

use aws_sdk_s3::{Client, primitives::ByteStream};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use bytes::Bytes;
use packshot_pipeline::{model::etag::Etag, ports::StoreError};

use super::{
    errors::{Access, store_error},
    headers::quoted,
};
use crate::error_chain::with_causes;

/// The pause after the first break; it doubles after each further break without a byte in between.
const FIRST_PAUSE: Duration = Duration::from_millis(400);
/// How many breaks in a row a read survives.
const RESUMES: usize = 3;

/// The body of an object that is being read.
pub(super) struct ResumableRead {
    pub(super) client: Client,
    pub(super) bucket: Arc<str>,
    pub(super) key: String,
    pub(super) version: Option<String>,
    pub(super) etag: Etag,
    /// Length of the whole object.
    pub(super) bytes: u64,
    /// How many bytes have been returned.
    pub(super) offset: u64,
    /// The open response; `None` after a break.
    pub(super) stream: Option<ByteStream>,
}

impl ResumableRead {
    /// Returns the next chunk; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let mut pauses = ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_max_times(RESUMES).build();
        while self.offset < self.bytes {
            let problem = match self.try_next().await {
                Ok(chunk) => {
                    self.offset += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                Err(StoreError::Unavailable { detail }) => detail,
                Err(error) => return Err(error),
            };
            self.stream = None;
            let Some(pause) = pauses.next() else {
                let detail = format!("reading {} broke off at byte {}: {problem}", self.key, self.offset);
                return Err(StoreError::Unavailable { detail });
            };
            tokio::time::sleep(pause).await;
        }
        Ok(None)
    }

    async fn try_next(&mut self) -> Result<Bytes, StoreError> {
        let stream = match self.stream.take() {
            Some(stream) => self.stream.insert(stream),
            None => {
                let rest = self.reopen().await?;
                self.stream.insert(rest)
            }
        };
        match stream.next().await {
            Some(Ok(chunk)) => Ok(chunk),
            Some(Err(error)) => Err(StoreError::Unavailable { detail: with_causes(&error) }),
            None => Err(StoreError::Unavailable { detail: "the connection ended early".into() }),
        }
    }

    async fn reopen(&self) -> Result<ByteStream, StoreError> {
        let answer = self
            .client
            .get_object()
            .bucket(&*self.bucket)
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
