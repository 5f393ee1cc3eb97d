//! Brings one job up to date: the named parts first, then everything that is made of parts, then its subscribers.

use std::collections::BTreeSet;

use futures::{StreamExt as _, stream};

use crate::{
    merge::{compose::compose, context::Context, part::merge_part},
    model::{
        job::Job,
        keys::{self, JobId},
    },
    notify::{AnnounceError, announce},
    ports::{Ports, StoreError},
    storage::Document,
};

/// Parts of a job that are merged at once.
const PARTS_AT_ONCE: usize = 4;

/// Why a job is not up to date, or its subscribers have not been notified. The same call may be made again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    /// A call of the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Everything is written, but subscribers have not been notified.
    #[error(transparent)]
    Announce(#[from] AnnounceError),
}

/// Reads the job that results belong to. The splitter writes `job.json` before any row is sent.
pub(crate) async fn read_job(ports: &Ports, id: &JobId) -> Result<Job, StoreError> {
    let document = Document::job(id);
    let job = document.read(ports).await?.map(|job| job.value);
    job.ok_or_else(|| StoreError::Refused { detail: format!("results without {}", document.key()) })
}

/// Merges parts of a job, composes the rest, and notifies subscribers if the job has ended.
///
/// If none of the parts is full, the rest cannot have changed, so it is not read unless `anyway`: all but a few of a part's
/// events arrive before the part is full.
pub(crate) async fn merge_job(ports: &Ports, job: &Job, parts: &BTreeSet<u64>, anyway: bool) -> Result<(), MergeError> {
    let context = Context::of(ports, job);
    let wanted = parts.iter().copied().filter(|&part| part < keys::parts(job.rows));
    // All of them, even if one fails: a part that can be written should not wait for its neighbour.
    let merged: Vec<_> =
        stream::iter(wanted).map(|part| merge_part(&context, part)).buffer_unordered(PARTS_AT_ONCE).collect().await;
    let full = merged.iter().any(|part| matches!(part, Ok(true)));
    if !full && !anyway {
        merged.into_iter().collect::<Result<Vec<_>, _>>()?;
        return Ok(());
    }
    let composed = compose(&context).await;
    // Last, so that subscribers find everything, and a notification that fails delays nothing else.
    let announced = if let Ok(true) = composed { announce(ports, &job.catalog, &job.job).await } else { Ok(()) };
    merged.into_iter().collect::<Result<Vec<_>, _>>().and(composed)?;
    Ok(announced?)
}
