//! The complete API request of a row, and its fingerprint: what is paid for.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Everything the API is asked for. The field order is the order on the wire. `S` is text that the splitter borrows from
/// the row, because it looks at millions of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Request<S = String> {
    /// Model name, for example `gpt-image-1`.
    pub model: S,
    /// The rendered prompt.
    pub prompt: S,
    /// The product's own photo, http or https.
    pub image_url: S,
    /// Picture size, for example `1024x1024`.
    pub size: S,
    /// For example `high`.
    pub quality: S,
    /// How many pictures, 1 to 4.
    pub n: u8,
    /// For example `transparent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub background: Option<S>,
    /// Part of the fingerprint, never sent to the API: change it to have the row made anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<S>,
}

impl<S: AsRef<str>> Request<S> {
    /// SHA-256 over the canonical JSON: keys sorted, no white space, absent fields left out.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.digest())
    }

    pub(crate) fn digest(&self) -> Digest256 {
        /// The fields in sorted order; serde writes them in the order of declaration.
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

/// A fingerprint in a third of the memory, for whoever holds millions.
pub(crate) type Digest256 = [u8; 32];

/// SHA-256 of a request in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[0-9a-f]{64}$")))]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    pub(crate) fn of(digest: &Digest256) -> Self {
        Self(hex(digest))
    }

    /// 64 hex digits.
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

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]).collect()
}
