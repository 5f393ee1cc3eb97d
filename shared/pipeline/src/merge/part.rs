//! Merges one part: the results of up to 1,000 consecutive rows, in row order, in one object.
//!
//! The ETag of the part is read before its results are listed, and the write is conditional on it, so that a merger with an
//! older listing cannot replace the part of a newer one. A small provenance document says from which results the part was
//! made: a repeated event costs a listing, not a rewrite.

use std::collections::BTreeMap;

use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};

use crate::{
    merge::{
        attempt::{AttemptError, MergeAttempt, attempts, missing_object, retry_on_conflict},
        context::Context,
        part_stream::digest,
    },
    model::{
        etag::Etag,
        event::MetricEvent,
        keys::{self, ResultsKey},
    },
    ports::{ListedObject, Precondition, StoreError},
    storage::{self, Document},
};

/// Results of a part that are read at once.
const READS_AT_ONCE: usize = 64;

/// `control/merge/<job>/<part>.json`: the results that a part was made from.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartProvenance {
    /// Digest of the listing.
    from: String,
    /// ETag of the part that was written.
    etag: Etag,
}

/// Merges a part; `true` if it is full, and therefore written.
pub(super) async fn merge_part(context: &Context<'_>, part: u64) -> Result<bool, StoreError> {
    attempts(|| merge_part_once(context, part)).await
}

async fn merge_part_once(context: &Context<'_>, part: u64) -> Result<MergeAttempt, AttemptError> {
    let Context { ports, job, files } = context;
    let key = files.part(part);
    let document = Document::compact(keys::part_provenance(&job.job, part));
    // Before the listing: see above.
    let before = storage::etag(ports, &key).await?;
    let listed = storage::list(ports, &keys::part_results(&job.job, part)).await?;
    let results: BTreeMap<u64, &ListedObject> = listed
        .iter()
        .filter_map(|object| match ResultsKey::parse(&object.key)? {
            ResultsKey::Row { row, .. } => Some((row, object)),
            ResultsKey::Job(_) => None,
        })
        .collect();
    if !keys::rows_of_part(part, job.rows).all(|row| results.contains_key(&row)) {
        return Ok(MergeAttempt::Incomplete);
    }
    let from = digest(results.values().copied());
    if let Some(etag) = &before {
        let written = PartProvenance { from: from.clone(), etag: etag.clone() };
        if document.read_or_discard(ports).await?.value == Some(written) {
            return Ok(MergeAttempt::Done);
        }
    }
    let lines = stream::iter(results.into_values())
        .map(|object| async move {
            let line = storage::read(ports, &object.key).await?;
            line.map(|line| line.value).ok_or_else(|| missing_object(&object.key))
        })
        .buffered(READS_AT_ONCE);
    let unchanged = Precondition::unchanged(before);
    let etag = ports.store.put_stream(&key, lines.boxed(), unchanged).await.map_err(retry_on_conflict)?;
    ports.metrics.record(MetricEvent::PartMerged);
    // Without a precondition: it only saves work, and if it is lost, the part is merged once more.
    document.write(ports, &PartProvenance { from, etag }, Precondition::None).await?;
    Ok(MergeAttempt::Done)
}
