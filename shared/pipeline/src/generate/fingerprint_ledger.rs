//! The ledger's entry of one fingerprint, as one row reads and changes it.
//!
//! Every write is conditional, so of two workers one loses and reads again. The answer to a write can be lost, and a request
//! that was repeated below the port can meet its own success: [`FingerprintLedger::write`] finds out whether a write took
//! effect before the row goes on.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    disposition::GenerateError,
    failure,
    invocation::{Invocation, LEASE_MARGIN},
};
use crate::{
    ledger::{self, Asker, Claim, Entry, Failure, Outcome, Paid, Series, State},
    model::{error_class::ErrorClass, etag::Etag, event::Fact, json, keys, message::RowMessage},
    ports::{Precondition, StoreError},
    storage::{self, Versioned},
};

/// Tries of one write whose effect must become known, beyond the store's own repeats: nothing is worth more.
const WRITE_TRIES: usize = 8;
/// The first wait after a write of an outcome that did not happen; doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// What a read of the ledger found.
#[expect(clippy::large_enum_variant, reason = "one at a time, for a moment, on the stack")]
pub(super) enum LedgerRead {
    /// The entry, or that there is none.
    Entry(Option<Versioned<Entry>>),
    /// An object that this version does not understand and must not touch, as the failure of the row.
    Unreadable(Failure),
}

/// What came of an attempt to claim.
pub(super) enum ClaimOutcome {
    /// The claim is ours, and a call that starts now ends within its lease and before the deadline.
    Claimed(ActiveClaim),
    /// It is not; the ledger as read afterwards.
    NotClaimed(LedgerRead),
}

/// A live claim of this row.
pub(super) struct ActiveClaim {
    pub(super) entry: Entry,
    etag: Etag,
    claim: Claim,
}

/// What came of a write.
#[expect(clippy::large_enum_variant, reason = "one at a time, for a moment, on the stack")]
pub(super) enum WriteOutcome {
    /// It took effect, and the object has this ETag.
    Landed(Etag),
    /// Another write was first, or followed ours at once; the ledger as read after it.
    Overtaken(LedgerRead),
}

pub(super) struct FingerprintLedger<'a> {
    invocation: Invocation<'a>,
    message: &'a RowMessage,
    asker: Asker,
    key: String,
}

impl<'a> FingerprintLedger<'a> {
    pub(super) fn new(invocation: Invocation<'a>, message: &'a RowMessage) -> Self {
        let asker = Asker {
            series: Series { job: message.job.clone(), round: message.round },
            row: message.row,
            worker: invocation.worker.id.clone(),
        };
        Self { invocation, message, asker, key: keys::ledger(&message.fingerprint) }
    }

    /// On whose behalf this row asks.
    pub(super) fn asker(&self) -> &Asker {
        &self.asker
    }

    /// An entry for a fingerprint that has none.
    pub(super) fn new_entry(&self) -> Entry {
        Entry::new(self.message.fingerprint.clone(), self.asker.series.clone())
    }

    pub(super) async fn read(&self) -> Result<LedgerRead, StoreError> {
        let Some(seen) = storage::read(self.invocation.ports, &self.key).await? else {
            return Ok(LedgerRead::Entry(None));
        };
        let problem = match ledger::read(&seen.bytes) {
            Ok(entry) if entry.fingerprint != self.message.fingerprint => "another fingerprint".to_owned(),
            Ok(entry) => return Ok(LedgerRead::Entry(Some(Versioned { value: entry, etag: seen.etag }))),
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

    /// Writes a claim into `entry`, which was read with this ETag. `died` says that the entry counts the call of a dead
    /// worker. A claim whose write took so long that the call would outlive it is given back.
    pub(super) async fn claim(
        &self,
        mut entry: Entry,
        etag: Option<Etag>,
        died: bool,
    ) -> Result<ClaimOutcome, GenerateError> {
        let Invocation { ports, settings, worker, .. } = self.invocation;
        let (nonce, at) = (format!("{:016x}", ports.clock.random()), ports.clock.now());
        let until = at.checked_add(settings.request_timeout + LEASE_MARGIN).unwrap_or(Timestamp::MAX);
        let claim = Claim { nonce, worker: worker.id.clone(), at, until };
        entry.calls += 1;
        entry.state = State::Claimed(claim.clone());
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

    /// Gives a claim back with its counters, so that a death from here on is not an unknown outcome.
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

    /// Writes another state over our own claim; returns the entry as written.
    pub(super) async fn replace(
        &self,
        active: ActiveClaim,
        count: impl FnOnce(&mut Entry),
        state: State,
    ) -> Result<(Entry, WriteOutcome), GenerateError> {
        let mut next = active.entry.clone();
        count(&mut next);
        next.state = state;
        let counts = next.unknown > active.entry.unknown;
        let outcome = self.write(&mut next, Some(active.etag), Some(&active.claim), counts).await?;
        Ok((next, outcome))
    }

    /// Writes `next` over the entry that was read as `etag`, or over `own` claim, and finds out whether the write took
    /// effect. While the object is as it was, the same write is repeated, because the first may still be under way: left
    /// open, it could claim or count later, when no worker knows of it. A write that `counts` an unknown outcome records the
    /// metric here, where its effect is known, so that the metric counts what the ledger counts.
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
                ports.journal.note(Fact::OutcomeUnknown);
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
                // It did not happen, and no earlier try is in doubt.
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
                    // A worker of another job whose claim looked dead may have recorded its outcome there.
                    next.others = value.others;
                    precondition = Precondition::Matches(etag);
                }
                LedgerRead::Entry(Some(Versioned { value, etag })) if value.begins_as(next) => {
                    record(true);
                    next.others = value.others;
                    return Ok(WriteOutcome::Landed(etag));
                }
                LedgerRead::Entry(Some(Versioned { etag, .. }))
                    if precondition == Precondition::Matches(etag.clone()) => {}
                LedgerRead::Entry(None) if precondition == Precondition::Absent => {}
                read => {
                    if let LedgerRead::Entry(Some(Versioned { value, .. })) = &read {
                        record(value.follows(next, own, ports.clock.now()));
                    }
                    return Ok(WriteOutcome::Overtaken(read));
                }
            }
        }
        Err(last.unwrap_or_else(|| not_tried(&self.key)).into())
    }

    /// Records a paid outcome, whatever happened to the claim meanwhile. Returns the outcome that the ledger holds in the
    /// end, with its counters.
    pub(super) async fn record_outcome(&self, active: ActiveClaim, outcome: &Outcome) -> Result<Paid, StoreError> {
        let ports = self.invocation.ports;
        let mut next = active.entry.with_outcome(&self.asker.series, outcome.clone());
        let mut precondition = Precondition::Matches(active.etag);
        let mut last = not_tried(&self.key);
        for tried in 0..WRITE_TRIES {
            match storage::write(ports, &self.key, json::to_vec(&next).into(), precondition.clone()).await {
                Ok(_) => return Ok(Paid { outcome: outcome.clone(), calls: next.calls, unknown: next.unknown }),
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
                    // A worker that took this claim for dead has counted it. The outcome known here is better than the
                    // one that it is about to learn.
                    next = current.with_outcome(&self.asker.series, outcome.clone());
                    precondition = Precondition::Matches(etag);
                }
                Ok(LedgerRead::Entry(None)) => precondition = Precondition::Absent,
                Ok(LedgerRead::Unreadable(failure)) => return Err(StoreError::Refused { detail: failure.error }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Adds the kept images to a recorded outcome. It only saves another row the fetching, so one try is enough and its loss
    /// is not reported.
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
