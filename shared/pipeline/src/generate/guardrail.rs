//! Stops a job that mostly fails, before it has spent its budget on failures.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    model::{
        json,
        keys::{self, JobId},
    },
    ports::{Ports, StoreError},
    storage,
};

/// Rows that must have ended before a share means anything.
const MINIMUM_SAMPLE: u32 = 20;
/// How old a look at a job's marker may be.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Jobs that a process keeps in mind.
const JOBS: usize = 64;

/// `control/abort/<job>.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    /// Rounds up to this one are not called for; a redrive has a higher one.
    pub round: u64,
    /// Why, for people.
    pub reason: String,
}

/// A process's view of its jobs. Each process judges by the rows that it saw; since the queue deals rows out at random,
/// that is a fair sample.
pub struct Guardrail {
    max_failed_percent: Option<u8>,
    jobs: Mutex<BTreeMap<JobId, Seen>>,
}

#[derive(Default, Clone)]
struct Seen {
    round: u64,
    ended: u32,
    failed: u32,
    looked: Option<Instant>,
    abort: Option<Abort>,
}

impl Guardrail {
    /// Never stops a job when absent.
    #[must_use]
    pub fn new(max_failed_percent: Option<u8>) -> Self {
        Self { max_failed_percent, jobs: Mutex::default() }
    }

    /// Why a job's rows of this round must not be called for, if so.
    pub async fn stopped(&self, ports: &Ports, job: &JobId, round: u64) -> Result<Option<Abort>, StoreError> {
        if self.max_failed_percent.is_none() {
            return Ok(None);
        }
        let seen = self.with(job, |seen| seen.clone());
        let abort = if seen.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            seen.abort
        } else {
            let read = storage::read(ports, &keys::abort(job)).await?;
            let abort = read.and_then(|read| serde_json::from_slice(&read.bytes).ok());
            self.with(job, |seen| {
                seen.looked = Some(Instant::now());
                seen.abort.clone_from(&abort);
            });
            abort
        };
        Ok(abort.filter(|abort| round <= abort.round))
    }

    /// A row has ended after calls of its own.
    pub async fn ended(&self, ports: &Ports, job: &JobId, round: u64, failed: bool) -> Result<(), StoreError> {
        let Some(max) = self.max_failed_percent else { return Ok(()) };
        let (ended, failures) = self.with(job, |seen| {
            if seen.round < round {
                *seen = Seen { round, ..Seen::default() };
            }
            seen.ended += 1;
            seen.failed += u32::from(failed);
            (seen.ended, seen.failed)
        });
        if ended < MINIMUM_SAMPLE || u64::from(failures) * 100 <= u64::from(ended) * u64::from(max) {
            return Ok(());
        }
        let reason = format!("{failures} of {ended} rows failed, more than {max} %");
        let key = keys::abort(job);
        let mut marker = None;
        storage::update(ports, &key, storage::read(ports, &key).await?, |bytes| {
            let before: Option<Abort> = bytes.and_then(|bytes| serde_json::from_slice(bytes).ok());
            if let Some(before) = before.filter(|before| before.round >= round) {
                marker = Some(before);
                return None;
            }
            marker = Some(Abort { round, reason: reason.clone() });
            marker.as_ref().map(json::to_pretty)
        })
        .await?;
        self.with(job, |seen| {
            seen.looked = Some(Instant::now());
            seen.abort = marker;
        });
        Ok(())
    }

    fn with<T>(&self, job: &JobId, f: impl FnOnce(&mut Seen) -> T) -> T {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.len() >= JOBS && !jobs.contains_key(job) {
            // Whatever is forgotten begins a new sample and looks at the marker again.
            jobs.clear();
        }
        f(jobs.entry(job.clone()).or_default())
    }
}
