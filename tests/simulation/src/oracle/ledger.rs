//! Promise 2: no fingerprint is paid for twice while its outcome is known; every unknown outcome is counted and bounded.
//!
//! Compares the entries that are written with the API's own account of its calls.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use packshot_pipeline::{
    ledger::{Entry, Outcome, State},
    model::{keys::JobId, request::Fingerprint},
    settings::GenerateSettings,
};

use super::check::{Check, parse, require};

/// What the API did, in sum.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ApiCounts {
    pub(crate) calls: u64,
    pub(crate) billed: u64,
    /// Unknown outcomes that the ledger counted.
    pub(crate) unknown: u64,
}

#[derive(Default)]
pub(super) struct LedgerRecord {
    fingerprints: BTreeMap<Fingerprint, FingerprintRecord>,
    pub(super) counts: ApiCounts,
}

#[derive(Default)]
struct FingerprintRecord {
    entry: Option<Entry>,
    /// Claims since the last call.
    claims: u32,
    in_flight: u32,
    billed: u32,
    /// Calls that ended without a usable answer.
    lost: u32,
    /// Jobs that regenerated an outcome which could no longer be reused.
    renewed_by: BTreeSet<JobId>,
    /// Unknown outcomes that the ledger counted, in sum and by job and round.
    counted: u32,
    counted_by_round: BTreeMap<(JobId, u64), u32>,
    /// Jobs that paid for an outcome.
    owners: BTreeSet<JobId>,
    request_ids: BTreeSet<String>,
}

impl LedgerRecord {
    pub(super) fn wrote(&mut self, settings: &GenerateSettings, key: &str, bytes: &[u8], now: Timestamp) -> Check {
        let entry: Entry = parse(key, bytes)?;
        let fp = entry.fingerprint.clone();
        let record = self.fingerprints.entry(fp.clone()).or_default();
        let within = record.count_unknown(&entry, settings, &mut self.counts);
        let (old, new) = (record.entry.as_ref().map(outcomes).unwrap_or_default(), outcomes(&entry));
        let forgotten = old.iter().find(|old| new.iter().all(|new| new.request_id != old.request_id));
        let mut legal = require(forgotten.is_none(), || format!("{fp}: a paid outcome was forgotten"));
        record.owners.extend(new.iter().map(|outcome| outcome.job.clone()));
        if let State::Claimed(claim) = &entry.state
            && !record.entry.as_ref().is_some_and(|before| before.is_claimed_by(&claim.nonce))
        {
            record.claims += 1;
            let reuse = SignedDuration::try_from(settings.reuse).unwrap_or(SignedDuration::MAX);
            let job = &entry.series.job;
            let fresh = old.iter().any(|old| now.duration_since(old.completed_at) < reuse);
            legal = legal.and(require(!fresh && !record.owners.contains(job), || {
                format!("{fp}: claimed for job {job} though a paid outcome can be reused")
            }));
            if !old.is_empty() {
                record.renewed_by.insert(job.clone());
            }
        }
        record.entry = Some(entry);
        legal.and(within)
    }

    pub(super) fn call_begins(
        &mut self,
        settings: &GenerateSettings,
        fp: &Fingerprint,
        now: Timestamp,
        deadline: Timestamp,
    ) -> Check {
        let record = self.fingerprints.entry(fp.clone()).or_default();
        record.in_flight += 1;
        require(record.in_flight == 1, || format!("{fp}: two calls at once"))?;
        require(record.claims > 0, || format!("{fp}: a call without a claim"))?;
        record.claims = 0;
        let FingerprintRecord { lost, counted, .. } = record;
        require(lost <= counted, || {
            format!("{fp}: called again after {lost} unknown outcomes, of which {counted} are counted")
        })?;
        let ends = now.checked_add(settings.request_timeout).unwrap_or(Timestamp::MAX);
        require(ends <= deadline, || format!("{fp}: a call began at {now} that may end after the deadline {deadline}"))
    }

    pub(super) fn call_ends(&mut self, fp: &Fingerprint, lost: bool) {
        let record = self.fingerprints.entry(fp.clone()).or_default();
        record.in_flight = record.in_flight.saturating_sub(1);
        record.lost += u32::from(lost);
    }

    pub(super) fn billed(&mut self, fp: &Fingerprint, request_id: &str) -> Check {
        self.counts.billed += 1;
        let record = self.fingerprints.entry(fp.clone()).or_default();
        record.request_ids.insert(request_id.to_owned());
        record.billed += 1;
        let allowed = 1 + record.renewed_by.len() as u32 + record.counted;
        let billed = record.billed;
        require(billed <= allowed, || format!("{fp}: billed {billed} times where {allowed} are accounted for"))
    }

    /// Whether a call for this fingerprint with this id was billed.
    pub(super) fn was_billed(&self, fp: &Fingerprint, request_id: &str) -> bool {
        self.fingerprints.get(fp).is_some_and(|record| record.request_ids.contains(request_id))
    }
}

impl FingerprintRecord {
    /// Adds the unknown outcomes that a new entry counts beyond the previous one. Each round of a job has a limit.
    fn count_unknown(&mut self, entry: &Entry, settings: &GenerateSettings, counts: &mut ApiCounts) -> Check {
        let limit = settings.unknown_outcome_retries + 1;
        let mut within = Ok(());
        for scope in std::iter::once(&entry.series).chain(entry.others.iter().map(|other| &other.series)) {
            let old = self.entry.as_ref().and_then(|before| unknown(before, &scope.job)).unwrap_or_default();
            let counted = unknown(entry, &scope.job).unwrap_or_default().saturating_sub(old);
            self.counted += counted;
            counts.unknown += u64::from(counted);
            let by_round = self.counted_by_round.entry((scope.job.clone(), scope.round)).or_default();
            *by_round += counted;
            within = within.and(require(*by_round <= limit, || {
                let fp = &entry.fingerprint;
                format!("{fp}: scope {scope:?} has {by_round} unknown outcomes, {limit} are allowed")
            }));
        }
        within
    }
}

/// The unknown outcomes that an entry counts for a job.
fn unknown(entry: &Entry, job: &JobId) -> Option<u32> {
    let others = entry.others.iter().map(|other| (&other.series, other.unknown));
    let mut entries = std::iter::once((&entry.series, entry.unknown)).chain(others);
    entries.find(|(scope, _)| scope.job == *job).map(|(_, unknown)| unknown)
}

/// The paid outcomes that an entry remembers, of all jobs.
fn outcomes(entry: &Entry) -> Vec<Outcome> {
    let states = std::iter::once(&entry.state).chain(entry.others.iter().map(|other| &other.state));
    let paid = states.filter_map(|state| if let State::Completed(outcome) = state { Some(outcome) } else { None });
    paid.cloned().collect()
}
