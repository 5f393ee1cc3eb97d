//! One valid row on its way through the rows queue.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::{
    json,
    keys::{Catalog, JobId},
    request::{Fingerprint, Request},
};

/// The longest message the queue takes, and the longest batch of them, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 262_144;

/// What of a message the body may take; the rest is for attributes.
pub const MAX_ROW_BYTES: usize = MAX_MESSAGE_BYTES - 4 * 1024;

/// The version of the message format that this code writes.
pub const VERSION: u32 = 1;

/// The body of a message. The splitter writes it from what it borrows from the row: `S` is text, `I` the original columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowMessage<I = Map<String, Value>, S = String> {
    /// Format version.
    pub v: u32,
    /// The job.
    pub job: JobId,
    /// The job's catalog.
    pub catalog: Catalog,
    /// The row, from 1.
    pub row: u64,
    /// Its physical line in the file.
    pub line: u64,
    /// Canonical product key.
    pub sku: S,
    /// Of the request.
    pub fingerprint: Fingerprint,
    /// How often a person has asked for this row again: 0 from the splitter, one more from each trip through the retry
    /// queue. A repeated delivery has the same round and is settled by the result; a higher round may call again.
    pub round: u64,
    /// The complete API request.
    pub request: Request<S>,
    /// The row's original columns.
    pub input: I,
}

/// A body that is not one of our messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a row message: {0}")]
pub struct Poison(pub String);

impl<I: Serialize, S: Serialize> RowMessage<I, S> {
    /// The body as it goes to the queue.
    #[must_use]
    pub fn encode(&self) -> String {
        let text = json::to_string(self);
        // The first byte of both: most messages are through here.
        if memchr::memchr(0xef, text.as_bytes()).is_none() {
            return text;
        }
        // SQS refuses these two; JSON can say them in ASCII, and they can only stand inside strings.
        text.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff")
    }
}

impl RowMessage {
    /// Reads a body.
    pub fn decode(body: &str) -> Result<Self, Poison> {
        // Not in the parser's own words, which quote the body: this ends in the log.
        let unreadable = |error: serde_json::Error| {
            Poison(format!("{:?} error at column {} of the body", error.classify(), error.column()))
        };
        let message: Self = serde_json::from_str(body).map_err(unreadable)?;
        if message.v != VERSION {
            return Err(Poison(format!("version {} where {VERSION} is understood", message.v)));
        }
        if message.row == 0 {
            return Err(Poison("rows are numbered from 1".into()));
        }
        if JobId::parse(message.job.as_str()).is_none() {
            return Err(Poison("the job id is not one of ours".into()));
        }
        if message.request.fingerprint() != message.fingerprint {
            // What is paid for is the request; a wrong fingerprint would pay under another row's name.
            return Err(Poison("the fingerprint is not the request's".into()));
        }
        Ok(message)
    }
}
