//! What people and machines are told when a job has ended, without asking.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
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
    /// The bucket in which all of it stands.
    pub bucket: String,
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
            bucket: summary.source.bucket.clone(),
            counts: summary.counts.clone(),
            top_error: of_file.or(of_rows),
            manifest: summary.manifest.as_ref().map(|manifest| manifest.key.clone()),
            summary: Manifests::of(&summary.catalog, &summary.job).summary(),
            ended_at: summary.finished_at.unwrap_or(summary.created_at),
        })
    }

    /// One line for a mailbox.
    #[must_use]
    pub fn subject(&self) -> String {
        let Counts { rows, completed, .. } = self.counts;
        let status = self.status.as_str().replace('_', " ");
        match self.status {
            Status::Rejected => format!("packshot: {status}: {}", self.catalog),
            _ => format!("packshot: {status} ({completed} of {rows}): {}", self.catalog),
        }
    }

    /// The same for people, as plain text.
    #[must_use]
    pub fn text(&self) -> String {
        let Counts { rows, completed, failed, rows_rejected, images, reused, .. } = self.counts;
        let mut lines = vec![self.subject(), String::new()];
        if self.status == Status::Rejected {
            lines.push("The file cannot be a catalog. Nothing was called for.".to_owned());
        } else {
            lines.push(format!("{rows} rows: {completed} completed with {images} pictures, {failed} failed"));
            lines.push(format!("{reused} rows share another row's pictures, {rows_rejected} were never called for"));
        }
        if let Some(Problem { error_code, rows, line }) = &self.top_error {
            let rows = if *rows > 0 { format!(", {rows} rows") } else { String::new() };
            let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
            lines.push(format!("Problem: {error_code}{rows}{line}"));
        }
        lines.push(String::new());
        let place = |key: &str| format!("s3://{}/{key}", self.bucket);
        if let Some(manifest) = &self.manifest {
            lines.push(format!("Manifest: {}", place(manifest)));
        }
        lines.push(format!("Details:  {}", place(&self.summary)));
        lines.push(format!("Job {}, ended at {}", self.job, self.ended_at));
        lines.join("\n")
    }
}

/// `control/notified/<job>.json`: what subscribers have been told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The status.
    pub status: Status,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::json;

    fn summary(change: &str) -> Summary {
        let mut value = serde_json::json!({
            "v": 1, "status": "complete_with_failures", "job": "0123456789abcdef", "catalog": "spring/shoes",
            "source": {"bucket": "b", "key": "incoming/spring/shoes.csv", "version_id": "v", "etag": "e", "bytes": 9,
                "last_modified": "2026-03-01T00:00:00Z"},
            "rows": 120, "completed": 118, "failed": 2, "rows_rejected": 1, "images": 468, "calls": 118, "retries": 0, "reused": 3,
            "unknown_outcomes": 0, "latency_ms": 5,
            "top_errors": [{"error_code": "insufficient_quota", "error_class": "account", "count": 2, "line": 17,
                "example": "HTTP 402: no money for a red mug"}],
            "manifest": {"key": "manifests/spring/shoes/0123456789abcdef/manifest.jsonl", "etag": "m", "from": "f"},
            "created_at": "2026-03-01T00:00:00Z", "finished_at": "2026-03-01T01:00:00Z"
        });
        let change: serde_json::Value = serde_json::from_str(change).unwrap();
        for (name, field) in change.as_object().unwrap() {
            value[name] = field.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_people_read() {
        let notice = Notice::of(&summary("{}")).unwrap();
        let text = "packshot: complete with failures (118 of 120): spring/shoes

120 rows: 118 completed with 468 pictures, 2 failed
3 rows share another row's pictures, 1 were never called for
Problem: insufficient_quota, 2 rows, line 17

Manifest: s3://b/manifests/spring/shoes/0123456789abcdef/manifest.jsonl
Details:  s3://b/manifests/spring/shoes/0123456789abcdef/summary.json
Job 0123456789abcdef, ended at 2026-03-01T01:00:00Z";
        assert_eq!(notice.text(), text);
        assert!(!json::to_string(&notice).contains("mug"), "the API's words may quote a row");

        let rejected = r#"{"status": "rejected", "manifest": null, "finished_at": null, "top_errors": [],
            "rejected": {"code": "missing_column", "reason": "no column sku", "line": 1}}"#;
        let notice = Notice::of(&summary(rejected)).unwrap();
        let text = "packshot: rejected: spring/shoes

The file cannot be a catalog. Nothing was called for.
Problem: missing_column, line 1

Details:  s3://b/manifests/spring/shoes/0123456789abcdef/summary.json
Job 0123456789abcdef, ended at 2026-03-01T00:00:00Z";
        assert_eq!(notice.text(), text);
    }

    #[test]
    fn nothing_is_said_of_a_job_that_runs() {
        assert_eq!(Notice::of(&summary(r#"{"status": "running", "manifest": null}"#)), None);
    }

    #[test]
    fn the_words_are_those_of_summaries() {
        for status in
            [Status::Rejected, Status::Running, Status::Complete, Status::CompleteWithFailures, Status::Failed]
        {
            assert_eq!(json::to_string(&status), format!("\"{}\"", status.as_str()));
        }
    }
}
