//! The metrics recorder of the Lambda functions: it adds up the events of one invocation and, at its end, prints them in the
//! embedded metric format. CloudWatch reads metrics from such lines of the log, so counting costs no call.
//!
//! Why no crate: `metrique` 0.1.33 needs a struct per unit of work that its owner fills in, and adds 28 crates;
//! `metrics_cloudwatch_embedded` 0.10 has one recorder per process and drops all but 100 values of a distribution. Neither can
//! emit a value under several sets of dimensions, or list beforehand which metrics exist, which the test of alarms and
//! dashboards needs.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use jiff::Timestamp;
use packshot_pipeline::{
    model::event::MetricEvent,
    ports::{Clock as _, MetricsRecorder},
};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::{
    clock::SystemClock,
    metrics::{
        API_LATENCY, ARCHIVE_ERRORS, BREAKER_OPEN, CALLS, CATALOGS_REJECTED, ESTIMATED_SPEND, IMAGES, JOB_AGE,
        JOBS_FINISHED, MERGE_LAG, Metric, NAMESPACE, PARTS_MERGED, RETRIES, REUSES, ROWS_COMPLETED, ROWS_FAILED,
        ROWS_REJECTED, ROWS_SPLIT, STACK, THROTTLES, UNKNOWN_OUTCOMES,
    },
};

/// CloudWatch reads at most 100 values of a metric from one line.
const VALUES_PER_LINE: usize = 100;

/// Aggregates the events of one invocation into log lines.
#[derive(Debug)]
pub struct EmfMetrics {
    stack: String,
    /// In USD.
    price_per_image: f64,
    totals: Mutex<Totals>,
}

/// What one invocation has recorded so far.
#[derive(Debug, Default)]
struct Totals {
    /// Metrics with one number.
    sums: BTreeMap<&'static str, (Metric, f64)>,
    /// Failed rows by error class.
    failed: BTreeMap<&'static str, f64>,
    /// Metrics with a distribution: every value.
    distributions: BTreeMap<&'static str, (Metric, Vec<u64>)>,
}

impl MetricsRecorder for EmfMetrics {
    fn record(&self, event: MetricEvent) {
        let totals = &mut *self.totals.lock();
        match event {
            MetricEvent::RowsSplit { sent, rejected } => {
                totals.add(ROWS_SPLIT, sent as f64);
                totals.add(ROWS_REJECTED, rejected as f64);
            }
            MetricEvent::CatalogRejected => totals.add(CATALOGS_REJECTED, 1.0),
            MetricEvent::Called { took, retry, images } => {
                totals.add(CALLS, 1.0);
                totals.add(RETRIES, f64::from(u8::from(retry)));
                totals.add(IMAGES, images as f64);
                totals.add(ESTIMATED_SPEND, images as f64 * self.price_per_image);
                totals.sample(API_LATENCY, took.as_millis());
            }
            MetricEvent::Throttled => totals.add(THROTTLES, 1.0),
            MetricEvent::OutcomeUnknown => totals.add(UNKNOWN_OUTCOMES, 1.0),
            MetricEvent::RowSuspended => totals.set(BREAKER_OPEN, 1.0),
            MetricEvent::RowCompleted { reused, archive_error } => {
                totals.add(ROWS_COMPLETED, 1.0);
                totals.add(REUSES, f64::from(u8::from(reused)));
                totals.add(ARCHIVE_ERRORS, f64::from(u8::from(archive_error)));
            }
            MetricEvent::RowFailed(class) => *totals.failed.entry(class.as_str()).or_default() += 1.0,
            MetricEvent::PartMerged => totals.add(PARTS_MERGED, 1.0),
            MetricEvent::ManifestWritten { lag, first } => {
                totals.add(JOBS_FINISHED, f64::from(u8::from(first)));
                totals.sample(MERGE_LAG, u128::from(lag.as_secs()));
            }
            MetricEvent::Swept { oldest } => totals.set(JOB_AGE, oldest.as_secs_f64().floor()),
        }
    }
}

impl Totals {
    fn add(&mut self, metric: Metric, value: f64) {
        self.sums.entry(metric.name).or_insert((metric, 0.0)).1 += value;
    }

    fn set(&mut self, metric: Metric, value: f64) {
        self.sums.insert(metric.name, (metric, value));
    }

    fn sample(&mut self, metric: Metric, value: u128) {
        let value = u64::try_from(value).unwrap_or(u64::MAX);
        self.distributions.entry(metric.name).or_insert((metric, Vec::new())).1.push(value);
    }

    /// Formats everything as one line, plus further lines where needed: a line can hold only one value of a dimension, and at
    /// most [`VALUES_PER_LINE`] values of a metric.
    fn lines(self, stack: &str, now: Timestamp) -> Vec<Value> {
        let mut first = Line::default();
        let mut more = Vec::new();
        for (metric, sum) in self.sums.into_values() {
            first.put(metric, json!(sum));
        }
        for (metric, values) in self.distributions.into_values() {
            for (number, chunk) in values.chunks(VALUES_PER_LINE).enumerate() {
                match number {
                    0 => first.put(metric, json!(chunk)),
                    _ => more.push(Line::of(metric, json!(chunk))),
                }
            }
        }
        for (class, count) in self.failed {
            let mut line = Line::of(ROWS_FAILED, json!(count));
            line.dimension = ROWS_FAILED.dimension.map(|(dimension, _)| (dimension, class));
            more.push(line);
        }
        let lines = std::iter::once(first).chain(more).filter(|line| !line.metrics.is_empty());
        lines.map(|line| line.finish(stack, now)).collect()
    }
}

/// A line of the embedded metric format under construction.
#[derive(Default)]
struct Line {
    metrics: Vec<Value>,
    values: Map<String, Value>,
    /// A second dimension and its value.
    dimension: Option<(&'static str, &'static str)>,
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
        if let Some((dimension, value)) = self.dimension {
            dimensions.push(vec![STACK, dimension]);
            self.values.insert(dimension.to_owned(), value.into());
        }
        let directive = json!({ "Namespace": NAMESPACE, "Dimensions": dimensions, "Metrics": self.metrics });
        let about = json!({ "Timestamp": now.as_millisecond(), "CloudWatchMetrics": [directive] });
        self.values.insert("_aws".to_owned(), about);
        Value::Object(self.values)
    }
}

impl EmfMetrics {
    /// Takes the value of the dimension `Stack`, and the price in USD that the spend is estimated with.
    #[must_use]
    pub fn new(stack: &str, price_per_image: f64) -> Self {
        Self { stack: stack.to_owned(), price_per_image, totals: Mutex::default() }
    }

    /// Returns what was recorded since the last call as log lines.
    fn drain(&self, now: Timestamp) -> Vec<Value> {
        let totals = std::mem::take(&mut *self.totals.lock());
        totals.lines(&self.stack, now)
    }

    /// Returns a guard that prints the metrics when it is dropped: at every end of an invocation, a panic included, except the
    /// death of the process.
    #[must_use]
    pub fn flush_on_drop(&self) -> FlushOnDrop<'_> {
        FlushOnDrop(self)
    }
}

/// Prints the metrics when it is dropped.
#[derive(Debug)]
pub struct FlushOnDrop<'m>(&'m EmfMetrics);

impl Drop for FlushOnDrop<'_> {
    fn drop(&mut self) {
        let now = SystemClock.now();
        let mut out = io::stdout().lock();
        for line in self.0.drain(now) {
            // One write per line: CloudWatch cannot read a line that is interrupted. If standard output is closed, there is no
            // log to write an error to.
            let _ = out.write_all(format!("{line}\n").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{panic, time::Duration};

    use packshot_pipeline::model::error_class::ErrorClass;

    use super::*;
    use crate::metrics::METRICS;

    fn lines(events: impl IntoIterator<Item = MetricEvent>) -> Vec<Value> {
        let metrics = EmfMetrics::new("s", 0.25);
        events.into_iter().for_each(|event| metrics.record(event));
        let lines = metrics.drain(Timestamp::from_millisecond(1_234).unwrap());
        assert!(metrics.drain(Timestamp::UNIX_EPOCH).is_empty(), "each event is emitted once");
        lines.iter().for_each(assert_valid);
        lines
    }

    /// Asserts what CloudWatch requires of a line.
    fn assert_valid(line: &Value) {
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

    fn called(milliseconds: u64, images: usize) -> MetricEvent {
        MetricEvent::Called { took: Duration::from_millis(milliseconds), retry: milliseconds % 2 == 1, images }
    }

    #[test]
    fn an_invocation_is_one_line() {
        let [line] = lines([
            called(20, 4),
            called(31, 2),
            MetricEvent::Throttled,
            MetricEvent::RowSuspended,
            MetricEvent::RowSuspended,
            MetricEvent::OutcomeUnknown,
            MetricEvent::RowCompleted { reused: false, archive_error: true },
            MetricEvent::RowCompleted { reused: true, archive_error: false },
            MetricEvent::RowsSplit { sent: 3, rejected: 2 },
            MetricEvent::RowsSplit { sent: 4, rejected: 0 },
            MetricEvent::CatalogRejected,
            MetricEvent::PartMerged,
            MetricEvent::ManifestWritten { lag: Duration::from_millis(2_900), first: true },
            MetricEvent::ManifestWritten { lag: Duration::from_secs(9), first: false },
            MetricEvent::Swept { oldest: Duration::from_secs(7_200) },
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
    fn failed_rows_are_counted_by_class_and_in_total() {
        let failed = [ErrorClass::Row, ErrorClass::Account, ErrorClass::Row].map(MetricEvent::RowFailed);
        let found: Vec<_> =
            lines(failed).iter().map(|line| (line["Class"].clone(), line["RowsFailed"].clone())).collect();
        assert_eq!(found, [(json!("account"), json!(1.0)), (json!("row"), json!(2.0))]);
        let line = &lines(failed)[0];
        assert_eq!(line["_aws"]["CloudWatchMetrics"][0]["Dimensions"], json!([["Stack"], ["Stack", "Class"]]));
        let rows_failed = METRICS.iter().find(|metric| metric.name == "RowsFailed").unwrap();
        assert_eq!(
            rows_failed.dimension,
            Some(("Class", ["row", "transient", "account", "unknown", "aborted"].as_slice()))
        );
    }

    #[test]
    fn no_latency_is_lost() {
        let lines = lines((0..250).map(|n| called(n, 0)));
        let found: Vec<usize> = lines.iter().map(|line| line["ApiLatency"].as_array().unwrap().len()).collect();
        assert_eq!(found, [100, 100, 50]);
        assert_eq!((&lines[0]["Calls"], &lines[1]["Calls"]), (&json!(250.0), &Value::Null));
    }

    #[test]
    fn without_events_no_line_is_printed() {
        assert!(lines([]).is_empty());
    }

    #[test]
    fn a_panic_does_not_lose_the_metrics() {
        let metrics = EmfMetrics::new("s", 0.0);
        let ended = panic::catch_unwind(panic::AssertUnwindSafe(|| {
            let _flush = metrics.flush_on_drop();
            metrics.record(MetricEvent::Throttled);
            panic!("in the middle of an invocation");
        }));
        assert!(ended.is_err());
        assert!(metrics.drain(Timestamp::UNIX_EPOCH).is_empty(), "printed when the invocation unwound");
    }
}
