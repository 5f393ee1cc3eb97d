//! One version of one input object, and what became known of it before anything was spent.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    columns::ColumnMap,
    intake::Format,
    keys::{Catalog, JobId},
    ports::Etag,
    settings::Defaults,
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

/// Why a file cannot be a catalog. Ends in a summary with status `rejected`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NotACatalog {
    /// A word for machines.
    pub code: String,
    /// What is wrong and what to do.
    pub reason: String,
    /// Physical line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Offset in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte: Option<u64>,
}

impl NotACatalog {
    /// Without a place.
    pub fn new(code: &str, reason: impl Into<String>) -> Self {
        Self { code: code.to_owned(), reason: reason.into(), line: None, byte: None }
    }

    /// With the line.
    #[must_use]
    pub fn on(self, line: u64) -> Self {
        Self { line: Some(line), ..self }
    }

    /// With the line and the byte.
    #[must_use]
    pub fn at(self, line: u64, byte: u64) -> Self {
        Self { byte: Some(byte), ..self.on(line) }
    }
}

impl std::error::Error for NotACatalog {}

impl fmt::Display for NotACatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.reason)
    }
}
