//! Reads and writes the ledger's entry of one fingerprint on behalf of one row.
//!
//! Every write is conditional, so of two workers one loses and reads again. The answer to a write can be lost, and a request
//! that the adapter repeated can fail against its own first attempt. [`FingerprintLedger::write`] therefore finds out whether
//! a write took effect before the row continues.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    disposition::GenerateError,
    failure,
    invocation::{Invocation, LEASE_MARGIN},
};
use crate::{
    ledger::{self, Claim, Entry, Failure, Outcome, PaidOutcome, Requester, RetryScope, State},
    model::{error_class::ErrorClass, etag::Etag, event::MetricEvent, json, keys, message::RowMessage},
    ports::{Precondition, StoreError},
    storage::{self, Versioned},
};

/// Attempts of one write whose effect must become known, in addition to the store's own repeats. Worth many attempts, because
/// money depends on it.
const WRITE_TRIES: usize = 8;
/// The first wait after an outcome could not be written; doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The ledger as it was read.
#[expect(clippy::large_enum_variant, reason = "short-lived value on the stack")]
pub(super) enum LedgerRead {
    /// The entry, or `None` if there is none.
    Entry(Option<Versioned<Entry>>),
    /// The failure of the row, because this version does not understand the object and must not change it.
    Unreadable(Failure),
}

/// The outcome of an attempt to claim.
pub(super) enum ClaimOutcome {
    /// The claim is written, and a call that starts now ends within its lease and before the deadline.
    Claimed(ActiveClaim),
    /// There is no claim; the ledger as read afterwards.
    NotClaimed(LedgerRead),
}

/// A live claim of this row.
pub(super) struct ActiveClaim {
    pub(super) entry: Entry,
    etag: Etag,
    claim: Claim,
}

/// The outcome of a write.
#[expect(clippy::large_enum_variant, reason = "short-lived value on the stack")]
pub(super) enum WriteOutcome {
    /// The write took effect, and the object has this ETag.
    Landed(Etag),
    /// Another write came first, or followed at once; the ledger as read after it.
    Overtaken(LedgerRead),
}

/// The ledger's entry of one row's fingerprint.
pub(super) struct FingerprintLedger<'a> {
    invocation: Invocation<'a>,
    message: &'a RowMessage,
    requester: Requester,
    key: String,
}

impl<'a> FingerprintLedger<'a> {
    pub(super) fn new(invocation: Invocation<'a>, message: &'a RowMessage) -> Self {
        let requester = Requester {
            series: RetryScope { job: message.job.clone(), round: message.round },
            row: message.row,
            worker: invocation.worker.id.clone(),
        };
        Self { invocation, message, requester, key: keys::ledger(&message.fingerprint) }
    }

    /// The requester that this row is.
    pub(super) fn requester(&self) -> &Requester {
        &self.requester
    }

    /// A new entry, for a fingerprint that has none.
    pub(super) fn new_entry(&self) -> Entry {
        Entry::new(self.message.fingerprint.clone(), self.requester.series.clone())
    }

    pub(super) async fn read(&self) -> Result<LedgerRead, StoreError> {
        let Some(existing) = storage::read(self.invocation.ports, &self.key).await? else {
            return Ok(LedgerRead::Entry(None));
        };
        let problem = match ledger::read(&existing.value) {
            Ok(entry) if entry.fingerprint != self.message.fingerprint => "another fingerprint".to_owned(),
            Ok(entry) => return Ok(LedgerRead::Entry(Some(Versioned { value: entry, etag: existing.etag }))),
            Err(problem) => problem,
        };
        let error = format!(
            "{} is not a ledger entry that this version understands ({problem}); nothing was called. Move the object \
             away or upgrade packshot, then redrive",
            self.key
        );
        let now = self.invocation.ports.clock.now();
        let failure = failure::own(self.message.row, now, "ledger_unreadable", ErrorClass::Unknown, error);
        Ok(LedgerRead::Unreadable(failure))
    }

    /// Adds a claim to `entry` and writes it over the object that was read with this ETag. `died` says that the entry counts
    /// the call of a dead worker. If the write took so long that a call could outlive the lease, releases the claim again.
    pub(super) async fn claim(
        &self,
        mut entry: Entry,
        etag: Option<Etag>,
        died: bool,
    ) -> Result<ClaimOutcome, GenerateError> {
        let Invocation { ports, settings, worker, .. } = self.invocation;
        let (nonce, at) = (self.invocation.nonce(), ports.clock.now());
        let until = at.checked_add(settings.request_timeout + LEASE_MARGIN).unwrap_or(Timestamp::MAX);
        let claim = Claim { nonce, worker: worker.id.clone(), at, until };
        entry.calls += 1;
        entry.state = State::Claimed(claim.clone());
        entry.written_by = None;
        let etag = match self.write(&mut entry, etag, None, died).await? {
            WriteOutcome::Landed(etag) => etag,
            WriteOutcome::Overtaken(read) => return Ok(ClaimOutcome::NotClaimed(read)),
        };
        if died {
            tracing::warn!("another worker died during a call, which may have been billed");
        }
        let active = ActiveClaim { entry, etag, claim };
        let in_time = ports.clock.now().checked_add(settings.request_timeout).is_ok_and(|end| end < until);
        if in_time && self.invocation.fits(Duration::ZERO) {
            return Ok(ClaimOutcome::Claimed(active));
        }
        self.release(active, |entry| entry.calls -= 1).await?;
        Ok(ClaimOutcome::NotClaimed(self.read().await?))
    }

    /// Releases a claim with its counters, so that a crash from here on is not an unknown outcome.
    pub(super) async fn release(
        &self,
        active: ActiveClaim,
        count: impl FnOnce(&mut Entry),
    ) -> Result<LedgerRead, GenerateError> {
        let (next, outcome) = self.replace(active, count, State::Released).await?;
        Ok(match outcome {
            WriteOutcome::Landed(etag) => LedgerRead::Entry(Some(Versioned { value: next, etag })),
            WriteOutcome::Overtaken(read) => read,
        })
    }

    /// Writes another state over the row's own claim. Also returns the entry as written.
    pub(super) async fn replace(
        &self,
        active: ActiveClaim,
        count: impl FnOnce(&mut Entry),
        state: State,
    ) -> Result<(Entry, WriteOutcome), GenerateError> {
        let mut next = active.entry.clone();
        count(&mut next);
        next.state = state;
        next.written_by = Some(active.claim.nonce.clone());
        let counts = next.unknown > active.entry.unknown;
        let outcome = self.write(&mut next, Some(active.etag), Some(&active.claim), counts).await?;
        Ok((next, outcome))
    }

    /// Writes `next` over the entry that was read as `etag`, or over `own` claim, and finds out whether the write took
    /// effect. While the object is unchanged, the same write is repeated, because the first one may still be in flight: if it
    /// took effect later, it would claim or count without any worker knowing of it. If `counts`, the write counts an unknown
    /// outcome. Its metric is recorded here, where the effect is known, so that metric and ledger agree.
    pub(super) async fn write(
        &self,
        next: &mut Entry,
        etag: Option<Etag>,
        own: Option<&Claim>,
        counts: bool,
    ) -> Result<WriteOutcome, GenerateError> {
        let ports = self.invocation.ports;
        let record = |landed| {
            if counts && landed {
                ports.metrics.record(MetricEvent::OutcomeUnknown);
            }
        };
        let mut precondition = Precondition::unchanged(etag);
        let mut last = None;
        for _ in 0..WRITE_TRIES {
            match storage::write(ports, &self.key, json::to_vec(next).into(), precondition.clone()).await {
                Ok(etag) => {
                    record(true);
                    return Ok(WriteOutcome::Landed(etag));
                }
                // The write did not happen, and no earlier attempt is in doubt.
                Err(error @ (StoreError::Unavailable { .. } | StoreError::Refused { .. })) if last.is_none() => {
                    return Err(error.into());
                }
                Err(error) => last = Some(error),
            }
            let read = match self.read().await {
                Ok(read) => read,
                Err(error) => {
                    last = Some(error);
                    continue;
                }
            };
            match read {
                LedgerRead::Entry(Some(Versioned { value, etag }))
                    if own.is_some_and(|claim| value.is_claimed_by(&claim.nonce)) =>
                {
                    // A worker of another job whose claim had expired may have recorded its outcome there.
                    next.others = value.others;
                    precondition = Precondition::Matches(etag);
                }
                LedgerRead::Entry(Some(Versioned { value, etag })) if value.is_as_written(next) => {
                    record(true);
                    next.others = value.others;
                    return Ok(WriteOutcome::Landed(etag));
                }
                LedgerRead::Entry(Some(Versioned { etag, .. }))
                    if precondition == Precondition::Matches(etag.clone()) => {}
                LedgerRead::Entry(None) if precondition == Precondition::Absent => {}
                read => {
                    if let LedgerRead::Entry(Some(Versioned { value, .. })) = &read {
                        record(value.proves_effect_of(next, own, ports.clock.now()));
                    }
                    return Ok(WriteOutcome::Overtaken(read));
                }
            }
        }
        Err(last.unwrap_or_else(|| not_tried(&self.key)).into())
    }

    /// Records a paid outcome, even if another worker has replaced the claim meanwhile. Returns the outcome that the ledger
    /// then holds, with its counters.
    pub(super) async fn record_outcome(
        &self,
        active: ActiveClaim,
        outcome: &Outcome,
    ) -> Result<PaidOutcome, StoreError> {
        let ports = self.invocation.ports;
        let mut next = active.entry.with_outcome(&self.requester.series, outcome.clone());
        let mut precondition = Precondition::Matches(active.etag);
        let mut last = not_tried(&self.key);
        for tried in 0..WRITE_TRIES {
            match storage::write(ports, &self.key, json::to_vec(&next).into(), precondition.clone()).await {
                Ok(_) => return Ok(PaidOutcome { outcome: outcome.clone(), calls: next.calls, unknown: next.unknown }),
                Err(error @ StoreError::Refused { .. }) => return Err(error),
                Err(StoreError::Unavailable { detail }) => {
                    last = StoreError::Unavailable { detail };
                    tokio::time::sleep(FIRST_WAIT * (1 << tried.min(4))).await;
                }
                Err(error) => last = error,
            }
            match self.read().await {
                Ok(LedgerRead::Entry(Some(Versioned { value: current, etag }))) => {
                    let (job, now) = (&self.message.job, ports.clock.now());
                    if let Some(theirs) = current.outcome_for(job, now, self.invocation.settings.reuse) {
                        return Ok(theirs);
                    }
                    // A worker that considers this claim dead has counted it as unknown. The outcome is known here, so it
                    // is recorded for this job beside that worker's claim.
                    next = current.with_outcome(&self.requester.series, outcome.clone());
                    precondition = Precondition::Matches(etag);
                }
                Ok(LedgerRead::Entry(None)) => precondition = Precondition::Absent,
                Ok(LedgerRead::Unreadable(failure)) => return Err(StoreError::Refused { detail: failure.error }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Adds the kept images to a recorded outcome. This only saves other rows the fetching, so one attempt is enough and a
    /// failed one is not reported.
    pub(super) async fn record_assets(&self, outcome: &Outcome) {
        if let Ok(LedgerRead::Entry(Some(Versioned { value: mut entry, etag }))) = self.read().await
            && matches!(&entry.state, State::Completed(paid) if paid.request_id == outcome.request_id)
        {
            entry.state = State::Completed(outcome.clone());
            let store = &self.invocation.ports.store;
            let recorded = store.put(&self.key, json::to_vec(&entry).into(), Precondition::Matches(etag)).await;
            tracing::debug!(?recorded, "kept images recorded in the ledger");
        }
    }
}

fn not_tried(key: &str) -> StoreError {
    StoreError::Unavailable { detail: format!("no answer to writes of {key}") }
}
