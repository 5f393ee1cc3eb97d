//! A queue, over the AWS SDK.

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
    ports::{Outgoing, Queue, QueueError},
};

use crate::{sdk_error::Failure, trace};

const BATCH_ENTRIES: usize = 10;
const BATCHES_IN_FLIGHT: usize = 32;
/// SQS allows twelve hours counted from the moment the message was received, so the time that a function has worked on it
/// (15 minutes at most) and the poller had it before has to fit as well.
const MAX_DELAY: Duration = Duration::from_secs(12 * 3600 - 1800);

/// A queue.
#[derive(Debug, Clone)]
pub struct SqsQueue {
    client: Client,
    url: String,
}

/// What became of a batch: the indices that are still to be sent, and why.
#[derive(Debug, Default)]
struct Left {
    passing: Vec<usize>,
    refused: Vec<usize>,
    detail: String,
}

impl SqsQueue {
    /// The queue with this URL.
    #[must_use]
    pub fn new(client: Client, url: &str) -> Self {
        Self { client, url: url.to_owned() }
    }

    /// Sends one batch, and what is left of it again, until nothing is left or patience is.
    async fn send_batch(&self, messages: &[Outgoing], batch: Vec<usize>) -> Left {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .with_max_times(6)
            .with_jitter()
            .build();
        let mut refused = Vec::new();
        let mut batch = batch;
        loop {
            let mut left = self.try_batch(messages, &batch).await;
            refused.append(&mut left.refused);
            let pause = if left.passing.is_empty() { None } else { pauses.next() };
            let Some(pause) = pause else { return Left { refused, ..left } };
            tokio::time::sleep(pause).await;
            batch = left.passing;
        }
    }

    async fn try_batch(&self, messages: &[Outgoing], batch: &[usize]) -> Left {
        let refused = |detail| Left { refused: batch.to_vec(), detail, ..Left::default() };
        let entries: Result<Vec<_>, _> = batch.iter().map(|&index| entry(index, &messages[index])).collect();
        let entries = match entries {
            Ok(entries) => entries,
            Err(detail) => return refused(detail),
        };
        let answer = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(entries)).send().await;
        match answer {
            Ok(answer) => {
                let sent: Vec<&str> = answer.successful().iter().map(|entry| entry.id()).collect();
                left_over(batch, &sent, answer.failed())
            }
            Err(error) => {
                let failure = Failure::of(&error);
                // A batch whose answer was lost is sent again: consumers stand a message that comes twice.
                if failure.is_passing() {
                    Left { passing: batch.to_vec(), detail: failure.into_detail(), ..Left::default() }
                } else {
                    refused(failure.into_detail())
                }
            }
        }
    }
}

#[async_trait]
impl Queue for SqsQueue {
    async fn send(&self, messages: &[Outgoing]) -> Result<(), QueueError> {
        let sends: Vec<_> = batches(messages).into_iter().map(|batch| self.send_batch(messages, batch)).collect();
        let mut all = Left::default();
        let mut outcomes = stream::iter(sends).buffer_unordered(BATCHES_IN_FLIGHT);
        while let Some(mut left) = outcomes.next().await {
            all.passing.append(&mut left.passing);
            all.refused.append(&mut left.refused);
            // Why something was refused matters more than why something has to wait.
            if !left.detail.is_empty() && all.refused.is_empty() || all.detail.is_empty() {
                all.detail = mem::take(&mut left.detail);
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

impl Left {
    fn into_result(mut self) -> Result<(), QueueError> {
        if !self.refused.is_empty() {
            let detail =
                format!("{} message(s), the first at index {}: {}", self.refused.len(), self.refused[0], self.detail);
            return Err(QueueError::Refused { detail });
        }
        if self.passing.is_empty() {
            return Ok(());
        }
        self.passing.sort_unstable();
        Err(QueueError::Unsent { unsent: self.passing, detail: self.detail })
    }
}

/// Cuts the list into what one call takes: ten entries, and the bytes of one message.
fn batches(messages: &[Outgoing]) -> Vec<Vec<usize>> {
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

/// As SQS counts: the body, and of each attribute its name, its type and its value.
fn message_bytes(message: &Outgoing) -> usize {
    let attributes = message.attributes.iter().map(|(name, value)| name.len() + STRING.len() + value.len());
    message.body.len() + attributes.sum::<usize>()
}

const STRING: &str = "String";

fn entry(index: usize, message: &Outgoing) -> Result<SendMessageBatchRequestEntry, String> {
    let mut entry = SendMessageBatchRequestEntry::builder().id(index.to_string()).message_body(&message.body);
    // SQS refuses an attribute without a value, and with it the message.
    for (name, value) in message.attributes.iter().filter(|(_, value)| !value.is_empty()) {
        let value = MessageAttributeValue::builder().data_type(STRING).string_value(value).build();
        entry = entry.message_attributes(*name, value.map_err(|error| error.to_string())?);
    }
    if let Some((name, value)) = trace::attribute() {
        entry = entry.message_system_attributes(name, value);
    }
    entry.build().map_err(|error| error.to_string())
}

/// What a batch left behind, by the answer's two lists. An entry in neither is not on the queue as far as anybody knows.
fn left_over(batch: &[usize], sent: &[&str], failed: &[BatchResultErrorEntry]) -> Left {
    let mut left = Left::default();
    for &index in batch {
        let id = index.to_string();
        if sent.contains(&id.as_str()) {
            continue;
        }
        let failure = failed.iter().find(|failure| failure.id() == id);
        let sender_fault = failure.is_some_and(BatchResultErrorEntry::sender_fault);
        if sender_fault {
            left.refused.push(index)
        } else {
            left.passing.push(index)
        }
        if sender_fault || left.detail.is_empty() {
            left.detail = match failure {
                Some(failure) => format!("{}: {}", failure.code(), failure.message().unwrap_or("no message")),
                None => "the answer does not name the message".into(),
            };
        }
    }
    left
}

fn delay_error<E>(error: &SdkError<E>) -> QueueError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let failure = Failure::of(error);
    if failure.is_passing() {
        QueueError::Unsent { unsent: vec![0], detail: failure.into_detail() }
    } else {
        QueueError::Refused { detail: failure.into_detail() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn message(bytes: usize) -> Outgoing {
        Outgoing { body: "x".repeat(bytes), attributes: BTreeMap::new() }
    }

    fn cut(lengths: &[usize]) -> Vec<usize> {
        let messages: Vec<_> = lengths.iter().map(|&bytes| message(bytes)).collect();
        let cut = batches(&messages);
        let indices: Vec<usize> = cut.iter().flatten().copied().collect();
        assert_eq!(indices, (0..lengths.len()).collect::<Vec<_>>(), "nothing lost, nothing twice, in order");
        cut.iter().map(Vec::len).collect()
    }

    #[test]
    fn batches_keep_to_ten_entries_and_the_byte_limit() {
        assert!(cut(&[]).is_empty());
        assert_eq!(cut(&[1; 10]), [10]);
        assert_eq!(cut(&[1; 21]), [10, 10, 1]);
        assert_eq!(cut(&[MAX_MESSAGE_BYTES / 2; 4]), [2, 2]);
        assert_eq!(cut(&[MAX_MESSAGE_BYTES, 1, MAX_MESSAGE_BYTES - 1, 1]), [1, 2, 1]);
        assert_eq!(cut(&[1, MAX_MESSAGE_BYTES + 1, 1]), [1, 1, 1], "too long for SQS, but its neighbours are not");
    }

    #[test]
    fn attributes_count() {
        let attributes = BTreeMap::from([("error_code", "é".to_owned())]);
        assert_eq!(message_bytes(&Outgoing { body: "é".into(), attributes }), 2 + 10 + 6 + 2);
    }

    #[test]
    fn an_empty_attribute_is_left_out() {
        let attributes = BTreeMap::from([("a", String::new()), ("b", "x".to_owned())]);
        let entry = entry(3, &Outgoing { body: "{}".into(), attributes }).unwrap();
        let names: Vec<_> = entry.message_attributes().unwrap().keys().map(String::as_str).collect();
        assert_eq!((entry.id(), names), ("3", vec!["b"]));
    }

    #[tokio::test]
    async fn a_message_carries_the_trace_it_was_sent_in() {
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
    fn an_answer_of_200_may_have_left_messages_behind() {
        let left = left_over(&[4, 5, 6], &["4", "5", "6"], &[]);
        assert_eq!(left.into_result(), Ok(()));

        let left = left_over(&[4, 5, 6], &["5"], &[failed("4", false)]);
        let result = left.into_result();
        assert_eq!(result, Err(QueueError::Unsent { unsent: vec![4, 6], detail: "Code: no message".into() }));

        let left = left_over(&[4, 5, 6], &["5"], &[failed("4", false), failed("6", true)]);
        assert_eq!((&left.passing, &left.refused), (&vec![4], &vec![6]));
        assert!(matches!(left.into_result(), Err(QueueError::Refused { .. })));
    }
}
