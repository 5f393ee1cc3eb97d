//! The script: what the demo API answers instead of a success. The format is described in the parent module.

use std::{
    collections::BTreeMap,
    fmt::Display,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper::{
    StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING},
};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, json};

/// What the demo API answers, read from JSON.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    /// Tried in order; the first that matches a request answers it.
    pub rules: Vec<Rule>,
    /// The sequence of requests that no rule matches.
    pub all: Vec<Answer>,
    /// Percentage of the keys that no rule matches which get a 500 on their first call.
    #[serde(deserialize_with = "percent")]
    pub fail_first_percent: u8,
    /// Whether the account can pay.
    pub account: Account,
}

/// Why a script was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The file cannot be read.
    #[error("cannot read the script {}: {source}", path.display())]
    Read {
        /// Path of the script.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The file is not a script.
    #[error("{} is not a script: {source}", path.display())]
    Invalid {
        /// Path of the script.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
}

impl Script {
    /// Reads a script file.
    pub fn load(path: &Path) -> Result<Self, ScriptError> {
        let text = std::fs::read(path).map_err(|source| ScriptError::Read { path: path.to_owned(), source })?;
        serde_json::from_slice(&text).map_err(|source| ScriptError::Invalid { path: path.to_owned(), source })
    }
}

/// The state of the account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Account {
    /// The account can pay.
    #[default]
    Ok,
    /// Every request is answered with 402 `insufficient_quota`.
    Empty,
}

/// Answers for some of the requests.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A request matches when its prompt or image URL contains this; the empty text matches all.
    #[serde(rename = "match", alias = "sku")]
    pub text: String,
    /// One per call of a key.
    pub answers: Vec<Answer>,
    /// What follows the last answer.
    #[serde(default)]
    pub then: Then,
}

impl Rule {
    pub(super) fn matches(&self, prompt: &str, image_url: &str) -> bool {
        prompt.contains(&self.text) || image_url.contains(&self.text)
    }
}

/// What follows the last answer of a sequence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// Normal successes.
    #[default]
    Succeed,
    /// The sequence from its beginning.
    Repeat,
}

/// One answer. The default is a normal success.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Answer {
    /// HTTP status.
    #[serde(deserialize_with = "status")]
    pub status: StatusCode,
    /// The body as JSON.
    pub json: Option<Value>,
    /// The body as text; `json` has priority.
    pub body: Option<String>,
    /// Additional headers; they replace the default ones.
    #[serde(deserialize_with = "headers")]
    pub headers: HeaderMap,
    /// Wait this long instead of the server's latency.
    pub delay_ms: Option<u64>,
    /// Drop the connection at this point.
    pub cut: Option<Cut>,
    /// Hold the connection and never answer.
    pub no_answer: bool,
    /// Images in a success, instead of the requested number.
    pub images: Option<u8>,
    /// The form of the images in a success.
    #[serde(rename = "as")]
    pub form: Form,
    /// Whether the call is billed; by default the answer decides.
    pub billed: Option<bool>,
}

impl Answer {
    pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Self {
        Self { status, json: Some(error_json(code, message)), ..Self::default() }
    }

    /// Finished work is billed even if its answer does not arrive.
    pub(super) fn is_billed(&self) -> bool {
        self.billed.unwrap_or(self.no_answer || (self.status.is_success() && self.cut != Some(Cut::Before)))
    }

    pub(super) fn delay(&self, latency: Duration) -> Duration {
        self.delay_ms.map_or(latency, Duration::from_millis)
    }
}

/// The body of an error, in the form of the real API.
pub(super) fn error_json(code: &str, message: &str) -> Value {
    json!({"error": {"code": code, "message": message}})
}

/// Where the connection is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// Before the first byte of the answer.
    Before,
    /// After the headers.
    Headers,
    /// In the middle of the body.
    Body,
}

/// How images are returned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// As links to this server.
    #[default]
    Url,
    /// Inside the answer.
    B64Json,
}

fn percent<'de, D: Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
    let percent = u8::deserialize(from)?;
    if percent > 100 {
        return Err(D::Error::custom(format!("{percent} is no percentage: use 0 to 100")));
    }
    Ok(percent)
}

fn status<'de, D: Deserializer<'de>>(from: D) -> Result<StatusCode, D::Error> {
    let number = u16::deserialize(from)?;
    // A 1xx is not a final answer. 204 and 304 have no body, but can be sent.
    match StatusCode::from_u16(number) {
        Ok(status) if (200..600).contains(&number) => Ok(status),
        _ => Err(D::Error::custom(format!("{number} is no status of an answer: use 200 to 599"))),
    }
}

fn headers<'de, D: Deserializer<'de>>(from: D) -> Result<HeaderMap, D::Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in BTreeMap::<String, String>::deserialize(from)? {
        let wrong = |why: &dyn Display| D::Error::custom(format!("header `{name}`: {why}"));
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|error| wrong(&error))?;
        if [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION].contains(&key) {
            return Err(wrong(&"the server sets it; `cut` breaks an answer"));
        }
        headers.insert(key, HeaderValue::from_str(&value).map_err(|error| wrong(&error))?);
    }
    Ok(headers)
}
