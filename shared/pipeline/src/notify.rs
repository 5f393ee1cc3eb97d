//! What people and machines are told when a job has ended, without asking.

use crate::model::notification::{Notice, Told};
use crate::{
    model::{
        json,
        keys::{self, Catalog, JobId, Manifests},
        summary::Summary,
    },
    ports::{NoticeError, Ports, Precondition, StoreError},
    storage,
};

/// Rounds of one announcement. Each lost round means that somebody else has announced meanwhile.
const ROUNDS: usize = 8;

/// Why nobody has been told for certain. The same call may be made again.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The store did not do as asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The notice is not out.
    #[error(transparent)]
    Notice(#[from] NoticeError),
}

/// Tells subscribers of a job's end, if it has ended and they have not been told so. A death between telling and noting it
/// tells twice.
pub async fn announce(ports: &Ports, catalog: &Catalog, job: &JobId) -> Result<(), AnnounceError> {
    let key = keys::notified(job);
    let mut said = None;
    for _ in 0..ROUNDS {
        // The note before the summary, so that whoever tells something older than is noted loses the write below.
        let seen = storage::read(ports, &key).await?;
        let Some(summary) = storage::read(ports, &Manifests::of(catalog, job).summary()).await? else { return Ok(()) };
        let summary: Option<Summary> = serde_json::from_slice(&summary.bytes).ok();
        let Some(notice) = summary.as_ref().and_then(Notice::of) else { return Ok(()) };
        let told: Option<Told> = seen.as_ref().and_then(|seen| serde_json::from_slice(&seen.bytes).ok());
        let now = Told { status: notice.status };
        if told.as_ref() == Some(&now) && said.as_ref().is_none_or(|said| *said == now) {
            return Ok(());
        }
        ports.notices.publish(&notice).await?;
        tracing::info!(%job, status = ?notice.status, "announced");
        let precondition = Precondition::unchanged(seen.map(|seen| seen.etag));
        match storage::write(ports, &key, json::to_vec(&now).into(), precondition).await {
            Ok(_) => return Ok(()),
            // Somebody has told something meanwhile, perhaps something newer than this: look again.
            Err(StoreError::Conflict { .. } | StoreError::Unknown { .. }) => said = Some(now),
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Unavailable { detail: format!("{key} is being changed by too many at once") }.into())
}
