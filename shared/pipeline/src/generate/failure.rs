//! Builds the failures of rows: a sentence for people, a code and a class for machines.
//!
//! A failure comes from a failed call or from packshot itself. It is stored in the ledger, in the row's result and in the
//! attributes of the retry queue's message.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::classify;
use crate::{
    ledger::{Entry, Failure, TerminalFailure},
    model::{error_class::ErrorClass, message::RowMessage, text::shorten},
    ports::ApiError,
};

/// The longest error text and error code that a result keeps, in bytes.
pub(super) const MAX_ERROR_BYTES: usize = 2 * 1024;

/// The failure of a row for a reason of packshot's own, without an answer of the API.
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

/// The failure of a row because of a failed call.
pub(super) fn of_call(row: u64, now: Timestamp, error: &ApiError, class: ErrorClass, latency_ms: u64) -> Failure {
    let http_status = match error {
        ApiError::Answered { status, .. } => Some(*status),
        ApiError::Unknown { status, .. } => *status,
        ApiError::NotSent { .. } | ApiError::Misconfigured { .. } => None,
    };
    let text = shorten(error.to_string(), MAX_ERROR_BYTES);
    Failure { http_status, latency_ms: Some(latency_ms), ..own(row, now, &code_of(error), class, text) }
}

/// The failure of a row because the outcome of its last call is unknown. The sentence quotes the last error.
pub(super) fn of_unknown_outcome(row: u64, now: Timestamp, error: &ApiError, latency_ms: u64) -> Failure {
    let last = of_call(row, now, error, ErrorClass::Unknown, latency_ms);
    let text = format!("{} (the call may have been billed; redrive the row to call again)", last.error);
    // An answer without an image has a code of its own. Only if no answer came, the outcome itself is unknown.
    let code = if last.http_status.is_some() { last.error_code } else { "outcome_unknown".into() };
    Failure { error: text, error_code: code, ..last }
}

/// The code of a failed call, for the result and the breaker. Its length is limited, because the API chooses it.
pub(super) fn code_of(error: &ApiError) -> String {
    shorten(classify::error_code(error), MAX_ERROR_BYTES)
}

/// The failure that ends an entry's current round.
pub(super) fn ends(failure: Failure, entry: &Entry) -> TerminalFailure {
    TerminalFailure { failure, round: entry.series.round, calls: entry.calls, unknown: entry.unknown }
}

/// The failure of a row before any call in its round.
pub(super) fn before_any_call(failure: Failure, message: &RowMessage) -> TerminalFailure {
    TerminalFailure { failure, round: message.round, calls: 0, unknown: 0 }
}

/// The attributes of a message in the retry queue.
pub(super) fn attributes(code: &str, class: ErrorClass) -> BTreeMap<&'static str, String> {
    let class = class.as_str().to_owned();
    // SQS refuses these characters and empty values.
    let mut code: String = code.chars().filter(|c| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')).collect();
    if code.is_empty() {
        code = "unnamed".to_owned();
    }
    BTreeMap::from([("error_code", code), ("error_class", class)])
}
