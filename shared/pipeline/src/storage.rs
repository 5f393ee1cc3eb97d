//! Reads and changes small objects through the store, and repeats the calls that are safe to repeat.
//!
//! A read may always be repeated. A write is repeated only if it certainly did not happen, or if it has no precondition and
//! may therefore happen twice. A conditional write whose answer was lost may have happened: the caller reads again before
//! it decides again.
//!
//! A [`Document`] is one JSON object under one key: it knows how its bytes are written, and reads, creates, replaces and
//! updates them with the ETag of what was read as the precondition. What an unreadable object means is explicit in each
//! call: [`Document::read`] makes it an error, [`Document::read_or_discard`] treats it as absent and lets it be replaced.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    model::{
        etag::Etag,
        job::Job,
        json,
        keys::{self, JobId, Manifests},
        notification::NotificationRecord,
        summary::{Latest, Summary},
    },
    ports::{ListedObject, Ports, Precondition, Store, StoreError},
};

/// Repeats of a store call that certainly did not happen, or that only reads.
const REPEATS: usize = 4;
/// Attempts of one update. Each lost attempt means that another writer was first.
const UPDATE_ATTEMPTS: usize = 16;

fn backoff(ports: &Ports) -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .with_max_times(REPEATS)
        .with_jitter()
        .with_jitter_seed(ports.clock.random())
}

/// Repeats a call that only reads, after every error that can pass.
pub async fn repeat_read<T, F>(ports: &Ports, read: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    read.retry(backoff(ports))
        .when(|error| matches!(error, StoreError::Unavailable { .. } | StoreError::Unknown { .. }))
        .await
}

/// Lists every object under a prefix, page by page.
pub async fn list(ports: &Ports, prefix: &str) -> Result<Vec<ListedObject>, StoreError> {
    let (mut objects, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = repeat_read(ports, || ports.store.list(prefix, after.as_deref())).await?;
        objects.extend(page.objects);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(objects),
        }
    }
}

/// Returns the ETag of an object, or `None` where the key is free.
pub async fn etag(ports: &Ports, key: &str) -> Result<Option<Etag>, StoreError> {
    Ok(repeat_read(ports, || ports.store.head(key)).await?.map(|meta| meta.etag))
}

/// A value as it was read, with the ETag that identifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// ETag of the object that holds the value, for the precondition of a change.
    pub etag: Etag,
}

/// Reads a small object whole.
pub async fn read(ports: &Ports, key: &str) -> Result<Option<Versioned<Bytes>>, StoreError> {
    repeat_read(ports, || read_once(&*ports.store, key)).await
}

async fn read_once(store: &dyn Store, key: &str) -> Result<Option<Versioned<Bytes>>, StoreError> {
    let Some(mut object) = store.open(key, None).await? else { return Ok(None) };
    let mut bytes = BytesMut::new();
    while let Some(chunk) = object.body.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(Some(Versioned { value: bytes.freeze(), etag: object.meta.etag }))
}

/// Writes a small object whole. Repeats what certainly did not happen; without a precondition, also what may have happened.
pub async fn write(ports: &Ports, key: &str, body: Bytes, precondition: Precondition) -> Result<Etag, StoreError> {
    let unconditional = precondition == Precondition::None;
    (|| async { ports.store.put(key, body.clone(), precondition.clone()).await })
        .retry(backoff(ports))
        .when(|error| match error {
            StoreError::Unavailable { .. } => true,
            StoreError::Unknown { .. } => unconditional,
            StoreError::Conflict { .. } | StoreError::Refused { .. } => false,
        })
        .await
}

/// One JSON object under one key.
#[derive(Debug, Clone)]
pub struct Document<T> {
    key: String,
    encode: fn(&T) -> Vec<u8>,
}

/// What the key of a document holds, where an unreadable object counts as absent.
#[derive(Debug, Clone)]
pub struct Current<T> {
    /// The document; `None` if the key is free or its object cannot be read as one.
    pub value: Option<T>,
    /// The precondition that the key still holds what was read, readable or not.
    pub unchanged: Precondition,
}

/// The end of a conditional write.
#[derive(Debug)]
pub enum Written<T> {
    /// The document holds this write, under this ETag.
    Own(Etag),
    /// Another writer was first, and the key holds this.
    Other(Current<T>),
}

impl<T> Current<T> {
    /// A free key. If the assumption is wrong, it costs the first attempt of an update.
    #[must_use]
    pub fn absent() -> Self {
        Self { value: None, unchanged: Precondition::Absent }
    }

    /// Whether the key holds an object, readable or not.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.unchanged != Precondition::Absent
    }
}

impl<T: Serialize + DeserializeOwned> Document<T> {
    /// A document in the shortest form, for machines.
    pub fn compact(key: impl Into<String>) -> Self {
        Self { key: key.into(), encode: json::to_vec }
    }

    /// A document that is indented, for people.
    pub fn pretty(key: impl Into<String>) -> Self {
        Self { key: key.into(), encode: json::to_pretty }
    }

    /// A document that is one JSONL line.
    pub fn line(key: impl Into<String>) -> Self {
        Self { key: key.into(), encode: json::to_line }
    }

    /// Where the document is stored.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Reads the document. An object that cannot be read as one is an error that names the key.
    pub async fn read(&self, ports: &Ports) -> Result<Option<Versioned<T>>, StoreError> {
        let Some(Versioned { value, etag }) = read(ports, &self.key).await? else { return Ok(None) };
        let value = serde_json::from_slice(&value)
            .map_err(|error| StoreError::Refused { detail: format!("{}: {error}", self.key) })?;
        Ok(Some(Versioned { value, etag }))
    }

    /// Reads the document. An object that cannot be read as one counts as absent, and a write under
    /// [`Current::unchanged`] replaces it.
    pub async fn read_or_discard(&self, ports: &Ports) -> Result<Current<T>, StoreError> {
        let Some(Versioned { value, etag }) = read(ports, &self.key).await? else { return Ok(Current::absent()) };
        Ok(Current { value: serde_json::from_slice(&value).ok(), unchanged: Precondition::Matches(etag) })
    }

    /// Writes the document. After [`StoreError::Conflict`] or [`StoreError::Unknown`] the caller must read it again: a
    /// conditional write may have happened even then.
    pub async fn write(&self, ports: &Ports, value: &T, precondition: Precondition) -> Result<Etag, StoreError> {
        write(ports, &self.key, (self.encode)(value).into(), precondition).await
    }

    /// Creates the document, and returns what it holds in the end: `value`, or what another writer created first. An
    /// existing object that cannot be read as one is an error that names the key.
    pub async fn create(&self, ports: &Ports, value: T) -> Result<T, StoreError> {
        match self.write(ports, &value, Precondition::Absent).await {
            Ok(_) => Ok(value),
            Err(error @ (StoreError::Conflict { .. } | StoreError::Unknown { .. })) => {
                self.read(ports).await?.map(|existing| existing.value).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes over what was read, once. A repeated request can be refused because of its own success, and an answer can be
    /// lost, so after a conflict the document is read again, and `is_own` recognises this write in it: by its nonce, or
    /// because it is equal.
    pub async fn replace(
        &self,
        ports: &Ports,
        value: &T,
        unchanged: Precondition,
        is_own: impl FnOnce(&T) -> bool,
    ) -> Result<Written<T>, StoreError> {
        match self.write(ports, value, unchanged).await {
            Ok(etag) => Ok(Written::Own(etag)),
            Err(StoreError::Conflict { .. } | StoreError::Unknown { .. }) => {
                Ok(match self.read_or_discard(ports).await? {
                    Current { value: Some(value), unchanged: Precondition::Matches(etag) } if is_own(&value) => {
                        Written::Own(etag)
                    }
                    current => Written::Other(current),
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Changes the document until a write meets what was read, and returns what the document holds then. `current` is what
    /// the caller has read or assumes; if it is out of date, it costs an attempt. `change` returns `None` to leave the
    /// document as it is. It must recognise its own write, because it sees a write whose answer was lost.
    pub async fn update(
        &self,
        ports: &Ports,
        mut current: Current<T>,
        mut change: impl FnMut(Option<&T>) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        for _ in 0..UPDATE_ATTEMPTS {
            let Some(next) = change(current.value.as_ref()) else { return Ok(current.value) };
            match self.write(ports, &next, current.unchanged).await {
                Ok(_) => return Ok(Some(next)),
                Err(StoreError::Conflict { .. } | StoreError::Unknown { .. }) => {
                    current = self.read_or_discard(ports).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(self.contended())
    }

    /// The error after too many lost attempts.
    pub(crate) fn contended(&self) -> StoreError {
        StoreError::Unavailable { detail: format!("{} is being changed by too many at once", self.key) }
    }
}

impl Document<Job> {
    /// `job.json`: written once, by the first splitter that has read the file to its end.
    #[must_use]
    pub fn job(id: &JobId) -> Self {
        Self::pretty(keys::job(id))
    }
}

impl Document<Summary> {
    /// `summary.json`: the splitter writes the one of a rejected file, the merger all others.
    #[must_use]
    pub fn summary(files: &Manifests) -> Self {
        Self::pretty(files.summary())
    }
}

impl Document<Latest> {
    /// `latest.json`: written by the merger of whichever job of the catalog completes.
    #[must_use]
    pub fn latest(files: &Manifests) -> Self {
        Self::pretty(files.latest())
    }
}

impl Document<NotificationRecord> {
    /// `control/notified/<job>.json`: the last status that was published.
    #[must_use]
    pub fn notification_record(job: &JobId) -> Self {
        Self::compact(keys::notified(job))
    }
}

#[cfg(test)]
#[path = "storage_tests.rs"]
mod tests;
