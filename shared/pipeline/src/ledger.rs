//! The ledger: which fingerprint is being generated, and which has been paid for.
//!
//! The ledger has one object per fingerprint, which is written only with preconditions. A worker writes a claim with a lease
//! before it calls the API, and the outcome after the call. A claim whose lease has ended without an outcome means that the
//! call may have been billed: its outcome is unknown, and it is counted. [`decide`] is the whole protocol and does no I/O, so
//! that a model checker can try every interleaving.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{error_class::ErrorClass, keys::JobId, request::Fingerprint, result::Asset};

/// The version of ledger entries that this code writes and reads.
pub const VERSION: u32 = 1;

/// `ledger/<first two hex>/<fingerprint>.json`: the state of one fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Format version.
    pub v: u32,
    /// Fingerprint of the request that is paid for.
    pub fingerprint: Fingerprint,
    /// Job and round of the last requester.
    pub series: RetryScope,
    /// Number of calls made for this job, over all rounds.
    pub calls: u32,
    /// Number of calls of this job whose outcome is unknown, over all rounds.
    pub unknown: u32,
    /// Retries that this job and round have used.
    pub spent: RetryUsage,
    /// Current state for this job.
    pub state: State,
    /// The states for jobs that requested the fingerprint before this one, the most recent last. With them, the next row of
    /// such a job neither pays for its outcome again nor starts with new limits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<JobEntry>,
    /// Nonce of the write that released the claim or gave up. If the answer to that write is lost, its worker recognises it
    /// by this nonce: another worker's write can be equal in everything else. Absent in a claim, in an outcome, and in what
    /// earlier versions wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_by: Option<String>,
}

/// The state of a fingerprint for a job that is not its last requester.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobEntry {
    /// As [`Entry::series`].
    pub series: RetryScope,
    /// As [`Entry::calls`].
    pub calls: u32,
    /// As [`Entry::unknown`].
    pub unknown: u32,
    /// As [`Entry::spent`].
    pub spent: RetryUsage,
    /// As [`Entry::state`], but never [`State::Claimed`].
    pub state: State,
    /// As [`Entry::written_by`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_by: Option<String>,
}

/// Number of jobs in [`Entry::others`]. More than a few at once are rare; the least recent one is dropped.
const MAX_OTHERS: usize = 8;

/// The scope of retry limits: one attempt that a person requested, by uploading a file or by redriving a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RetryScope {
    /// The job that requests the fingerprint.
    pub job: JobId,
    /// Round of the message.
    pub round: u64,
}

/// What counts against the retry limits of a [`RetryScope`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RetryUsage {
    /// Number of calls that failed with a transient error.
    pub failures: u32,
    /// Number of calls whose outcome is unknown.
    pub unknown: u32,
}

/// The state of a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A worker is calling the API, or has died during the call.
    Claimed(Claim),
    /// No call is in flight. The counters are valid.
    Released,
    /// A call was paid for and delivered this outcome.
    Completed(Outcome),
    /// This job and round have failed.
    Failed(Failure),
}

/// The right of one worker to call the API, until its lease ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// Random value of this claim, by which a write whose answer was lost is recognised.
    pub nonce: String,
    /// Id of the claiming process.
    pub worker: String,
    /// When the claim was made.
    pub at: Timestamp,
    /// End of the lease. By then the worker has ended the call or is dead.
    pub until: Timestamp,
}

/// The outcome of a paid call.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Outcome {
    /// The job that paid.
    pub job: JobId,
    /// The row that paid.
    pub row: u64,
    /// The API's id of the request.
    pub request_id: Option<String>,
    /// The model that the API says it used.
    pub model_actual: Option<String>,
    /// Number of images that the API delivered.
    pub image_count: usize,
    /// The images' addresses, as the API returned them.
    pub image_urls: Vec<String>,
    /// The images that are kept under `images/`.
    pub assets: Vec<Asset>,
    /// Why images could not be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_error: Option<String>,
    /// Duration of the call, in milliseconds.
    pub latency_ms: u64,
    /// When the API's answer arrived.
    pub completed_at: Timestamp,
}

/// Why a job's round has failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failure {
    /// The row that made the last call.
    pub row: u64,
    /// What happened, for people.
    pub error: String,
    /// Machine-readable code, for example `timeout`.
    pub error_code: String,
    /// Who can fix the row.
    pub error_class: ErrorClass,
    /// HTTP status of the last call, if the API answered.
    pub http_status: Option<u16>,
    /// Duration of the last call, in milliseconds.
    pub latency_ms: Option<u64>,
    /// When it failed.
    pub failed_at: Timestamp,
}

/// A row that requests a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Requester {
    /// Job and round of the row.
    pub series: RetryScope,
    /// Row number, from 1.
    pub row: u64,
    /// Id of the process that handles the row.
    pub worker: String,
}

/// The limits of retries and reuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Number of further calls after unknown outcomes.
    pub unknown_retries: u32,
    /// How long other jobs reuse an outcome.
    pub reuse: Duration,
    /// Whether claims of other processes are dead even before their leases end.
    pub sole_worker: bool,
}

/// What a requester must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Use the outcome: no call.
    Reuse(PaidOutcome),
    /// Use the failure: this job has failed in this round or a later one.
    Share(TerminalFailure),
    /// Another worker may be calling: decide again after this long.
    Wait(Duration),
    /// Add a claim to this entry, write it under the precondition that the object is unchanged, then call.
    Claim(Entry),
    /// Too many outcomes are unknown: write this entry as failed under the same precondition, then fail the row.
    GiveUp(Entry),
}

/// An outcome with the counters of the job that paid for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaidOutcome {
    /// What was paid for.
    pub outcome: Outcome,
    /// Number of calls of that job.
    pub calls: u32,
    /// Number of unknown outcomes of that job.
    pub unknown: u32,
}

/// A failure that ends a round, with the counters of the job that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TerminalFailure {
    /// Why the round failed.
    pub failure: Failure,
    /// The round that failed. It may be later than the requester's.
    pub round: u64,
    /// Number of calls of that job.
    pub calls: u32,
    /// Number of unknown outcomes of that job.
    pub unknown: u32,
}

impl Entry {
    /// An entry without calls.
    #[must_use]
    pub fn new(fingerprint: Fingerprint, series: RetryScope) -> Self {
        let (spent, others) = (RetryUsage::default(), Vec::new());
        Self {
            v: VERSION,
            fingerprint,
            series,
            calls: 0,
            unknown: 0,
            spent,
            state: State::Released,
            others,
            written_by: None,
        }
    }

    /// The outcome that rows of a job use: the job's own, or one of another job that may still be reused.
    #[must_use]
    pub fn outcome_for(&self, job: &JobId, now: Timestamp, reuse: Duration) -> Option<PaidOutcome> {
        let paid = |state: &State, calls, unknown| match state {
            State::Completed(outcome) => Some(PaidOutcome { outcome: outcome.clone(), calls, unknown }),
            _ => None,
        };
        let others =
            self.others.iter().rev().map(|other| (&other.series.job, &other.state, other.calls, other.unknown));
        let entries = std::iter::once((&self.series.job, &self.state, self.calls, self.unknown)).chain(others);
        let mut fresh = None;
        for (owner, state, calls, unknown) in entries {
            let Some(paid) = paid(state, calls, unknown) else { continue };
            if owner == job {
                return Some(paid);
            }
            if now.duration_since(paid.outcome.completed_at) < signed(reuse) {
                fresh = fresh.or(Some(paid));
            }
        }
        fresh
    }

    /// The state for a job: scope, calls, unknown outcomes, state, nonce.
    fn of_job(&self, job: &JobId) -> Option<(&RetryScope, u32, u32, &State, &Option<String>)> {
        if self.series.job == *job {
            return Some((&self.series, self.calls, self.unknown, &self.state, &self.written_by));
        }
        let other = self.others.iter().find(|other| other.series.job == *job)?;
        Some((&other.series, other.calls, other.unknown, &other.state, &other.written_by))
    }

    /// The failure of a job, if it has failed.
    fn failure_of(&self, job: &JobId) -> Option<TerminalFailure> {
        let (series, calls, unknown, state, _) = self.of_job(job)?;
        match state {
            State::Failed(failure) => {
                Some(TerminalFailure { failure: failure.clone(), round: series.round, calls, unknown })
            }
            _ => None,
        }
    }

    /// Records an outcome that a job has paid for. Does not touch a claim of another job.
    #[must_use]
    pub fn with_outcome(mut self, series: &RetryScope, outcome: Outcome) -> Self {
        let state = State::Completed(outcome);
        if self.series.job == series.job {
            self.state = state;
            self.written_by = None;
        } else if let Some(other) = self.others.iter_mut().find(|other| other.series.job == series.job) {
            other.state = state;
            other.written_by = None;
        } else {
            // The job was dropped from the list meanwhile, with its counters.
            self.others.push(JobEntry {
                series: series.clone(),
                calls: 1,
                unknown: 0,
                spent: RetryUsage::default(),
                state,
                written_by: None,
            });
        }
        self
    }

    /// Makes the requester's job the current one. The entry must not be claimed.
    fn released_for(mut self, series: &RetryScope) -> Self {
        if self.series.job != series.job {
            let own = self.others.iter().position(|other| other.series.job == series.job);
            let next = own.map(|at| self.others.remove(at)).unwrap_or_else(|| JobEntry {
                series: series.clone(),
                calls: 0,
                unknown: 0,
                spent: RetryUsage::default(),
                state: State::Released,
                written_by: None,
            });
            let Self { v, fingerprint, series, calls, unknown, spent, state, mut others, written_by } = self;
            others.push(JobEntry { series, calls, unknown, spent, state, written_by });
            if others.len() > MAX_OTHERS {
                others.remove(0);
            }
            let JobEntry { series, calls, unknown, spent, state, .. } = next;
            self = Self { v, fingerprint, series, calls, unknown, spent, state, others, written_by: None };
        }
        if matches!(self.state, State::Failed(_)) {
            // A person has requested the row again since the failure.
            self.spent = RetryUsage::default();
        }
        // A late message of an earlier round must not lower the round.
        self.series.round = self.series.round.max(series.round);
        self.state = State::Released;
        self.written_by = None;
        self
    }

    /// Whether this entry is `written`, apart from a late outcome of another job. The nonce tells it from another worker's:
    /// that of the claim, or else [`Entry::written_by`].
    #[must_use]
    pub fn is_as_written(&self, written: &Self) -> bool {
        match &written.state {
            State::Claimed(claim) => self.is_claimed_by(&claim.nonce),
            _ => *self == Self { others: self.others.clone(), ..written.clone() },
        }
    }

    /// Whether it is certain that `written` took effect, although another write followed. There are two such cases. Its
    /// failure is still in the entry, for a job that is no longer the current one. Or it counted the unknown outcome of `own`
    /// claim, which this entry counts: before the claim's lease ends no other worker may do that. In all other cases another
    /// worker's write can have left the same bytes.
    #[must_use]
    pub fn proves_effect_of(&self, written: &Self, own: Option<&Claim>, now: Timestamp) -> bool {
        let Some(current @ (_, _, unknown, _, _)) = self.of_job(&written.series.job) else { return false };
        let failed = matches!(written.state, State::Failed(_)) && Some(current) == written.of_job(&written.series.job);
        failed || unknown >= written.unknown && own.is_some_and(|claim| now < claim.until)
    }

    /// Whether the current claim is the one with this nonce.
    #[must_use]
    pub fn is_claimed_by(&self, nonce: &str) -> bool {
        matches!(&self.state, State::Claimed(claim) if claim.nonce == nonce)
    }
}

/// Parses an entry. The error says why this version of packshot does not understand it.
pub fn read(bytes: &[u8]) -> Result<Entry, String> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    // The version first, because a newer one may differ in every other field.
    match serde_json::from_slice::<Versioned>(bytes) {
        Ok(Versioned { v }) if v != VERSION => Err(format!("version {v}")),
        _ => serde_json::from_slice(bytes).map_err(|error| error.to_string()),
    }
}

/// Decides what a requester must do, given the fingerprint's entry. This is the whole protocol.
#[must_use]
pub fn decide(
    entry: Option<&Entry>,
    fingerprint: &Fingerprint,
    requester: &Requester,
    now: Timestamp,
    limits: &Limits,
) -> Decision {
    let Some(entry) = entry else {
        return Decision::Claim(Entry::new(fingerprint.clone(), requester.series.clone()));
    };
    let job = &requester.series.job;
    if let Some(paid) = entry.outcome_for(job, now, limits.reuse) {
        return Decision::Reuse(paid);
    }
    if let Some(failure) = entry.failure_of(job).filter(|failure| failure.round >= requester.series.round) {
        return Decision::Share(failure);
    }
    let mut next = entry.clone();
    if let State::Claimed(claim) = &entry.state {
        let dead = now >= claim.until || (limits.sole_worker && claim.worker != requester.worker);
        if !dead {
            return Decision::Wait(unsigned(claim.until.duration_since(now)));
        }
        next.count_unknown();
        next.state = State::Released;
    }
    let next = next.released_for(&requester.series);
    if next.spent.unknown > limits.unknown_retries { Decision::GiveUp(next) } else { Decision::Claim(next) }
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
