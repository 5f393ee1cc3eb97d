//! The form of a check: nothing, or what is broken.

/// The outcome of a check; the error says which promise is broken and how.
pub(super) type Check = Result<(), String>;

pub(super) fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(otherwise()) }
}

pub(super) fn parse<'a, T: serde::Deserialize<'a>>(key: &str, bytes: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{key} cannot be read: {error}"))
}
