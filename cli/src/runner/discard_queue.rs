//! The retry queue of a local run: the same command sends failed rows again, so nothing has to be kept.

use std::time::Duration;

use async_trait::async_trait;
use packshot_pipeline::ports::{OutgoingMessage, Queue, QueueError};

/// A queue that discards its messages.
pub(super) struct DiscardQueue;

#[async_trait]
impl Queue for DiscardQueue {
    async fn send(&self, _: &[OutgoingMessage]) -> Result<(), QueueError> {
        Ok(())
    }

    async fn delay(&self, _: &str, _: Duration) -> Result<(), QueueError> {
        Ok(())
    }
}
