//! How a job ended, or how far it is: `summary.json`, and `latest.json` that points to the newest one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{
    catalog_error::NotACatalog,
    error_class::ErrorClass,
    etag::Etag,
    job::{Job, Source},
    keys::{Catalog, JobId},
    result::RowResult,
};

/// The version of summaries that this code writes.
pub const VERSION: u32 = 1;
/// Error codes that a summary tells apart.
const TOP_ERRORS: usize = 10;
/// Error codes that are counted apart while composing; an API that invents one per row must not fill the memory.
const MAX_CODES: usize = 1_000;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The file cannot be a catalog.
    Rejected,
    /// Rows are still out.
    Running,
    /// Every row has its pictures.
    Complete,
    /// Some rows failed.
    CompleteWithFailures,
    /// There are rows, and none has its pictures.
    Failed,
}

impl Status {
    /// The word in summaries.
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

/// `summary.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Summary {
    /// Format version.
    pub v: u32,
    /// Where the job stands.
    pub status: Status,
    /// The job.
    pub job: JobId,
    /// Its catalog.
    pub catalog: Catalog,
    /// Where it came from.
    pub source: Source,
    /// Why the file cannot be a catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<NotACatalog>,
    /// The counts.
    #[serde(flatten)]
    pub counts: Counts,
    /// Pictures that the valid rows ask for.
    #[serde(default)]
    pub images_requested: u64,
    /// While running: rows that stand in parts already; the counts are of these.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rows_merged: u64,
    /// The most frequent failures, most frequent first.
    pub top_errors: Vec<TopError>,
    /// The manifest that this summary speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Manifest>,
    /// When the file had been read to its end; for a rejected one, when that was known.
    pub created_at: Timestamp,
    /// When the last row ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

/// Counts over the rows of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Counts {
    /// Data records of the file.
    pub rows: u64,
    /// Records that are no rows: variants and further pictures of the product above.
    #[serde(default)]
    pub continuation_rows: u64,
    /// Rows with their pictures.
    pub completed: u64,
    /// Rows without, the rejected ones included.
    pub failed: u64,
    /// Rows that were never sent to the API.
    pub rows_rejected: u64,
    /// Pictures delivered.
    pub images: u64,
    /// Calls of the API.
    pub calls: u64,
    /// Calls after a row's first.
    pub retries: u64,
    /// Rows that share another row's outcome.
    pub reused: u64,
    /// Calls whose outcome is unknown and which may have been billed.
    pub unknown_outcomes: u64,
    /// Milliseconds that successful calls took, together.
    pub latency_ms: u64,
}

/// One kind of failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TopError {
    /// A word for machines.
    pub error_code: String,
    /// Who has to act.
    pub error_class: ErrorClass,
    /// Rows that failed so.
    pub count: u64,
    /// The line of the first such row.
    pub line: u64,
    /// What the first such row says.
    pub example: String,
}

/// Which manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Manifest {
    /// Its key.
    pub key: String,
    /// Identity of its content.
    pub etag: Etag,
    /// Digest of the parts that it was made from.
    pub from: String,
}

/// `latest.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Latest {
    /// Format version.
    pub v: u32,
    /// The newest complete job.
    pub job: JobId,
    /// How it ended.
    pub status: Status,
    /// Key of its manifest.
    pub manifest: String,
    /// Key of its summary.
    pub summary: String,
    /// When its catalog was dropped.
    pub dropped_at: Timestamp,
    /// When its catalog had been read.
    pub created_at: Timestamp,
}

impl Latest {
    /// As [`Job::order`].
    #[must_use]
    pub fn order(&self) -> (Timestamp, Timestamp, &JobId) {
        (self.dropped_at, self.created_at, &self.job)
    }
}

impl Summary {
    /// As [`Job::order`].
    #[must_use]
    pub fn order(&self) -> (Timestamp, Timestamp, &JobId) {
        (self.source.last_modified, self.created_at, &self.job)
    }

    /// Of a file that cannot be a catalog.
    #[must_use]
    pub fn rejected(job: JobId, catalog: Catalog, source: Source, problem: NotACatalog, now: Timestamp) -> Self {
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

/// Builds a summary from the results, one after the other.
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
        // What is reused ended before this job began.
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
