//! The complete API request of a row, and its fingerprint.
//!
//! The fingerprint is a SHA-256 over the request's canonical JSON. Rows with the same fingerprint share one paid call.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The complete API request. The field order is the order of the JSON that is sent. `S` is text; the splitter borrows it from
/// the row, because it builds millions of requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Request<S = String> {
    /// Model name, for example `gpt-image-1`.
    pub model: S,
    /// The rendered prompt.
    pub prompt: S,
    /// Address of the product's source photo, http or https.
    pub image_url: S,
    /// Image size, for example `1024x1024`.
    pub size: S,
    /// The API's `quality`, for example `high`.
    pub quality: S,
    /// Number of images, 1 to 4.
    pub n: u8,
    /// The API's `background`, for example `transparent`; not sent when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub background: Option<S>,
    /// Part of the fingerprint, never sent to the API: a change regenerates the row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<S>,
}

impl<S: AsRef<str>> Request<S> {
    /// SHA-256 over the canonical JSON: sorted keys, no white space, no absent fields.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.digest())
    }

    /// The fingerprint as bytes.
    #[must_use]
    pub fn digest(&self) -> Digest256 {
        /// The fields in sorted order, because serde writes them in declaration order.
        #[derive(Serialize)]
        struct Canonical<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            background: Option<&'a str>,
            image_url: &'a str,
            model: &'a str,
            n: u8,
            prompt: &'a str,
            quality: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            revision: Option<&'a str>,
            size: &'a str,
        }
        let canonical = Canonical {
            background: self.background.as_ref().map(S::as_ref),
            image_url: self.image_url.as_ref(),
            model: self.model.as_ref(),
            n: self.n,
            prompt: self.prompt.as_ref(),
            quality: self.quality.as_ref(),
            revision: self.revision.as_ref().map(S::as_ref),
            size: self.size.as_ref(),
        };
        let json = crate::model::json::to_vec(&canonical);
        Sha256::digest(&json).into()
    }
}

/// A fingerprint as bytes: a third of the memory, for code that holds millions.
pub type Digest256 = [u8; 32];

/// SHA-256 of a request in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[0-9a-f]{64}$")))]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The fingerprint in hex.
    #[must_use]
    pub fn of(digest: &Digest256) -> Self {
        Self(hex::encode(digest))
    }

    /// The 64 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
