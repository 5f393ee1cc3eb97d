//! What the use cases need from the outside world, in our own words.
//!
//! An adapter implements one of these traits; the contract suite in `tests/` runs against every adapter, the in-memory
//! ones included. The errors say what the caller must do next and separate "did not happen" from "may have happened",
//! because money hangs on the difference.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;

use crate::model::{etag::Etag, event::Fact, notification::Notice, request::Request};

/// Everything a use case may touch. Cheap to clone.
#[derive(Clone)]
pub struct Ports {
    /// The bucket.
    pub store: Arc<dyn Store>,
    /// The rows queue: one message per valid row.
    pub rows: Arc<dyn Queue>,
    /// The retry queue: rows that a person may send again.
    pub retry: Arc<dyn Queue>,
    /// The images API and the pictures it links to.
    pub images: Arc<dyn ImageApi>,
    /// Time of day and chance.
    pub clock: Arc<dyn Clock>,
    /// Whoever watches.
    pub journal: Arc<dyn Journal>,
    /// Whoever wants to know when a job has ended.
    pub notices: Arc<dyn Notices>,
}

/// What the store knows about an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Identity of the content.
    pub etag: Etag,
    /// Length in bytes.
    pub bytes: u64,
    /// When this version was written; stores keep it to the second at best.
    pub last_modified: Timestamp,
}

/// The body of an object, in chunks of any size.
pub type Body<'a> = BoxStream<'a, Result<Bytes, StoreError>>;

/// An object opened for reading.
pub struct Object {
    /// What is being read.
    pub meta: ObjectMeta,
    /// Its bytes. An error in the stream means that the read must start again.
    pub body: Body<'static>,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The whole key.
    pub key: String,
    /// Identity of the content.
    pub etag: Etag,
    /// Length in bytes.
    pub bytes: u64,
}

/// A page of a listing, in ascending order of the keys' bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// At most 1,000 objects.
    pub objects: Vec<Listed>,
    /// More may follow after this key; `None` at the end.
    pub next: Option<String>,
}

/// What must be true of the object for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing: the last writer wins.
    None,
    /// The key is free.
    Absent,
    /// The key holds exactly this content.
    Matches(Etag),
}

impl Precondition {
    /// The precondition that the object has not changed since it was looked at.
    #[must_use]
    pub fn unchanged(seen: Option<Etag>) -> Self {
        seen.map_or(Self::Absent, Self::Matches)
    }
}

/// Why the store did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The precondition does not hold. Nothing was written **by an attempt that the caller knows of**: a request that was
    /// repeated below the port can meet its own success, so whoever needs to know looks at the object. Read again, decide again.
    #[error("precondition failed on {key}")]
    Conflict {
        /// The object.
        key: String,
    },
    /// It did not happen. The same call may be made again.
    #[error("store unavailable: {detail}")]
    Unavailable {
        /// What the store or the wire said.
        detail: String,
    },
    /// It may have happened: no answer came. Read before writing again.
    #[error("no answer from the store: {detail}")]
    Unknown {
        /// What the wire said.
        detail: String,
    },
    /// It will never happen like this (permission, name, size). Stop.
    #[error("store refused: {detail}")]
    Refused {
        /// What the store said.
        detail: String,
    },
}

/// The bucket: objects under keys, written whole, with preconditions.
///
/// A reader sees an object wholly or not at all; after a write returned, every later read and listing shows it.
#[async_trait]
pub trait Store: Send + Sync {
    /// Looks at an object; `None` if there is none.
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError>;

    /// Opens an object for reading; `None` if there is none. `version` asks for one version of it; a store without
    /// versions ignores it.
    async fn open(&self, key: &str, version: Option<&str>) -> Result<Option<Object>, StoreError>;

    /// Writes a small object whole.
    async fn put(&self, key: &str, body: Bytes, precondition: Precondition) -> Result<Etag, StoreError>;

    /// Writes an object of any length, which becomes visible at the end. An error in `body` is returned as it is, and
    /// nothing becomes visible. Memory does not grow with the body.
    async fn put_stream(&self, key: &str, body: Body<'_>, precondition: Precondition) -> Result<Etag, StoreError>;

    /// Lists keys that start with `prefix`, after (not including) `after`.
    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, StoreError>;
}

/// A message on its way to a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// UTF-8, at most [`MAX_MESSAGE_BYTES`] together with the attributes, no characters that SQS refuses.
    pub body: String,
    /// String attributes for people and filters.
    pub attributes: BTreeMap<&'static str, String>,
}

/// A message as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Identity of the message; answers name it.
    pub id: String,
    /// The body as it was sent.
    pub body: String,
    /// Handle of this delivery, for [`Queue::delay`].
    pub receipt: String,
}

/// Why messages are not on the queue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// These entries (by index into what was given) are not on the queue, or may not be; all others are. Sending them
    /// again can at worst deliver a message twice, which every consumer stands.
    #[error("{} of the messages not sent: {detail}", unsent.len())]
    Unsent {
        /// Indices, ascending.
        unsent: Vec<usize>,
        /// What the queue or the wire said last.
        detail: String,
    },
    /// It will never work like this (permission, no such queue, a message it refuses). Stop.
    #[error("queue refused: {detail}")]
    Refused {
        /// What the queue said.
        detail: String,
    },
}

/// A queue with visibility timeouts: at least once, in no order.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Sends messages. The adapter cuts the list into the batches that its wire allows and sends again what was refused
    /// for a passing reason.
    async fn send(&self, messages: &[Outgoing]) -> Result<(), QueueError>;

    /// Makes a received message visible again after `delay` instead of the queue's own timeout. Best effort: where it
    /// fails, the message comes back at the queue's own timeout.
    async fn delay(&self, receipt: &str, delay: Duration) -> Result<(), QueueError>;
}

/// What the API made of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The API's id of the request, for questions to its support.
    pub request_id: Option<String>,
    /// The model that really ran.
    pub model_actual: Option<String>,
    /// The pictures, in the API's order; entries that hold neither form are dropped.
    pub pictures: Vec<Picture>,
}

/// One picture as the API hands it over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Picture {
    /// A link, which may expire.
    Url(String),
    /// The bytes themselves.
    Inline(Bytes),
}

/// Why there are no pictures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The request never reached the API: nothing was billed. Call again.
    #[error("the API could not be reached: {detail}")]
    NotSent {
        /// What the wire said.
        detail: String,
    },
    /// The API answered with a status that is not a success. [`crate::generate::classify`] says what follows.
    #[error("HTTP {status}: {body}")]
    Answered {
        /// HTTP status.
        status: u16,
        /// `error.code` of the body, where there is one.
        code: Option<String>,
        /// The body as text, shortened.
        body: String,
        /// The `Retry-After` header, where it can be understood.
        retry_after: Option<Duration>,
    },
    /// The request was sent and no usable answer came: it may have been billed. Count it before calling again.
    #[error("{detail}")]
    Unknown {
        /// A word for machines: `timeout`, `connection_lost`, `invalid_answer`, `no_images`.
        code: &'static str,
        /// HTTP status, where one came.
        status: Option<u16>,
        /// What came or what the wire said, shortened.
        detail: String,
    },
    /// It will never work like this (a malformed base URL, no key). Stop.
    #[error("the API cannot be called: {detail}")]
    Misconfigured {
        /// What is wrong and what to do.
        detail: String,
    },
}

/// Why a picture could not be fetched. The paid result is not lost by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// Not now; the same call may be made again.
    #[error("{detail}")]
    Unavailable {
        /// What the wire said.
        detail: String,
    },
    /// Never: forbidden address, gone, too large.
    #[error("{detail}")]
    Refused {
        /// Why.
        detail: String,
    },
}

/// The images API.
#[async_trait]
pub trait ImageApi: Send + Sync {
    /// One paid call. The adapter never repeats it: whether it may be repeated is the caller's knowledge.
    /// `idempotency_key` lets an API that knows the header recognise a repeated request.
    async fn generate(&self, request: &Request, idempotency_key: &str) -> Result<Generated, ApiError>;

    /// Reads a picture that the API linked to, up to `max_bytes`.
    async fn fetch(&self, url: &str, max_bytes: usize) -> Result<Bytes, FetchError>;
}

/// The one gate through which time of day and chance enter. Durations and sleeps are Tokio's.
pub trait Clock: Send + Sync {
    /// Time of day.
    fn now(&self) -> Timestamp;

    /// 64 random bits: nonces and jitter.
    fn random(&self) -> u64;
}

/// Takes down what happens. Cheap, and cannot fail: nobody's work depends on it.
pub trait Journal: Send + Sync {
    /// Takes down a fact.
    fn note(&self, fact: Fact);
}

/// Why a notice is not out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoticeError {
    /// It is not out, or may not be. The same call may be made again: at worst somebody is told twice.
    #[error("notice not sent: {detail}")]
    Unsent {
        /// What the service or the wire said.
        detail: String,
    },
    /// It will never work like this (permission, no such topic). Stop.
    #[error("notice refused: {detail}")]
    Refused {
        /// What the service said.
        detail: String,
    },
}

/// Tells whoever has subscribed: at least once, in no order.
#[async_trait]
pub trait Notices: Send + Sync {
    /// Tells all subscribers.
    async fn publish(&self, notice: &Notice) -> Result<(), NoticeError>;
}

/// For hosts where nobody watches, and nobody has subscribed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nobody;

impl Journal for Nobody {
    fn note(&self, _fact: Fact) {}
}

#[async_trait]
impl Notices for Nobody {
    async fn publish(&self, _notice: &Notice) -> Result<(), NoticeError> {
        Ok(())
    }
}
