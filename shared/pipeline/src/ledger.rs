//! The record of which fingerprint is being generated or has been paid for.
//!
//! One object per fingerprint, written only with preconditions. [`decide`] is the whole protocol and does no I/O, so that a
//! model checker can try every interleaving of it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{error_class::ErrorClass, keys::JobId, request::Fingerprint, result::Asset};

/// The version of ledger entries that this code writes and reads.
pub const VERSION: u32 = 1;

/// `ledger/<first two hex>/<fingerprint>.json`
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Format version.
    pub v: u32,
    /// What is paid for.
    pub fingerprint: Fingerprint,
    /// On whose behalf the last call was made.
    pub series: Series,
    /// Calls made for this job, over all rounds.
    pub calls: u32,
    /// Calls whose outcome is unknown, over all rounds.
    pub unknown: u32,
    /// What of the limits this series has used up.
    pub spent: Spent,
    /// Where the fingerprint stands.
    pub state: State,
    /// Where it stands for the jobs that asked before this one, the last asker last: neither is their outcome paid for
    /// again when their next row asks, nor do their limits begin anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Page>,
}

/// Where a fingerprint stands for one job, while another one's stands in front.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Page {
    /// As in the entry.
    pub series: Series,
    /// As in the entry.
    pub calls: u32,
    /// As in the entry.
    pub unknown: u32,
    /// As in the entry.
    pub spent: Spent,
    /// As in the entry, but never claimed.
    pub state: State,
}

/// Jobs that an entry remembers besides the last asker. More than a few at once is rare; the longest silent is forgotten.
const OTHERS: usize = 8;

/// One try at a fingerprint that a person asked for: dropping a file, or redriving a row. Limits hold per series.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Series {
    /// The job.
    pub job: JobId,
    /// The message's round.
    pub round: u64,
}

/// Counted against the limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Spent {
    /// Calls that failed for a passing reason.
    pub failures: u32,
    /// Calls whose outcome is unknown.
    pub unknown: u32,
}

/// Where a fingerprint stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Somebody calls the API, or has died doing so.
    Claimed(Claim),
    /// Nobody calls; the counters hold.
    Released,
    /// Paid for, and this is what came.
    Completed(Outcome),
    /// Given up by this series.
    Failed(Failure),
}

/// Who calls, and until when that can be true.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// Of this one claim: a write whose answer was lost is recognised by it.
    pub nonce: String,
    /// Of the process.
    pub worker: String,
    /// When the claim was made.
    pub at: Timestamp,
    /// From then on its maker is dead or has given up the call.
    pub until: Timestamp,
}

/// What was paid for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Outcome {
    /// The job and row that paid.
    pub job: JobId,
    /// The row that paid.
    pub row: u64,
    /// The API's id of the call.
    pub request_id: Option<String>,
    /// The model that really ran.
    pub model_actual: Option<String>,
    /// Pictures delivered.
    pub image_count: usize,
    /// Their addresses as the API gave them.
    pub image_urls: Vec<String>,
    /// The pictures that were kept.
    pub assets: Vec<Asset>,
    /// Why pictures could not be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_error: Option<String>,
    /// How long the call took, in milliseconds.
    pub latency_ms: u64,
    /// When the answer was there.
    pub completed_at: Timestamp,
}

/// Why a series gave up.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failure {
    /// The row whose call was the last.
    pub row: u64,
    /// For people.
    pub error: String,
    /// For machines.
    pub error_code: String,
    /// Who has to act.
    pub error_class: ErrorClass,
    /// HTTP status of the last call.
    pub http_status: Option<u16>,
    /// How long the last call took, in milliseconds.
    pub latency_ms: Option<u64>,
    /// When it was given up.
    pub failed_at: Timestamp,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Asker {
    /// On whose behalf.
    pub series: Series,
    /// For which row.
    pub row: u64,
    /// The process.
    pub worker: String,
}

/// The limits in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Further calls after an unknown outcome.
    pub unknown_retries: u32,
    /// How long an outcome is reused by other jobs.
    pub reuse: Duration,
    /// Claims of other processes are dead, whatever their lease says.
    pub sole_worker: bool,
}

/// What an asker must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Use the outcome: no call.
    Reuse(Paid),
    /// Use the failure: this series has given up already.
    Share(GivenUp),
    /// Somebody may be calling; ask again after this long.
    Wait(Duration),
    /// Write this entry with a claim of one's own, under the precondition that the object is as it was read, then call.
    Claim(Entry),
    /// Too many outcomes are unknown: write this entry as failed, then fail the row.
    GiveUp(Entry),
}

/// An outcome with the counters of the job that paid for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paid {
    /// What came.
    pub outcome: Outcome,
    /// Calls of that job.
    pub calls: u32,
    /// Its unknown outcomes.
    pub unknown: u32,
}

/// A failure with the counters of the job that gave up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// Why.
    pub failure: Failure,
    /// The round that gave up, which may be later than the asker's.
    pub round: u64,
    /// Calls of that job.
    pub calls: u32,
    /// Its unknown outcomes.
    pub unknown: u32,
}

impl Entry {
    /// An entry that nobody has worked on.
    #[must_use]
    pub fn new(fingerprint: Fingerprint, series: Series) -> Self {
        let (spent, others) = (Spent::default(), Vec::new());
        Self { v: VERSION, fingerprint, series, calls: 0, unknown: 0, spent, state: State::Released, others }
    }

    /// The outcome that rows of a job use: its own, or another's as long as that may be reused.
    #[must_use]
    pub fn outcome_for(&self, job: &JobId, now: Timestamp, reuse: Duration) -> Option<Paid> {
        let paid = |state: &State, calls, unknown| match state {
            State::Completed(outcome) => Some(Paid { outcome: outcome.clone(), calls, unknown }),
            _ => None,
        };
        let others = self.others.iter().rev().map(|page| (&page.series.job, &page.state, page.calls, page.unknown));
        let pages = std::iter::once((&self.series.job, &self.state, self.calls, self.unknown)).chain(others);
        let mut fresh = None;
        for (whose, state, calls, unknown) in pages {
            let Some(paid) = paid(state, calls, unknown) else { continue };
            if whose == job {
                return Some(paid);
            }
            if now.duration_since(paid.outcome.completed_at) < signed(reuse) {
                fresh = fresh.or(Some(paid));
            }
        }
        fresh
    }

    /// Where the fingerprint stands for a job: series, calls, unknown outcomes, state.
    fn page(&self, job: &JobId) -> Option<(&Series, u32, u32, &State)> {
        if self.series.job == *job {
            return Some((&self.series, self.calls, self.unknown, &self.state));
        }
        let page = self.others.iter().find(|page| page.series.job == *job)?;
        Some((&page.series, page.calls, page.unknown, &page.state))
    }

    /// Why a job has given up, if it has.
    fn failure_of(&self, job: &JobId) -> Option<GivenUp> {
        let (series, calls, unknown, state) = self.page(job)?;
        match state {
            State::Failed(failure) => Some(GivenUp { failure: failure.clone(), round: series.round, calls, unknown }),
            _ => None,
        }
    }

    /// Notes what a job has paid for, and leaves a claim of another job alone.
    #[must_use]
    pub fn with_outcome(mut self, series: &Series, outcome: Outcome) -> Self {
        let state = State::Completed(outcome);
        if self.series.job == series.job {
            self.state = state;
        } else if let Some(page) = self.others.iter_mut().find(|page| page.series.job == series.job) {
            page.state = state;
        } else {
            // Forgotten meanwhile, with its counters.
            self.others.push(Page { series: series.clone(), calls: 1, unknown: 0, spent: Spent::default(), state });
        }
        self
    }

    /// Puts the asker's job in front. Nobody holds a claim here.
    fn turned_to(mut self, series: &Series) -> Self {
        if self.series.job != series.job {
            let own = self.others.iter().position(|page| page.series.job == series.job);
            let next = own.map(|at| self.others.remove(at)).unwrap_or_else(|| Page {
                series: series.clone(),
                calls: 0,
                unknown: 0,
                spent: Spent::default(),
                state: State::Released,
            });
            let Self { v, fingerprint, series, calls, unknown, spent, state, mut others } = self;
            others.push(Page { series, calls, unknown, spent, state });
            if others.len() > OTHERS {
                others.remove(0);
            }
            let Page { series, calls, unknown, spent, state } = next;
            self = Self { v, fingerprint, series, calls, unknown, spent, state, others };
        }
        if matches!(self.state, State::Failed(_)) {
            // A person has asked again since.
            self.spent = Spent::default();
        }
        // A late message of an earlier round does not take the series back.
        self.series.round = self.series.round.max(series.round);
        self.state = State::Released;
        self
    }

    /// Whether this is `written`, which only a late outcome of another job can have changed since. A claim is recognised by
    /// its nonce; what is not a claim, by being the same.
    #[must_use]
    pub fn begins_as(&self, written: &Self) -> bool {
        match &written.state {
            State::Claimed(claim) => self.is_claimed_by(&claim.nonce),
            _ => *self == Self { others: self.others.clone(), ..written.clone() },
        }
    }

    /// Whether it is certain that `written` took effect, though more was written since: its failure is still there, behind
    /// another job; or it counted an unknown outcome of `own` claim, which is counted here, and no other worker may count
    /// that before the claim's lease ends. Of everything else another worker's write can have left the same bytes.
    #[must_use]
    pub fn follows(&self, written: &Self, own: Option<&Claim>, now: Timestamp) -> bool {
        let Some(page @ (_, _, unknown, _)) = self.page(&written.series.job) else { return false };
        let failed = matches!(written.state, State::Failed(_)) && Some(page) == written.page(&written.series.job);
        failed || unknown >= written.unknown && own.is_some_and(|claim| now < claim.until)
    }

    /// Whether the current claim is the one with this nonce.
    #[must_use]
    pub fn is_claimed_by(&self, nonce: &str) -> bool {
        matches!(&self.state, State::Claimed(claim) if claim.nonce == nonce)
    }
}

/// Reads an entry, or says why it is not one that this version understands.
pub(crate) fn read(bytes: &[u8]) -> Result<Entry, String> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    // First, because a newer version may look different in every other way.
    match serde_json::from_slice::<Versioned>(bytes) {
        Ok(Versioned { v }) if v != VERSION => Err(format!("version {v}")),
        _ => serde_json::from_slice(bytes).map_err(|error| error.to_string()),
    }
}

/// The protocol: what to do about a fingerprint whose entry reads like this.
#[must_use]
pub fn decide(
    entry: Option<&Entry>,
    fingerprint: &Fingerprint,
    asker: &Asker,
    now: Timestamp,
    limits: &Limits,
) -> Step {
    let Some(entry) = entry else {
        return Step::Claim(Entry::new(fingerprint.clone(), asker.series.clone()));
    };
    let job = &asker.series.job;
    if let Some(paid) = entry.outcome_for(job, now, limits.reuse) {
        return Step::Reuse(paid);
    }
    if let Some(given_up) = entry.failure_of(job).filter(|given_up| given_up.round >= asker.series.round) {
        return Step::Share(given_up);
    }
    let mut next = entry.clone();
    if let State::Claimed(claim) = &entry.state {
        let dead = now >= claim.until || (limits.sole_worker && claim.worker != asker.worker);
        if !dead {
            return Step::Wait(unsigned(claim.until.duration_since(now)));
        }
        next.count_unknown();
        next.state = State::Released;
    }
    let next = next.turned_to(&asker.series);
    if next.spent.unknown > limits.unknown_retries { Step::GiveUp(next) } else { Step::Claim(next) }
}

impl Entry {
    /// Counts a call whose outcome is unknown.
    pub fn count_unknown(&mut self) {
        self.unknown += 1;
        self.spent.unknown += 1;
    }
}

fn signed(duration: Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX)
}

fn unsigned(duration: jiff::SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or(Duration::ZERO)
}
