//! The generator: handles row messages and writes one result per row.
//!
//! ```text
//! batch ─▶ invocation (deadline, admission) ─▶ row (claim, call, record, complete) ─▶ disposition
//! ```
//!
//! All messages of a batch are handled concurrently and independently. [`row`] claims the fingerprint in the ledger
//! ([`fingerprint_ledger`]), calls the API, records the outcome before anything else, keeps the images ([`archive`]) and writes
//! the result ([`row_result`]). [`classify`] decides what a failed call means. Three limits suspend calls: [`rate_limit`] (the
//! rate), [`breaker`] (the account) and [`guardrail`] (a job that mostly fails).

pub mod archive;
pub mod breaker;
pub mod classify;
mod disposition;
mod failure;
mod fingerprint_ledger;
pub mod guardrail;
mod invocation;
mod rate_limit;
mod row;
mod row_result;
pub mod worker;

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::{FutureExt as _, future::join_all};
use jiff::Timestamp;
use tracing::{Instrument as _, Span, field::Empty};

pub use self::invocation::AFTER_CALL;
use self::{
    disposition::{Disposition, GenerateError},
    failure::attributes,
    invocation::Invocation,
    row::RowTask,
    worker::Worker,
};
use crate::{
    model::{error_class::ErrorClass, message::RowMessage},
    ports::{Delivery, OutgoingMessage, Ports},
    settings::GenerateSettings,
};

/// When a message comes back after an error that is not the row's fault.
const AFTER_ERROR: Duration = Duration::from_secs(30);

/// Handles a batch, all messages concurrently, and returns the ids of those that must come back. An error or a panic in one
/// message does not affect the others. No call starts that cannot end before `deadline`.
pub async fn generate(
    ports: &Ports,
    settings: &GenerateSettings,
    worker: &Worker,
    batch: Vec<Delivery>,
    deadline: Timestamp,
) -> Vec<String> {
    let invocation = Invocation { ports, settings, worker, deadline };
    let handled = batch.into_iter().map(|delivery| async move {
        // At the highest level, so that the span is recorded at every log level.
        let span = tracing::error_span!("message", job = Empty, row = Empty, sku = Empty);
        deliver(invocation, delivery).instrument(span).await
    });
    join_all(handled).await.into_iter().flatten().collect()
}

/// Handles one message, with panics caught. Returns the message's id if it must come back.
async fn deliver(invocation: Invocation<'_>, delivery: Delivery) -> Option<String> {
    let handled = AssertUnwindSafe(handle(invocation, &delivery)).catch_unwind().await;
    let delay = match handled {
        Ok(Ok(Disposition::Ack)) => return None,
        Ok(Ok(Disposition::RetryAfter(delay))) => {
            tracing::info!(message_id = delivery.id, seconds = delay.as_secs(), "the message comes back later");
            delay
        }
        Ok(Err(error)) => {
            tracing::warn!(message_id = delivery.id, %error, "the message comes back");
            AFTER_ERROR
        }
        Err(_) => {
            tracing::error!(message_id = delivery.id, "panicked; the message comes back");
            AFTER_ERROR
        }
    };
    let rows = &invocation.ports.rows;
    if let Err(error) = rows.delay(&delivery.receipt, delay + invocation.jitter(delay / 4)).await {
        tracing::warn!(message_id = delivery.id, %error, "the message comes back at the queue's own timeout");
    }
    Some(delivery.id)
}

async fn handle(invocation: Invocation<'_>, delivery: &Delivery) -> Result<Disposition, GenerateError> {
    match RowMessage::decode(&delivery.body) {
        Ok(message) => {
            let span = Span::current();
            span.record("job", message.job.as_str()).record("row", message.row).record("sku", &message.sku);
            RowTask::new(invocation, &message).process().await
        }
        Err(poison) => {
            tracing::error!(message_id = delivery.id, error = %poison, "parked in the retry queue");
            let attributes = attributes("poison", ErrorClass::Row);
            invocation.ports.retry.send(&[OutgoingMessage { body: delivery.body.clone(), attributes }]).await?;
            Ok(Disposition::Ack)
        }
    }
}
