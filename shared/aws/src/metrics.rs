//! The names, units and dimensions of the metrics that packshot emits. `emf` adds up their values and prints them; alarms and
//! dashboards in template.yaml name them, and a test compares the two lists.

use packshot_pipeline::model::error_class::ErrorClass;

/// The CloudWatch namespace of all metrics.
pub const NAMESPACE: &str = "packshot";
/// The dimension that every metric has: the name of the stack.
pub(crate) const STACK: &str = "Stack";

/// A metric as alarms and dashboards refer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// The name in CloudWatch.
    pub name: &'static str,
    /// The unit, in CloudWatch's terms.
    pub unit: &'static str,
    /// A second dimension and its values. The metric is also emitted under `Stack` alone.
    pub dimension: Option<(&'static str, &'static [&'static str])>,
}

const fn metric(name: &'static str, unit: &'static str) -> Metric {
    Metric { name, unit, dimension: None }
}

pub(crate) const ROWS_SPLIT: Metric = metric("RowsSplit", "Count");
pub(crate) const ROWS_REJECTED: Metric = metric("RowsRejected", "Count");
pub(crate) const CATALOGS_REJECTED: Metric = metric("CatalogsRejected", "Count");
pub(crate) const ROWS_COMPLETED: Metric = metric("RowsCompleted", "Count");
pub(crate) const ROWS_FAILED: Metric = Metric { dimension: Some(("Class", &CLASSES)), ..metric("RowsFailed", "Count") };
pub(crate) const CALLS: Metric = metric("Calls", "Count");
pub(crate) const RETRIES: Metric = metric("Retries", "Count");
pub(crate) const THROTTLES: Metric = metric("Throttles", "Count");
pub(crate) const REUSES: Metric = metric("Reuses", "Count");
pub(crate) const UNKNOWN_OUTCOMES: Metric = metric("UnknownOutcomes", "Count");
pub(crate) const IMAGES: Metric = metric("Images", "Count");
/// In USD, for which CloudWatch has no unit.
pub(crate) const ESTIMATED_SPEND: Metric = metric("EstimatedSpend", "None");
pub(crate) const API_LATENCY: Metric = metric("ApiLatency", "Milliseconds");
pub(crate) const BREAKER_OPEN: Metric = metric("BreakerOpen", "None");
pub(crate) const ARCHIVE_ERRORS: Metric = metric("ArchiveErrors", "Count");
pub(crate) const PARTS_MERGED: Metric = metric("PartsMerged", "Count");
pub(crate) const MERGE_LAG: Metric = metric("MergeLag", "Seconds");
pub(crate) const JOBS_FINISHED: Metric = metric("JobsFinished", "Count");
pub(crate) const JOB_AGE: Metric = metric("JobAge", "Seconds");

/// The values of the dimension `Class`.
const CLASSES: [&str; 5] = [
    ErrorClass::Row.as_str(),
    ErrorClass::Transient.as_str(),
    ErrorClass::Account.as_str(),
    ErrorClass::Unknown.as_str(),
    ErrorClass::Aborted.as_str(),
];

/// All metrics that packshot emits.
pub const METRICS: [Metric; 19] = [
    ROWS_SPLIT,
    ROWS_REJECTED,
    CATALOGS_REJECTED,
    ROWS_COMPLETED,
    ROWS_FAILED,
    CALLS,
    RETRIES,
    THROTTLES,
    REUSES,
    UNKNOWN_OUTCOMES,
    IMAGES,
    ESTIMATED_SPEND,
    API_LATENCY,
    BREAKER_OPEN,
    ARCHIVE_ERRORS,
    PARTS_MERGED,
    MERGE_LAG,
    JOBS_FINISHED,
    JOB_AGE,
];
