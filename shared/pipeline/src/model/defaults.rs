//! The request fields for rows that do not say otherwise.

use serde::{Deserialize, Serialize};

/// The request fields for rows that do not say otherwise. They stand in `job.json`, so that a job keeps the defaults it
/// began with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Defaults {
    /// API model.
    pub model: String,
    /// Picture size, `WIDTHxHEIGHT`.
    pub size: String,
    /// API quality.
    pub quality: String,
    /// API background; not sent when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<String>,
    /// Pictures per row, 1 to 4.
    pub n: u8,
    /// A minijinja template over the row's columns; the vendor's sentence when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_template: Option<String>,
    /// The revision of every row, before its own; part of the fingerprint, never sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

impl Default for Defaults {
    /// The vendor's sample.
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
