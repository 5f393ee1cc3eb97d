//! Converts the events that Lambda receives into the inputs of the use cases, and their outcome into the response.
//!
//! S3 encodes keys, sends a test event without records when a notification is set up, and may send an event more than once. SQS
//! reads the response of a batch literally: exactly the messages that it names are delivered again, and an empty id means all.

use std::{borrow::Cow, collections::BTreeSet};

use aws_lambda_events::{
    s3::S3EventRecord,
    sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage},
};
use futures::future::join_all;
use jiff::Timestamp;
use packshot_pipeline::{
    merge::Changed,
    ports::Delivery,
    split::{SplitError, SplitInput, SplitReport},
};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::Value;

use crate::trace;

/// An event notification from S3. The test event that S3 sends when a notification is set up has no `Records`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct S3Notification {
    #[serde(rename = "Event")]
    event: Option<String>,
    #[serde(rename = "Records")]
    records: Option<Vec<S3EventRecord>>,
}

/// The event is not a valid notification from S3; receiving it again does not help.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Not JSON, or not the JSON of an S3 event.
    #[error("not an S3 event: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// JSON, but without records, and not S3's test event.
    #[error("not an S3 event: it has no Records")]
    NoRecords,
    /// A record that names no object.
    #[error("an S3 event without a bucket or a key")]
    NoObject,
    /// A key that is not UTF-8 after percent-decoding.
    #[error("the key `{0}` of an S3 event does not decode to UTF-8")]
    Encoding(String),
}

/// Some objects of a notification were not split. Splitting all of them again is safe.
#[derive(Debug, thiserror::Error)]
pub enum SplitEachError {
    /// Nothing was split.
    #[error(transparent)]
    Event(#[from] EventError),
    /// One line for each object that failed: its key and the error.
    #[error("{0}")]
    Unfinished(String),
}

impl S3Notification {
    /// The records of created objects. Other records, such as removals, are ignored.
    fn created_objects(&self) -> Result<impl Iterator<Item = &S3EventRecord>, EventError> {
        let records = match (&self.records, self.event.as_deref()) {
            (Some(records), _) => records.as_slice(),
            (None, Some("s3:TestEvent")) => &[],
            (None, _) => return Err(EventError::NoRecords),
        };
        let is_created = |record: &&S3EventRecord| {
            let name = record.event_name.as_deref().unwrap_or_default();
            name.strip_prefix("s3:").unwrap_or(name).starts_with("ObjectCreated:")
        };
        Ok(records.iter().filter(is_created))
    }

    /// The uploaded objects as inputs of the splitter.
    pub fn split_inputs(&self) -> Result<Vec<SplitInput>, EventError> {
        self.created_objects()?.map(split_input).collect()
    }
}

fn split_input(record: &S3EventRecord) -> Result<SplitInput, EventError> {
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let object = &record.s3.object;
    Ok(SplitInput {
        bucket: filled(&record.s3.bucket.name).ok_or(EventError::NoObject)?,
        key: object_key(record)?,
        version_id: filled(&object.version_id),
        etag: filled(&object.e_tag).map(|etag| etag.trim_matches('"').to_owned()),
        edition: String::new(),
        round: 0,
    })
}

/// Decodes a key. S3 encodes it like a form field: `+` for a space, then percent-encoding.
fn object_key(record: &S3EventRecord) -> Result<String, EventError> {
    let encoded = record.s3.object.key.as_deref().filter(|key| !key.is_empty()).ok_or(EventError::NoObject)?;
    let spaced = encoded.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().map(Cow::into_owned).map_err(|_| EventError::Encoding(encoded.to_owned()))
}

/// In milliseconds since 1970; smaller values are not a time of day. `cargo lambda watch` sends a constant small number.
const FIRST_PLAUSIBLE_DEADLINE: u64 = 1_000_000_000_000;

/// The end of the invocation, from the milliseconds in Lambda's context. Without a plausible time of day there is no deadline.
/// Lambda's clock and the function's are the same machine's.
#[must_use]
pub fn deadline(milliseconds: u64) -> Timestamp {
    let at = i64::try_from(milliseconds).ok().filter(|_| milliseconds >= FIRST_PLAUSIBLE_DEADLINE);
    at.and_then(|at| Timestamp::from_millisecond(at).ok()).unwrap_or(Timestamp::MAX)
}

/// The messages of a batch. A message without an id is processed like the others, but its failure cannot be reported.
#[must_use]
pub fn deliveries(event: SqsEvent) -> Vec<Delivery> {
    event.records.into_iter().map(delivery).collect()
}

fn delivery(message: SqsMessage) -> Delivery {
    Delivery {
        id: message.message_id.unwrap_or_default(),
        body: message.body.unwrap_or_default(),
        receipt: message.receipt_handle.unwrap_or_default(),
    }
}

/// Splits the objects of a notification one after the other and logs each outcome. A failure does not stop the next object; the
/// error names all failures, so that Lambda calls again. Splitting is idempotent.
pub async fn split_each<F>(event: S3Notification, split: impl Fn(SplitInput) -> F) -> Result<(), SplitEachError>
where
    F: Future<Output = Result<SplitReport, SplitError>>,
{
    let mut problems = Vec::new();
    for input in event.split_inputs()? {
        let key = input.key.clone();
        match split(input).await {
            Ok(SplitReport::Split(job)) => {
                tracing::info!(key, job = %job.job, rows = job.rows, valid = job.valid, rejected = job.rejected, "split");
            }
            Ok(SplitReport::Rejected { job, problem, .. }) => {
                // The full sentence is in the summary only, because it may quote the file.
                tracing::warn!(key, %job, code = problem.code, line = problem.line, "not a catalog");
            }
            Ok(SplitReport::Nothing(why)) => tracing::info!(key, why, "nothing to split"),
            Err(error) => {
                tracing::warn!(key, %error, "not split to the end");
                problems.push(format!("{key}: {error}"));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(SplitEachError::Unfinished(problems.join("\n"))) }
}

/// Handles the messages of a batch concurrently, each inside the trace of its sender, and concatenates the results.
pub async fn handle_each<F>(event: SqsEvent, handle: impl Fn(Delivery) -> F) -> Vec<String>
where
    F: Future<Output = Vec<String>>,
{
    let handled = event.records.into_iter().map(|mut message| {
        let header = message.attributes.remove(trace::ATTRIBUTE);
        trace::within(header, handle(delivery(message)))
    });
    join_all(handled).await.concat()
}

/// What invokes the merger.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Value")]
pub enum MergerEvent {
    /// Messages of the merge queue.
    Batch(SqsEvent),
    /// The timer: the merger finishes the jobs that no event has finished.
    Schedule,
}

impl TryFrom<Value> for MergerEvent {
    type Error = serde_json::Error;

    fn try_from(event: Value) -> Result<Self, Self::Error> {
        if event["detail-type"] == "Scheduled Event" {
            return Ok(Self::Schedule);
        }
        serde_json::from_value(event).map(Self::Batch)
    }
}

/// The content of a batch of the merge queue.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The readable messages with the keys that changed; a test event has none.
    pub batch: Vec<Changed>,
    /// Ids of the unreadable messages. They are reported as failed, so that the queue moves them to its dead-letter queue,
    /// which has an alarm.
    pub poison: Vec<String>,
}

/// Reads the S3 events in a batch of the merge queue.
#[must_use]
pub fn changes(event: SqsEvent) -> Changes {
    let mut changes = Changes::default();
    for message in deliveries(event) {
        match changed_keys(&message.body) {
            Ok(keys) => changes.batch.push(Changed { id: message.id, keys }),
            Err(error) => {
                tracing::error!(message_id = message.id, %error, "a message that cannot be read goes to the dead-letter queue");
                changes.poison.push(message.id);
            }
        }
    }
    changes
}

/// Passes the changed keys of a batch to `merge`, which returns the ids of the messages that have to be delivered again. The
/// response names those and the unreadable ones.
pub async fn merge_changes<F>(event: SqsEvent, merge: impl FnOnce(Vec<Changed>) -> F) -> SqsBatchResponse
where
    F: Future<Output = Vec<String>>,
{
    let Changes { batch, poison } = changes(event);
    let returned = merge(batch).await;
    batch_response(returned.into_iter().chain(poison))
}

fn changed_keys(body: &str) -> Result<Vec<String>, EventError> {
    let notification: S3Notification = serde_json::from_str(body)?;
    notification.created_objects()?.map(object_key).collect()
}

/// The response that returns exactly these messages to the queue. An empty id would return the whole batch, paid rows included,
/// so it is left out.
#[must_use]
pub fn batch_response(ids: impl IntoIterator<Item = String>) -> SqsBatchResponse {
    let ids: BTreeSet<String> = ids.into_iter().filter(|id| !id.is_empty()).collect();
    let mut response = SqsBatchResponse::default();
    response.batch_item_failures = ids.into_iter().map(failure).collect();
    response
}

fn failure(id: String) -> BatchItemFailure {
    let mut failure = BatchItemFailure::default();
    failure.item_identifier = id;
    failure
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(name: &str, key: &str) -> Value {
        json!({
            "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-central-1", "eventName": name,
            "eventTime": "2026-03-01T12:00:00.000Z", "userIdentity": {"principalId": "AWS:x"},
            "requestParameters": {"sourceIPAddress": "10.0.0.1"}, "responseElements": null,
            "s3": {
                "s3SchemaVersion": "1.0", "configurationId": "c", "bucket": {"name": "b", "arn": "arn:aws:s3:::b"},
                "object": {"key": key, "size": 3, "eTag": "e", "versionId": "v", "sequencer": "0"}
            }
        })
    }

    fn notification(value: Value) -> S3Notification {
        serde_json::from_value(value).unwrap()
    }

    fn test_event() -> Value {
        json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b", "Time": "2026-03-01T12:00:00.000Z"})
    }

    #[test]
    fn keys_are_decoded() {
        for (encoded, key) in [
            ("incoming/plain.csv", "incoming/plain.csv"),
            ("incoming/a+b%2Bc%C3%BC.csv", "incoming/a b+cü.csv"),
            ("incoming/100%25.csv", "incoming/100%.csv"),
        ] {
            let event = notification(json!({"Records": [record("ObjectCreated:Put", encoded)]}));
            let expected = SplitInput {
                bucket: "b".into(),
                key: key.into(),
                version_id: Some("v".into()),
                etag: Some("e".into()),
                edition: String::new(),
                round: 0,
            };
            assert_eq!(event.split_inputs().unwrap(), [expected]);
        }
        let event = notification(json!({"Records": [record("ObjectCreated:Put", "incoming/%FF.csv")]}));
        assert!(matches!(event.split_inputs(), Err(EventError::Encoding(_))));
    }

    #[test]
    fn only_created_objects_count() {
        let event = notification(json!({"Records": [
            record("ObjectRemoved:Delete", "incoming/gone.csv"),
            record("ObjectCreated:CompleteMultipartUpload", "incoming/a.csv"),
            record("s3:ObjectCreated:Put", "incoming/b.csv"),
            record("ObjectCreatedSomehow", "incoming/c.csv"),
        ]}));
        let keys: Vec<String> = event.split_inputs().unwrap().into_iter().map(|input| input.key).collect();
        assert_eq!(keys, ["incoming/a.csv", "incoming/b.csv"]);
        assert!(notification(test_event()).split_inputs().unwrap().is_empty());
        assert!(matches!(notification(json!({"hello": 1})).split_inputs(), Err(EventError::NoRecords)));
    }

    #[test]
    fn an_object_without_a_version_has_none() {
        let mut unversioned = record("ObjectCreated:Put", "incoming/a.csv");
        unversioned["s3"]["object"].as_object_mut().unwrap().remove("versionId");
        let inputs = notification(json!({"Records": [unversioned]})).split_inputs().unwrap();
        assert_eq!(inputs[0].version_id, None);
        let mut nameless = record("ObjectCreated:Put", "");
        nameless["s3"]["object"]["key"] = Value::Null;
        assert!(matches!(notification(json!({"Records": [nameless]})).split_inputs(), Err(EventError::NoObject)));
    }

    fn batch(bodies: &[(Value, &str)]) -> SqsEvent {
        let records: Vec<Value> = bodies
            .iter()
            .map(|(id, body)| json!({"messageId": id, "receiptHandle": "r", "body": body, "attributes": null}))
            .collect();
        serde_json::from_value(json!({"Records": records})).unwrap()
    }

    #[test]
    fn merge_messages_give_their_keys_and_unreadable_ones_their_id() {
        let good = json!({"Records": [record("ObjectCreated:Put", "results/j/000000/1-a%2525.jsonl")]}).to_string();
        let changes = changes(batch(&[
            (json!("m1"), &good),
            (json!("m2"), &test_event().to_string()),
            (json!("m3"), "not json"),
            (json!("m4"), r#"{"Records":7}"#),
            (json!("m5"), "{}"),
            (json!("m6"), ""),
        ]));
        let expected = [
            Changed { id: "m1".into(), keys: vec!["results/j/000000/1-a%25.jsonl".into()] },
            Changed { id: "m2".into(), keys: vec![] },
        ];
        assert_eq!(changes.batch, expected);
        assert_eq!(changes.poison, ["m3", "m4", "m5", "m6"]);
    }

    #[test]
    fn incomplete_messages_become_deliveries() {
        let event = batch(&[(json!("m1"), "{}"), (Value::Null, "x")]);
        let deliveries = deliveries(event);
        assert_eq!(deliveries[0], Delivery { id: "m1".into(), body: "{}".into(), receipt: "r".into() });
        assert_eq!(deliveries[1].id, "");
    }

    #[tokio::test]
    async fn each_message_is_handled_in_the_trace_of_its_sender() {
        let event = |trace: Value| json!({"messageId": trace["AWSTraceHeader"], "receiptHandle": "r", "body": "", "attributes": trace});
        let records = [
            event(json!({"AWSTraceHeader": "Root=1-a"})),
            event(json!({})),
            event(json!({"AWSTraceHeader": "Root=1-b"})),
        ];
        let event: SqsEvent = serde_json::from_value(json!({"Records": records})).unwrap();
        let traces = handle_each(event, |delivery| async move {
            tokio::task::yield_now().await;
            let header = trace::attribute().map(|(_, value)| value.string_value.unwrap());
            assert_eq!(delivery.id, header.clone().unwrap_or_default());
            vec![format!("{header:?}")]
        });
        assert_eq!(traces.await, [r#"Some("Root=1-a")"#, "None", r#"Some("Root=1-b")"#]);
    }

    #[test]
    fn the_timer_is_distinguished_from_a_batch() {
        let schedule =
            json!({"source": "aws.events", "detail-type": "Scheduled Event", "resources": ["arn"], "detail": {}});
        assert!(matches!(serde_json::from_value(schedule), Ok(MergerEvent::Schedule)));
        let batch = json!({"Records": [{"messageId": "m", "body": "Scheduled Event", "attributes": {}}]});
        assert!(matches!(serde_json::from_value(batch), Ok(MergerEvent::Batch(batch)) if batch.records.len() == 1));
        assert!(serde_json::from_value::<MergerEvent>(json!({"Records": 7})).is_err());
    }

    #[test]
    fn the_response_never_names_an_empty_id() {
        let answer = |ids: &[&str]| serde_json::to_value(batch_response(ids.iter().map(|&id| id.to_owned()))).unwrap();
        assert_eq!(answer(&[]), json!({"batchItemFailures": []}));
        assert_eq!(answer(&[""]), json!({"batchItemFailures": []}));
        let expected = json!({"batchItemFailures": [{"itemIdentifier": "m1"}, {"itemIdentifier": "m2"}]});
        assert_eq!(answer(&["m2", "", "m1", "m2"]), expected);
    }
}
