//! The result type of the whole harness.

/// A result whose error ends the measurement. The error's text is what the user sees.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
