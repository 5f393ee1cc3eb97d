//! One version of one input object, and what became known of it before anything was spent.

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
    /// Key under `incoming/`.
    pub key: String,
    /// The object's version, where the bucket has versions.
    pub version_id: Option<String>,
    /// Identity of the content.
    pub etag: Etag,
    /// Length of the file.
    pub bytes: u64,
    /// When this version was dropped; orders the jobs of a catalog.
    pub last_modified: Timestamp,
}

/// `results/<job>/job.json`: the file is readable to its end, and this is what it holds. Written once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Job {
    /// Format version.
    pub v: u32,
    /// The job.
    pub job: JobId,
    /// Its catalog.
    pub catalog: Catalog,
    /// Where it came from.
    pub source: Source,
    /// Data records.
    pub rows: u64,
    /// Rows that are sent to the generator.
    pub valid: u64,
    /// Rows that are not.
    pub rejected: u64,
    /// Pictures that the valid rows ask for.
    pub images: u64,
    /// Records that are no rows, because they only go on with the product above: variants and further pictures.
    #[serde(default)]
    pub continuation_rows: u64,
    /// How the file is written.
    #[serde(default)]
    pub format: Format,
    /// Which kind of file it was recognised as: `packshot`, `shopify`, `woocommerce`, `google-merchant`, `akeneo`.
    #[serde(default)]
    pub export: String,
    /// The file's columns, in order.
    pub columns: Vec<String>,
    /// What was recognised: standard name → name in the file.
    pub mapping: BTreeMap<String, String>,
    /// What a person said about columns.
    #[serde(default, skip_serializing_if = "ColumnMap::is_empty")]
    pub column_map: ColumnMap,
    /// The request defaults in force.
    pub defaults: Defaults,
    /// When the file had been read to its end.
    pub created_at: Timestamp,
}

impl Job {
    /// Orders the jobs of a catalog: by when the file was dropped, then by when it was read, then by id, so that two jobs
    /// never tie.
    #[must_use]
    pub fn order(&self) -> (Timestamp, Timestamp, &JobId) {
        (self.source.last_modified, self.created_at, &self.job)
    }
}
