//! Looks after what no event has asked for: jobs that do not end.
//!
//! Events of results may be lost, and nothing else would bring such a job to its end. Two listings say which jobs have not
//! been announced; only those cost more.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use crate::{
    merge::{MergeError, merge_job, read_job},
    model::{
        event::Fact,
        job::Job,
        keys::{self, JobId, Manifests},
    },
    ports::{Ports, StoreError},
    storage,
};

/// Time before the deadline at which the sweep stops, so that it can say what is left.
const STOP_BEFORE_DEADLINE: Duration = Duration::from_secs(10);

/// Why the sweep did not bring every job up to date. The next one tries again.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The jobs could not be listed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Some of them had trouble of their own; the log names it.
    #[error("{left} of {open} unfinished jobs are not up to date")]
    Left {
        /// Jobs that could not be brought up to date, or for which there was no time.
        left: usize,
        /// Jobs that have not been announced as ended.
        open: usize,
    },
}

/// Merges every job that has not been announced as ended, as if all its results had just changed.
pub async fn sweep(ports: &Ports, deadline: Timestamp) -> Result<(), SweepError> {
    let open = open_jobs(ports).await?;
    let mut jobs = Vec::with_capacity(open.len());
    for id in &open {
        match read_job(ports, id).await {
            Ok(job) => jobs.push(job),
            Err(error) => tracing::warn!(job = %id, %error, "swept over"),
        }
    }
    let now = ports.clock.now();
    let age = |job: &Job| Duration::try_from(now.duration_since(job.created_at)).unwrap_or_default();
    ports.journal.note(Fact::Swept { oldest: jobs.iter().map(age).max().unwrap_or_default() });
    if !jobs.is_empty() {
        // Begins elsewhere every time, so that a job that takes all the time does not starve those behind it for ever.
        let first = ports.clock.random() as usize % jobs.len();
        jobs.rotate_left(first);
    }
    let mut done = 0;
    for job in &jobs {
        let left = Duration::try_from(deadline.duration_since(ports.clock.now())).unwrap_or_default();
        let Some(left) = left.checked_sub(STOP_BEFORE_DEADLINE) else { break };
        match tokio::time::timeout(left, sweep_job(ports, job)).await {
            Ok(Ok(())) => done += 1,
            Ok(Err(error)) => tracing::warn!(job = %job.job, %error, "not up to date"),
            Err(_) => break,
        }
    }
    tracing::info!(open = open.len(), done, "swept");
    if done == open.len() { Ok(()) } else { Err(SweepError::Left { left: open.len() - done, open: open.len() }) }
}

/// Jobs that have begun and not been announced as ended.
async fn open_jobs(ports: &Ports) -> Result<Vec<JobId>, StoreError> {
    let begun = storage::list(ports, keys::CHECKPOINTS).await?;
    let ended = storage::list(ports, keys::NOTIFIED).await?;
    let ended: BTreeSet<JobId> = ended.iter().filter_map(|marker| keys::job_of_control(&marker.key)).collect();
    let begun = begun.iter().filter_map(|checkpoint| keys::job_of_control(&checkpoint.key));
    Ok(begun.filter(|job| !ended.contains(job)).collect())
}

/// Only parts that have not been written are looked into: a listing each.
async fn sweep_job(ports: &Ports, job: &Job) -> Result<(), MergeError> {
    let files = Manifests::of(&job.catalog, &job.job);
    let written: BTreeSet<String> =
        storage::list(ports, &files.parts()).await?.into_iter().map(|part| part.key).collect();
    let missing = (0..keys::parts(job.rows)).filter(|&part| !written.contains(&files.part(part))).collect();
    merge_job(ports, job, &missing, true).await
}
