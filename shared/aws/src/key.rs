//! The API key, and where it comes from. It must reach the `Authorization` header and nothing else.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use packshot_pipeline::ports::ApiError;

/// Below this length a key is a stand-in of a test or a demo, and replacing it in links would only break them.
const SHORTEST_SECRET: usize = 8;

/// A key that never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(Arc<str>);

/// Why a text is no key. It does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the API key is empty or holds characters that no HTTP header can carry; paste it again")]
pub struct BadKey;

impl ApiKey {
    /// Takes the key, without the white space that copying leaves around it.
    pub fn new(text: &str) -> Result<Self, BadKey> {
        let key = text.trim();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadKey);
        }
        Ok(Self(key.into()))
    }

    /// The key itself, for the header.
    #[cfg(feature = "images")]
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// `text` with `***` wherever the key stood: some APIs repeat the key in their errors.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        text.replace(&*self.0, "***")
    }

    /// As [`Self::redact`], for texts that have to keep working, such as links.
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

/// Where the key comes from.
#[async_trait]
pub trait KeySource: Send + Sync {
    /// The key. Errors are [`ApiError::NotSent`] (ask again) or [`ApiError::Misconfigured`] (a person has to act).
    async fn key(&self) -> Result<ApiKey, ApiError>;

    /// The API refused this key. A source that can look again does so at the next call.
    async fn rejected(&self, _key: &ApiKey) {}
}

/// A key that is known from the start.
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
    fn a_key_never_shows_itself() {
        let key = ApiKey::new(" sk-live-12345678\n").unwrap();
        assert_eq!(format!("{key:?} {:#?}", Some(&key)), "*** Some(\n    ***,\n)");
        assert_eq!(key.redact("bad key sk-live-12345678, sk-live-12345678!"), "bad key ***, ***!");
        assert_eq!(key.redact_result("https://x.test/?k=sk-live-12345678"), "https://x.test/?k=***");
    }

    #[test]
    fn a_stand_in_key_does_not_break_links() {
        let key = ApiKey::new("demo").unwrap();
        assert_eq!(key.redact_result("http://127.0.0.1/demo/1.png"), "http://127.0.0.1/demo/1.png");
        assert_eq!(key.redact("no such key: demo"), "no such key: ***");
    }

    #[test]
    fn what_no_header_can_carry_is_no_key() {
        for text in ["", " \n", "two words", "line\nbreak", "schlüssel", "a\u{0}b"] {
            let problem = ApiKey::new(text).unwrap_err();
            assert_eq!(problem, BadKey);
        }
    }
}
