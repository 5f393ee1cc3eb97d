//! What people and machines are told when a job has ended, without asking.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    keys::{Catalog, JobId, Manifests},
    summary::{Counts, Status, Summary},
};

/// The version of notices that this code writes.
pub const VERSION: u32 = 1;

/// One job's end. Told at least once for every status that a job ends with; a redrive that heals a job ends it anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Notice {
    /// Format version.
    pub v: u32,
    /// The job.
    pub job: JobId,
    /// Its catalog.
    pub catalog: Catalog,
    /// How it ended.
    pub status: Status,
    /// The counts.
    #[serde(flatten)]
    pub counts: Counts,
    /// What most of the failed rows have in common, or why the file cannot be a catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_error: Option<Problem>,
    /// Key of the manifest; a rejected file has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Key of the summary, which says more.
    pub summary: String,
    /// When it ended. Notices may come late and twice; of two about one job the later one holds.
    pub ended_at: Timestamp,
}

/// The most frequent error. What the API said of single rows stands in the summary, not here: it may quote the row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problem {
    /// A word for machines.
    pub error_code: String,
    /// Rows that failed so; none where the file itself is the problem.
    pub rows: u64,
    /// The first line in question, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
}

impl Notice {
    /// What there is to say of a job that has ended; nothing of one that is running.
    #[must_use]
    pub fn of(summary: &Summary) -> Option<Self> {
        if summary.status == Status::Running {
            return None;
        }
        let rejected = summary.rejected.as_ref();
        let of_file = rejected.map(|why| Problem { error_code: why.code.clone(), rows: 0, line: why.line });
        let of_rows = summary.top_errors.first().map(|top| Problem {
            error_code: top.error_code.clone(),
            rows: top.count,
            line: Some(top.line),
        });
        Some(Self {
            v: VERSION,
            job: summary.job.clone(),
            catalog: summary.catalog.clone(),
            status: summary.status,
            counts: summary.counts.clone(),
            top_error: of_file.or(of_rows),
            manifest: summary.manifest.as_ref().map(|manifest| manifest.key.clone()),
            summary: Manifests::of(&summary.catalog, &summary.job).summary(),
            ended_at: summary.finished_at.unwrap_or(summary.created_at),
        })
    }
}
