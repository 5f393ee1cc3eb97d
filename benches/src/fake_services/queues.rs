//! SQS over its JSON protocol, and GetSecretValue of Secrets Manager, which uses the same protocol. Messages are counted
//! and dropped, unless `--keep-messages` keeps them for ReceiveMessage. A message that was received is removed: there
//! is no visibility timeout.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use hyper::StatusCode;
use packshot_benches::samples::BUCKET;
use packshot_pipeline::model::keys;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;

use super::{
    answer::{self, Answer},
    counters::Counters,
};
use crate::events;

/// The MD5 of an empty body, for every message: no client in the product verifies it.
const MD5: &str = "d41d8cd98f00b204e9800998ecf8427e";

/// The secret with the API key.
pub(super) const SECRET_ARN: &str = "arn:aws:secretsmanager:us-east-1:000000000000:secret:bench-key";

#[derive(Default)]
pub(super) struct Queues {
    keep: AtomicBool,
    next: AtomicU64,
    /// Bodies by the queue's name.
    kept: Mutex<BTreeMap<String, VecDeque<String>>>,
}

impl Queues {
    pub(super) fn keep(&self, keep: bool) {
        self.keep.store(keep, Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        self.kept.lock().clear();
    }

    /// Sends the event of a new object under `results/` to the merge queue, as the bucket's notification does.
    pub(super) fn object_created(&self, path: &str) {
        let Some(key) = path.strip_prefix('/').and_then(|path| path.strip_prefix(BUCKET)?.strip_prefix('/')) else {
            return;
        };
        if key.starts_with(keys::RESULTS) && self.keep.load(Ordering::Relaxed) {
            let event = events::created(key).to_string();
            self.kept.lock().entry("merge".into()).or_default().push_back(event);
        }
    }

    /// Removes and returns the oldest messages of a queue, at most `max`.
    pub(super) fn take(&self, queue: &str, max: usize) -> Vec<String> {
        let mut kept = self.kept.lock();
        let Some(queue) = kept.get_mut(queue) else { return Vec::new() };
        let taken = queue.len().min(max);
        queue.drain(..taken).collect()
    }

    pub(super) fn answer(&self, counters: &Counters, caller: &str, action: &str, body: &[u8]) -> Answer {
        let answered = match action {
            "SendMessageBatch" => self.send(counters, caller, body),
            "DeleteMessageBatch" => batch_request(body).map(|batch| successful(&batch, |_| String::new())),
            "ReceiveMessage" => self.receive(body),
            "ChangeMessageVisibility" | "DeleteMessage" => Ok("{}".to_owned()),
            "GetSecretValue" => {
                Ok(json!({"ARN": SECRET_ARN, "Name": "bench-key", "SecretString": "bench-key-0123456789"}).to_string())
            }
            _ => return answer::unsupported(action),
        };
        counters.add(caller, |counts| counts.queue_calls += 1);
        match answered {
            Ok(json) => answer::typed(StatusCode::OK, "application/x-amz-json-1.0", json),
            Err(error) => answer::status(StatusCode::BAD_REQUEST, error.to_string()),
        }
    }

    fn send(&self, counters: &Counters, caller: &str, body: &[u8]) -> serde_json::Result<String> {
        let batch = batch_request(body)?;
        let length = batch.entries.len() as u64;
        counters.add(caller, |counts| counts.messages += length);
        let first = self.next.fetch_add(length, Ordering::Relaxed);
        if self.keep.load(Ordering::Relaxed) {
            let bodies: BatchBodies = serde_json::from_slice(body)?;
            let mut kept = self.kept.lock();
            let queue = kept.entry(queue_name(&batch.queue_url).to_owned()).or_default();
            queue.extend(bodies.entries.into_iter().map(|entry| entry.message_body));
        }
        Ok(successful(&batch, |index| {
            format!(r#","MessageId":"{:032x}","MD5OfMessageBody":"{MD5}""#, first + index as u64)
        }))
    }

    fn receive(&self, body: &[u8]) -> serde_json::Result<String> {
        let request: ReceiveRequest = serde_json::from_slice(body)?;
        let taken = self.take(queue_name(&request.queue_url), request.max_number_of_messages);
        let messages: Vec<_> = taken
            .into_iter()
            .map(|body| {
                let id = format!("{:032x}", self.next.fetch_add(1, Ordering::Relaxed));
                json!({"MessageId": id, "ReceiptHandle": id, "MD5OfBody": MD5, "Body": body})
            })
            .collect();
        Ok(json!({"Messages": messages}).to_string())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BatchRequest<'a> {
    #[serde(borrow)]
    queue_url: Cow<'a, str>,
    #[serde(borrow)]
    entries: Vec<BatchEntry<'a>>,
}

/// Leaves the message's body out: it is parsed (as [`BatchBodies`]) only where messages are kept.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BatchEntry<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BatchBodies {
    entries: Vec<BodyEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BodyEntry {
    message_body: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReceiveRequest {
    queue_url: String,
    #[serde(default = "one")]
    max_number_of_messages: usize,
}

fn one() -> usize {
    1
}

fn batch_request(body: &[u8]) -> serde_json::Result<BatchRequest<'_>> {
    serde_json::from_slice(body)
}

/// The answer to a batch whose entries all succeeded. `fields` returns further fields of an entry. Built without a JSON
/// tree, because this is the most frequent answer of the splitter's measurement.
fn successful(batch: &BatchRequest<'_>, fields: impl Fn(usize) -> String) -> String {
    let mut json = String::with_capacity(160 * batch.entries.len());
    json.push_str(r#"{"Failed":[],"Successful":["#);
    for (index, entry) in batch.entries.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        json.push_str(&format!(r#"{comma}{{"Id":"{}"{}}}"#, entry.id, fields(index)));
    }
    json.push_str("]}");
    json
}

/// The last segment of a queue's URL.
fn queue_name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or_default()
}
