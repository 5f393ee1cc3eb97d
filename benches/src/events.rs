//! The events with which Lambda invokes the functions: notifications of S3, alone or as the bodies of SQS messages, and rows.

use bytes::Bytes;
use packshot_benches::samples::{self, BUCKET};
use packshot_pipeline::model::keys::{self, JobId};
use serde_json::{Value, json};

/// For the splitter: a catalog was uploaded.
pub(crate) fn split(key: &str) -> Bytes {
    created(key).to_string().into()
}

/// For the generator: a batch of the rows queue.
pub(crate) fn generate(job: &JobId, rows: std::ops::Range<u64>) -> Bytes {
    batch("rows", rows.map(|row| samples::message(job, row).encode()))
}

/// For the merger: a batch of the merge queue, with one changed result in every part of a job.
pub(crate) fn merge(job: &JobId, rows: u64) -> Bytes {
    let last = (0..keys::parts(rows)).map(|part| *keys::rows_of_part(part, rows).end());
    batch("merge", last.map(|row| created(&keys::result(job, row, &samples::sku(row))).to_string()))
}

/// The notification that S3 sends when an object was written.
pub(crate) fn created(key: &str) -> Value {
    json!({"Records": [{
        "eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "awsRegion": "us-east-1",
        "eventTime": "2026-03-01T12:00:00.000Z", "userIdentity": {"principalId": "AWS:bench"},
        "requestParameters": {"sourceIPAddress": "192.0.2.7"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG4V5W"},
        "s3": {
            "s3SchemaVersion": "1.0", "configurationId": "bench",
            "bucket": {"name": BUCKET, "ownerIdentity": {"principalId": "A"}, "arn": format!("arn:aws:s3:::{BUCKET}")},
            "object": {"key": key, "size": 500, "sequencer": "0062E99A88DC407160"},
        },
    }]})
}

/// The id of the message at this position of a [`batch`].
pub(crate) fn message_id(index: usize) -> String {
    format!("{index:08x}-6e91-2fa5-535b-4f0a34c88f30")
}

/// The event that Lambda builds from a batch of SQS messages.
pub(crate) fn batch(queue: &str, bodies: impl Iterator<Item = String>) -> Bytes {
    let record = |(index, body): (usize, String)| {
        json!({
            "messageId": message_id(index),
            "receiptHandle": format!("AQEB0f72164b143643033a2bd6d5914649290eccae189284f167fb1837a4{index:08x}"),
            "body": body,
            "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1772442904120"},
            "messageAttributes": {},
            "md5OfBody": "298f635221b460326627a35425dc9d30",
            "eventSource": "aws:sqs",
            "eventSourceARN": format!("arn:aws:sqs:us-east-1:000000000000:{queue}"),
            "awsRegion": "us-east-1",
        })
    };
    json!({"Records": bodies.enumerate().map(record).collect::<Vec<_>>()}).to_string().into()
}
