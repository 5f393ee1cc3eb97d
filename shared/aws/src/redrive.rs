//! Brings failed rows back: from the retry queue to the rows queue.
//!
//! SQS's own StartMessageMoveTask does the same to every message; this leaves those alone that no run can ever handle, and
//! says how many there were.

use std::time::Duration;

use aws_sdk_sqs::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::{Message, QueueAttributeName},
};
use packshot_pipeline::ports::{OutgoingMessage, Queue as _, QueueError};

use crate::{sdk_error::Failure, sqs::SqsQueue};

const BATCH: i32 = 10;
/// Received and not deleted in this time comes back: the move may be repeated, the rows stand it.
const HOLD: Duration = Duration::from_secs(60);

/// The two queues of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queues {
    /// URL of the rows queue.
    pub rows: String,
    /// URL of the retry queue.
    pub retry: String,
}

/// What was moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Redriven {
    /// Rows that run again.
    pub moved: usize,
    /// Messages that are no rows, and stay.
    pub poison: usize,
}

/// Finds the queues of the deployment that a bucket belongs to, by the names that the template gives them.
pub async fn find_queues(client: &Client, bucket: &str) -> Result<Queues, QueueError> {
    // <stack>-<account>-<region>, and regions have two hyphens.
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

/// Moves what is in the retry queue now; what arrives meanwhile stays.
pub async fn redrive(client: &Client, queues: &Queues) -> Result<Redriven, QueueError> {
    let rows = SqsQueue::new(client.clone(), &queues.rows);
    let mut redriven = Redriven::default();
    let waiting = waiting(client, &queues.retry).await?;
    while redriven.moved + redriven.poison < waiting {
        let received = client
            .receive_message()
            .queue_url(&queues.retry)
            .max_number_of_messages(BATCH)
            .visibility_timeout(i32::try_from(HOLD.as_secs()).unwrap_or(i32::MAX))
            .wait_time_seconds(2)
            .message_attribute_names("error_code")
            .send()
            .await
            .map_err(|error| refused(&error))?;
        let messages = received.messages.unwrap_or_default();
        if messages.is_empty() {
            break;
        }
        let (poison, again): (Vec<_>, Vec<_>) = messages.into_iter().partition(is_poison);
        redriven.poison += poison.len();
        let bodies: Vec<_> = again
            .iter()
            .map(|message| OutgoingMessage { body: message.body.clone().unwrap_or_default(), attributes: [].into() })
            .collect();
        rows.send(&bodies).await?;
        for message in again {
            // After the copy is sent: a row is at worst there twice, never gone.
            let receipt = message.receipt_handle.unwrap_or_default();
            client
                .delete_message()
                .queue_url(&queues.retry)
                .receipt_handle(receipt)
                .send()
                .await
                .map_err(|error| refused(&error))?;
            redriven.moved += 1;
        }
    }
    Ok(redriven)
}

/// About how many messages can be received from a queue now.
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

/// The SDK has repeated what may be repeated; whatever is left is for the person who typed the command.
fn refused<E>(error: &SdkError<E>) -> QueueError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    QueueError::Refused { detail: Failure::of(error).into_detail() }
}
