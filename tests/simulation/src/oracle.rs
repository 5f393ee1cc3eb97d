//! Knows what was uploaded, sees every write that takes effect, and keeps the API's account. Reports the first broken promise.
//!
//! Each topic has a record and its checks in a file of its own; this one passes on what happens and checks the end of a run.

mod breaker;
mod check;
mod job;
mod ledger;
mod manifests;
mod metrics;
mod notifications;
mod results;
mod summary;

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use packshot_pipeline::model::{
    error_class::ErrorClass,
    etag::Etag,
    event::MetricEvent,
    keys::{self, Catalog, JobId},
    notification::Notification,
    request::Fingerprint,
    result::RowResult,
};

pub(crate) use self::ledger::ApiCounts;
use self::{
    breaker::BreakerRecord,
    check::{Check, require},
    job::JobRecord,
    ledger::LedgerRecord,
    manifests::ManifestsRecord,
    metrics::MetricCounts,
    results::{ParkedRows, ResultContext},
};
use crate::{
    plan::{Plan, poison_body},
    uploads::Expected,
};

pub(crate) struct Oracle {
    plan: Plan,
    jobs: BTreeMap<JobId, JobRecord>,
    ledger: LedgerRecord,
    breaker: BreakerRecord,
    manifests: ManifestsRecord,
    parked: ParkedRows,
    metrics: MetricCounts,
    /// What a worker had not recorded when it died is missing in the metrics.
    worker_died: bool,
    broken: Option<String>,
}

impl Oracle {
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            plan,
            jobs: BTreeMap::new(),
            ledger: LedgerRecord::default(),
            breaker: BreakerRecord::default(),
            manifests: ManifestsRecord::default(),
            parked: ParkedRows::default(),
            metrics: MetricCounts::default(),
            worker_died: false,
            broken: None,
        }
    }

    /// The first broken promise.
    pub(crate) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// What the API did.
    pub(crate) fn api_counts(&self) -> ApiCounts {
        self.ledger.counts
    }

    /// Reports something that is broken, unless something was before.
    pub(crate) fn report(&mut self, broken: String) {
        self.broken.get_or_insert(broken);
    }

    fn record(&mut self, check: Check) {
        if let Err(broken) = check {
            self.report(broken);
        }
    }

    pub(crate) fn uploaded(&mut self, id: JobId, catalog: Catalog, expected: Expected, at: Timestamp) {
        let job = JobRecord::new(catalog, expected, at);
        self.manifests.expect(&id, &job);
        self.jobs.insert(id, job);
    }

    /// Messages that reached the retry queue.
    pub(crate) fn parked<'b>(&mut self, bodies: impl Iterator<Item = &'b str>) {
        self.parked.add(bodies);
    }

    /// A worker died, or an invocation was ended from outside.
    pub(crate) fn worker_died(&mut self) {
        self.worker_died = true;
    }

    /// A write that took effect.
    pub(crate) fn wrote(&mut self, key: &str, bytes: &Bytes, etag: &Etag, now: Timestamp) {
        let check = match key.split_once('/') {
            Some(("ledger", _)) => self.ledger.wrote(&self.plan.generate, key, bytes, now),
            Some(("results", _)) => {
                let account_errors = self.plan.generate.account_errors;
                let context = ResultContext { account_errors, ledger: &self.ledger, parked: &self.parked };
                results::wrote(&mut self.jobs, &context, key, bytes)
            }
            Some(("manifests", _)) => self.manifests.wrote(&mut self.jobs, key, bytes, etag),
            _ if key == keys::BREAKER => self.breaker.wrote(key, bytes, now),
            _ => Ok(()),
        };
        self.record(check);
    }

    /// A call to the API begins.
    pub(crate) fn call_begins(&mut self, fp: &Fingerprint, key: &str, now: Timestamp, deadline: Timestamp) {
        let check = require(key == fp.as_str(), || format!("{fp}: the idempotency key is {key}"));
        let check = check.and(self.check_call(fp, now, deadline));
        self.record(check);
    }

    fn check_call(&mut self, fp: &Fingerprint, now: Timestamp, deadline: Timestamp) -> Check {
        self.ledger.counts.calls += 1;
        let asks = |job: &JobRecord| {
            job.created.is_some() && job.expected.rows().iter().any(|row| row.verdict.as_ref() == Ok(fp))
        };
        // With thousands of rows, a search at each of thousands of calls would take longer than everything else.
        let small = self.jobs.values().all(|job| job.results.len() < 100);
        require(!small || self.jobs.values().any(asks), || format!("{fp}: called for, and no job asks for it"))?;
        self.breaker.call_begins(fp, now)?;
        self.ledger.call_begins(&self.plan.generate, fp, now, deadline)
    }

    /// A call ends; `lost` if without an answer that says whether it was billed.
    pub(crate) fn call_ends(&mut self, fp: &Fingerprint, lost: bool) {
        self.ledger.call_ends(fp, lost);
    }

    /// The API bills a call.
    pub(crate) fn billed(&mut self, fp: &Fingerprint, request_id: &str) {
        let check = self.ledger.billed(fp, request_id);
        self.record(check);
    }

    /// The product records a metric.
    pub(crate) fn metric(&mut self, event: MetricEvent) {
        self.metrics.record(event);
    }

    /// The subscribers are notified.
    pub(crate) fn notified(&mut self, notification: &Notification) {
        let check = notifications::sent(&mut self.jobs, notification);
        self.record(check);
    }

    /// All has ended: every job has what it must have. `parked` are the bodies in the retry queue.
    pub(crate) fn ended(&mut self, parked: &[String]) {
        let check = self.check_end(parked);
        self.record(check);
    }

    fn check_end(&self, parked: &[String]) -> Check {
        for (id, job) in &self.jobs {
            self.check_job(job).map_err(|what| format!("job {id}: {what}"))?;
        }
        let api = self.api_counts();
        self.metrics.check(&self.jobs, api, self.worker_died)?;
        self.metrics.check_summaries(&self.plan, &self.jobs, api)?;
        for body in (0..self.plan.poison.len()).map(poison_body) {
            let times = parked.iter().filter(|parked| **parked == body).count();
            let calm = self.plan.faults.rate == 0
                && self.plan.faults.events == 0
                && self.plan.hosts.rows_visibility.as_secs() > 60;
            require(times >= 1 && (times == 1 || !calm), || format!("{body:?} is {times} times in the retry queue"))?;
        }
        Ok(())
    }

    fn check_job(&self, job: &JobRecord) -> Check {
        let summary = job.summary.as_ref().ok_or("no summary")?;
        notifications::check_last(job, summary.status, self.worker_died)?;
        let Expected::Rows(rows) = &job.expected else { return Ok(()) };
        require(job.results.len() == rows.len(), || {
            format!("{} of {} rows have a result", job.results.len(), rows.len())
        })?;
        let (etag, manifest) = job.manifest.as_ref().ok_or("no manifest")?;
        let results: Vec<u8> = job.newest_results().flat_map(|(_, bytes, _)| bytes.iter().copied()).collect();
        require(*manifest == results, || "the manifest differs from what is stored under results/".into())?;
        let named = summary.manifest.as_ref().map(|manifest| &manifest.etag);
        require(named == Some(etag), || "the summary speaks of another manifest than the newest".into())?;
        manifests::check_failed_csv(job)?;
        manifests::check_review(job)?;
        self.manifests.check_latest(&self.jobs, job, summary.status)?;
        // The guardrail may stop the redriven rows of a file that moderation blocks.
        if self.plan.final_redrive && self.plan.generate.max_failed_percent.is_none() {
            for (row, _, result) in job.newest_results() {
                if let RowResult::Failed(failed) = result {
                    require(failed.error_class == ErrorClass::Row, || {
                        format!("row {row}: still {} after a redrive without faults", failed.error_code)
                    })?;
                }
            }
        }
        Ok(())
    }
}
