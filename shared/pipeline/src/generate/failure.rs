//! Builds the failures that rows end with: for people a sentence, for machines a code and a class.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::classify;
use crate::{
    ledger::{Entry, Failure, GivenUp},
    model::{error_class::ErrorClass, message::RowMessage, text::shorten},
    ports::ApiError,
};

/// The longest error text and error code that a result keeps, in bytes.
pub(super) const MAX_ERROR_BYTES: usize = 2 * 1024;

/// A failure without an answer of the API.
pub(super) fn own(row: u64, now: Timestamp, code: &str, class: ErrorClass, error: String) -> Failure {
    Failure {
        row,
        error,
        error_code: code.to_owned(),
        error_class: class,
        http_status: None,
        latency_ms: None,
        failed_at: now,
    }
}

/// The failure of a call.
pub(super) fn of_call(row: u64, now: Timestamp, error: &ApiError, class: ErrorClass, latency_ms: u64) -> Failure {
    let http_status = match error {
        ApiError::Answered { status, .. } => Some(*status),
        ApiError::Unknown { status, .. } => *status,
        ApiError::NotSent { .. } | ApiError::Misconfigured { .. } => None,
    };
    let text = shorten(error.to_string(), MAX_ERROR_BYTES);
    Failure { http_status, latency_ms: Some(latency_ms), ..own(row, now, &code_of(error), class, text) }
}

/// The failure of a call whose outcome stays unknown; the sentence quotes what came last.
pub(super) fn of_unknown_outcome(row: u64, now: Timestamp, error: &ApiError, latency_ms: u64) -> Failure {
    let last = of_call(row, now, error, ErrorClass::Unknown, latency_ms);
    let text = format!("{} (the call may have been billed; redrive the row to call again)", last.error);
    // The code of an answer without an image is known. Only where no answer came does the outcome itself stay unknown.
    let code = if last.http_status.is_some() { last.error_code } else { "outcome_unknown".into() };
    Failure { error: text, error_code: code, ..last }
}

/// The code that a result and the breaker keep. The API chooses it, so its length is limited.
pub(super) fn code_of(error: &ApiError) -> String {
    shorten(classify::error_code(error), MAX_ERROR_BYTES)
}

/// A failure that ends the current series of an entry.
pub(super) fn ends(failure: Failure, entry: &Entry) -> GivenUp {
    GivenUp { failure, round: entry.series.round, calls: entry.calls, unknown: entry.unknown }
}

/// A failure before any call of this round.
pub(super) fn before_any_call(failure: Failure, message: &RowMessage) -> GivenUp {
    GivenUp { failure, round: message.round, calls: 0, unknown: 0 }
}

/// The attributes of a message in the retry queue.
pub(super) fn attributes(code: &str, class: ErrorClass) -> BTreeMap<&'static str, String> {
    let class = class.as_str().to_owned();
    // SQS refuses these characters, and an empty value.
    let mut code: String = code.chars().filter(|c| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')).collect();
    if code.is_empty() {
        code = "unnamed".to_owned();
    }
    BTreeMap::from([("error_code", code), ("error_class", class)])
}
