//! The interfaces between the use cases and the outside world.
//!
//! An adapter implements one of these traits. The contract suites in `tests/` run against every adapter, the in-memory ones
//! included. The errors tell the caller what to do next. They separate "did not happen" from "may have happened", because a
//! repeated call may be paid for twice.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;

use crate::model::{etag::Etag, event::MetricEvent, notification::Notification, request::Request};

/// All ports of a use case. Cheap to clone.
#[derive(Clone)]
pub struct Ports {
    /// The bucket that holds all objects.
    pub store: Arc<dyn Store>,
    /// The rows queue: one message per valid row.
    pub rows: Arc<dyn Queue>,
    /// The retry queue: failed rows that a person may redrive.
    pub retry: Arc<dyn Queue>,
    /// The images API, and the images that it links to.
    pub images: Arc<dyn ImageApi>,
    /// Time of day and randomness.
    pub clock: Arc<dyn Clock>,
    /// Receives the events that metrics are computed from.
    pub metrics: Arc<dyn MetricsRecorder>,
    /// Notifies subscribers when a job has ended.
    pub notifier: Arc<dyn Notifier>,
}

/// Metadata of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// ETag of the content.
    pub etag: Etag,
    /// Size in bytes.
    pub bytes: u64,
    /// When this version was written. Stores keep whole seconds at best.
    pub last_modified: Timestamp,
}

/// The content of an object, in chunks of any size.
pub type Body<'a> = BoxStream<'a, Result<Bytes, StoreError>>;

/// An object opened for reading.
pub struct Object {
    /// Metadata of the version that is read.
    pub meta: ObjectMeta,
    /// The content. After an error in the stream the read must be repeated from the start.
    pub body: Body<'static>,
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// The whole key.
    pub key: String,
    /// ETag of the content.
    pub etag: Etag,
    /// Size in bytes.
    pub bytes: u64,
}

/// A page of a listing, in ascending order of the keys' bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// At most 1,000 objects.
    pub objects: Vec<ListedObject>,
    /// More may follow after this key; `None` at the end.
    pub next: Option<String>,
}

/// The condition under which a write happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// No condition: the last writer wins.
    None,
    /// The object does not exist.
    Absent,
    /// The object has exactly this content.
    Matches(Etag),
}

impl Precondition {
    /// The condition that the object has not changed since it was read with this ETag, or found absent.
    #[must_use]
    pub fn unchanged(etag: Option<Etag>) -> Self {
        etag.map_or(Self::Absent, Self::Matches)
    }
}

/// Why a store operation did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The precondition does not hold. Read the object, then decide again. It may already contain this very write, because a
    /// request that the adapter repeated can fail against its own first attempt.
    #[error("precondition failed on {key}")]
    Conflict {
        /// Key of the object.
        key: String,
    },
    /// The operation did not happen. It may be repeated.
    #[error("store unavailable: {detail}")]
    Unavailable {
        /// The error of the store or of the connection.
        detail: String,
    },
    /// The operation may have happened: no answer came. Read before writing again.
    #[error("no answer from the store: {detail}")]
    Unknown {
        /// The error of the connection.
        detail: String,
    },
    /// The operation can never succeed like this (permission, name, size). Do not repeat it.
    #[error("store refused: {detail}")]
    Refused {
        /// The error of the store.
        detail: String,
    },
}

/// An object store with conditional writes of whole objects.
///
/// A reader sees an object completely or not at all. After a write has returned, every later read and listing shows it.
#[async_trait]
pub trait Store: Send + Sync {
    /// Reads an object's metadata; `None` if the object does not exist.
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError>;

    /// Opens an object for reading; `None` if it does not exist. `version` selects one version; a store without versions
    /// ignores it.
    async fn open(&self, key: &str, version: Option<&str>) -> Result<Option<Object>, StoreError>;

    /// Writes a small object.
    async fn put(&self, key: &str, body: Bytes, precondition: Precondition) -> Result<Etag, StoreError>;

    /// Writes an object of any size, which becomes visible at the end. If `body` yields an error, returns that error, and
    /// nothing becomes visible. Memory does not grow with the body.
    async fn put_stream(&self, key: &str, body: Body<'_>, precondition: Precondition) -> Result<Etag, StoreError>;

    /// Lists objects whose keys start with `prefix` and sort after `after`.
    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, StoreError>;
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingMessage {
    /// UTF-8 without the characters that SQS refuses, at most [`MAX_MESSAGE_BYTES`] together with the attributes.
    ///
    /// [`MAX_MESSAGE_BYTES`]: crate::model::message::MAX_MESSAGE_BYTES
    pub body: String,
    /// String attributes for people and filters.
    pub attributes: BTreeMap<&'static str, String>,
}

/// A received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Message id; the batch's response lists the ids that must come back.
    pub id: String,
    /// The body, as it was sent.
    pub body: String,
    /// Receipt handle of this delivery, for [`Queue::delay`].
    pub receipt: String,
}

/// Why a queue operation did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// These messages were not sent, or may not have been; all others were. They may be sent again: a duplicate does no harm,
    /// because all consumers are idempotent.
    #[error("{} of the messages not sent: {detail}", unsent.len())]
    Unsent {
        /// Indices into the messages that were given, ascending.
        unsent: Vec<usize>,
        /// The last error of the queue or of the connection.
        detail: String,
    },
    /// The operation can never succeed like this (permission, no such queue, a refused message). Do not repeat it.
    #[error("queue refused: {detail}")]
    Refused {
        /// The error of the queue.
        detail: String,
    },
}

/// A queue with visibility timeouts. It delivers each message at least once, in any order.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Sends messages. The adapter splits them into batches and repeats what was refused with a transient error.
    async fn send(&self, messages: &[OutgoingMessage]) -> Result<(), QueueError>;

    /// Makes a received message visible again after `delay`, instead of after the queue's visibility timeout. If this fails,
    /// the message comes back after the visibility timeout.
    async fn delay(&self, receipt: &str, delay: Duration) -> Result<(), QueueError>;
}

/// The API's answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The API's id of the request, to quote to its support.
    pub request_id: Option<String>,
    /// The model that the API says it used.
    pub model_actual: Option<String>,
    /// The images, in the API's order. Entries of neither form are left out.
    pub images: Vec<GeneratedImage>,
}

/// One image, in the form in which the API returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GeneratedImage {
    /// An address, which may expire.
    Url(String),
    /// The image's bytes.
    Inline(Bytes),
}

/// Why a call returned no images.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The request did not reach the API, so nothing was billed. Call again.
    #[error("the API could not be reached: {detail}")]
    NotSent {
        /// The error of the connection.
        detail: String,
    },
    /// The API answered with an error status. [`crate::generate::classify`] says what follows.
    #[error("HTTP {status}: {body}")]
    Answered {
        /// HTTP status.
        status: u16,
        /// `error.code` of the body, if it has one.
        code: Option<String>,
        /// The body as text, shortened.
        body: String,
        /// The `Retry-After` header, if there is a valid one.
        retry_after: Option<Duration>,
    },
    /// The request was sent and no usable answer came, so it may have been billed. Count it before calling again.
    #[error("{detail}")]
    Unknown {
        /// Machine-readable code: `timeout`, `connection_lost`, `invalid_answer` or `no_images`.
        code: &'static str,
        /// HTTP status, if one was received.
        status: Option<u16>,
        /// The answer or the error of the connection, shortened.
        detail: String,
    },
    /// No call can succeed like this (malformed base URL, missing key). Do not repeat it.
    #[error("the API cannot be called: {detail}")]
    Misconfigured {
        /// What is wrong and what to do about it.
        detail: String,
    },
}

/// Why an image could not be fetched. The paid outcome is kept nevertheless.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// A transient error. The fetch may be repeated.
    #[error("{detail}")]
    Unavailable {
        /// The error of the server or of the connection.
        detail: String,
    },
    /// A permanent error: forbidden address, gone, too large. Do not repeat it.
    #[error("{detail}")]
    Refused {
        /// The reason, for people.
        detail: String,
    },
}

/// The images API.
#[async_trait]
pub trait ImageApi: Send + Sync {
    /// Makes one paid call. The adapter never repeats it, because only the caller knows whether another call is allowed. An
    /// API that supports `idempotency_key` recognises a repeated request by it.
    async fn generate(&self, request: &Request, idempotency_key: &str) -> Result<Generated, ApiError>;

    /// Fetches an image from an address that the API returned, up to `max_bytes`.
    async fn fetch(&self, url: &str, max_bytes: usize) -> Result<Bytes, FetchError>;
}

/// The only source of time of day and randomness. Durations and sleeps are Tokio's.
pub trait Clock: Send + Sync {
    /// The time of day.
    fn now(&self) -> Timestamp;

    /// 64 random bits, for nonces and jitter.
    fn random(&self) -> u64;
}

/// Records events for metrics. Recording is cheap and cannot fail, so that no work depends on it.
pub trait MetricsRecorder: Send + Sync {
    /// Records one event.
    fn record(&self, event: MetricEvent);
}

/// Why a notification was not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotifyError {
    /// It was not published, or may not have been. It may be published again: at worst subscribers are notified twice.
    #[error("notification not sent: {detail}")]
    Unsent {
        /// The error of the service or of the connection.
        detail: String,
    },
    /// Publishing can never succeed like this (permission, no such topic). Do not repeat it.
    #[error("notification refused: {detail}")]
    Refused {
        /// The error of the service.
        detail: String,
    },
}

/// Notifies subscribers, at least once and in any order.
#[async_trait]
pub trait Notifier: Send + Sync {
    /// Publishes a notification to all subscribers.
    async fn publish(&self, notification: &Notification) -> Result<(), NotifyError>;
}

/// Drops every event, for hosts without metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoopRecorder;

impl MetricsRecorder for NoopRecorder {
    fn record(&self, _event: MetricEvent) {}
}

/// Sends no notification, for hosts without subscribers.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoopNotifier;

#[async_trait]
impl Notifier for NoopNotifier {
    async fn publish(&self, _notification: &Notification) -> Result<(), NotifyError> {
        Ok(())
    }
}
