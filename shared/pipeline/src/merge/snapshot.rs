//! What a composition replaces and what it is made of, read in the only order in which its preconditions hold.
//!
//! Everything that the composition will replace is read **before** the parts are listed, and each write is conditional on
//! what was read. So if a part changes after the listing and another merger composes it first, the write of this one fails,
//! because the object it would replace is no longer the one that was read. With the listing first, a slow merger could read
//! the newer merger's objects and then replace them with its older data.
//!
//! [`Snapshot::take`] is the only way to obtain a precondition, so no other file can break this order.

use std::collections::BTreeMap;

use crate::{
    merge::{context::Context, part_stream::digest, tally::RunningTally},
    model::{
        etag::Etag,
        keys,
        summary::{Latest, Summary},
    },
    ports::{ListedObject, Precondition, StoreError},
    storage::{self, Current, Document},
};

/// The state of a job's files at the beginning of a composition.
pub(super) struct Snapshot {
    summary: Current<Summary>,
    latest: Current<Latest>,
    failed_csv: Option<Etag>,
    manifest: Option<Etag>,
    reviews: BTreeMap<String, Etag>,
    counted: RunningTally,
    /// Read last: see above.
    parts: Vec<ListedObject>,
}

impl Snapshot {
    /// Reads what will be replaced, then lists the parts.
    pub(super) async fn take(context: &Context<'_>) -> Result<Self, StoreError> {
        let Context { ports, job, files } = context;
        let summary = Document::summary(files).read_or_discard(ports).await?;
        let latest = Document::latest(files).read_or_discard(ports).await?;
        let failed_csv = storage::etag(ports, &files.failed_csv()).await?;
        let manifest = storage::etag(ports, &files.manifest()).await?;
        let reviews = storage::list(ports, &files.reviews()).await?;
        let counted = RunningTally::document(&job.job).read_or_discard(ports).await?.value.unwrap_or_default();
        let parts = storage::list(ports, &files.parts()).await?;
        let reviews = reviews.into_iter().map(|page| (page.key, page.etag)).collect();
        Ok(Self { summary, latest, failed_csv, manifest, reviews, counted, parts })
    }

    /// The parts that exist, in row order.
    pub(super) fn parts(&self) -> &[ListedObject] {
        &self.parts
    }

    /// Whether all parts of a job of `rows` rows exist.
    pub(super) fn has_all_parts(&self, rows: u64) -> bool {
        self.parts.len() as u64 >= keys::parts(rows)
    }

    /// Identity of the parts, which the summary names as the origin of the manifest.
    pub(super) fn from(&self) -> String {
        digest(&self.parts)
    }

    /// The summary that exists.
    pub(super) fn summary(&self) -> Option<&Summary> {
        self.summary.value.as_ref()
    }

    /// The summary that exists, if its manifest was made from the parts `from` and exists unchanged.
    pub(super) fn composed(&self, from: &str) -> Option<&Summary> {
        let summary = self.summary()?;
        let manifest = summary.manifest.as_ref()?;
        (manifest.from == from && Some(&manifest.etag) == self.manifest.as_ref()).then_some(summary)
    }

    /// What was counted when the job was last composed.
    pub(super) fn take_counted(&mut self) -> RunningTally {
        std::mem::take(&mut self.counted)
    }

    /// `latest.json` as it exists.
    pub(super) fn latest(&self) -> Option<&Latest> {
        self.latest.value.as_ref()
    }

    /// The precondition for `summary.json`.
    pub(super) fn summary_unchanged(&self) -> Precondition {
        self.summary.unchanged.clone()
    }

    /// The precondition for `latest.json`.
    pub(super) fn latest_unchanged(&self) -> Precondition {
        self.latest.unchanged.clone()
    }

    /// The precondition for `failed.csv`.
    pub(super) fn failed_csv_unchanged(&self) -> Precondition {
        Precondition::unchanged(self.failed_csv.clone())
    }

    /// The precondition for `manifest.jsonl`.
    pub(super) fn manifest_unchanged(&self) -> Precondition {
        Precondition::unchanged(self.manifest.clone())
    }

    /// The precondition for one page of the contact sheet.
    pub(super) fn review_unchanged(&self, key: &str) -> Precondition {
        Precondition::unchanged(self.reviews.get(key).cloned())
    }
}
