//! What the oracle has seen of one job.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use jiff::Timestamp;
use packshot_pipeline::model::{
    etag::Etag,
    job::Job,
    keys::Catalog,
    notification::Notification,
    result::RowResult,
    summary::{Status, Summary},
};

use crate::uploads::Expected;

/// The versions of each row's result, the newest last.
pub(super) type ResultVersions = BTreeMap<u64, Vec<(Bytes, RowResult)>>;

/// The numbers of completed and of failed rows.
pub(super) type Counts = (u64, u64);

pub(super) struct JobRecord {
    pub(super) catalog: Catalog,
    pub(super) expected: Expected,
    pub(super) uploaded_at: Timestamp,
    /// `job.json`.
    pub(super) created: Option<Job>,
    pub(super) results: ResultVersions,
    /// Rows that a reader of some version of the manifest has seen completed.
    pub(super) completed_in_manifest: BTreeSet<u64>,
    /// The same of the parts, which are ahead of the manifest.
    pub(super) completed_in_parts: BTreeSet<u64>,
    /// The counts of every version of each part.
    pub(super) parts: BTreeMap<u64, BTreeSet<Counts>>,
    /// The counts of every version of the manifest, by its ETag.
    pub(super) manifests: BTreeMap<String, Counts>,
    pub(super) manifest: Option<(Etag, Bytes)>,
    pub(super) failed_csv: Option<Bytes>,
    /// The newest version of each review page.
    pub(super) review: BTreeMap<u64, Bytes>,
    pub(super) summary: Option<Summary>,
    /// The notifications that may be sent: one for each end that the job has had.
    pub(super) allowed_notifications: Vec<Notification>,
    /// The status in each notification that was sent, the newest last.
    pub(super) notified: Vec<Status>,
}

impl JobRecord {
    pub(super) fn new(catalog: Catalog, expected: Expected, at: Timestamp) -> Self {
        Self {
            catalog,
            expected,
            // The bucket keeps no fractions of a second.
            uploaded_at: Timestamp::from_second(at.as_second()).unwrap_or(at),
            created: None,
            results: BTreeMap::new(),
            completed_in_manifest: BTreeSet::new(),
            completed_in_parts: BTreeSet::new(),
            parts: BTreeMap::new(),
            manifests: BTreeMap::new(),
            manifest: None,
            failed_csv: None,
            review: BTreeMap::new(),
            summary: None,
            allowed_notifications: Vec::new(),
            notified: Vec::new(),
        }
    }

    /// The newest result of each row.
    pub(super) fn newest_results(&self) -> impl Iterator<Item = (u64, &Bytes, &RowResult)> {
        self.results.iter().filter_map(|(row, versions)| versions.last().map(|(bytes, result)| (*row, bytes, result)))
    }
}
