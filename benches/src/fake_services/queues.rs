//! SQS over its JSON protocol, and the one call of Secrets Manager, which speaks the same.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use hyper::{StatusCode, header::HeaderValue};
use packshot_pipeline::model::keys;
use serde::Deserialize;
use serde_json::json;

use super::{BUCKET, State, server};
use crate::events;

/// Of the empty text. No client of ours compares it.
const MD5: &str = "d41d8cd98f00b204e9800998ecf8427e";

/// The one secret.
pub(super) const SECRET_ARN: &str = "arn:aws:secretsmanager:us-east-1:000000000000:secret:bench-key";

#[derive(Default)]
pub(super) struct Queues {
    keep: AtomicBool,
    next: AtomicU64,
    /// By the queue's name. A message that was received is gone.
    kept: Mutex<BTreeMap<String, VecDeque<String>>>,
}

impl Queues {
    pub(super) fn keep(&self, keep: bool) {
        self.keep.store(keep, Ordering::Relaxed);
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, VecDeque<String>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clear(&self) {
        self.kept().clear();
    }

    /// The bucket's notification: the merge queue is told of what was written under `results/`.
    pub(super) fn written(&self, path: &str) {
        let Some(key) = path.strip_prefix('/').and_then(|path| path.strip_prefix(BUCKET)?.strip_prefix('/')) else {
            return;
        };
        if key.starts_with(keys::RESULTS) && self.keep.load(Ordering::Relaxed) {
            let event = events::created(key).to_string();
            self.kept().entry("merge".into()).or_default().push_back(event);
        }
    }

    /// The next messages of a queue, at most so many.
    pub(super) fn take(&self, queue: &str, max: usize) -> Vec<String> {
        let mut kept = self.kept();
        let Some(queue) = kept.get_mut(queue) else { return Vec::new() };
        let taken = queue.len().min(max);
        queue.drain(..taken).collect()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Batch<'a> {
    #[serde(borrow)]
    queue_url: Cow<'a, str>,
    #[serde(borrow)]
    entries: Vec<Entry<'a>>,
}

/// The body is passed over unless it is to be kept.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WithBodies {
    entries: Vec<WithBody>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WithBody {
    message_body: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Receive {
    queue_url: String,
    #[serde(default = "one")]
    max_number_of_messages: usize,
}

fn one() -> usize {
    1
}

pub(super) fn answer(state: &State, caller: &str, action: &str, body: &[u8]) -> server::Answer {
    let answered = match action {
        "SendMessageBatch" => send(state, caller, body),
        "DeleteMessageBatch" => entries(body).map(|batch| successful(&batch, |_| String::new())),
        "ReceiveMessage" => receive(state, body),
        "ChangeMessageVisibility" | "DeleteMessage" => Ok("{}".to_owned()),
        "GetSecretValue" => {
            Ok(json!({"ARN": SECRET_ARN, "Name": "bench-key", "SecretString": "bench-key-0123456789"}).to_string())
        }
        _ => return server::unknown(action),
    };
    state.counters.add(caller, |counts| counts.queue_calls += 1);
    match answered {
        Ok(json) => {
            let mut answer = server::status(StatusCode::OK, json);
            answer.headers_mut().insert("content-type", HeaderValue::from_static("application/x-amz-json-1.0"));
            answer
        }
        Err(error) => server::status(StatusCode::BAD_REQUEST, error.to_string()),
    }
}

fn entries(body: &[u8]) -> serde_json::Result<Batch<'_>> {
    serde_json::from_slice(body)
}

fn successful(batch: &Batch<'_>, also: impl Fn(usize) -> String) -> String {
    let mut json = String::with_capacity(160 * batch.entries.len());
    json.push_str(r#"{"Failed":[],"Successful":["#);
    for (index, entry) in batch.entries.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        json.push_str(&format!(r#"{comma}{{"Id":"{}"{}}}"#, entry.id, also(index)));
    }
    json.push_str("]}");
    json
}

fn send(state: &State, caller: &str, body: &[u8]) -> serde_json::Result<String> {
    let batch = entries(body)?;
    let length = batch.entries.len() as u64;
    state.counters.add(caller, |counts| counts.messages += length);
    let first = state.queues.next.fetch_add(length, Ordering::Relaxed);
    if state.queues.keep.load(Ordering::Relaxed) {
        let bodies: WithBodies = serde_json::from_slice(body)?;
        let mut kept = state.queues.kept();
        let queue = kept.entry(name(&batch.queue_url).to_owned()).or_default();
        queue.extend(bodies.entries.into_iter().map(|entry| entry.message_body));
    }
    Ok(successful(&batch, |index| {
        format!(r#","MessageId":"{:032x}","MD5OfMessageBody":"{MD5}""#, first + index as u64)
    }))
}

fn receive(state: &State, body: &[u8]) -> serde_json::Result<String> {
    let asked: Receive = serde_json::from_slice(body)?;
    let taken = state.queues.take(name(&asked.queue_url), asked.max_number_of_messages);
    let messages: Vec<_> = taken
        .into_iter()
        .map(|body| {
            let id = format!("{:032x}", state.queues.next.fetch_add(1, Ordering::Relaxed));
            json!({"MessageId": id, "ReceiptHandle": id, "MD5OfBody": MD5, "Body": body})
        })
        .collect();
    Ok(json!({"Messages": messages}).to_string())
}

/// Of the queue behind a URL.
fn name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or_default()
}
