//! The bucket, over the AWS SDK.

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
    ports::{Body, Listed, Object, ObjectMeta, Page, Precondition, Store, StoreError},
};
use tokio::sync::Semaphore;

use self::{
    reading::Reading,
    wire::{Access, conditions, content_type, etag, is_missing, meta, store_error},
};
use crate::chain;

mod reading;
mod wire;

/// S3 wants at least 5 MiB and takes 10,000 parts.
const PART_BYTES: usize = 8 * 1024 * 1024;
const PARTS_IN_FLIGHT: usize = 4;

/// A bucket.
#[derive(Debug, Clone)]
pub struct S3Store {
    client: Client,
    /// Does not repeat a call by itself. The SDK would repeat lost writes, too, and then a 412 or a 503 at the end would say
    /// nothing about the write before it.
    once: Client,
    permits: Arc<Semaphore>,
    bucket: Arc<str>,
}

/// What became of an object that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Identity of the content.
    pub etag: Etag,
    /// The version that it became, where the bucket has versions.
    pub version_id: Option<String>,
}

impl S3Store {
    /// A store over this bucket.
    #[must_use]
    pub fn new(client: Client, bucket: &str) -> Self {
        let once = client.config().to_builder().retry_config(RetryConfig::disabled()).build();
        let permits = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Self { client, once: Client::from_conf(once), permits, bucket: bucket.into() }
    }

    /// As it is, with at most so many requests at once, and so as many connections: a new one costs as much CPU as five
    /// requests.
    #[must_use]
    pub fn at_most(self, requests: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(requests)), ..self }
    }

    /// As [`Store::put_stream`], and says which version the object became.
    pub async fn upload(
        &self,
        key: &str,
        mut body: Body<'_>,
        precondition: &Precondition,
    ) -> Result<Written, StoreError> {
        let first = next_part(&mut body, PART_BYTES).await?;
        if first.len() < PART_BYTES {
            return self.put_whole(key, first, precondition).await;
        }
        self.put_parts(key, first, body, precondition).boxed().await
    }

    async fn put_whole(&self, key: &str, body: Bytes, precondition: &Precondition) -> Result<Written, StoreError> {
        let (absent, matches) = conditions(precondition);
        // Here and below: the semaphore is never closed.
        let _permit = self.permits.acquire().await;
        let done = self
            .once
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
        Ok(Written { etag: etag(done.e_tag(), key)?, version_id: done.version_id })
    }

    /// Uploads the rest of a body of which `first` was already taken.
    async fn put_parts(
        &self,
        key: &str,
        first: Bytes,
        body: Body<'_>,
        precondition: &Precondition,
    ) -> Result<Written, StoreError> {
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
            // Parts of an upload that nobody completes are billed until somebody aborts it.
            let aborted =
                self.client.abort_multipart_upload().bucket(&*self.bucket).key(key).upload_id(upload).send().await;
            if let Err(error) = aborted {
                tracing::warn!(
                    key,
                    error = chain(&error),
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
    ) -> Result<Written, StoreError> {
        let upload_part = |(number, part)| self.upload_part(key, upload, number, part).boxed();
        let parts: Vec<CompletedPart> =
            parts(first, body).map_ok(upload_part).try_buffered(PARTS_IN_FLIGHT).try_collect().await?;
        let (absent, matches) = conditions(precondition);
        let done = self
            .once
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
        Ok(Written { etag: etag(done.e_tag(), key)?, version_id: done.version_id })
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
            // A part is not visible: whatever became of it, the whole may be tried again.
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
        let reading = Reading {
            store: self.clone(),
            key: key.to_owned(),
            version,
            etag: meta.etag.clone(),
            bytes: meta.bytes,
            offset: 0,
            wire: Some(answer.body),
        };
        let body = stream::try_unfold(reading, |mut reading| async move {
            Ok(reading.next().await?.map(|chunk| (chunk, reading)))
        });
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
                Ok(Listed { etag, bytes: object.size.and_then(|size| size.try_into().ok()).unwrap_or_default(), key })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        let next = objects.last().filter(|_| more).map(|last| last.key.clone());
        Ok(Page { objects, next })
    }
}

/// The body in numbered parts. Boxed, as the futures over it are: the compiler cannot see through their closures that
/// they may move between threads.
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

/// Parts grow, so that 10,000 of them hold 430 GiB, while an object of usual size is sent in small ones.
fn part_bytes(number: i32) -> usize {
    PART_BYTES * (1 + (number as usize).saturating_sub(1) / 1_000)
}

/// The next `bytes` or more; fewer only at the end.
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
