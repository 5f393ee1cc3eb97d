//! Merges results into parts and manifests: a pure function of what is stored under `results/`.
//!
//! A batch of events names the parts that changed. [`merge`] sorts the events by job; of each job, `job.rs` merges those
//! parts and composes everything that is made of parts. Run twice, late, or by two processes at once, the outputs are the
//! same: each write has the precondition that the object it replaces has not changed since before the merger read what it
//! makes the new one from. A slower merger with older data loses the write, reads again, and sees the newer data.

mod attempt;
mod compose;
mod context;
mod failed_csv;
mod job;
mod latest;
pub(crate) mod part;
mod part_stream;
mod review;
mod snapshot;
pub mod sweep;
pub(crate) mod tally;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    merge::job::{merge_job, read_job},
    model::keys::{JobId, ResultsKey},
    ports::Ports,
};

/// A message of the merge queue: keys under `results/` that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Identity of the message.
    pub id: String,
    /// The keys, decoded. Keys that are not results are ignored.
    pub keys: Vec<String>,
}

/// Brings parts and manifests up to date with what changed, and returns the ids of the messages that must come back. A job
/// that fails sends back only the messages that name it.
pub async fn merge(ports: &Ports, batch: Vec<Changed>) -> Vec<String> {
    let mut jobs: BTreeMap<JobId, (BTreeSet<u64>, bool)> = BTreeMap::new();
    let mut messages: Vec<(String, BTreeSet<JobId>)> = Vec::new();
    for changed in batch {
        let mut named = BTreeSet::new();
        for key in changed.keys.iter().filter_map(|key| ResultsKey::parse(key)) {
            let (ResultsKey::Job(job) | ResultsKey::Row { job, .. }) = &key;
            let (parts, begun) = jobs.entry(job.clone()).or_default();
            match key {
                ResultsKey::Row { part, .. } => _ = parts.insert(part),
                ResultsKey::Job(_) => *begun = true,
            }
            named.insert(job.clone());
        }
        messages.push((changed.id, named));
    }
    let mut failed = BTreeSet::new();
    for (job, (parts, begun)) in jobs {
        let merged = async { merge_job(ports, &read_job(ports, &job).await?, &parts, begun).await };
        if let Err(error) = merged.await {
            tracing::warn!(%job, %error, "not merged; its messages come back");
            failed.insert(job);
        }
    }
    messages.into_iter().filter(|(_, named)| !named.is_disjoint(&failed)).map(|(id, _)| id).collect()
}
