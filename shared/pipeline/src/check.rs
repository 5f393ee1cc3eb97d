//! What the splitter would say of a catalog, and what it would cost: known before anything is spent.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use crate::{
    catalog::validate::{Accepted, Rejected},
    cost::{AwsCost, Deployment, Work},
    ledger,
    model::{
        catalog_error::NotACatalog,
        format::Format,
        job::Job,
        keys::{self, JobId},
        request::{Digest256, Fingerprint},
    },
    ports::{Ports, StoreError},
    storage,
};

/// The version of checks that this code writes.
pub const VERSION: u32 = 1;
/// Rejected rows that are shown; of each code at least the first.
const SHOWN: usize = 20;
/// Ledger entries read at once.
const READS_AT_ONCE: usize = 64;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every row would be sent.
    Clean,
    /// Some rows would be failed without a call.
    Rejects,
    /// No row would be sent.
    NotACatalog,
}

/// What `packshot check --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Check {
    /// Format version.
    pub v: u32,
    /// The file as it was named.
    pub file: String,
    /// What it is.
    pub verdict: Verdict,
    /// Why it cannot be a catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<NotACatalog>,
    /// What a catalog holds.
    #[serde(flatten)]
    pub found: Option<Found>,
}

/// What a catalog holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Found {
    /// How the file is written.
    pub format: Format,
    /// Which kind of file it was recognised as: `packshot`, `shopify`, `woocommerce`, `google-merchant`, `akeneo`.
    pub export: String,
    /// The file's columns, in order.
    pub columns: Vec<String>,
    /// What was recognised: standard name → name in the file.
    pub mapping: BTreeMap<String, String>,
    /// Data records.
    pub rows: u64,
    /// Records that are no rows, because they only go on with the product above.
    pub continuation_rows: u64,
    /// Rows that would be sent.
    pub valid: u64,
    /// Rows that would be failed without a call.
    pub rejected: u64,
    /// Why, most frequent first.
    pub rejects: Vec<RejectGroup>,
    /// Valid rows that share another row's request, and with it the call.
    pub repeated: u64,
    /// Pictures that the valid rows ask for.
    pub images: u64,
    /// What is paid for already; absent where no ledger was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Amount>,
    /// What is left to pay for.
    pub to_make: Amount,
    /// A guess at what that takes.
    pub estimate: Estimate,
}

/// Rejected rows with the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RejectGroup {
    /// A word for machines.
    pub code: String,
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Vec<Reject>,
}

/// One rejected row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reject {
    /// The row, from 1.
    pub row: u64,
    /// Physical line in the file.
    pub line: u64,
    /// As far as it could be read.
    pub sku: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// Calls, and the pictures they bring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Amount {
    /// Calls of the API.
    pub calls: u64,
    /// Pictures.
    pub images: u64,
}

/// A guess: the API's price and speed are its own, and retries come on top.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Estimate {
    /// US dollars.
    pub cost_usd: f64,
    /// From beginning to end.
    pub seconds: u64,
    /// As it was assumed.
    pub price_per_image: f64,
    /// Calls at once, as assumed.
    pub concurrency: u16,
    /// As it was assumed.
    pub seconds_per_call: u64,
    /// What AWS takes beside the API, where it runs there: at the template's defaults, but for the calls at once.
    pub aws: AwsCost,
}

/// What an estimate assumes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Assumed {
    /// US dollars.
    pub price_per_image: f64,
    /// Calls at once.
    pub concurrency: u16,
    /// Until an answer comes.
    pub seconds_per_call: u64,
}

impl Assumed {
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
            // To the cent: more would look like more than a guess.
            cost_usd: (amount.images as f64 * self.price_per_image * 100.0).round() / 100.0,
            seconds: amount.calls.div_ceil(u64::from(self.concurrency.max(1))) * self.seconds_per_call,
            price_per_image: self.price_per_image,
            concurrency: self.concurrency,
            seconds_per_call: self.seconds_per_call,
            aws: deployment.cost(&work).rounded(),
        }
    }
}

/// Listens to the verdicts of [`crate::split::validate`].
#[derive(Debug, Default)]
pub struct Survey {
    groups: BTreeMap<&'static str, RejectGroup>,
    shown: usize,
    /// The request of every row, by its number of pictures: 32 bytes a row.
    requests: [Vec<Digest256>; 4],
}

impl Survey {
    /// Takes down one row.
    pub fn judged(&mut self, row: u64, line: u64, verdict: &Result<Accepted<'_>, Rejected>) {
        let rejected = match verdict {
            Ok(accepted) => {
                // There are 1 to 4.
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

    /// What of it a ledger has for this job, and would be used instead of a call.
    pub async fn known(&mut self, ports: &Ports, job: &JobId, reuse: Duration) -> Result<Amount, StoreError> {
        self.forget_repeats();
        let now = ports.clock.now();
        let mut known = Amount::default();
        for (digests, n) in self.requests.iter().zip(1..) {
            let mut looks = stream::iter(digests.iter().copied())
                .map(|digest| async move {
                    let key = keys::ledger(&Fingerprint::of(&digest));
                    let Some(seen) = storage::read(ports, &key).await? else { return Ok(false) };
                    // What cannot be read fails its row without a call; it is not known here.
                    let entry = ledger::read(&seen.bytes).ok();
                    Ok::<_, StoreError>(entry.is_some_and(|entry| entry.outcome_for(job, now, reuse).is_some()))
                })
                .buffer_unordered(READS_AT_ONCE);
            while let Some(paid) = looks.try_next().await? {
                known = known.and(u64::from(paid), n);
            }
        }
        Ok(known)
    }

    fn forget_repeats(&mut self) {
        for digests in &mut self.requests {
            digests.sort_unstable();
            digests.dedup();
        }
    }

    /// The check of a file that was read to its end.
    #[must_use]
    pub fn finish(mut self, file: String, job: Job, known: Option<Amount>, assumed: Assumed) -> Check {
        self.forget_repeats();
        let counts = self.requests.iter().map(|digests| digests.len() as u64);
        let all = counts.zip(1..).fold(Amount::default(), |sum, (calls, n)| sum.and(calls, n));
        let have = known.unwrap_or_default();
        let to_make = Amount { calls: all.calls - have.calls, images: all.images - have.images };
        let mut rejects: Vec<_> = self.groups.into_values().collect();
        // Stable, so that equal counts stay in the order of their codes.
        rejects.sort_by_key(|group| std::cmp::Reverse(group.count));
        let estimate = assumed.estimate(&job, to_make);
        let found = Found {
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

impl Check {
    /// The check of a file that cannot be a catalog.
    #[must_use]
    pub fn not_a_catalog(file: String, problem: NotACatalog) -> Self {
        Self { v: VERSION, file, verdict: Verdict::NotACatalog, problem: Some(problem), found: None }
    }
}

impl Amount {
    /// More calls, for `n` pictures each.
    fn and(self, calls: u64, n: u64) -> Self {
        Self { calls: self.calls + calls, images: self.images + calls * n }
    }
}
