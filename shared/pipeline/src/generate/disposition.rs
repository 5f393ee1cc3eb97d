//! What the queue is told about a message.

use std::time::Duration;

use crate::ports::{QueueError, StoreError};

/// What becomes of a message.
pub(super) enum Disposition {
    /// Acknowledge: the result is stored.
    Ack,
    /// It must come back after this long.
    RetryAfter(Duration),
}

/// Why a message could not be handled. The row is not to blame, so the message comes back.
#[derive(Debug, thiserror::Error)]
pub(super) enum GenerateError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
}
