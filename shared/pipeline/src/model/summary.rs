//! `summary.json`, the status and counts of a job, and `latest.json`, which points to the newest complete job.
//!
//! A [`Tally`] adds up results and turns into a summary, of a running job or of a finished one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{
    catalog_error::CatalogError,
    error_class::ErrorClass,
    etag::Etag,
    job::{Job, Source},
    keys::{Catalog, JobId},
    result::RowResult,
};

/// The version of summaries that this code writes.
pub const VERSION: u32 = 1;
/// Number of error codes in a summary.
const TOP_ERRORS: usize = 10;
/// Number of error codes that a tally counts separately. Bounds the memory if an API sends a new code for every row.
const MAX_CODES: usize = 1_000;

/// The status of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The file cannot be a catalog.
    Rejected,
    /// Some rows have no result yet.
    Running,
    /// Every row has its images.
    Complete,
    /// Some rows failed, others completed.
    CompleteWithFailures,
    /// There are rows, and all of them failed.
    Failed,
}

impl Status {
    /// The value in summaries.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::CompleteWithFailures => "complete_with_failures",
            Self::Failed => "failed",
        }
    }
}

/// `summary.json`: status and counts of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Summary {
    /// Format version.
    pub v: u32,
    /// Status of the job.
    pub status: Status,
    /// Job id, 16 hex digits.
    pub job: JobId,
    /// Catalog name: the object key without `incoming/` and the extension.
    pub catalog: Catalog,
    /// The input object.
    pub source: Source,
    /// Why the file cannot be a catalog; only with status `rejected`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<CatalogError>,
    /// Counts over the job's rows.
    #[serde(flatten)]
    pub counts: Counts,
    /// Images that the valid rows ask for.
    #[serde(default)]
    pub images_requested: u64,
    /// While running: number of rows in merged parts. The counts cover these rows only.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rows_merged: u64,
    /// The most frequent failures, most frequent first.
    pub top_errors: Vec<TopError>,
    /// The manifest that this summary describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
    /// When the splitter had read the file to its end; for a rejected file, when it was rejected.
    pub created_at: Timestamp,
    /// When the last row completed or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

/// Counts over the rows of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Counts {
    /// Data rows in the file.
    pub rows: u64,
    /// Records that only continue the product above (variants, further images) and are not counted as rows.
    #[serde(default)]
    pub continuation_rows: u64,
    /// Rows that have their images.
    pub completed: u64,
    /// Rows that have no images, rejected rows included.
    pub failed: u64,
    /// Rows that validation rejected, so that no call was made.
    pub rows_rejected: u64,
    /// Images that the API delivered.
    pub images: u64,
    /// Calls of the images API.
    pub calls: u64,
    /// Calls after the first one of a row.
    pub retries: u64,
    /// Rows that share the outcome of another row.
    pub reused: u64,
    /// Calls whose outcome is unknown and which may have been billed.
    pub unknown_outcomes: u64,
    /// Total duration of the successful calls, in milliseconds.
    pub latency_ms: u64,
}

/// One kind of failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TopError {
    /// Machine-readable code, for example `insufficient_quota`.
    pub error_code: String,
    /// Who can fix the rows.
    pub error_class: ErrorClass,
    /// Number of rows with this error.
    pub count: u64,
    /// Physical line of the first such row.
    pub line: u64,
    /// Error text of the first such row.
    pub example: String,
}

/// A reference to a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Manifest {
    /// Key of `manifest.jsonl`.
    pub key: String,
    /// ETag of the content.
    pub etag: Etag,
    /// Digest of the parts that the manifest was composed from.
    pub from: String,
}

/// `latest.json`: the newest complete job of a catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Latest {
    /// Format version.
    pub v: u32,
    /// The newest complete job.
    pub job: JobId,
    /// The status that the job ended with.
    pub status: Status,
    /// Key of the job's manifest.
    pub manifest: String,
    /// Key of the job's summary.
    pub summary: String,
    /// When the catalog was uploaded.
    pub dropped_at: Timestamp,
    /// When the splitter had read the catalog to its end.
    pub created_at: Timestamp,
}

impl Latest {
    /// The sort key, as in [`Job::order`].
    #[must_use]
    pub fn order(&self) -> (Timestamp, Timestamp, &JobId) {
        (self.dropped_at, self.created_at, &self.job)
    }
}

impl Summary {
    /// The sort key, as in [`Job::order`].
    #[must_use]
    pub fn order(&self) -> (Timestamp, Timestamp, &JobId) {
        (self.source.last_modified, self.created_at, &self.job)
    }

    /// The summary of a file that cannot be a catalog.
    #[must_use]
    pub fn rejected(job: JobId, catalog: Catalog, source: Source, problem: CatalogError, now: Timestamp) -> Self {
        Self {
            v: VERSION,
            status: Status::Rejected,
            job,
            catalog,
            source,
            rejected: Some(problem),
            counts: Counts::default(),
            images_requested: 0,
            rows_merged: 0,
            top_errors: Vec::new(),
            manifest: None,
            created_at: now,
            finished_at: None,
        }
    }
}

/// Adds up results, one after the other, into a summary.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    counts: Counts,
    errors: BTreeMap<String, TopError>,
    finished_at: Option<Timestamp>,
}

impl Tally {
    /// Counts one row.
    pub fn add(&mut self, result: &RowResult) {
        let counts = &mut self.counts;
        counts.rows += 1;
        let (attempts, reused, unknown, ended) = match result {
            RowResult::Completed(row) => {
                counts.completed += 1;
                counts.images += row.image_count as u64;
                counts.latency_ms += if row.reused { 0 } else { row.latency_ms };
                (row.attempts, row.reused, row.unknown_outcomes, row.completed_at)
            }
            RowResult::Failed(row) => {
                counts.failed += 1;
                counts.rows_rejected += u64::from(row.fingerprint.is_none());
                (row.attempts, row.reused, row.unknown_outcomes, row.failed_at)
            }
        };
        counts.calls += u64::from(attempts);
        counts.retries += u64::from(attempts.saturating_sub(1));
        counts.reused += u64::from(reused);
        counts.unknown_outcomes += u64::from(unknown);
        self.finished_at = self.finished_at.max(Some(ended));
        if let RowResult::Failed(row) = result {
            let full = self.errors.len() >= MAX_CODES && !self.errors.contains_key(&row.error_code);
            let code = if full { "other" } else { &row.error_code };
            let error = self.errors.entry(code.to_owned()).or_insert_with(|| TopError {
                error_code: code.to_owned(),
                error_class: row.error_class,
                count: 0,
                line: row.line,
                example: row.error.clone(),
            });
            error.count += 1;
        }
    }

    /// The summary of a job whose rows have all been counted.
    #[must_use]
    pub fn finish(self, job: &Job, manifest: Manifest) -> Summary {
        let status = match (self.counts.completed, self.counts.failed) {
            (_, 0) => Status::Complete,
            (0, _) => Status::Failed,
            _ => Status::CompleteWithFailures,
        };
        // A reused outcome ended before this job began.
        let finished_at = self.finished_at.max(Some(job.created_at));
        Summary { status, manifest: Some(manifest), finished_at, rows_merged: 0, ..self.so_far(job) }
    }

    /// The summary of a job of which some rows have been counted.
    #[must_use]
    pub fn so_far(&self, job: &Job) -> Summary {
        let mut top_errors: Vec<_> = self.errors.values().cloned().collect();
        top_errors.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.error_code.cmp(&b.error_code)));
        top_errors.truncate(TOP_ERRORS);
        Summary {
            v: VERSION,
            status: Status::Running,
            job: job.job.clone(),
            catalog: job.catalog.clone(),
            source: job.source.clone(),
            rejected: None,
            counts: Counts { rows: job.rows, continuation_rows: job.continuation_rows, ..self.counts.clone() },
            images_requested: job.images,
            rows_merged: self.counts.rows,
            top_errors,
            manifest: None,
            created_at: job.created_at,
            finished_at: None,
        }
    }
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}
