//! How far a running job is, counted in the bucket.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use packshot_pipeline::{
    model::{
        etag::Etag,
        keys::{self, JobId, ResultsKey},
        result::RowResult,
        summary::Summary,
    },
    ports::{Ports, StoreError},
    storage,
};
use serde::Serialize;

/// Results read at once.
const READS_AT_ONCE: usize = 32;
/// Of a job with more rows, only whole parts are counted, by its summary: reading every result costs a request each.
const COUNTED_BY_ROW: u64 = 10_000;

/// How far a running job is. Part of what `packshot status --json` prints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct JobProgress {
    /// Rows that have ended.
    pub done: u64,
    /// Ended rows without images.
    pub failed: u64,
    /// Images made.
    pub images: u64,
    /// Only whole parts are counted, because the job is large.
    pub by_part: bool,
}

impl JobProgress {
    /// Explains to people why the count rises in leaps.
    pub(crate) fn caveat(self) -> String {
        if self.by_part { format!(" (in whole parts of {} rows)", keys::ROWS_PER_PART) } else { String::new() }
    }
}

/// Follows a job: reads each result once, however often it polls.
#[derive(Debug, Default)]
pub struct JobFollower {
    /// Row → its result's ETag and, if it is completed, the number of its images.
    results: BTreeMap<u64, (Etag, Option<u64>)>,
}

impl JobFollower {
    /// Reads what has changed since the last time.
    pub async fn poll(
        &mut self,
        ports: &Ports,
        job: &JobId,
        rows: u64,
        summary: Option<&Summary>,
    ) -> Result<JobProgress, StoreError> {
        if rows > COUNTED_BY_ROW {
            let done = summary.map_or(0, |summary| summary.rows_merged);
            let (failed, images) = summary.map_or((0, 0), |summary| (summary.counts.failed, summary.counts.images));
            return Ok(JobProgress { done, failed, images, by_part: true });
        }
        for part in 0..keys::parts(rows) {
            if keys::rows_of_part(part, rows).all(|row| self.results.contains_key(&row)) {
                continue;
            }
            let listed = storage::list(ports, &keys::part_results(job, part)).await?;
            let reads: Vec<_> = listed
                .into_iter()
                .filter_map(|object| match ResultsKey::parse(&object.key)? {
                    ResultsKey::Row { row, .. } => Some((row, object)),
                    ResultsKey::Job(_) => None,
                })
                .filter(|(row, object)| self.results.get(row).is_none_or(|(etag, _)| *etag != object.etag))
                .map(|(row, listed)| async move {
                    let object = storage::read(ports, &listed.key).await?;
                    Ok::<_, StoreError>((row, (listed.etag, object.and_then(|object| images(&object.value)))))
                })
                .collect();
            let new: Vec<_> = stream::iter(reads).buffer_unordered(READS_AT_ONCE).boxed().try_collect().await?;
            self.results.extend(new);
        }
        let completed = || self.results.values().filter_map(|(_, images)| *images);
        let done = self.results.len() as u64;
        Ok(JobProgress { done, failed: done - completed().count() as u64, images: completed().sum(), by_part: false })
    }
}

/// The images of a completed row; `None` for a failed one.
fn images(line: &[u8]) -> Option<u64> {
    match RowResult::read(line) {
        Ok(RowResult::Completed(row)) => Some(row.image_count as u64),
        _ => None,
    }
}
