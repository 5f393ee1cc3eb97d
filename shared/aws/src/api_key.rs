//! The key of the images API and the port it comes from. The key must reach the `Authorization` header and nothing else:
//! `Debug` prints `***`, and [`ApiKey::redact`] removes it from texts that the API sends back.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use packshot_pipeline::ports::ApiError;

/// In bytes. A shorter key is a placeholder of a test or a demo; replacing it in links would only break them.
const SHORTEST_SECRET: usize = 8;

/// A key whose `Debug` output hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(Arc<str>);

/// The text cannot be a key. The message does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the API key is empty or holds characters that no HTTP header can carry; paste it again")]
pub struct InvalidKeyError;

impl ApiKey {
    /// Takes the key, without the white space that copying leaves around it.
    pub fn new(text: &str) -> Result<Self, InvalidKeyError> {
        let key = text.trim();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidKeyError);
        }
        Ok(Self(key.into()))
    }

    /// The key in plain text, for the `Authorization` header only.
    #[cfg(feature = "images")]
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Replaces the key in `text` with `***`: some APIs repeat the key in their errors.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        text.replace(&*self.0, "***")
    }

    /// Redacts a text that has to keep working, such as a link: a placeholder key of under 8 bytes is left in.
    #[must_use]
    pub fn redact_result(&self, text: &str) -> String {
        if self.0.len() < SHORTEST_SECRET { text.to_owned() } else { self.redact(text) }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Provides the key for each call: a constant, or a secret that can change while the process runs.
#[async_trait]
pub trait KeySource: Send + Sync {
    /// Returns the key. Errors are [`ApiError::NotSent`] (ask again) or [`ApiError::Misconfigured`] (an operator has to act).
    async fn key(&self) -> Result<ApiKey, ApiError>;

    /// Reports that the API refused this key. A source that caches the key drops it and reads again at the next call.
    async fn rejected(&self, _key: &ApiKey) {}
}

#[async_trait]
impl KeySource for ApiKey {
    async fn key(&self) -> Result<ApiKey, ApiError> {
        Ok(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_and_redacted_texts_hide_the_key() {
        let key = ApiKey::new(" sk-live-12345678\n").unwrap();
        assert_eq!(format!("{key:?} {:#?}", Some(&key)), "*** Some(\n    ***,\n)");
        assert_eq!(key.redact("bad key sk-live-12345678, sk-live-12345678!"), "bad key ***, ***!");
        assert_eq!(key.redact_result("https://x.test/?k=sk-live-12345678"), "https://x.test/?k=***");
    }

    #[test]
    fn a_placeholder_key_does_not_break_links() {
        let key = ApiKey::new("demo").unwrap();
        assert_eq!(key.redact_result("http://127.0.0.1/demo/1.png"), "http://127.0.0.1/demo/1.png");
        assert_eq!(key.redact("no such key: demo"), "no such key: ***");
    }

    #[test]
    fn a_text_that_no_header_can_carry_is_refused() {
        for text in ["", " \n", "two words", "line\nbreak", "schlüssel", "a\u{0}b"] {
            let problem = ApiKey::new(text).unwrap_err();
            assert_eq!(problem, InvalidKeyError);
        }
    }
}
