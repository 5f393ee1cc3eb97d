//! The message of one valid row, in the rows queue and in the retry queue.
//!
//! The splitter encodes it, the generator decodes it. Decoding verifies the fingerprint, because the fingerprint is what is
//! paid for.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::{
    json,
    keys::{Catalog, JobId},
    request::{Fingerprint, Request},
};

/// The queue's limit for one message and for one batch of messages, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 262_144;

/// The longest body, in bytes; the rest of a message is for attributes.
pub const MAX_ROW_BYTES: usize = MAX_MESSAGE_BYTES - 4 * 1024;

/// The version of the message format that this code writes.
pub const VERSION: u32 = 1;

/// The body of a message. `S` is text and `I` the original columns; the splitter borrows both from the row it is reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowMessage<I = Map<String, Value>, S = String> {
    /// Format version.
    pub v: u32,
    /// The job that the row belongs to.
    pub job: JobId,
    /// Name of the job's catalog.
    pub catalog: Catalog,
    /// Row number, from 1.
    pub row: u64,
    /// The row's physical line in the file, from 1.
    pub line: u64,
    /// Canonical product key.
    pub sku: S,
    /// Fingerprint of the request.
    pub fingerprint: Fingerprint,
    /// How often a person has requested this row again: 0 from the splitter, one more from each pass through the retry queue.
    /// A repeated delivery has the same round, and the result settles it; a higher round may call again.
    pub round: u64,
    /// The complete API request.
    pub request: Request<S>,
    /// The row's original columns, as in the file.
    pub input: I,
}

/// A body that is not a valid row message. It goes to the retry queue, because no retry can succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a row message: {0}")]
pub struct DecodeError(pub String);

impl<I: Serialize, S: Serialize> RowMessage<I, S> {
    /// Encodes the body for the queue.
    #[must_use]
    pub fn encode(&self) -> String {
        let text = json::to_string(self);
        // The first UTF-8 byte of both characters below; few messages contain it.
        if memchr::memchr(0xef, text.as_bytes()).is_none() {
            return text;
        }
        // SQS refuses these two characters. They can only occur inside strings, where JSON can escape them.
        text.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff")
    }
}

impl RowMessage {
    /// Decodes and verifies a body.
    pub fn decode(body: &str) -> Result<Self, DecodeError> {
        // Not the parser's own message, because it quotes the body and is logged.
        let unreadable = |error: serde_json::Error| {
            DecodeError(format!("{:?} error at column {} of the body", error.classify(), error.column()))
        };
        let message: Self = serde_json::from_str(body).map_err(unreadable)?;
        if message.v != VERSION {
            return Err(DecodeError(format!("version {} where {VERSION} is understood", message.v)));
        }
        if message.row == 0 {
            return Err(DecodeError("rows are numbered from 1".into()));
        }
        if JobId::parse(message.job.as_str()).is_none() {
            return Err(DecodeError("the job id is not one of ours".into()));
        }
        if message.request.fingerprint() != message.fingerprint {
            // A call would be paid for under the fingerprint of another request.
            return Err(DecodeError("the fingerprint is not the request's".into()));
        }
        Ok(message)
    }
}
