//! The result of handling one message: acknowledge it, or let it come back.

use std::time::Duration;

use crate::ports::{QueueError, StoreError};

/// What the queue does with a message.
pub(super) enum Disposition {
    /// Acknowledge: the result is stored.
    Ack,
    /// Let the message come back after this long.
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
