//! The [`Queue`] port over SQS, through the AWS SDK.
//!
//! Messages go out in batches of at most ten entries and the bytes of one message, 32 batches at a time. SQS answers 200 even if
//! it refused entries, so each batch is checked entry by entry: entries that failed for a transient reason are sent again with
//! exponential backoff, the others are reported to the caller.

use std::{mem, time::Duration};

use async_trait::async_trait;
use aws_sdk_sqs::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::{BatchResultErrorEntry, MessageAttributeValue, SendMessageBatchRequestEntry},
};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::{StreamExt as _, stream};
use packshot_pipeline::{
    model::message::MAX_MESSAGE_BYTES,
    ports::{OutgoingMessage, Queue, QueueError},
};

use crate::{sdk_error::Failure, trace};

/// The data type of all attributes.
const STRING: &str = "String";
const BATCH_ENTRIES: usize = 10;
const BATCHES_IN_FLIGHT: usize = 32;
/// SQS allows a visibility timeout of 12 hours, counted from the receive. The time that the poller held the message and the
/// function worked on it (at most 15 minutes) has to fit as well.
const MAX_DELAY: Duration = Duration::from_secs(12 * 3600 - 1800);

/// Sends to one SQS queue.
#[derive(Debug, Clone)]
pub struct SqsQueue {
    client: Client,
    url: String,
}

/// The messages of a batch that are not known to be on the queue, by index.
#[derive(Debug, Default)]
struct UnsentEntries {
    /// Failed for a transient reason; may be sent again.
    retryable: Vec<usize>,
    /// SQS will never accept them.
    refused: Vec<usize>,
    /// Why; for a refused message if there is one.
    detail: String,
}

impl SqsQueue {
    /// The queue with this URL.
    #[must_use]
    pub fn new(client: Client, url: &str) -> Self {
        Self { client, url: url.to_owned() }
    }

    /// Sends one batch, and its retryable entries again until none remain or the backoff ends.
    async fn send_batch(&self, messages: &[OutgoingMessage], batch: Vec<usize>) -> UnsentEntries {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .with_max_times(6)
            .with_jitter()
            .build();
        let mut refused = Vec::new();
        let mut batch = batch;
        loop {
            let mut unsent = self.try_batch(messages, &batch).await;
            refused.append(&mut unsent.refused);
            let pause = if unsent.retryable.is_empty() { None } else { pauses.next() };
            let Some(pause) = pause else { return UnsentEntries { refused, ..unsent } };
            tokio::time::sleep(pause).await;
            batch = unsent.retryable;
        }
    }

    async fn try_batch(&self, messages: &[OutgoingMessage], batch: &[usize]) -> UnsentEntries {
        let refused = |detail| UnsentEntries { refused: batch.to_vec(), detail, ..UnsentEntries::default() };
        let entries: Result<Vec<_>, _> = batch.iter().map(|&index| entry(index, &messages[index])).collect();
        let entries = match entries {
            Ok(entries) => entries,
            Err(detail) => return refused(detail),
        };
        let answer = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(entries)).send().await;
        match answer {
            Ok(answer) => {
                let sent: Vec<&str> = answer.successful().iter().map(|entry| entry.id()).collect();
                unsent_entries(batch, &sent, answer.failed())
            }
            Err(error) => {
                let failure = Failure::of(&error);
                // A batch whose answer was lost is sent again: consumers are idempotent.
                if failure.is_transient() {
                    UnsentEntries {
                        retryable: batch.to_vec(),
                        detail: failure.into_detail(),
                        ..UnsentEntries::default()
                    }
                } else {
                    refused(failure.into_detail())
                }
            }
        }
    }
}

#[async_trait]
impl Queue for SqsQueue {
    async fn send(&self, messages: &[OutgoingMessage]) -> Result<(), QueueError> {
        let sends: Vec<_> = batches(messages).into_iter().map(|batch| self.send_batch(messages, batch)).collect();
        let mut all = UnsentEntries::default();
        let mut outcomes = stream::iter(sends).buffer_unordered(BATCHES_IN_FLIGHT);
        while let Some(mut unsent) = outcomes.next().await {
            all.retryable.append(&mut unsent.retryable);
            all.refused.append(&mut unsent.refused);
            // The reason of a refusal matters more than that of a transient failure.
            if !unsent.detail.is_empty() && all.refused.is_empty() || all.detail.is_empty() {
                all.detail = mem::take(&mut unsent.detail);
            }
        }
        all.into_result()
    }

    async fn delay(&self, receipt: &str, delay: Duration) -> Result<(), QueueError> {
        let seconds = delay.min(MAX_DELAY).as_secs_f64().ceil() as i32;
        self.client
            .change_message_visibility()
            .queue_url(&self.url)
            .receipt_handle(receipt)
            .visibility_timeout(seconds)
            .send()
            .await
            .map(|_| ())
            .map_err(|error| delay_error(&error))
    }
}

impl UnsentEntries {
    fn into_result(mut self) -> Result<(), QueueError> {
        if !self.refused.is_empty() {
            let detail =
                format!("{} message(s), the first at index {}: {}", self.refused.len(), self.refused[0], self.detail);
            return Err(QueueError::Refused { detail });
        }
        if self.retryable.is_empty() {
            return Ok(());
        }
        self.retryable.sort_unstable();
        Err(QueueError::Unsent { unsent: self.retryable, detail: self.detail })
    }
}

/// Splits the messages into batches that SQS accepts: at most ten entries, and together at most the bytes of one message.
/// Returns indices.
fn batches(messages: &[OutgoingMessage]) -> Vec<Vec<usize>> {
    let mut batches = Vec::new();
    let mut batch = Vec::new();
    let mut bytes = 0;
    for (index, message) in messages.iter().enumerate() {
        let length = message_bytes(message);
        if batch.len() == BATCH_ENTRIES || (!batch.is_empty() && bytes + length > MAX_MESSAGE_BYTES) {
            batches.push(mem::take(&mut batch));
            bytes = 0;
        }
        batch.push(index);
        bytes += length;
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// The size of a message as SQS counts it: the body, and the name, type and value of each attribute.
fn message_bytes(message: &OutgoingMessage) -> usize {
    let attributes = message.attributes.iter().map(|(name, value)| name.len() + STRING.len() + value.len());
    message.body.len() + attributes.sum::<usize>()
}

fn entry(index: usize, message: &OutgoingMessage) -> Result<SendMessageBatchRequestEntry, String> {
    let mut entry = SendMessageBatchRequestEntry::builder().id(index.to_string()).message_body(&message.body);
    // SQS refuses a message that has an attribute with an empty value.
    for (name, value) in message.attributes.iter().filter(|(_, value)| !value.is_empty()) {
        let value = MessageAttributeValue::builder().data_type(STRING).string_value(value).build();
        entry = entry.message_attributes(*name, value.map_err(|error| error.to_string())?);
    }
    if let Some((name, value)) = trace::attribute() {
        entry = entry.message_system_attributes(name, value);
    }
    entry.build().map_err(|error| error.to_string())
}

/// Finds the unsent entries of a batch by the answer's two lists. An entry in neither list may not be on the queue, so it is
/// retryable.
fn unsent_entries(batch: &[usize], sent: &[&str], failed: &[BatchResultErrorEntry]) -> UnsentEntries {
    let mut unsent = UnsentEntries::default();
    for &index in batch {
        let id = index.to_string();
        if sent.contains(&id.as_str()) {
            continue;
        }
        let failure = failed.iter().find(|failure| failure.id() == id);
        let sender_fault = failure.is_some_and(BatchResultErrorEntry::sender_fault);
        if sender_fault {
            unsent.refused.push(index)
        } else {
            unsent.retryable.push(index)
        }
        if sender_fault || unsent.detail.is_empty() {
            unsent.detail = match failure {
                Some(failure) => format!("{}: {}", failure.code(), failure.message().unwrap_or("no message")),
                None => "the answer does not name the message".into(),
            };
        }
    }
    unsent
}

fn delay_error<E>(error: &SdkError<E>) -> QueueError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let failure = Failure::of(error);
    if failure.is_transient() {
        QueueError::Unsent { unsent: vec![0], detail: failure.into_detail() }
    } else {
        QueueError::Refused { detail: failure.into_detail() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn message(bytes: usize) -> OutgoingMessage {
        OutgoingMessage { body: "x".repeat(bytes), attributes: BTreeMap::new() }
    }

    fn batch_lengths(lengths: &[usize]) -> Vec<usize> {
        let messages: Vec<_> = lengths.iter().map(|&bytes| message(bytes)).collect();
        let batches = batches(&messages);
        let indices: Vec<usize> = batches.iter().flatten().copied().collect();
        assert_eq!(indices, (0..lengths.len()).collect::<Vec<_>>(), "each message once, in order");
        batches.iter().map(Vec::len).collect()
    }

    #[test]
    fn batches_keep_to_ten_entries_and_the_byte_limit() {
        assert!(batch_lengths(&[]).is_empty());
        assert_eq!(batch_lengths(&[1; 10]), [10]);
        assert_eq!(batch_lengths(&[1; 21]), [10, 10, 1]);
        assert_eq!(batch_lengths(&[MAX_MESSAGE_BYTES / 2; 4]), [2, 2]);
        assert_eq!(batch_lengths(&[MAX_MESSAGE_BYTES, 1, MAX_MESSAGE_BYTES - 1, 1]), [1, 2, 1]);
        assert_eq!(
            batch_lengths(&[1, MAX_MESSAGE_BYTES + 1, 1]),
            [1, 1, 1],
            "a message that is too long gets a batch of its own"
        );
    }

    #[test]
    fn attributes_count_towards_the_size() {
        let attributes = BTreeMap::from([("error_code", "é".to_owned())]);
        assert_eq!(message_bytes(&OutgoingMessage { body: "é".into(), attributes }), 2 + 10 + 6 + 2);
    }

    #[test]
    fn an_empty_attribute_is_left_out() {
        let attributes = BTreeMap::from([("a", String::new()), ("b", "x".to_owned())]);
        let entry = entry(3, &OutgoingMessage { body: "{}".into(), attributes }).unwrap();
        let names: Vec<_> = entry.message_attributes().unwrap().keys().map(String::as_str).collect();
        assert_eq!((entry.id(), names), ("3", vec!["b"]));
    }

    #[tokio::test]
    async fn a_message_carries_the_trace_of_its_sender() {
        let sent = || entry(0, &message(1)).unwrap().message_system_attributes;
        assert_eq!(sent(), None);
        let attributes = trace::within(Some("Root=1-a;Sampled=1".into()), async { sent() }).await.unwrap();
        let found: Vec<_> = attributes
            .iter()
            .map(|(name, value)| (name.as_str(), value.data_type(), value.string_value().unwrap()))
            .collect();
        assert_eq!(found, [("AWSTraceHeader", "String", "Root=1-a;Sampled=1")]);
    }

    fn failed(id: &str, sender_fault: bool) -> BatchResultErrorEntry {
        BatchResultErrorEntry::builder().id(id).code("Code").sender_fault(sender_fault).build().unwrap()
    }

    #[test]
    fn an_answer_of_200_can_leave_messages_unsent() {
        let unsent = unsent_entries(&[4, 5, 6], &["4", "5", "6"], &[]);
        assert_eq!(unsent.into_result(), Ok(()));

        let unsent = unsent_entries(&[4, 5, 6], &["5"], &[failed("4", false)]);
        let result = unsent.into_result();
        assert_eq!(result, Err(QueueError::Unsent { unsent: vec![4, 6], detail: "Code: no message".into() }));

        let unsent = unsent_entries(&[4, 5, 6], &["5"], &[failed("4", false), failed("6", true)]);
        assert_eq!((&unsent.retryable, &unsent.refused), (&vec![4], &vec![6]));
        assert!(matches!(unsent.into_result(), Err(QueueError::Refused { .. })));
    }
}
