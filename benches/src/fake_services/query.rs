//! The parameters of a URL.

use percent_encoding::percent_decode_str;

/// Names and decoded values, in the order of the URL.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let decode = |value: &str| percent_decode_str(value).decode_utf8_lossy().into_owned();
        Self(pairs.map(|(name, value)| (name.to_owned(), decode(value))).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone())
    }

    /// The first name that is not among these.
    pub(super) fn other_than(&self, names: &[&str]) -> Option<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).find(|name| !names.contains(name))
    }
}
