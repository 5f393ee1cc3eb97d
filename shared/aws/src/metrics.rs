//! CloudWatch metrics in the embedded metric format: lines of the log that CloudWatch reads as metrics, so that counting
//! costs no call.
//!
//! Own code, because what there is does not fit and this is small. `metrique` 0.1.33 wants a struct per unit of work filled in
//! by its owner, and brings 28 more crates; `metrics_cloudwatch_embedded` 0.10 has one recorder for the whole process, drops
//! all but 100 values of a distribution, and neither can put one value under several sets of dimensions or say beforehand which
//! metrics there are, which is what alarms and dashboards are checked against.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use packshot_pipeline::{
    model::{error_class::ErrorClass, event::Fact},
    ports::{Clock as _, Journal},
};
use serde_json::{Map, Value, json};

use crate::clock::SystemClock;

/// Where all metrics stand.
pub const NAMESPACE: &str = "packshot";
/// The dimension of all metrics.
const STACK: &str = "Stack";
/// CloudWatch takes so many values of a metric from one line.
const VALUES_PER_LINE: usize = 100;

/// A metric, as alarms and dashboards may name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// CloudWatch's word for what is counted.
    pub unit: &'static str,
    /// A dimension besides `Stack`, with its values. The metric also stands under `Stack` alone.
    pub by: Option<(&'static str, &'static [&'static str])>,
}

const fn metric(name: &'static str, unit: &'static str) -> Metric {
    Metric { name, unit, by: None }
}

const ROWS_SPLIT: Metric = metric("RowsSplit", "Count");
const ROWS_REJECTED: Metric = metric("RowsRejected", "Count");
const CATALOGS_REJECTED: Metric = metric("CatalogsRejected", "Count");
const ROWS_COMPLETED: Metric = metric("RowsCompleted", "Count");
const ROWS_FAILED: Metric = Metric { by: Some(("Class", &CLASSES)), ..metric("RowsFailed", "Count") };
const CALLS: Metric = metric("Calls", "Count");
const RETRIES: Metric = metric("Retries", "Count");
const THROTTLES: Metric = metric("Throttles", "Count");
const REUSES: Metric = metric("Reuses", "Count");
const UNKNOWN_OUTCOMES: Metric = metric("UnknownOutcomes", "Count");
const IMAGES: Metric = metric("Images", "Count");
/// In USD, for which CloudWatch has no unit.
const ESTIMATED_SPEND: Metric = metric("EstimatedSpend", "None");
const API_LATENCY: Metric = metric("ApiLatency", "Milliseconds");
const BREAKER_OPEN: Metric = metric("BreakerOpen", "None");
const ARCHIVE_ERRORS: Metric = metric("ArchiveErrors", "Count");
const PARTS_MERGED: Metric = metric("PartsMerged", "Count");
const MERGE_LAG: Metric = metric("MergeLag", "Seconds");
const JOBS_FINISHED: Metric = metric("JobsFinished", "Count");
const JOB_AGE: Metric = metric("JobAge", "Seconds");

const CLASSES: [&str; 5] = [
    ErrorClass::Row.as_str(),
    ErrorClass::Transient.as_str(),
    ErrorClass::Account.as_str(),
    ErrorClass::Unknown.as_str(),
    ErrorClass::Aborted.as_str(),
];

/// Every metric there is.
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

/// A journal that folds the facts of one invocation into lines of the log.
#[derive(Debug)]
pub struct Metrics {
    stack: String,
    price_per_image: f64,
    facts: Mutex<Folded>,
}

/// The facts of one invocation.
#[derive(Debug, Default)]
struct Folded {
    /// One number per metric: a sum.
    sums: BTreeMap<&'static str, (Metric, f64)>,
    /// Failed rows, by class.
    failed: BTreeMap<&'static str, f64>,
    /// Metrics of which the spread matters: every value.
    spreads: BTreeMap<&'static str, (Metric, Vec<u64>)>,
}

impl Journal for Metrics {
    fn note(&self, fact: Fact) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let facts = &mut *facts;
        match fact {
            Fact::RowsSplit { sent, rejected } => {
                facts.add(ROWS_SPLIT, sent as f64);
                facts.add(ROWS_REJECTED, rejected as f64);
            }
            Fact::CatalogRejected => facts.add(CATALOGS_REJECTED, 1.0),
            Fact::Called { took, retry, pictures } => {
                facts.add(CALLS, 1.0);
                facts.add(RETRIES, f64::from(u8::from(retry)));
                facts.add(IMAGES, pictures as f64);
                facts.add(ESTIMATED_SPEND, pictures as f64 * self.price_per_image);
                facts.spread(API_LATENCY, took.as_millis());
            }
            Fact::Throttled => facts.add(THROTTLES, 1.0),
            Fact::OutcomeUnknown => facts.add(UNKNOWN_OUTCOMES, 1.0),
            Fact::Held => facts.set(BREAKER_OPEN, 1.0),
            Fact::RowCompleted { reused, archive_error } => {
                facts.add(ROWS_COMPLETED, 1.0);
                facts.add(REUSES, f64::from(u8::from(reused)));
                facts.add(ARCHIVE_ERRORS, f64::from(u8::from(archive_error)));
            }
            Fact::RowFailed(class) => *facts.failed.entry(class.as_str()).or_default() += 1.0,
            Fact::PartMerged => facts.add(PARTS_MERGED, 1.0),
            Fact::ManifestWritten { lag, first } => {
                facts.add(JOBS_FINISHED, f64::from(u8::from(first)));
                facts.spread(MERGE_LAG, u128::from(lag.as_secs()));
            }
            Fact::Swept { oldest } => facts.set(JOB_AGE, oldest.as_secs_f64().floor()),
        }
    }
}

impl Folded {
    fn add(&mut self, metric: Metric, value: f64) {
        self.sums.entry(metric.name).or_insert((metric, 0.0)).1 += value;
    }

    fn set(&mut self, metric: Metric, value: f64) {
        self.sums.insert(metric.name, (metric, value));
    }

    fn spread(&mut self, metric: Metric, value: u128) {
        let value = u64::try_from(value).unwrap_or(u64::MAX);
        self.spreads.entry(metric.name).or_insert((metric, Vec::new())).1.push(value);
    }

    /// One line, and more only where it must be: a line says one value of a dimension, and so many values of a metric.
    fn lines(self, stack: &str, now: Timestamp) -> Vec<Value> {
        let mut first = Line::default();
        let mut more = Vec::new();
        for (metric, sum) in self.sums.into_values() {
            first.put(metric, json!(sum));
        }
        for (metric, values) in self.spreads.into_values() {
            for (number, chunk) in values.chunks(VALUES_PER_LINE).enumerate() {
                match number {
                    0 => first.put(metric, json!(chunk)),
                    _ => more.push(Line::of(metric, json!(chunk))),
                }
            }
        }
        for (class, count) in self.failed {
            let mut line = Line::of(ROWS_FAILED, json!(count));
            line.also = ROWS_FAILED.by.map(|(dimension, _)| (dimension, class));
            more.push(line);
        }
        let lines = std::iter::once(first).chain(more).filter(|line| !line.metrics.is_empty());
        lines.map(|line| line.finish(stack, now)).collect()
    }
}

/// A line being written.
#[derive(Default)]
struct Line {
    metrics: Vec<Value>,
    values: Map<String, Value>,
    also: Option<(&'static str, &'static str)>,
}

impl Line {
    fn of(metric: Metric, value: Value) -> Self {
        let mut line = Self::default();
        line.put(metric, value);
        line
    }

    fn put(&mut self, metric: Metric, value: Value) {
        self.metrics.push(json!({ "Name": metric.name, "Unit": metric.unit }));
        self.values.insert(metric.name.to_owned(), value);
    }

    fn finish(mut self, stack: &str, now: Timestamp) -> Value {
        let mut dimensions = vec![vec![STACK]];
        self.values.insert(STACK.to_owned(), stack.into());
        if let Some((dimension, value)) = self.also {
            dimensions.push(vec![STACK, dimension]);
            self.values.insert(dimension.to_owned(), value.into());
        }
        let directive = json!({ "Namespace": NAMESPACE, "Dimensions": dimensions, "Metrics": self.metrics });
        let about = json!({ "Timestamp": now.as_millisecond(), "CloudWatchMetrics": [directive] });
        self.values.insert("_aws".to_owned(), about);
        Value::Object(self.values)
    }
}

impl Metrics {
    /// A journal of the stack with this name.
    #[must_use]
    pub fn new(stack: &str, price_per_image: f64) -> Self {
        Self { stack: stack.to_owned(), price_per_image, facts: Mutex::default() }
    }

    /// What has been folded since the last time, as lines of the log.
    fn take(&self, now: Timestamp) -> Vec<Value> {
        let facts = std::mem::take(&mut *self.facts.lock().unwrap_or_else(PoisonError::into_inner));
        facts.lines(&self.stack, now)
    }

    /// Writes down what has been folded when it is dropped, so at every end of an invocation but a process's death.
    #[must_use]
    pub fn invocation(&self) -> Invocation<'_> {
        Invocation(self)
    }
}

/// An invocation whose facts are written down at its end.
#[derive(Debug)]
pub struct Invocation<'m>(&'m Metrics);

impl Drop for Invocation<'_> {
    fn drop(&mut self) {
        let now = SystemClock.now();
        let mut out = io::stdout().lock();
        for line in self.0.take(now) {
            // Each in one write: a line that is cut is no metric. Where standard output is gone, so is the log.
            let _ = out.write_all(format!("{line}\n").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{panic, time::Duration};

    use super::*;

    fn lines(facts: impl IntoIterator<Item = Fact>) -> Vec<Value> {
        let metrics = Metrics::new("s", 0.25);
        facts.into_iter().for_each(|fact| metrics.note(fact));
        let lines = metrics.take(Timestamp::from_millisecond(1_234).unwrap());
        assert!(metrics.take(Timestamp::UNIX_EPOCH).is_empty(), "told once");
        lines.iter().for_each(assert_readable);
        lines
    }

    /// What CloudWatch asks of a line.
    fn assert_readable(line: &Value) {
        assert_eq!(line["_aws"]["Timestamp"], 1_234);
        let [directive] = line["_aws"]["CloudWatchMetrics"].as_array().unwrap().as_slice() else { panic!("{line}") };
        assert_eq!(directive["Namespace"], "packshot");
        for dimension in directive["Dimensions"].as_array().unwrap().iter().flat_map(|set| set.as_array().unwrap()) {
            assert!(line[dimension.as_str().unwrap()].is_string(), "{line}");
        }
        let metrics = directive["Metrics"].as_array().unwrap();
        assert!((1..=100).contains(&metrics.len()));
        for metric in metrics {
            let known = METRICS.iter().find(|known| metric["Name"] == known.name).expect("a metric that METRICS names");
            assert_eq!(metric["Unit"], known.unit);
            match &line[known.name] {
                Value::Array(values) => {
                    assert!((1..=100).contains(&values.len()) && values.iter().all(Value::is_number));
                }
                value => assert!(value.is_number(), "{line}"),
            }
        }
    }

    fn called(milliseconds: u64, pictures: usize) -> Fact {
        Fact::Called { took: Duration::from_millis(milliseconds), retry: milliseconds % 2 == 1, pictures }
    }

    #[test]
    fn an_invocation_is_one_line() {
        let [line] = lines([
            called(20, 4),
            called(31, 2),
            Fact::Throttled,
            Fact::Held,
            Fact::Held,
            Fact::OutcomeUnknown,
            Fact::RowCompleted { reused: false, archive_error: true },
            Fact::RowCompleted { reused: true, archive_error: false },
            Fact::RowsSplit { sent: 3, rejected: 2 },
            Fact::RowsSplit { sent: 4, rejected: 0 },
            Fact::CatalogRejected,
            Fact::PartMerged,
            Fact::ManifestWritten { lag: Duration::from_millis(2_900), first: true },
            Fact::ManifestWritten { lag: Duration::from_secs(9), first: false },
            Fact::Swept { oldest: Duration::from_secs(7_200) },
        ])
        .try_into()
        .unwrap();
        let expected = json!({
            "Calls": 2.0, "Retries": 1.0, "Images": 6.0, "EstimatedSpend": 1.5, "ApiLatency": [20, 31], "Throttles": 1.0,
            "BreakerOpen": 1.0, "UnknownOutcomes": 1.0, "RowsCompleted": 2.0, "Reuses": 1.0, "ArchiveErrors": 1.0,
            "RowsSplit": 7.0, "RowsRejected": 2.0, "CatalogsRejected": 1.0, "PartsMerged": 1.0, "MergeLag": [2, 9],
            "JobsFinished": 1.0, "JobAge": 7200.0, "Stack": "s",
        });
        let Value::Object(mut found) = line else { panic!("{line}") };
        assert_eq!(found.remove("_aws").unwrap()["CloudWatchMetrics"][0]["Dimensions"], json!([["Stack"]]));
        assert_eq!(found.len(), METRICS.len(), "all but RowsFailed, and Stack");
        assert_eq!(Value::Object(found), expected);
    }

    #[test]
    fn failed_rows_stand_under_their_class_and_under_all() {
        let failed = [ErrorClass::Row, ErrorClass::Account, ErrorClass::Row].map(Fact::RowFailed);
        let found: Vec<_> =
            lines(failed).iter().map(|line| (line["Class"].clone(), line["RowsFailed"].clone())).collect();
        assert_eq!(found, [(json!("account"), json!(1.0)), (json!("row"), json!(2.0))]);
        let line = &lines(failed)[0];
        assert_eq!(line["_aws"]["CloudWatchMetrics"][0]["Dimensions"], json!([["Stack"], ["Stack", "Class"]]));
        let of_failed = METRICS.iter().find(|metric| metric.name == "RowsFailed").unwrap();
        assert_eq!(of_failed.by, Some(("Class", ["row", "transient", "account", "unknown", "aborted"].as_slice())));
    }

    #[test]
    fn no_latency_is_lost() {
        let lines = lines((0..250).map(|n| called(n, 0)));
        let found: Vec<usize> = lines.iter().map(|line| line["ApiLatency"].as_array().unwrap().len()).collect();
        assert_eq!(found, [100, 100, 50]);
        assert_eq!((&lines[0]["Calls"], &lines[1]["Calls"]), (&json!(250.0), &Value::Null));
    }

    #[test]
    fn nothing_happened_nothing_said() {
        assert!(lines([]).is_empty());
    }

    #[test]
    fn a_panic_does_not_swallow_the_facts() {
        let metrics = Metrics::new("s", 0.0);
        let ended = panic::catch_unwind(panic::AssertUnwindSafe(|| {
            let _facts = metrics.invocation();
            metrics.note(Fact::Throttled);
            panic!("in the middle of an invocation");
        }));
        assert!(ended.is_err());
        assert!(metrics.take(Timestamp::UNIX_EPOCH).is_empty(), "written down when the invocation unwound");
    }
}
