//! JSON of our own types.

use serde::Serialize;

/// What a message or a result seldom exceeds, so that its buffer seldom has to grow.
const USUAL_BYTES: usize = 1024;

/// Serialises one of our own types. They have string keys and no failing `Serialize`, so this cannot fail; a type that
/// breaks this is a bug that its first test shows.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    serde_json::to_writer(&mut bytes, value)
        .unwrap_or_else(|error| unreachable!("our own types always serialise: {error}"));
    bytes
}

/// The same as text.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> String {
    String::from_utf8(to_vec(value)).unwrap_or_else(|error| unreachable!("JSON is UTF-8: {error}"))
}

/// The same, indented, with a final newline: for the files that people open.
pub fn to_pretty<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .unwrap_or_else(|error| unreachable!("our own types always serialise: {error}"));
    bytes.push(b'\n');
    bytes
}

/// The same as one JSONL line.
pub fn to_line<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut bytes = to_vec(value);
    bytes.push(b'\n');
    bytes
}
