//! Composes everything that is made of parts: manifest, `failed.csv`, contact sheet, summary and latest, in this order.
//!
//! The summary is written after the manifest that it names, and `latest.json` after both, so that a reader who starts at
//! either finds what it points to. While parts are missing, only the summary is written, with the counts so far.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use parking_lot::Mutex;

use crate::{
    merge::{
        attempt::{AttemptError, MergeAttempt, attempts, retry_on_conflict},
        context::Context,
        failed_csv::write_failed_csv,
        latest::point_latest,
        part_stream::{add_lines, texts},
        review::write_review,
        snapshot::Snapshot,
    },
    model::{
        etag::Etag,
        event::MetricEvent,
        summary::{Manifest, Summary, Tally},
    },
    ports::StoreError,
    storage::Document,
};

/// Composes a job; `true` if it has ended.
pub(super) async fn compose(context: &Context<'_>) -> Result<bool, StoreError> {
    attempts(|| compose_once(context)).await
}

async fn compose_once(context: &Context<'_>) -> Result<MergeAttempt, AttemptError> {
    let Context { job, files, .. } = context;
    let mut snapshot = Snapshot::take(context).await?;
    if !snapshot.has_all_parts(job.rows) {
        write_running_summary(context, &mut snapshot).await?;
        return Ok(MergeAttempt::Incomplete);
    }
    let from = snapshot.from();
    let status = match snapshot.composed(&from) {
        Some(summary) => summary.status,
        None => {
            let (etag, tally) = write_manifest(context, &snapshot).await.map_err(retry_on_conflict)?;
            let summary = tally.finish(job, Manifest { key: files.manifest(), etag, from });
            write_failed_csv(context, &snapshot, &summary).await.map_err(retry_on_conflict)?;
            write_review(context, &snapshot, &summary).await.map_err(retry_on_conflict)?;
            write_summary(context, &snapshot, &summary).await?;
            record_manifest(context, &snapshot, &summary);
            summary.status
        }
    };
    point_latest(context, &snapshot, status).await.map_err(retry_on_conflict)?;
    Ok(MergeAttempt::Done)
}

/// Writes the summary of a job whose parts do not all exist, if the counts have changed.
async fn write_running_summary(context: &Context<'_>, snapshot: &mut Snapshot) -> Result<(), AttemptError> {
    let counted = snapshot.take_counted().count(context, snapshot.parts()).await;
    let running = counted.map_err(retry_on_conflict)?.so_far(context.job);
    if snapshot.summary() == Some(&running) {
        return Ok(());
    }
    write_summary(context, snapshot, &running).await
}

async fn write_summary(context: &Context<'_>, snapshot: &Snapshot, summary: &Summary) -> Result<(), AttemptError> {
    let document = Document::summary(&context.files);
    document.write(context.ports, summary, snapshot.summary_unchanged()).await.map_err(retry_on_conflict)?;
    Ok(())
}

/// Writes all rows, and counts them while they pass.
async fn write_manifest(context: &Context<'_>, snapshot: &Snapshot) -> Result<(Etag, Tally), StoreError> {
    let Context { ports, files, .. } = context;
    let tally = Mutex::new(Tally::default());
    let counted = |text: Bytes| {
        add_lines(&mut tally.lock(), &text)?;
        Ok(text)
    };
    let body = texts(ports, snapshot.parts()).map(|text| text.and_then(counted));
    let etag = ports.store.put_stream(&files.manifest(), body.boxed(), snapshot.manifest_unchanged()).await?;
    Ok((etag, tally.into_inner()))
}

fn record_manifest(context: &Context<'_>, snapshot: &Snapshot, summary: &Summary) {
    let lag = summary.finished_at.map(|ended| context.ports.clock.now().duration_since(ended));
    let lag = lag.and_then(|lag| Duration::try_from(lag).ok()).unwrap_or_default();
    let first = snapshot.summary().is_none_or(|before| before.manifest.is_none());
    context.ports.metrics.record(MetricEvent::ManifestWritten { lag, first });
}
