//! `job.json`: what the splitter found out about one version of one input object before any call was paid for.
//!
//! The splitter writes it once, at the end of its first pass. Every later step reads the job from it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{
    column::ColumnMap,
    defaults::Defaults,
    etag::Etag,
    format::Format,
    keys::{Catalog, JobId},
};

/// The version of `job.json` that this code writes.
pub const VERSION: u32 = 1;

/// Where a catalog came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Source {
    /// Bucket name; a directory's name in a local run.
    pub bucket: String,
    /// Object key, under `incoming/`.
    pub key: String,
    /// The object's version, if the bucket has versions.
    pub version_id: Option<String>,
    /// ETag of the content.
    pub etag: Etag,
    /// Size of the file in bytes, as stored.
    pub bytes: u64,
    /// When this version was uploaded; orders the jobs of a catalog.
    pub last_modified: Timestamp,
}

/// `results/<job>/job.json`: the file is readable to its end, and this is what it contains. Written once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Job {
    /// Format version.
    pub v: u32,
    /// Job id, 16 hex digits.
    pub job: JobId,
    /// Catalog name: the object key without `incoming/` and the extension.
    pub catalog: Catalog,
    /// The input object.
    pub source: Source,
    /// Data rows in the file, valid and rejected.
    pub rows: u64,
    /// Rows that are sent to the generator.
    pub valid: u64,
    /// Rows that failed validation.
    pub rejected: u64,
    /// Images that the valid rows ask for.
    pub images: u64,
    /// Records that only continue the product above (variants, further images) and are not counted as rows.
    #[serde(default)]
    pub continuation_rows: u64,
    /// Detected file format.
    #[serde(default)]
    pub format: Format,
    /// Recognised export format: `packshot`, `shopify`, `woocommerce`, `google-merchant` or `akeneo`.
    #[serde(default)]
    pub export: String,
    /// Column names of the file, in order.
    pub columns: Vec<String>,
    /// Recognised columns: standard name → name in the file.
    pub mapping: BTreeMap<String, String>,
    /// The column map that the user gave.
    #[serde(default, skip_serializing_if = "ColumnMap::is_empty")]
    pub column_map: ColumnMap,
    /// Request defaults of this job.
    pub defaults: Defaults,
    /// When the splitter had read the file to its end.
    pub created_at: Timestamp,
}

impl Job {
    /// The sort key of a catalog's jobs: upload time, then read time, then id, so that two jobs never tie.
    #[must_use]
    pub fn order(&self) -> (Timestamp, Timestamp, &JobId) {
        (self.source.last_modified, self.created_at, &self.job)
    }
}
