//! Results in, manifest out: a pure function of what stands under `results/`.
//!
//! Run it twice, late, or by two at once: each write has the precondition that what it replaces is what was there before
//! the reading began, so a slower merger with older data loses, begins again, and sees the newer data.

mod review;
pub mod sweep;

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, future, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    merge::review::{PER_PAGE, Review},
    model::{
        etag::Etag,
        event::MetricEvent,
        job::Job,
        json,
        keys::{self, JobId, Manifests, ResultsKey},
        result::RowResult,
        spreadsheet::{ERROR_COLUMNS, defuse, own_columns},
        summary::{Counts, Latest, Manifest, Status, Summary, Tally, VERSION},
    },
    notify::{AnnounceError, announce},
    ports::{ListedObject, Ports, Precondition, StoreError},
    storage::{self, Seen, repeat_read},
};

/// Results of a part that are read at once.
const READS_AT_ONCE: usize = 64;
/// Parts of a job that are merged at once.
const PARTS_AT_ONCE: usize = 4;
/// Parts that are read ahead while something is made of them.
const PARTS_AHEAD: usize = 2;
/// Rounds of one composition. Each lost round means that newer data came in between.
const ROUNDS: u32 = 12;

/// A message of the merge queue: keys under `results/` that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Identity of the message.
    pub id: String,
    /// The keys, decoded. Keys that are not results are passed over.
    pub keys: Vec<String>,
}

/// Brings parts and manifests up to date with what changed, and returns the ids of the messages that must come back.
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

/// Why a job is not up to date, or nobody has been told that it is. The same may be tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    /// The store did not do as asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Everything is written, and subscribers have not been told.
    #[error(transparent)]
    Announce(#[from] AnnounceError),
}

pub(crate) async fn read_job(ports: &Ports, id: &JobId) -> Result<Job, StoreError> {
    let key = keys::job(id);
    let Some(seen) = storage::read(ports, &key).await? else {
        return Err(StoreError::Refused { detail: format!("results without {key}") });
    };
    serde_json::from_slice(&seen.bytes).map_err(|error| StoreError::Refused { detail: format!("{key}: {error}") })
}

/// Brings parts of a job up to date, then everything that is made of parts, and tells subscribers if that ends the job.
/// Where none of the parts is full there is nothing new for the rest, so it is not looked at, unless `anyway`: of the events
/// of a part all but a few come before it is full.
pub(crate) async fn merge_job(ports: &Ports, job: &Job, parts: &BTreeSet<u64>, anyway: bool) -> Result<(), MergeError> {
    let merger = Merger { ports, job, files: Manifests::of(&job.catalog, &job.job) };
    let wanted = parts.iter().copied().filter(|&part| part < keys::parts(job.rows));
    // All of them, even if one fails: a part that can be written should not wait for its neighbour.
    let merged: Vec<_> =
        stream::iter(wanted).map(|part| merger.merge_part(part)).buffer_unordered(PARTS_AT_ONCE).collect().await;
    let full = merged.iter().any(|part| matches!(part, Ok(true)));
    if !full && !anyway {
        merged.into_iter().collect::<Result<Vec<_>, _>>()?;
        return Ok(());
    }
    let composed = merger.compose().await;
    // Last, so that whoever is told finds everything, and trouble with the telling holds up nothing.
    let announced = if let Ok(true) = composed { announce(ports, &job.catalog, &job.job).await } else { Ok(()) };
    merged.into_iter().collect::<Result<Vec<_>, _>>().and(composed)?;
    Ok(announced?)
}

/// `control/merge/<job>/<part>.json`: from which results a part was made, so that a repeated event costs a listing and
/// not a rewritten manifest.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    /// Digest of the listing.
    from: String,
    /// The part that was written.
    etag: Etag,
}

/// `control/merge/<job>/so-far.json`: what has been counted while rows are still out, so that each part is read once for
/// it. It names what it counts, so it is true whoever wrote it last.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct SoFar {
    /// The counted parts as they were.
    parts: BTreeMap<String, Etag>,
    tally: Tally,
}

struct Merger<'a> {
    ports: &'a Ports,
    job: &'a Job,
    files: Manifests,
}

/// Whether a round reached its end.
enum Round {
    Done,
    /// Rows are missing.
    Early,
    /// Something changed meanwhile, or an answer was lost.
    Again,
}

impl Merger<'_> {
    /// Whether the part is full, and therefore written.
    async fn merge_part(&self, part: u64) -> Result<bool, StoreError> {
        rounds(|| self.merge_part_once(part)).await
    }

    async fn merge_part_once(&self, part: u64) -> Result<Round, StoreError> {
        let key = self.files.part(part);
        let made_key = keys::made(&self.job.job, part);
        let before = repeat_read(self.ports, || self.ports.store.head(&key)).await?.map(|meta| meta.etag);
        let listed = storage::list(self.ports, &keys::part_results(&self.job.job, part)).await?;
        let results: BTreeMap<u64, &ListedObject> = listed
            .iter()
            .filter_map(|object| match ResultsKey::parse(&object.key)? {
                ResultsKey::Row { row, .. } => Some((row, object)),
                ResultsKey::Job(_) => None,
            })
            .collect();
        if !keys::rows_of_part(part, self.job.rows).all(|row| results.contains_key(&row)) {
            return Ok(Round::Early);
        }
        let from = digest(results.values().copied());
        if let Some(etag) = &before
            && let Some(seen) = storage::read(self.ports, &made_key).await?
            && serde_json::from_slice(&seen.bytes).ok() == Some(Made { from: from.clone(), etag: etag.clone() })
        {
            return Ok(Round::Done);
        }
        let lines = stream::iter(results.into_values())
            .map(|object| async move {
                let seen = storage::read(self.ports, &object.key).await?;
                seen.map(|seen| seen.bytes).ok_or_else(|| gone(&object.key))
            })
            .buffered(READS_AT_ONCE);
        let precondition = Precondition::unchanged(before);
        let etag = match self.ports.store.put_stream(&key, lines.boxed(), precondition).await {
            Ok(etag) => etag,
            Err(error) => return again(error),
        };
        self.ports.metrics.record(MetricEvent::PartMerged);
        // Only saves work; a lost one is made up for by merging the part once more.
        let made = json::to_vec(&Made { from, etag }).into();
        storage::write(self.ports, &made_key, made, Precondition::None).await?;
        Ok(Round::Done)
    }

    /// Whether the job has ended.
    async fn compose(&self) -> Result<bool, StoreError> {
        rounds(|| self.compose_once()).await
    }

    /// Writes manifest, `failed.csv`, review, summary and latest, in this order, if all parts are there.
    async fn compose_once(&self) -> Result<Round, StoreError> {
        let store = &self.ports.store;
        // What will be replaced is looked at before what it is made from, and so is what has been counted.
        let summary_key = self.files.summary();
        let seen = storage::read(self.ports, &summary_key).await?;
        let latest = storage::read(self.ports, &self.files.latest()).await?;
        let etag_of = async |key: &str| {
            let meta = repeat_read(self.ports, || store.head(key)).await?;
            Ok::<_, StoreError>(meta.map(|meta| meta.etag))
        };
        let failed_before = etag_of(&self.files.failed_csv()).await?;
        let manifest_before = etag_of(&self.files.manifest()).await?;
        let reviews_before = storage::list(self.ports, &self.files.reviews()).await?;
        let so_far = storage::read(self.ports, &keys::so_far(&self.job.job)).await?;
        let parts = storage::list(self.ports, &self.files.parts()).await?;
        let standing: Option<Summary> = seen.as_ref().and_then(|seen| serde_json::from_slice(&seen.bytes).ok());
        let precondition = Precondition::unchanged(seen.map(|seen| seen.etag));
        let expected = keys::parts(self.job.rows);
        if (parts.len() as u64) < expected {
            let running = match self.count(so_far, &parts).await {
                Ok(tally) => tally.so_far(self.job),
                Err(error) => return again(error),
            };
            if standing.as_ref() == Some(&running) {
                return Ok(Round::Early);
            }
            return match self.put_summary(&summary_key, &running, precondition).await? {
                Round::Done => Ok(Round::Early),
                unfinished => Ok(unfinished),
            };
        }
        let from = digest(&parts);
        if let Some(summary) = &standing
            && let Some(manifest) = &summary.manifest
            && manifest.from == from
            && Some(&manifest.etag) == manifest_before.as_ref()
        {
            return self.point_latest(latest, summary.status).await;
        }
        let manifest_key = self.files.manifest();
        let written = self.write_manifest(&manifest_key, &parts, Precondition::unchanged(manifest_before)).await;
        let (etag, tally) = match written {
            Ok(written) => written,
            Err(error) => return again(error),
        };
        let summary = tally.finish(self.job, Manifest { key: manifest_key, etag, from });
        let status = summary.status;
        if let Err(error) = self.write_failed(&parts, &summary, Precondition::unchanged(failed_before)).await {
            return again(error);
        }
        if let Err(error) = self.write_review(&parts, &summary, reviews_before).await {
            return again(error);
        }
        match self.put_summary(&summary_key, &summary, precondition).await? {
            unfinished @ (Round::Early | Round::Again) => Ok(unfinished),
            Round::Done => {
                let lag = summary.finished_at.map(|ended| self.ports.clock.now().duration_since(ended));
                let lag = lag.and_then(|lag| Duration::try_from(lag).ok()).unwrap_or_default();
                let first = standing.is_none_or(|before| before.manifest.is_none());
                self.ports.metrics.record(MetricEvent::ManifestWritten { lag, first });
                self.point_latest(latest, status).await
            }
        }
    }

    async fn put_summary(&self, key: &str, summary: &Summary, condition: Precondition) -> Result<Round, StoreError> {
        match storage::write(self.ports, key, json::to_pretty(summary).into(), condition).await {
            Ok(_) => Ok(Round::Done),
            Err(error) => again(error),
        }
    }

    /// Counts the rows of these parts, of which it reads those that have not been counted.
    async fn count(&self, before: Option<Seen>, parts: &[ListedObject]) -> Result<Tally, StoreError> {
        let before: SoFar = before.and_then(|seen| serde_json::from_slice(&seen.bytes).ok()).unwrap_or_default();
        let listed: BTreeMap<_, _> = parts.iter().map(|part| (part.key.clone(), part.etag.clone())).collect();
        if before.parts == listed {
            return Ok(before.tally);
        }
        // What has been counted cannot be taken out of a sum, so where a part has changed, all are counted anew.
        let unchanged = before.parts.iter().all(|(key, etag)| listed.get(key) == Some(etag));
        let SoFar { parts: counted, mut tally } = if unchanged { before } else { SoFar::default() };
        let new: Vec<_> = parts.iter().filter(|part| !counted.contains_key(&part.key)).cloned().collect();
        let mut texts = pin!(self.texts(&new));
        while let Some(text) = texts.try_next().await? {
            add_lines(&mut tally, &text)?;
        }
        // Only saves work; a lost one is made up for by counting once more.
        let so_far = SoFar { parts: listed, tally };
        let body = json::to_vec(&so_far).into();
        storage::write(self.ports, &keys::so_far(&self.job.job), body, Precondition::None).await?;
        Ok(so_far.tally)
    }

    /// The text of each part as it was listed; a part that has changed since ends the round.
    fn texts<'s>(&'s self, parts: &'s [ListedObject]) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + 's {
        let text = move |part: &'s ListedObject| async move {
            let opened = repeat_read(self.ports, || self.ports.store.open(&part.key, None)).await?;
            let object = opened.ok_or_else(|| gone(&part.key))?;
            if object.meta.etag != part.etag {
                return Err(StoreError::Conflict { key: part.key.clone() });
            }
            let chunks: Vec<Bytes> = object.body.try_collect().await?;
            Ok(Bytes::from(chunks.concat()))
        };
        stream::iter(parts).map(text).buffered(PARTS_AHEAD)
    }

    /// The failed rows or the completed ones, in row order; where there are none, no part is read.
    fn rows<'s>(
        &'s self,
        failed: bool,
        parts: &'s [ListedObject],
        counts: &Counts,
    ) -> impl Stream<Item = Result<RowResult, StoreError>> + Send + 's {
        let count = if failed { counts.failed } else { counts.completed };
        let rows = move |text: Bytes| {
            let rows: Vec<_> = lines(&text).filter_map(|line| RowResult::read_if(failed, line)).map(Ok).collect();
            stream::iter(rows)
        };
        self.texts(if count > 0 { parts } else { &[] }).map_ok(rows).try_flatten()
    }

    /// Writes all rows, and counts them on the way.
    async fn write_manifest(
        &self,
        key: &str,
        parts: &[ListedObject],
        precondition: Precondition,
    ) -> Result<(Etag, Tally), StoreError> {
        let tally = Mutex::new(Tally::default());
        let counted = |text: Bytes| {
            add_lines(&mut tally.lock().unwrap_or_else(PoisonError::into_inner), &text)?;
            Ok(text)
        };
        let body = self.texts(parts).map(|text| text.and_then(counted));
        let etag = self.ports.store.put_stream(key, body.boxed(), precondition).await?;
        Ok((etag, tally.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Writes the failed rows with their original columns.
    async fn write_failed(
        &self,
        parts: &[ListedObject],
        summary: &Summary,
        precondition: Precondition,
    ) -> Result<Etag, StoreError> {
        let header = self.csv_line(own_columns(&self.job.columns).chain(ERROR_COLUMNS));
        let rows = self.rows(true, parts, &summary.counts).map_ok(|row| self.failed_row(&row).into());
        let body = stream::once(future::ready(Ok(Bytes::from(header)))).chain(rows);
        self.ports.store.put_stream(&self.files.failed_csv(), body.boxed(), precondition).await
    }

    /// Writes the contact sheet. Failures come first, so the parts are read twice rather than kept.
    async fn write_review(
        &self,
        parts: &[ListedObject],
        summary: &Summary,
        before: Vec<ListedObject>,
    ) -> Result<(), StoreError> {
        let mut before: BTreeMap<String, Etag> = before.into_iter().map(|page| (page.key, page.etag)).collect();
        let review = Review::new(self.job, summary);
        let rows = |failed| self.rows(failed, parts, &summary.counts);
        let mut cards = rows(true).chain(rows(false)).map_ok(|row| Bytes::from(review.card(&row))).boxed();
        for page in 1..=review.pages() {
            let key = self.files.review(page);
            let precondition = Precondition::unchanged(before.remove(&key));
            let end = |html: String| stream::once(future::ready(Ok(Bytes::from(html))));
            let body = end(review.head()).chain(cards.by_ref().take(PER_PAGE as usize)).chain(end(review.foot(page)));
            self.ports.store.put_stream(&key, body.boxed(), precondition).await?;
        }
        Ok(())
    }

    fn failed_row(&self, result: &RowResult) -> Vec<u8> {
        let RowResult::Failed(row) = result else { return Vec::new() };
        let field = |name: &str| row.input.get(name).and_then(|value| value.as_str()).unwrap_or("");
        self.csv_line(own_columns(&self.job.columns).map(field).chain([row.error_code.as_str(), row.error.as_str()]))
    }

    fn csv_line<'f>(&self, fields: impl Iterator<Item = &'f str>) -> Vec<u8> {
        let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
        // Writing to memory cannot fail.
        let _ = writer.write_record(fields.map(|field| defuse(field).into_owned()));
        writer.into_inner().unwrap_or_default()
    }

    /// Points `latest.json` here, unless it points to a newer job. A job without any completed row is nothing to ingest.
    async fn point_latest(&self, seen: Option<Seen>, status: Status) -> Result<Round, StoreError> {
        if !matches!(status, Status::Complete | Status::CompleteWithFailures) {
            return Ok(Round::Done);
        }
        let latest = Latest {
            v: VERSION,
            job: self.job.job.clone(),
            status,
            manifest: self.files.manifest(),
            summary: self.files.summary(),
            dropped_at: self.job.source.last_modified,
            created_at: self.job.created_at,
        };
        let current: Option<Latest> = seen.as_ref().and_then(|seen| serde_json::from_slice(&seen.bytes).ok());
        if current.is_some_and(|current| current == latest || current.order() > self.job.order()) {
            return Ok(Round::Done);
        }
        // As it was before the parts were listed: a slower merger must not put its older status over a newer one.
        let precondition = Precondition::unchanged(seen.map(|seen| seen.etag));
        match storage::write(self.ports, &self.files.latest(), json::to_pretty(&latest).into(), precondition).await {
            Ok(_) => Ok(Round::Done),
            Err(error) => again(error),
        }
    }
}

/// Whether there was enough to reach the end with.
async fn rounds<F: Future<Output = Result<Round, StoreError>>>(round: impl Fn() -> F) -> Result<bool, StoreError> {
    for lost in 0..ROUNDS {
        match round().await {
            Ok(Round::Done) => return Ok(true),
            Ok(Round::Early) => return Ok(false),
            Ok(Round::Again) => tokio::time::sleep(Duration::from_millis(50 << lost.min(6))).await,
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::Unavailable { detail: "too many changes at once".into() })
}

/// Everything that another look may settle ends the round; the rest ends the merge.
fn again(error: StoreError) -> Result<Round, StoreError> {
    match error {
        StoreError::Conflict { .. } | StoreError::Unknown { .. } | StoreError::Unavailable { .. } => Ok(Round::Again),
        refused @ StoreError::Refused { .. } => Err(refused),
    }
}

/// The results in a part.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&b| b == b'\n').filter(|line| !line.is_empty())
}

fn add_lines(tally: &mut Tally, text: &[u8]) -> Result<(), StoreError> {
    for line in lines(text) {
        let result =
            RowResult::read(line).map_err(|error| StoreError::Refused { detail: format!("a result line: {error}") })?;
        tally.add(&result);
    }
    Ok(())
}

fn gone(key: &str) -> StoreError {
    StoreError::Unavailable { detail: format!("{key} was listed and cannot be read") }
}

/// Identity of what was listed: which keys with which content.
fn digest<'l>(listed: impl IntoIterator<Item = &'l ListedObject>) -> String {
    let mut hash = Sha256::new();
    for object in listed {
        hash.update(&object.key);
        hash.update([0]);
        hash.update(&object.etag.0);
        hash.update([0]);
    }
    hex::encode(&hash.finalize()[..16])
}
