//! JSON of our own types.

use serde::Serialize;

/// Serialises one of our own types. They have string keys and no failing `Serialize`, so this cannot fail; a type that
/// breaks this is a bug that its first test shows.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|error| unreachable!("our own types always serialise: {error}"))
}

/// The same as text.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| unreachable!("our own types always serialise: {error}"))
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
