//! Serialises packshot's own types as JSON, in the four layouts that are stored or sent: compact, text, indented, JSONL.

use serde::Serialize;

/// Initial buffer size. Most messages and results fit, so the buffer seldom grows.
const USUAL_BYTES: usize = 1024;

/// Serialises one of our own types, compact. This cannot fail, because these types have string keys and no failing
/// `Serialize`. The first test of a type that breaks this rule panics.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    serde_json::to_writer(&mut bytes, value)
        .unwrap_or_else(|error| unreachable!("our own types always serialise: {error}"));
    bytes
}

/// As [`to_vec`], as text.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> String {
    String::from_utf8(to_vec(value)).unwrap_or_else(|error| unreachable!("JSON is UTF-8: {error}"))
}

/// Indented, with a final newline: for files that people open.
pub fn to_pretty<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .unwrap_or_else(|error| unreachable!("our own types always serialise: {error}"));
    bytes.push(b'\n');
    bytes
}

/// As [`to_vec`], with a final newline: one JSONL line.
pub fn to_line<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = to_vec(value);
    bytes.push(b'\n');
    bytes
}
