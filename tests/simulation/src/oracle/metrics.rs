//! What the product says of itself agrees with what happened, apart from what dead workers did not report.

use std::collections::BTreeMap;

use packshot_pipeline::model::{event::MetricEvent, job::Job, keys::JobId};

use super::{
    check::{Check, require},
    job::JobRecord,
    ledger::ApiCounts,
};
use crate::plan::Plan;

/// What the product reported, in sum.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MetricCounts {
    calls: u64,
    unknown: u64,
    split: u64,
    rejected: u64,
    completed: u64,
    failed: u64,
    finished: u64,
}

impl MetricCounts {
    pub(super) fn record(&mut self, event: MetricEvent) {
        match event {
            MetricEvent::Called { .. } => self.calls += 1,
            MetricEvent::OutcomeUnknown => self.unknown += 1,
            MetricEvent::RowsSplit { sent, rejected } => {
                self.split += sent;
                self.rejected += rejected;
            }
            MetricEvent::RowCompleted { .. } => self.completed += 1,
            MetricEvent::RowFailed(_) => self.failed += 1,
            MetricEvent::ManifestWritten { first: true, .. } => self.finished += 1,
            _ => {}
        }
    }

    /// Compares the metrics with what the API and the store saw.
    pub(super) fn check(&self, jobs: &BTreeMap<JobId, JobRecord>, api: ApiCounts, worker_died: bool) -> Check {
        let calls = api.calls;
        require(self.calls <= calls, || format!("{} calls recorded, and the API saw {calls}", self.calls))?;
        let created = || jobs.values().filter_map(|job| job.created.as_ref());
        // One is missing where the answer to the summary's write was lost.
        let finished = created().count() as u64;
        require(self.finished <= finished, || format!("{} finishes of {finished} jobs recorded", self.finished))?;
        let unknown = api.unknown;
        require(self.unknown <= unknown, || {
            format!("{} unknown outcomes recorded, and the ledger counts {unknown}", self.unknown)
        })?;
        if worker_died {
            return Ok(());
        }
        require(self.calls == calls, || format!("{} of {calls} calls recorded, and no worker died", self.calls))?;
        require(self.unknown == unknown, || format!("{} of {unknown} unknown outcomes recorded", self.unknown))?;
        let sum = |of: fn(&Job) -> u64| created().map(of).sum::<u64>();
        let (split, valid) = (self.split, sum(|job| job.valid));
        require(split >= valid, || format!("{split} rows split, and the files have {valid}"))?;
        require(self.completed + self.failed >= valid, || format!("{self:?}, and {valid} rows have a result"))?;
        let rejected = sum(|job| job.rejected);
        require(self.rejected >= rejected, || format!("{} of {rejected} rejected rows recorded", self.rejected))
    }

    /// Where nothing goes wrong, the summaries count every call.
    pub(super) fn check_summaries(&self, plan: &Plan, jobs: &BTreeMap<JobId, JobRecord>, api: ApiCounts) -> Check {
        let Plan { faults, api: profile, .. } = plan;
        let calm = faults.rate == 0 && profile.trouble_percent == 0 && profile.account_outages.is_empty();
        if !calm || !faults.crashes.is_empty() {
            return Ok(());
        }
        let (mut calls, mut unknown) = (0, 0);
        for summary in jobs.values().filter_map(|job| job.summary.as_ref()) {
            calls += summary.counts.calls;
            unknown += summary.counts.unknown_outcomes;
        }
        require((self.calls, self.unknown) == (calls, 0), || format!("recorded {self:?}, {calls} calls"))?;
        require((calls, unknown) == (api.calls, 0), || {
            format!("the summaries count {calls} calls and {unknown} unknown outcomes, the API {}", api.calls)
        })
    }
}
