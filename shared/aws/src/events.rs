//! AWS's events and ours. AWS's are repeated, encoded, and sometimes not what they seem.

use std::{borrow::Cow, collections::BTreeSet};

use aws_lambda_events::{
    s3::S3EventRecord,
    sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage},
};
use futures::future::join_all;
use jiff::Timestamp;
use packshot_pipeline::{merge::Changed, ports::Delivery, split::SplitInput};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::Value;

use crate::trace;

/// What S3 sends: an `S3Event`, or the test event without `Records` that it sends when a notification is set up.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Notification {
    #[serde(rename = "Event")]
    event: Option<String>,
    #[serde(rename = "Records")]
    records: Option<Vec<S3EventRecord>>,
}

/// Why an event cannot be read. It will never be readable.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// Not JSON, or not the JSON of an S3 event.
    #[error("not an S3 event: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// JSON, but without records and not S3's test event.
    #[error("not an S3 event: it has no Records")]
    NoRecords,
    /// A record that names no object.
    #[error("an S3 event without a bucket or a key")]
    NoObject,
    /// A key that does not decode.
    #[error("the key `{0}` of an S3 event does not decode to UTF-8")]
    Encoding(String),
}

impl Notification {
    /// The objects that were created. Other events, such as removals, are none of our business.
    fn created(&self) -> Result<impl Iterator<Item = &S3EventRecord>, EventError> {
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

    /// The catalogs to split.
    pub fn splits(&self) -> Result<Vec<SplitInput>, EventError> {
        self.created()?.map(split_input).collect()
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

/// Keys in events are encoded as in a form: `+` is a space, then percent.
fn object_key(record: &S3EventRecord) -> Result<String, EventError> {
    let encoded = record.s3.object.key.as_deref().filter(|key| !key.is_empty()).ok_or(EventError::NoObject)?;
    let spaced = encoded.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().map(Cow::into_owned).map_err(|_| EventError::Encoding(encoded.to_owned()))
}

/// Anything earlier is no time of day: `cargo lambda watch` hands every invocation the same small number.
const FIRST_PLAUSIBLE_DEADLINE: u64 = 1_000_000_000_000;

/// When the invocation ends, from the context's milliseconds; never, where the host gives no time of day. Lambda's clock
/// and ours are the same machine's.
#[must_use]
pub fn deadline(milliseconds: u64) -> Timestamp {
    let at = i64::try_from(milliseconds).ok().filter(|_| milliseconds >= FIRST_PLAUSIBLE_DEADLINE);
    at.and_then(|at| Timestamp::from_millisecond(at).ok()).unwrap_or(Timestamp::MAX)
}

/// The messages of a batch. A message without an id is worked on like the others; only its failure cannot be reported.
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

/// Handles the messages of a batch all at once, each as part of the trace that its sender was in, and returns what all of
/// them return.
pub async fn each<F>(event: SqsEvent, handle: impl Fn(Delivery) -> F) -> Vec<String>
where
    F: Future<Output = Vec<String>>,
{
    let handled = event.records.into_iter().map(|mut message| {
        let header = message.attributes.remove(trace::ATTRIBUTE);
        trace::within(header, handle(delivery(message)))
    });
    join_all(handled).await.concat()
}

/// What wakes the merger.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Value")]
pub enum MergerEvent {
    /// Messages of the merge queue.
    Batch(SqsEvent),
    /// The clock: it is time to look after what no event has asked for.
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

/// What a batch of the merge queue says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The messages, each with the keys that changed; those of a test event change nothing.
    pub batch: Vec<Changed>,
    /// Ids of the messages that nobody can read. They are answered as failed, so that the queue moves them to its
    /// dead-letter queue, where somebody sees them.
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

fn changed_keys(body: &str) -> Result<Vec<String>, EventError> {
    let notification: Notification = serde_json::from_str(body)?;
    notification.created()?.map(object_key).collect()
}

/// The answer that sends exactly these messages back. An empty id would send back the whole batch, paid rows included.
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

    fn notification(value: Value) -> Notification {
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
            assert_eq!(event.splits().unwrap(), [expected]);
        }
        let event = notification(json!({"Records": [record("ObjectCreated:Put", "incoming/%FF.csv")]}));
        assert!(matches!(event.splits(), Err(EventError::Encoding(_))));
    }

    #[test]
    fn only_created_objects_count() {
        let event = notification(json!({"Records": [
            record("ObjectRemoved:Delete", "incoming/gone.csv"),
            record("ObjectCreated:CompleteMultipartUpload", "incoming/a.csv"),
            record("s3:ObjectCreated:Put", "incoming/b.csv"),
            record("ObjectCreatedSomehow", "incoming/c.csv"),
        ]}));
        let keys: Vec<String> = event.splits().unwrap().into_iter().map(|input| input.key).collect();
        assert_eq!(keys, ["incoming/a.csv", "incoming/b.csv"]);
        assert!(notification(test_event()).splits().unwrap().is_empty());
        assert!(matches!(notification(json!({"hello": 1})).splits(), Err(EventError::NoRecords)));
    }

    #[test]
    fn an_object_without_a_version_has_none() {
        let mut unversioned = record("ObjectCreated:Put", "incoming/a.csv");
        unversioned["s3"]["object"].as_object_mut().unwrap().remove("versionId");
        let splits = notification(json!({"Records": [unversioned]})).splits().unwrap();
        assert_eq!(splits[0].version_id, None);
        let mut nameless = record("ObjectCreated:Put", "");
        nameless["s3"]["object"]["key"] = Value::Null;
        assert!(matches!(notification(json!({"Records": [nameless]})).splits(), Err(EventError::NoObject)));
    }

    fn batch(bodies: &[(Value, &str)]) -> SqsEvent {
        let records: Vec<Value> = bodies
            .iter()
            .map(|(id, body)| json!({"messageId": id, "receiptHandle": "r", "body": body, "attributes": null}))
            .collect();
        serde_json::from_value(json!({"Records": records})).unwrap()
    }

    #[test]
    fn merge_messages_name_keys_and_unreadable_ones_their_id() {
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
    fn rows_become_deliveries_whatever_is_missing() {
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
        let traces = each(event, |delivery| async move {
            tokio::task::yield_now().await;
            let header = trace::attribute().map(|(_, value)| value.string_value.unwrap());
            assert_eq!(delivery.id, header.clone().unwrap_or_default());
            vec![format!("{header:?}")]
        });
        assert_eq!(traces.await, [r#"Some("Root=1-a")"#, "None", r#"Some("Root=1-b")"#]);
    }

    #[test]
    fn the_clock_is_told_from_a_batch() {
        let schedule =
            json!({"source": "aws.events", "detail-type": "Scheduled Event", "resources": ["arn"], "detail": {}});
        assert!(matches!(serde_json::from_value(schedule), Ok(MergerEvent::Schedule)));
        let batch = json!({"Records": [{"messageId": "m", "body": "Scheduled Event", "attributes": {}}]});
        assert!(matches!(serde_json::from_value(batch), Ok(MergerEvent::Batch(batch)) if batch.records.len() == 1));
        assert!(serde_json::from_value::<MergerEvent>(json!({"Records": 7})).is_err());
    }

    #[test]
    fn the_answer_never_names_an_empty_id() {
        let answer = |ids: &[&str]| serde_json::to_value(batch_response(ids.iter().map(|&id| id.to_owned()))).unwrap();
        assert_eq!(answer(&[]), json!({"batchItemFailures": []}));
        assert_eq!(answer(&[""]), json!({"batchItemFailures": []}));
        let expected = json!({"batchItemFailures": [{"itemIdentifier": "m1"}, {"itemIdentifier": "m2"}]});
        assert_eq!(answer(&["m2", "", "m1", "m2"]), expected);
    }
}
