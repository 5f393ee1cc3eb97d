//! Notifies subscribers of the end of a job, at least once for every status that it ends with.
//!
//! `control/notified/<job>.json` records the last status that was published. The notification goes out first and the record
//! is written after it, so a death in between publishes twice and never loses one. The record is read before the summary:
//! if a newer status has been published meanwhile, the write of the older one fails, and the summary is read again.

use crate::{
    model::{
        keys::{Catalog, JobId, Manifests},
        notification::{Notification, NotificationRecord},
    },
    ports::{NotifyError, Ports, StoreError},
    storage::Document,
};

/// Attempts of one announcement. Each lost attempt means that another process has announced meanwhile.
const ATTEMPTS: usize = 8;

/// Why subscribers may not have been notified. The same call may be made again.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The record or the summary could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The notification was not sent.
    #[error(transparent)]
    Notification(#[from] NotifyError),
}

/// Notifies subscribers, if the job has ended and its status has not been published yet.
pub async fn announce(ports: &Ports, catalog: &Catalog, job: &JobId) -> Result<(), AnnounceError> {
    let record = Document::notification_record(job);
    let summary = Document::summary(&Manifests::of(catalog, job));
    let mut published = None;
    for _ in 0..ATTEMPTS {
        let before = record.read_or_discard(ports).await?;
        let summary = summary.read_or_discard(ports).await?.value;
        let Some(notification) = summary.as_ref().and_then(Notification::of) else { return Ok(()) };
        let now = NotificationRecord { status: notification.status };
        // If this process has published another status last, subscribers must hear the current one once more.
        if before.value.as_ref() == Some(&now) && published.as_ref().is_none_or(|last| *last == now) {
            return Ok(());
        }
        ports.notifier.publish(&notification).await?;
        tracing::info!(%job, status = ?notification.status, "announced");
        match record.write(ports, &now, before.unchanged).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Conflict { .. } | StoreError::Unknown { .. }) => published = Some(now),
            Err(error) => return Err(error.into()),
        }
    }
    Err(record.contended().into())
}
