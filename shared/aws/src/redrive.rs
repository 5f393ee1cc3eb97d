//! Moves failed rows from the retry queue back to the rows queue: receive, send a copy, delete. Every step may repeat, because
//! the generator is idempotent.
//!
//! SQS's own StartMessageMoveTask moves every message. This moves only rows, leaves poison messages, which no run can handle,
//! and counts both.

use std::time::Duration;

use aws_sdk_sqs::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::{Message, QueueAttributeName},
};
use packshot_pipeline::ports::{OutgoingMessage, Queue as _, QueueError};

use crate::{sdk_error::Failure, sqs::SqsQueue};

/// SQS returns at most this many messages for one receive.
const BATCH: i32 = 10;
/// A message that is received and not deleted in this time becomes visible again and may be moved twice.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(60);

/// The queues of a deployment that a redrive moves messages between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queues {
    /// URL of the rows queue.
    pub rows: String,
    /// URL of the retry queue.
    pub retry: String,
}

/// Counts of a redrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RedriveCounts {
    /// Rows moved to the rows queue; they run again.
    pub moved: usize,
    /// Messages that hold no row; they stay in the retry queue.
    pub poison: usize,
}

/// Finds the queues of the deployment that owns `bucket`, by the names that template.yaml gives them.
pub async fn find_queues(client: &Client, bucket: &str) -> Result<Queues, QueueError> {
    // The bucket is named <stack>-<account>-<region>, and a region has two hyphens.
    let stack = bucket.rsplitn(5, '-').nth(4).unwrap_or(bucket);
    let listed = client.list_queues().queue_name_prefix(format!("{stack}-")).send().await.map_err(|e| refused(&e))?;
    let find = |name: &str| {
        let start = format!("/{stack}-{name}-");
        let mut found = listed.queue_urls().iter().filter(|url| url.contains(&start));
        match (found.next(), found.next()) {
            (Some(url), None) => Ok(url.clone()),
            _ => Err(QueueError::Refused {
                detail: format!(
                    "the {name} of the stack `{stack}` was not found; name the queues with --rows-queue and --retry-queue"
                ),
            }),
        }
    };
    Ok(Queues { rows: find("RowsQueue")?, retry: find("RetryQueue")? })
}

/// Moves the messages that are visible in the retry queue now. Messages that arrive during the move may stay.
pub async fn redrive(client: &Client, queues: &Queues) -> Result<RedriveCounts, QueueError> {
    let rows = SqsQueue::new(client.clone(), &queues.rows);
    let mut counts = RedriveCounts::default();
    let waiting = waiting(client, &queues.retry).await?;
    while counts.moved + counts.poison < waiting {
        let received = client
            .receive_message()
            .queue_url(&queues.retry)
            .max_number_of_messages(BATCH)
            .visibility_timeout(i32::try_from(VISIBILITY_TIMEOUT.as_secs()).unwrap_or(i32::MAX))
            .wait_time_seconds(2)
            .message_attribute_names("error_code")
            .send()
            .await
            .map_err(|error| refused(&error))?;
        let messages = received.messages.unwrap_or_default();
        if messages.is_empty() {
            break;
        }
        let (poison, rows_to_move): (Vec<_>, Vec<_>) = messages.into_iter().partition(is_poison);
        counts.poison += poison.len();
        let bodies: Vec<_> = rows_to_move
            .iter()
            .map(|message| OutgoingMessage { body: message.body.clone().unwrap_or_default(), attributes: [].into() })
            .collect();
        rows.send(&bodies).await?;
        for message in rows_to_move {
            // Only after the copy is sent: a row may exist twice, but is never lost.
            let receipt = message.receipt_handle.unwrap_or_default();
            client
                .delete_message()
                .queue_url(&queues.retry)
                .receipt_handle(receipt)
                .send()
                .await
                .map_err(|error| refused(&error))?;
            counts.moved += 1;
        }
    }
    Ok(counts)
}

/// The approximate number of visible messages in a queue.
pub async fn waiting(client: &Client, url: &str) -> Result<usize, QueueError> {
    let name = QueueAttributeName::ApproximateNumberOfMessages;
    let answer = client.get_queue_attributes().queue_url(url).attribute_names(name.clone()).send().await;
    let attributes = answer.map_err(|error| refused(&error))?.attributes.unwrap_or_default();
    Ok(attributes.get(&name).and_then(|count| count.parse().ok()).unwrap_or(0))
}

fn is_poison(message: &Message) -> bool {
    let code = message.message_attributes.as_ref().and_then(|attributes| attributes.get("error_code"));
    code.and_then(|code| code.string_value.as_deref()) == Some("poison")
}

/// The SDK has already retried transient failures, so any error ends the command.
fn refused<E>(error: &SdkError<E>) -> QueueError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    QueueError::Refused { detail: Failure::of(error).into_detail() }
}
