//! The request fields of rows that do not set their own.
//!
//! They come from settings. `job.json` keeps them, so a job that resumes uses the defaults that it began with.

use serde::{Deserialize, Serialize};

/// The request fields of rows that do not set their own. Stored in `job.json`, so that a job keeps the defaults it began with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Defaults {
    /// The API's model name, for example `gpt-image-1`.
    pub model: String,
    /// Image size in pixels, `WIDTHxHEIGHT`.
    pub size: String,
    /// The API's `quality`, for example `high`.
    pub quality: String,
    /// The API's `background`, for example `transparent`; not sent when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<String>,
    /// Images per row, 1 to 4.
    pub n: u8,
    /// A minijinja template over the row's columns; the vendor's prompt when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_template: Option<String>,
    /// Revision of every row, put before the row's own; part of the fingerprint, never sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

impl Default for Defaults {
    /// The values of the vendor's sample request.
    fn default() -> Self {
        Self {
            model: "gpt-image-1".into(),
            size: "1024x1024".into(),
            quality: "high".into(),
            background: None,
            n: 4,
            prompt_template: None,
            revision: None,
        }
    }
}
