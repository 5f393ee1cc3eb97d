//! The [`Store`] port over S3, through the AWS SDK.
//!
//! The SDK retries reads, and a read resumes after a broken connection. The request that makes a write visible is sent once: if
//! the SDK repeated one whose answer was lost, the 412 or 503 of the repetition would say nothing about the first. A body of
//! 8 MiB or more goes up as a multipart upload, with the precondition on its completion. A semaphore limits concurrent requests.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::{
    Client,
    config::retry::RetryConfig,
    types::{CompletedMultipartUpload, CompletedPart},
};
use bytes::{Bytes, BytesMut};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use packshot_pipeline::{
    model::etag::Etag,
    ports::{Body, ListedObject, Object, ObjectMeta, Page, Precondition, Store, StoreError},
};
use tokio::sync::Semaphore;

use self::{
    errors::{Access, is_missing, store_error},
    headers::{conditions, content_type, etag, meta},
    resumable_read::ResumableRead,
};
use crate::error_chain::with_causes;

mod errors;
mod headers;
mod resumable_read;

/// The first parts of a multipart upload. S3 requires at least 5 MiB and accepts 10,000 parts.
const PART_BYTES: usize = 8 * 1024 * 1024;
const PARTS_IN_FLIGHT: usize = 4;

/// The objects of one bucket.
#[derive(Debug, Clone)]
pub struct S3Store {
    client: Client,
    /// For the request that makes a write visible: the SDK does not retry it.
    no_retry_client: Client,
    /// One permit for each concurrent request.
    permits: Arc<Semaphore>,
    bucket: Arc<str>,
}

/// Identifies the object that a write produced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenObject {
    /// Identity of the content.
    pub etag: Etag,
    /// `None` if the bucket has no versioning.
    pub version_id: Option<String>,
}

impl S3Store {
    /// A store without a limit on requests in flight.
    #[must_use]
    pub fn new(client: Client, bucket: &str) -> Self {
        let no_retry = client.config().to_builder().retry_config(RetryConfig::disabled()).build();
        let permits = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Self { client, no_retry_client: Client::from_conf(no_retry), permits, bucket: bucket.into() }
    }

    /// Limits concurrent requests, and with them connections: opening one costs as much CPU as five requests.
    #[must_use]
    pub fn with_max_requests(self, requests: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(requests)), ..self }
    }

    /// Does what [`Store::put_stream`] does, and also returns the version of the object.
    pub async fn upload(
        &self,
        key: &str,
        mut body: Body<'_>,
        precondition: &Precondition,
    ) -> Result<WrittenObject, StoreError> {
        let first = next_part(&mut body, PART_BYTES).await?;
        if first.len() < PART_BYTES {
            return self.put_whole(key, first, precondition).await;
        }
        self.put_parts(key, first, body, precondition).boxed().await
    }

    async fn put_whole(
        &self,
        key: &str,
        body: Bytes,
        precondition: &Precondition,
    ) -> Result<WrittenObject, StoreError> {
        let (absent, matches) = conditions(precondition);
        // Here and below, the error is ignored: the semaphore is never closed.
        let _permit = self.permits.acquire().await;
        let done = self
            .no_retry_client
            .put_object()
            .bucket(&*self.bucket)
            .key(key)
            .content_type(content_type(key))
            .set_if_none_match(absent)
            .set_if_match(matches)
            .body(body.into())
            .send()
            .await
            .map_err(|error| store_error(&error, Access::Write, key))?;
        Ok(WrittenObject { etag: etag(done.e_tag(), key)?, version_id: done.version_id })
    }

    /// Writes `first` and the rest of `body` as a multipart upload, and aborts the upload on failure.
    async fn put_parts(
        &self,
        key: &str,
        first: Bytes,
        body: Body<'_>,
        precondition: &Precondition,
    ) -> Result<WrittenObject, StoreError> {
        let created = self
            .client
            .create_multipart_upload()
            .bucket(&*self.bucket)
            .key(key)
            .content_type(content_type(key))
            .send()
            .await
            .map_err(|error| store_error(&error, Access::Write, key))?;
        let Some(upload) = created.upload_id() else {
            return Err(StoreError::Refused { detail: format!("no upload id for {key}") });
        };
        let written = self.upload_and_complete(key, upload, first, body, precondition).await;
        if written.is_err() {
            // AWS bills the parts of an incomplete upload until it is aborted.
            let aborted =
                self.client.abort_multipart_upload().bucket(&*self.bucket).key(key).upload_id(upload).send().await;
            if let Err(error) = aborted {
                tracing::warn!(
                    key,
                    error = with_causes(&error),
                    "an unfinished upload stays until the bucket's lifecycle rule ends it"
                );
            }
        }
        written
    }

    async fn upload_and_complete(
        &self,
        key: &str,
        upload: &str,
        first: Bytes,
        body: Body<'_>,
        precondition: &Precondition,
    ) -> Result<WrittenObject, StoreError> {
        let upload_part = |(number, part)| self.upload_part(key, upload, number, part).boxed();
        let parts: Vec<CompletedPart> =
            parts(first, body).map_ok(upload_part).try_buffered(PARTS_IN_FLIGHT).try_collect().await?;
        let (absent, matches) = conditions(precondition);
        let done = self
            .no_retry_client
            .complete_multipart_upload()
            .bucket(&*self.bucket)
            .key(key)
            .upload_id(upload)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
            .set_if_none_match(absent)
            .set_if_match(matches)
            .send()
            .await
            .map_err(|error| store_error(&error, Access::Write, key))?;
        Ok(WrittenObject { etag: etag(done.e_tag(), key)?, version_id: done.version_id })
    }

    async fn upload_part(
        &self,
        key: &str,
        upload: &str,
        number: i32,
        part: Bytes,
    ) -> Result<CompletedPart, StoreError> {
        let done = self
            .client
            .upload_part()
            .bucket(&*self.bucket)
            .key(key)
            .upload_id(upload)
            .part_number(number)
            .body(part.into())
            .send()
            .await
            // A part is not visible to readers, so repeating it is as safe as a read.
            .map_err(|error| store_error(&error, Access::Read, key))?;
        Ok(CompletedPart::builder().part_number(number).set_e_tag(done.e_tag).build())
    }
}

#[async_trait]
impl Store for S3Store {
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        let _permit = self.permits.acquire().await;
        let answer = self.client.head_object().bucket(&*self.bucket).key(key).send().await;
        match answer {
            Ok(head) => meta(head.e_tag(), head.content_length(), head.last_modified(), key).map(Some),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(store_error(&error, Access::Read, key)),
        }
    }

    async fn open(&self, key: &str, version: Option<&str>) -> Result<Option<Object>, StoreError> {
        let version = version.map(str::to_owned);
        let _permit = self.permits.acquire().await;
        let answer =
            self.client.get_object().bucket(&*self.bucket).key(key).set_version_id(version.clone()).send().await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(store_error(&error, Access::Read, key)),
        };
        let meta = meta(answer.e_tag(), answer.content_length(), answer.last_modified(), key)?;
        let read = ResumableRead {
            client: self.client.clone(),
            bucket: Arc::clone(&self.bucket),
            key: key.to_owned(),
            version,
            etag: meta.etag.clone(),
            bytes: meta.bytes,
            offset: 0,
            stream: Some(answer.body),
        };
        let body =
            stream::try_unfold(read, |mut read| async move { Ok(read.next().await?.map(|chunk| (chunk, read))) });
        Ok(Some(Object { meta, body: body.boxed() }))
    }

    async fn put(&self, key: &str, body: Bytes, precondition: Precondition) -> Result<Etag, StoreError> {
        self.put_whole(key, body, &precondition).await.map(|written| written.etag)
    }

    async fn put_stream(&self, key: &str, body: Body<'_>, precondition: Precondition) -> Result<Etag, StoreError> {
        self.upload(key, body, &precondition).await.map(|written| written.etag)
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, StoreError> {
        let _permit = self.permits.acquire().await;
        let answer = self
            .client
            .list_objects_v2()
            .bucket(&*self.bucket)
            .prefix(prefix)
            .set_start_after(after.map(str::to_owned))
            .max_keys(1000)
            .send()
            .await
            .map_err(|error| store_error(&error, Access::Read, prefix))?;
        let more = answer.is_truncated() == Some(true);
        let objects = answer
            .contents
            .unwrap_or_default()
            .into_iter()
            .map(|object| {
                let key = object.key.unwrap_or_default();
                let etag = etag(object.e_tag.as_deref(), &key)?;
                Ok(ListedObject {
                    etag,
                    bytes: object.size.and_then(|size| size.try_into().ok()).unwrap_or_default(),
                    key,
                })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        let next = objects.last().filter(|_| more).map(|last| last.key.clone());
        Ok(Page { objects, next })
    }
}

/// Splits the body into numbered parts. Boxed, as the futures over it are, because the compiler cannot infer through the
/// closures that they are `Send`.
fn parts(first: Bytes, body: Body<'_>) -> BoxStream<'_, Result<(i32, Bytes), StoreError>> {
    let parts = stream::try_unfold((first, body, 1), |(part, mut body, number)| async move {
        if part.is_empty() {
            return Ok(None);
        }
        let next = next_part(&mut body, part_bytes(number + 1)).await?;
        Ok(Some(((number, part), (next, body, number + 1))))
    });
    parts.boxed()
}

/// The size of a part. Parts grow with their number, so that 10,000 of them hold 430 GiB while usual objects use small parts.
fn part_bytes(number: i32) -> usize {
    PART_BYTES * (1 + (number as usize).saturating_sub(1) / 1_000)
}

/// Reads the next `bytes` or more; fewer only at the end of the body.
async fn next_part(body: &mut Body<'_>, bytes: usize) -> Result<Bytes, StoreError> {
    let mut part = BytesMut::new();
    while part.len() < bytes {
        match body.try_next().await? {
            Some(chunk) => part.extend_from_slice(&chunk),
            None => break,
        }
    }
    Ok(part.freeze())
}

#[cfg(test)]
mod tests;
