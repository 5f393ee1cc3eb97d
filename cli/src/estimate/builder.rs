//! Counts the rows, calls and images of a catalog, and estimates what they would cost.
//!
//! The builder gets the verdict on every row. It keeps the first rejected rows of each reason, and of a valid row only the digest
//! of its request. Equal digests share a call, so the distinct digests are the calls of a run without a ledger.
//! [`EstimateBuilder::known`] looks each of them up in the ledger and counts those that are paid for already;
//! [`EstimateBuilder::finish`] multiplies the rest by the assumed prices.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use packshot_pipeline::{
    catalog::validate::{Accepted, Rejected},
    ledger,
    model::{
        job::Job,
        keys::{self, JobId},
        request::{Digest256, Fingerprint},
    },
    ports::{Ports, StoreError},
    storage,
};

use crate::estimate::{
    aws_cost::{Deployment, Work},
    check::{Amount, CatalogReport, Check, Estimate, Reject, RejectGroup, VERSION, Verdict},
};

/// Rejected rows that are shown; of each code at least the first.
const SHOWN: usize = 20;
/// Ledger entries read at once.
const READS_AT_ONCE: usize = 64;

/// What an estimate assumes about the API.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Assumptions {
    /// US dollars for one image.
    pub price_per_image: f64,
    /// Calls at once.
    pub concurrency: u16,
    /// Duration of a call.
    pub seconds_per_call: u64,
}

impl Assumptions {
    fn estimate(&self, job: &Job, amount: Amount) -> Estimate {
        let deployment = Deployment::calling(self.concurrency.into());
        let work = Work {
            rows: job.rows,
            rejected: job.rejected,
            calls: amount.calls,
            images: amount.images,
            seconds_per_call: self.seconds_per_call as f64,
        };
        Estimate {
            // To the cent: more digits would suggest more than an estimate.
            cost_usd: (amount.images as f64 * self.price_per_image * 100.0).round() / 100.0,
            seconds: amount.calls.div_ceil(u64::from(self.concurrency.max(1))) * self.seconds_per_call,
            price_per_image: self.price_per_image,
            concurrency: self.concurrency,
            seconds_per_call: self.seconds_per_call,
            aws: deployment.cost(&work).rounded(),
        }
    }
}

/// Collects the verdicts of [`packshot_pipeline::split::validate`].
#[derive(Debug, Default)]
pub struct EstimateBuilder {
    groups: BTreeMap<&'static str, RejectGroup>,
    shown: usize,
    /// The request of every row, by its number of images: 32 bytes a row.
    requests: [Vec<Digest256>; 4],
}

impl EstimateBuilder {
    /// Adds one row.
    pub fn add(&mut self, row: u64, line: u64, verdict: &Result<Accepted<'_>, Rejected>) {
        let rejected = match verdict {
            Ok(accepted) => {
                // `n` is 1 to 4.
                if let Some(same_n) = self.requests.get_mut(usize::from(accepted.request.n).wrapping_sub(1)) {
                    same_n.push(accepted.request.digest());
                }
                return;
            }
            Err(rejected) => rejected,
        };
        let group = self.groups.entry(rejected.code).or_insert_with(|| RejectGroup {
            code: rejected.code.to_owned(),
            count: 0,
            first: Vec::new(),
        });
        group.count += 1;
        if self.shown < SHOWN || group.first.is_empty() {
            self.shown += 1;
            let (sku, message) = (rejected.sku.clone(), rejected.message.clone());
            group.first.push(Reject { row, line, sku, message });
        }
    }

    /// Counts the calls that this job would not make, because the ledger has an outcome that it may use.
    pub async fn known(&mut self, ports: &Ports, job: &JobId, reuse: Duration) -> Result<Amount, StoreError> {
        self.remove_repeats();
        let now = ports.clock.now();
        let mut known = Amount::default();
        for (digests, n) in self.requests.iter().zip(1..) {
            let mut reads = stream::iter(digests.iter().copied())
                .map(|digest| async move {
                    let key = keys::ledger(&Fingerprint::of(&digest));
                    let Some(object) = storage::read(ports, &key).await? else { return Ok(false) };
                    // An unreadable entry fails its row without a call, so nothing is known to be paid.
                    let entry = ledger::read(&object.value).ok();
                    Ok::<_, StoreError>(entry.is_some_and(|entry| entry.outcome_for(job, now, reuse).is_some()))
                })
                .buffer_unordered(READS_AT_ONCE);
            while let Some(paid) = reads.try_next().await? {
                known = known.and(u64::from(paid), n);
            }
        }
        Ok(known)
    }

    fn remove_repeats(&mut self) {
        for digests in &mut self.requests {
            digests.sort_unstable();
            digests.dedup();
        }
    }

    /// The check of a file that was read to its end.
    #[must_use]
    pub fn finish(mut self, file: String, job: Job, known: Option<Amount>, assumptions: Assumptions) -> Check {
        self.remove_repeats();
        let counts = self.requests.iter().map(|digests| digests.len() as u64);
        let all = counts.zip(1..).fold(Amount::default(), |sum, (calls, n)| sum.and(calls, n));
        let paid = known.unwrap_or_default();
        let to_make = Amount { calls: all.calls - paid.calls, images: all.images - paid.images };
        let mut rejects: Vec<_> = self.groups.into_values().collect();
        // A stable sort: groups with equal counts stay in the order of their codes.
        rejects.sort_by_key(|group| std::cmp::Reverse(group.count));
        let estimate = assumptions.estimate(&job, to_make);
        let found = CatalogReport {
            format: job.format,
            export: job.export,
            columns: job.columns,
            mapping: job.mapping,
            rows: job.rows,
            continuation_rows: job.continuation_rows,
            valid: job.valid,
            rejected: job.rejected,
            rejects,
            repeated: job.valid - all.calls,
            images: job.images,
            known,
            to_make,
            estimate,
        };
        let verdict = if job.rejected == 0 { Verdict::Clean } else { Verdict::Rejects };
        Check { v: VERSION, file, verdict, problem: None, found: Some(found) }
    }
}
