//! The one-line JSONL object of one row. The vendor's fields come first, in the vendor's order, and never change.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::{error_class::ErrorClass, keys::JobId, request::Fingerprint};

/// A picture that was kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Asset {
    /// Its position in the API's answer, from 1; in a mixed answer those with an address come first.
    pub n: usize,
    /// Key of the original bytes.
    pub key: String,
    /// By the first bytes, whatever the API called it.
    pub content_type: String,
    /// Length.
    pub bytes: usize,
    /// Of the bytes, in lower-case hex.
    pub sha256: String,
    /// In pixels.
    pub width: usize,
    /// In pixels.
    pub height: usize,
}

/// Always the word `completed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum CompletedStatus {
    /// The row has its pictures.
    Completed,
}

/// Always the word `failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FailedStatus {
    /// The row has no pictures.
    Failed,
}

/// The result of one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum RowResult {
    /// The row has its pictures.
    Completed(Box<Completed>),
    /// It has not, and why.
    Failed(Box<Failed>),
}

impl RowResult {
    /// Reads a line. As the derived `Deserialize` does, but that one copies all fields before it tries the first variant.
    pub fn read(line: &[u8]) -> serde_json::Result<Self> {
        match serde_json::from_slice(line) {
            Ok(completed) => Ok(Self::Completed(completed)),
            Err(_) => serde_json::from_slice(line).map(Self::Failed),
        }
    }

    /// Reads a line if its row failed, or if it did not. Of the other kind no more is read than `status`, the second field.
    #[must_use]
    pub fn read_if(failed: bool, line: &[u8]) -> Option<Self> {
        if failed {
            serde_json::from_slice(line).map(Self::Failed).ok()
        } else {
            serde_json::from_slice(line).map(Self::Completed).ok()
        }
    }
}

/// A row that has its pictures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Completed {
    /// Canonical product key, unchanged.
    pub sku: String,
    /// `completed`
    pub status: CompletedStatus,
    /// Pictures delivered.
    pub image_count: usize,
    /// Their addresses as the API gave them.
    pub image_urls: Vec<String>,
    /// The API's id of the call.
    pub request_id: Option<String>,
    /// The model that really ran.
    pub model_actual: Option<String>,
    /// The row, from 1.
    pub row: u64,
    /// The job.
    pub job: JobId,
    /// What was paid for.
    pub fingerprint: Fingerprint,
    /// Calls made for this row; 0 when reused.
    pub attempts: u32,
    /// The outcome was paid for by another row or job.
    pub reused: bool,
    /// The model that was asked for.
    pub model: String,
    /// How long the successful call took, in milliseconds.
    pub latency_ms: u64,
    /// When it was paid for.
    pub completed_at: Timestamp,
    /// The pictures that were kept.
    #[serde(default)]
    pub assets: Vec<Asset>,
    /// Fewer pictures than asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub short: bool,
    /// Calls whose outcome is unknown and which may have been billed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unknown_outcomes: u32,
    /// Why pictures could not be kept; the addresses above still hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_error: Option<String>,
    /// The product's own photo, so that a reader can put it beside what was made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_url: Option<String>,
    /// What was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
}

/// A row that has no pictures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Failed {
    /// Canonical product key as far as it could be read.
    pub sku: String,
    /// `failed`
    pub status: FailedStatus,
    /// What happened, for people; `HTTP <status>: <body>` for answers of the API.
    pub error: String,
    /// The row, from 1.
    pub row: u64,
    /// The job.
    pub job: JobId,
    /// Of the request; absent where the row was rejected before there was one.
    pub fingerprint: Option<Fingerprint>,
    /// Calls made for this row.
    pub attempts: u32,
    /// The failure was another row's, with the same request.
    pub reused: bool,
    /// The model that was asked for.
    pub model: Option<String>,
    /// How long the last call took, in milliseconds.
    pub latency_ms: Option<u64>,
    /// When it was given up.
    pub failed_at: Timestamp,
    /// A word for machines: `error.code` of the API, or ours.
    pub error_code: String,
    /// Who has to act.
    pub error_class: ErrorClass,
    /// HTTP status, where there was one.
    pub http_status: Option<u16>,
    /// Physical line in the file.
    pub line: u64,
    /// Calls whose outcome is unknown and which may have been billed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unknown_outcomes: u32,
    /// The round that ended so; see the message.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub round: u64,
    /// The row's original columns.
    pub input: Map<String, Value>,
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl RowResult {
    /// The row, from 1.
    #[must_use]
    pub fn row(&self) -> u64 {
        match self {
            Self::Completed(completed) => completed.row,
            Self::Failed(failed) => failed.row,
        }
    }
}
