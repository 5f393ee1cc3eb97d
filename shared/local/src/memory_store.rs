//! A bucket in memory.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use packshot_pipeline::{
    model::etag::Etag,
    ports::{Body, Clock, ListedObject, Object, ObjectMeta, Page, Precondition, Store, StoreError},
};
use parking_lot::Mutex;

use crate::content::{CHUNK, PAGE, etag_of};

/// The longest key that S3 accepts, in bytes.
const MAX_KEY: usize = 1_024;

/// A bucket in memory. The same calls give the same answers, ETags and version ids.
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    versioned: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    writes: u64,
    /// The versions of each key, oldest first; only the newest where the bucket keeps no versions.
    objects: BTreeMap<String, Vec<Version>>,
}

#[derive(Clone)]
struct Version {
    id: String,
    meta: ObjectMeta,
    bytes: Bytes,
}

impl MemoryStore {
    /// An empty bucket without versions.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, versioned: false, state: Mutex::default() }
    }

    /// An empty bucket that keeps every version.
    #[must_use]
    pub fn versioned(clock: Arc<dyn Clock>) -> Self {
        Self { versioned: true, ..Self::new(clock) }
    }

    /// Writes an object and returns its version id, which the port does not return but S3's events contain.
    pub fn put_version(&self, key: &str, body: Bytes) -> Result<String, StoreError> {
        self.write(key, body, &Precondition::None).map(|version| version.id)
    }

    /// Removes an object with all its versions.
    pub fn remove(&self, key: &str) {
        self.state.lock().objects.remove(key);
    }

    fn newest(&self, key: &str) -> Option<Version> {
        self.state.lock().objects.get(key)?.last().cloned()
    }

    fn write(&self, key: &str, bytes: Bytes, precondition: &Precondition) -> Result<Version, StoreError> {
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(StoreError::Refused { detail: format!("a key has 1 to {MAX_KEY} bytes, not {}", key.len()) });
        }
        // S3 keeps the time of a write to the second.
        let second = Timestamp::from_second(self.clock.now().as_second()).unwrap_or(Timestamp::UNIX_EPOCH);
        let meta = ObjectMeta { etag: etag_of(&bytes), bytes: bytes.len() as u64, last_modified: second };
        let state = &mut *self.state.lock();
        let current = state.objects.get(key).and_then(|versions| versions.last()).map(|version| &version.meta.etag);
        let holds = match precondition {
            Precondition::None => true,
            Precondition::Absent => current.is_none(),
            Precondition::Matches(etag) => current == Some(etag),
        };
        if !holds {
            return Err(StoreError::Conflict { key: key.to_owned() });
        }
        state.writes += 1;
        let version = Version { id: format!("v{}", state.writes), meta, bytes };
        let versions = state.objects.entry(key.to_owned()).or_default();
        if !self.versioned {
            versions.clear();
        }
        versions.push(version.clone());
        Ok(version)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        Ok(self.newest(key).map(|version| version.meta))
    }

    async fn open(&self, key: &str, version: Option<&str>) -> Result<Option<Object>, StoreError> {
        let found = match version.filter(|_| self.versioned) {
            None => self.newest(key),
            Some(id) => self.state.lock().objects.get(key).and_then(|all| all.iter().find(|v| v.id == id)).cloned(),
        };
        Ok(found.map(|Version { meta, mut bytes, .. }| {
            let chunks =
                std::iter::from_fn(move || (!bytes.is_empty()).then(|| Ok(bytes.split_to(bytes.len().min(CHUNK)))));
            Object { meta, body: stream::iter(chunks).boxed() }
        }))
    }

    async fn put(&self, key: &str, body: Bytes, precondition: Precondition) -> Result<Etag, StoreError> {
        self.write(key, body, &precondition).map(|version| version.meta.etag)
    }

    async fn put_stream(&self, key: &str, body: Body<'_>, precondition: Precondition) -> Result<Etag, StoreError> {
        let whole = body.try_fold(BytesMut::new(), |mut whole, chunk| async move {
            whole.extend_from_slice(&chunk);
            Ok(whole)
        });
        self.put(key, whole.await?.freeze(), precondition).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, StoreError> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let state = self.state.lock();
        let mut found = state
            .objects
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter_map(|(key, versions)| Some((key, &versions.last()?.meta)));
        let objects: Vec<ListedObject> = found
            .by_ref()
            .take(PAGE)
            .map(|(key, meta)| ListedObject { key: key.clone(), etag: meta.etag.clone(), bytes: meta.bytes })
            .collect();
        let next = found.next().and_then(|_| objects.last()).map(|last| last.key.clone());
        Ok(Page { objects, next })
    }
}
