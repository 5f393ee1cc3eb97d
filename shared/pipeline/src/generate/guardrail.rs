//! Stops a job in which too many rows fail, before it has spent its budget on failures.
//!
//! Each process counts the rows that it saw end. The queue deals rows out at random, so that is a fair sample. If too many of
//! them failed, the process writes `control/abort/<job>.json`, which all processes read every few seconds. A redrive has a
//! higher round than the abort, and runs.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    model::keys::{self, JobId},
    ports::{Ports, StoreError},
    storage::Document,
};

/// Rows that must have ended before their share of failures means anything.
const MINIMUM_SAMPLE: u32 = 20;
/// The maximum age of what a process knows of a job's abort.
const READ_EVERY: Duration = Duration::from_secs(5);
/// Jobs that a process keeps samples of.
const JOBS: usize = 64;

/// `control/abort/<job>.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    /// No row of a round up to this one is called for.
    pub round: u64,
    /// Why the job was stopped, for people.
    pub reason: String,
}

/// The samples of one process.
pub struct Guardrail {
    max_failed_percent: Option<u8>,
    jobs: Mutex<BTreeMap<JobId, JobSample>>,
}

/// What a process knows of one job.
#[derive(Default, Clone)]
struct JobSample {
    /// The round that is counted.
    round: u64,
    ended: u32,
    failed: u32,
    /// When the abort was read or written last.
    read_at: Option<Instant>,
    abort: Option<Abort>,
}

impl Guardrail {
    /// Without a limit, no job is stopped and nothing is read.
    #[must_use]
    pub fn new(max_failed_percent: Option<u8>) -> Self {
        Self { max_failed_percent, jobs: Mutex::default() }
    }

    /// The abort that forbids calls for rows of this round, if there is one.
    pub async fn stopped(&self, ports: &Ports, job: &JobId, round: u64) -> Result<Option<Abort>, StoreError> {
        if self.max_failed_percent.is_none() {
            return Ok(None);
        }
        let sample = self.with(job, |sample| sample.clone());
        let abort = if sample.read_at.is_some_and(|at| at.elapsed() < READ_EVERY) {
            sample.abort
        } else {
            let abort = document(job).read_or_discard(ports).await?.value;
            self.remember(job, abort.clone());
            abort
        };
        Ok(abort.filter(|abort| round <= abort.round))
    }

    /// Counts a row that has ended after calls of its own, and stops the job if too many have failed.
    pub async fn ended(&self, ports: &Ports, job: &JobId, round: u64, failed: bool) -> Result<(), StoreError> {
        let Some(max) = self.max_failed_percent else { return Ok(()) };
        let (ended, failures) = self.with(job, |sample| {
            if sample.round < round {
                *sample = JobSample { round, ..JobSample::default() };
            }
            sample.ended += 1;
            sample.failed += u32::from(failed);
            (sample.ended, sample.failed)
        });
        if ended < MINIMUM_SAMPLE || u64::from(failures) * 100 <= u64::from(ended) * u64::from(max) {
            return Ok(());
        }
        let abort = Abort { round, reason: format!("{failures} of {ended} rows failed, more than {max} %") };
        let document = document(job);
        let before = document.read_or_discard(ports).await?;
        // An abort of this round or a later one stays as it is, this process's own included.
        let change =
            |current: Option<&Abort>| current.is_none_or(|current| current.round < round).then(|| abort.clone());
        let abort = document.update(ports, before, change).await?;
        self.remember(job, abort);
        Ok(())
    }

    fn remember(&self, job: &JobId, abort: Option<Abort>) {
        self.with(job, |sample| {
            sample.read_at = Some(Instant::now());
            sample.abort = abort;
        });
    }

    fn with<T>(&self, job: &JobId, f: impl FnOnce(&mut JobSample) -> T) -> T {
        let mut jobs = self.jobs.lock();
        if jobs.len() >= JOBS && !jobs.contains_key(job) {
            // A job that is forgotten begins a new sample, and its abort is read again.
            jobs.clear();
        }
        f(jobs.entry(job.clone()).or_default())
    }
}

fn document(job: &JobId) -> Document<Abort> {
    Document::pretty(keys::abort(job))
}
