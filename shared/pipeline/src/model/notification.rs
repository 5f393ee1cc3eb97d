//! The notification that a job has ended: JSON for machines, a subject and plain text for mailboxes.
//!
//! It is derived from the summary alone, so the same end always gives the same notification. It never quotes the API's error
//! texts, because those may quote a row.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    keys::{Catalog, JobId, Manifests},
    summary::{Counts, Status, Summary},
};

/// The version of notifications that this code writes.
pub const VERSION: u32 = 1;

/// The end of one job. Published at least once for every status that a job ends with; a redrive can change the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Notification {
    /// Format version.
    pub v: u32,
    /// The job that has ended.
    pub job: JobId,
    /// Name of the job's catalog.
    pub catalog: Catalog,
    /// The status that the job ended with.
    pub status: Status,
    /// The bucket that holds the files below.
    pub bucket: String,
    /// Row counts, as in the summary.
    #[serde(flatten)]
    pub counts: Counts,
    /// The most frequent error of the failed rows, or why the file cannot be a catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_error: Option<Problem>,
    /// Key of the manifest; absent for a rejected file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// Key of the summary, which holds the details.
    pub summary: String,
    /// When the job ended. Notifications may arrive late and twice; of two about one job the later end is valid.
    pub ended_at: Timestamp,
}

/// The most frequent error. The API's texts are left to the summary, because they may quote a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problem {
    /// Machine-readable code, for example `insufficient_quota`.
    pub error_code: String,
    /// Number of rows with this error; 0 if the file itself is the problem.
    pub rows: u64,
    /// The first affected line, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
}

impl Notification {
    /// Derives the notification of a job that has ended; `None` for a running one.
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

    /// Subject line of an e-mail.
    #[must_use]
    pub fn subject(&self) -> String {
        let Counts { rows, completed, .. } = self.counts;
        let status = self.status.as_str().replace('_', " ");
        match self.status {
            Status::Rejected => format!("packshot: {status}: {}", self.catalog),
            _ => format!("packshot: {status} ({completed} of {rows}): {}", self.catalog),
        }
    }

    /// The text of an e-mail.
    #[must_use]
    pub fn text(&self) -> String {
        let Counts { rows, completed, failed, rows_rejected, images, reused, .. } = self.counts;
        let mut lines = vec![self.subject(), String::new()];
        if self.status == Status::Rejected {
            lines.push("The file cannot be a catalog. No call was made.".to_owned());
        } else {
            lines.push(format!("{rows} rows: {completed} completed with {images} images, {failed} failed"));
            lines.push(format!(
                "{reused} rows share another row's images, {rows_rejected} were rejected without a call"
            ));
        }
        if let Some(Problem { error_code, rows, line }) = &self.top_error {
            let rows = if *rows > 0 { format!(", {rows} rows") } else { String::new() };
            let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
            lines.push(format!("Problem: {error_code}{rows}{line}"));
        }
        lines.push(String::new());
        let address = |key: &str| format!("s3://{}/{key}", self.bucket);
        if let Some(manifest) = &self.manifest {
            lines.push(format!("Manifest: {}", address(manifest)));
        }
        lines.push(format!("Details:  {}", address(&self.summary)));
        lines.push(format!("Job {}, ended at {}", self.job, self.ended_at));
        lines.join("\n")
    }
}

/// `control/notified/<job>.json`: the last status that was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationRecord {
    /// Status of the last published notification.
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
    fn the_text_of_an_email() {
        let notification = Notification::of(&summary("{}")).unwrap();
        let text = "packshot: complete with failures (118 of 120): spring/shoes

120 rows: 118 completed with 468 images, 2 failed
3 rows share another row's images, 1 were rejected without a call
Problem: insufficient_quota, 2 rows, line 17

Manifest: s3://b/manifests/spring/shoes/0123456789abcdef/manifest.jsonl
Details:  s3://b/manifests/spring/shoes/0123456789abcdef/summary.json
Job 0123456789abcdef, ended at 2026-03-01T01:00:00Z";
        assert_eq!(notification.text(), text);
        assert!(!json::to_string(&notification).contains("mug"), "the API's texts may quote a row");

        let rejected = r#"{"status": "rejected", "manifest": null, "finished_at": null, "top_errors": [],
            "rejected": {"code": "missing_column", "reason": "no column sku", "line": 1}}"#;
        let notification = Notification::of(&summary(rejected)).unwrap();
        let text = "packshot: rejected: spring/shoes

The file cannot be a catalog. No call was made.
Problem: missing_column, line 1

Details:  s3://b/manifests/spring/shoes/0123456789abcdef/summary.json
Job 0123456789abcdef, ended at 2026-03-01T00:00:00Z";
        assert_eq!(notification.text(), text);
    }

    #[test]
    fn a_running_job_has_no_notification() {
        assert_eq!(Notification::of(&summary(r#"{"status": "running", "manifest": null}"#)), None);
    }

    #[test]
    fn statuses_are_spelled_as_in_summaries() {
        for status in
            [Status::Rejected, Status::Running, Status::Complete, Status::CompleteWithFailures, Status::Failed]
        {
            assert_eq!(json::to_string(&status), format!("\"{}\"", status.as_str()));
        }
    }
}
