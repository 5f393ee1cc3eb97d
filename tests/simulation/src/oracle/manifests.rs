//! `manifests/`: every version of every part and manifest is whole, its lines are results, and no row goes back from completed.
//!
//! The reports beside it (`failed.csv`, the review pages, `latest.json`) are compared with the results at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use bytes::Bytes;
use packshot_pipeline::model::{
    etag::Etag,
    keys::{self, JobId, Manifests},
    notification::Notification,
    result::RowResult,
    summary::{Latest, Status, Summary},
};

use super::{
    check::{Check, parse, require},
    job::{Counts, JobRecord, ResultVersions},
    summary,
};
use crate::uploads::Expected;

/// The objects under `manifests/`.
#[derive(Default)]
pub(super) struct ManifestsRecord {
    /// Every key that may be written, apart from `latest.json`.
    files: BTreeMap<String, (JobId, File)>,
    latest: BTreeMap<String, Latest>,
}

#[derive(Clone, Copy)]
enum File {
    Manifest,
    Part(u64),
    FailedCsv,
    Review(u64),
    Summary,
}

impl ManifestsRecord {
    /// Allows the keys of a job.
    pub(super) fn expect(&mut self, id: &JobId, job: &JobRecord) {
        let files = Manifests::of(&job.catalog, id);
        let rows = job.expected.rows().len() as u64;
        let parts = (0..keys::parts(rows)).map(|part| (files.part(part), File::Part(part)));
        let pages = (1..=review_pages(rows)).map(|page| (files.review(page), File::Review(page)));
        let named = [
            (files.manifest(), File::Manifest),
            (files.failed_csv(), File::FailedCsv),
            (files.summary(), File::Summary),
        ];
        self.files.extend(named.into_iter().chain(parts).chain(pages).map(|(key, file)| (key, (id.clone(), file))));
    }

    /// Checks an object and remembers it.
    pub(super) fn wrote(
        &mut self,
        jobs: &mut BTreeMap<JobId, JobRecord>,
        key: &str,
        bytes: &Bytes,
        etag: &Etag,
    ) -> Check {
        if key.ends_with("/latest.json") {
            return self.wrote_latest(jobs, key, bytes);
        }
        let (id, file) = self.files.get(key).ok_or_else(|| format!("{key}: not a key of any job"))?;
        let job = jobs.get_mut(id).ok_or_else(|| format!("{key}: of a job that was never uploaded"))?;
        match (*file, &job.expected) {
            (File::Manifest, Expected::Rows(rows)) => {
                let all = 1..=rows.len() as u64;
                let counts = check_lines(key, bytes, all, &job.results, &mut job.completed_in_manifest)?;
                job.manifests.insert(etag.0.clone(), counts);
                job.manifest = Some((etag.clone(), bytes.clone()));
            }
            (File::Part(part), Expected::Rows(rows)) => {
                let of_part = keys::rows_of_part(part, rows.len() as u64);
                let counts = check_lines(key, bytes, of_part, &job.results, &mut job.completed_in_parts)?;
                job.parts.entry(part).or_default().insert(counts);
            }
            (File::FailedCsv, Expected::Rows(_)) => job.failed_csv = Some(bytes.clone()),
            (File::Review(page), Expected::Rows(_)) => {
                job.review.insert(page, bytes.clone());
            }
            (File::Summary, _) => {
                let summary: Summary = parse(key, bytes)?;
                summary::check(key, job, &summary)?;
                job.allowed_notifications.extend(Notification::of(&summary));
                job.summary = Some(summary);
            }
            (_, Expected::Rejected { .. }) => return Err(format!("{key}: of a file that is no catalog")),
        }
        Ok(())
    }

    fn wrote_latest(&mut self, jobs: &BTreeMap<JobId, JobRecord>, key: &str, bytes: &[u8]) -> Check {
        let latest: Latest = parse(key, bytes)?;
        let job = jobs.get(&latest.job).ok_or_else(|| format!("{key}: points to an unknown job"))?;
        require(latest.dropped_at == job.uploaded_at, || {
            format!("{key}: dropped at {}, not {}", job.uploaded_at, latest.dropped_at)
        })?;
        let complete = job.manifest.is_some() && job.summary.as_ref().is_some_and(|summary| summary.manifest.is_some());
        require(complete, || format!("{key}: points to {}, which is not complete", latest.job))?;
        if let Some(before) = self.latest.get(key) {
            require(before.order() <= latest.order(), || {
                format!("{key}: went back from {} to {}", before.job, latest.job)
            })?;
        }
        self.latest.insert(key.to_owned(), latest);
        Ok(())
    }

    /// `latest.json` points to this job or to a newer one, if this one can be ingested.
    pub(super) fn check_latest(&self, jobs: &BTreeMap<JobId, JobRecord>, job: &JobRecord, status: Status) -> Check {
        let ingestible = matches!(status, Status::Complete | Status::CompleteWithFailures);
        let latest = self.latest.values().find(|latest| jobs[&latest.job].catalog == job.catalog);
        let Some(created) = job.created.as_ref().filter(|_| ingestible) else { return Ok(()) };
        let latest = latest.ok_or("complete, and there is no latest.json")?;
        require(latest.order() >= created.order(), || "complete, and latest.json points to an older job".into())?;
        require(latest.job != created.job || latest.status == status, || {
            format!("latest.json says {:?}, the summary {status:?}", latest.status)
        })
    }
}

/// A manifest or a part has one line for each row, and each line is a result of its row. Returns how many rows are completed
/// and how many failed.
fn check_lines(
    key: &str,
    bytes: &[u8],
    rows: RangeInclusive<u64>,
    results: &ResultVersions,
    completed_before: &mut BTreeSet<u64>,
) -> Result<Counts, String> {
    let mut lines = bytes.split_inclusive(|&b| b == b'\n');
    let (mut completed, mut failed) = (0, 0);
    for row in rows {
        let line = lines.next().ok_or_else(|| format!("{key}: half of it; row {row} is missing"))?;
        let known = results.get(&row).and_then(|versions| versions.iter().rev().find(|(bytes, _)| bytes == line));
        match known {
            Some((_, RowResult::Completed(_))) => {
                completed += 1;
                completed_before.insert(row);
            }
            Some((_, RowResult::Failed(_))) => {
                failed += 1;
                require(!completed_before.contains(&row), || {
                    format!("{key}: row {row} went back from completed to failed")
                })?;
            }
            None => {
                return Err(format!("{key}: line of row {row} is no result of it: {}", String::from_utf8_lossy(line)));
            }
        }
    }
    require(lines.next().is_none(), || format!("{key}: more lines than rows"))?;
    Ok((completed, failed))
}

/// `failed.csv` has one record for each failed row, with its error.
pub(super) fn check_failed_csv(job: &JobRecord) -> Check {
    let csv = job.failed_csv.as_ref().ok_or("no failed.csv")?;
    let text = String::from_utf8_lossy(csv);
    let mut failed = 0;
    for (_, _, result) in job.newest_results() {
        if let RowResult::Failed(result) = result {
            let error = result.error.replace('"', "\"\"");
            require(text.contains(&error), || format!("failed.csv does not say {error:?}"))?;
            failed += 1;
        }
    }
    // Every record of a catalog here begins with this, and no other field contains it.
    let records: usize = text.matches("kept,").count();
    require(records == failed, || format!("failed.csv has {records} rows, and {failed} have failed"))
}

fn review_pages(rows: u64) -> u64 {
    rows.div_ceil(1_000).max(1)
}

/// The review pages have one card for each row, the failed rows first, and each card shows the row's newest result.
pub(super) fn check_review(job: &JobRecord) -> Check {
    let pages = review_pages(job.expected.rows().len() as u64);
    require(job.review.len() as u64 == pages, || format!("{} of {pages} review pages", job.review.len()))?;
    let text = |page: &Bytes| String::from_utf8_lossy(page).into_owned();
    let cards: Vec<(bool, u64)> = job
        .review
        .values()
        .flat_map(|page| text(page).split("<article ").skip(1).map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|card| {
            let row = card.split_once("id=\"row-")?.1.split_once('"')?.0.parse().ok()?;
            Some((card.contains("data-state=\"failed\""), row))
        })
        .collect();
    let results = || job.newest_results().map(|(row, _, result)| (matches!(result, RowResult::Failed(_)), row));
    let expected: Vec<_> =
        results().filter(|(failed, _)| *failed).chain(results().filter(|(failed, _)| !*failed)).collect();
    require(cards == expected, || format!("review.html shows {cards:?}, and the results are {expected:?}"))
}
