//! The result of one row: one JSONL line under `results/`, and one line of the manifest.
//!
//! The vendor's fields come first, in the vendor's order, and never change. Fields are added after them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::{error_class::ErrorClass, keys::JobId, request::Fingerprint};

/// An image that is kept under `images/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Asset {
    /// The image's number in the API's answer, from 1. In a mixed answer the images with an address come first.
    pub n: usize,
    /// Object key of the image.
    pub key: String,
    /// MIME type, detected from the first bytes.
    pub content_type: String,
    /// Size in bytes.
    pub bytes: usize,
    /// SHA-256 of the bytes, in lower-case hex.
    pub sha256: String,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
}

/// Always the word `completed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum CompletedStatus {
    /// The row has its images.
    Completed,
}

/// Always the word `failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum FailedStatus {
    /// The row has no images.
    Failed,
}

/// The result of one row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum RowResult {
    /// The row has its images.
    Completed(Box<Completed>),
    /// The row has no images, with the reason.
    Failed(Box<Failed>),
}

impl RowResult {
    /// Parses a line. Faster than the derived `Deserialize`, which copies all fields before it tries the first variant.
    pub fn read(line: &[u8]) -> serde_json::Result<Self> {
        match serde_json::from_slice(line) {
            Ok(completed) => Ok(Self::Completed(completed)),
            Err(_) => serde_json::from_slice(line).map(Self::Failed),
        }
    }

    /// Parses a line if its row failed, or, with `failed` false, if it completed. Other lines are read up to `status`, their
    /// second field.
    #[must_use]
    pub fn read_if(failed: bool, line: &[u8]) -> Option<Self> {
        if failed {
            serde_json::from_slice(line).map(Self::Failed).ok()
        } else {
            serde_json::from_slice(line).map(Self::Completed).ok()
        }
    }
}

/// A row that has its images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Completed {
    /// Canonical product key, as in the file.
    pub sku: String,
    /// Always `completed`.
    pub status: CompletedStatus,
    /// Number of images that the API delivered.
    pub image_count: usize,
    /// The images' addresses, as the API returned them.
    pub image_urls: Vec<String>,
    /// The API's id of the request.
    pub request_id: Option<String>,
    /// The model that the API says it used.
    pub model_actual: Option<String>,
    /// Row number, from 1.
    pub row: u64,
    /// The job that the row belongs to.
    pub job: JobId,
    /// Fingerprint of the request that was paid for.
    pub fingerprint: Fingerprint,
    /// Number of calls made for this row; 0 when reused.
    pub attempts: u32,
    /// Whether another row or job paid for the outcome.
    pub reused: bool,
    /// The model that was requested.
    pub model: String,
    /// Duration of the successful call, in milliseconds.
    pub latency_ms: u64,
    /// When the API's answer arrived.
    pub completed_at: Timestamp,
    /// The images that are kept under `images/`.
    #[serde(default)]
    pub assets: Vec<Asset>,
    /// Whether the API delivered fewer images than requested.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub short: bool,
    /// Calls whose outcome is unknown and which may have been billed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unknown_outcomes: u32,
    /// Why images could not be kept; the addresses above are still valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_error: Option<String>,
    /// Address of the product's source photo, to compare with the images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_url: Option<String>,
    /// The prompt that was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
}

/// A row that has no images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Failed {
    /// Canonical product key, as far as it could be read.
    pub sku: String,
    /// Always `failed`.
    pub status: FailedStatus,
    /// What happened, for people. For an answer of the API: `HTTP <status>: <body>`.
    pub error: String,
    /// Row number, from 1.
    pub row: u64,
    /// The job that the row belongs to.
    pub job: JobId,
    /// Fingerprint of the request; absent if validation rejected the row.
    pub fingerprint: Option<Fingerprint>,
    /// Number of calls made for this row.
    pub attempts: u32,
    /// Whether the failure is that of another row with the same request.
    pub reused: bool,
    /// The model that was requested.
    pub model: Option<String>,
    /// Duration of the last call, in milliseconds.
    pub latency_ms: Option<u64>,
    /// When the row failed.
    pub failed_at: Timestamp,
    /// Machine-readable code: `error.code` of the API, or packshot's own.
    pub error_code: String,
    /// Who can fix the row.
    pub error_class: ErrorClass,
    /// HTTP status of the last call, if the API answered.
    pub http_status: Option<u16>,
    /// The row's physical line in the file, from 1.
    pub line: u64,
    /// Calls whose outcome is unknown and which may have been billed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unknown_outcomes: u32,
    /// The round that failed: 0 for the first run, one more for each redrive.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub round: u64,
    /// The row's original columns, as in the file.
    pub input: Map<String, Value>,
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl RowResult {
    /// Row number, from 1.
    #[must_use]
    pub fn row(&self) -> u64 {
        match self {
            Self::Completed(completed) => completed.row,
            Self::Failed(failed) => failed.row,
        }
    }
}
