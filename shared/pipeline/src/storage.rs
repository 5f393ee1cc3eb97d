//! Reading and changing whole small objects through the store, with the repeats that are safe.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;

use crate::{
    model::etag::Etag,
    ports::{Listed, Ports, Precondition, Store, StoreError},
};

/// Repeats of a store call that certainly did not happen, or that only reads.
const REPEATS: usize = 4;
/// Rounds of read, decide, write. Each lost round means that somebody else wrote in between.
const ROUNDS: usize = 16;

/// A value with the identity of the object that it was read from, for the precondition of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned<T> {
    /// What the object says.
    pub value: T,
    /// Identity of its content.
    pub etag: Etag,
}

/// A small object as it was read.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its content.
    pub bytes: Bytes,
    /// Identity of the content, for the precondition of a change.
    pub etag: Etag,
}

fn backoff(ports: &Ports) -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .with_max_times(REPEATS)
        .with_jitter()
        .with_jitter_seed(ports.clock.random())
}

/// Repeats a call that reads: whatever failed, it may be made again.
pub async fn repeat_read<T, F>(ports: &Ports, read: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    read.retry(backoff(ports))
        .when(|error| matches!(error, StoreError::Unavailable { .. } | StoreError::Unknown { .. }))
        .await
}

/// Lists every object under a prefix, page by page.
pub async fn list(ports: &Ports, prefix: &str) -> Result<Vec<Listed>, StoreError> {
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

/// Reads a small object whole.
pub async fn read(ports: &Ports, key: &str) -> Result<Option<Seen>, StoreError> {
    repeat_read(ports, || read_once(&*ports.store, key)).await
}

async fn read_once(store: &dyn Store, key: &str) -> Result<Option<Seen>, StoreError> {
    let Some(mut object) = store.open(key, None).await? else { return Ok(None) };
    let mut bytes = BytesMut::new();
    while let Some(chunk) = object.body.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(Some(Seen { bytes: bytes.freeze(), etag: object.meta.etag }))
}

/// Writes a small object, repeating only what certainly did not happen, or what may happen twice unseen.
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

/// Changes an object by read, decide, write until the write met what was read. `seen` is what the caller knows already;
/// a stale one costs a round. `change` returns `None` to leave the object as it is; it must be willing to see its own
/// write, because a write whose answer was lost is looked at again.
pub async fn update(
    ports: &Ports,
    key: &str,
    mut seen: Option<Seen>,
    mut change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
) -> Result<(), StoreError> {
    for _ in 0..ROUNDS {
        let Some(body) = change(seen.as_ref().map(|s| &*s.bytes)) else { return Ok(()) };
        let precondition = Precondition::unchanged(seen.map(|s| s.etag));
        match write(ports, key, body.into(), precondition).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict { .. } | StoreError::Unknown { .. }) => seen = read(ports, key).await?,
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::Unavailable { detail: format!("{key} is being changed by too many at once") })
}
