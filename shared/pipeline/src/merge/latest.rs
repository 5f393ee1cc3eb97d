//! `latest.json`: points to the newest complete job of a catalog, and never back to an older one.

use crate::{
    merge::{context::Context, snapshot::Snapshot},
    model::summary::{Latest, Status, VERSION},
    ports::StoreError,
    storage::Document,
};

/// Points `latest.json` to this job, unless it points to a newer one. A job without any completed row has nothing to
/// ingest, so nothing points to it.
pub(super) async fn point_latest(context: &Context<'_>, snapshot: &Snapshot, status: Status) -> Result<(), StoreError> {
    let Context { ports, job, files } = context;
    if !matches!(status, Status::Complete | Status::CompleteWithFailures) {
        return Ok(());
    }
    let latest = Latest {
        v: VERSION,
        job: job.job.clone(),
        status,
        manifest: files.manifest(),
        summary: files.summary(),
        dropped_at: job.source.last_modified,
        created_at: job.created_at,
    };
    if snapshot.latest().is_some_and(|current| *current == latest || current.order() > job.order()) {
        return Ok(());
    }
    // As it was before the parts were listed: a slower merger must not replace a newer status of this job with an older one.
    Document::latest(files).write(ports, &latest, snapshot.latest_unchanged()).await?;
    Ok(())
}
