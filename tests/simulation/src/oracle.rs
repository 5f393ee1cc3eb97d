//! Knows what was dropped, sees every effective write, and keeps the API's account. Says the first promise that is broken.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use packshot_pipeline::{
    generate::breaker::BreakerFile,
    ledger::{Entry, State},
    model::{
        error_class::ErrorClass,
        etag::Etag,
        event::Fact,
        job::Job,
        keys::{self, Catalog, JobId, Manifests, ResultsKey},
        message::RowMessage,
        notification::Notice,
        request::Fingerprint,
        result::RowResult,
        summary::{Latest, Status, Summary},
    },
    settings::AccountPolicy,
};

use super::plan::{Expected, ExpectedRow, Plan};

/// Within this long every process knows that the breaker is open: how old its look may be, and what a claim may take.
const BREAKER_KNOWN: Duration = Duration::from_secs(70);

pub(super) struct Oracle {
    plan: Plan,
    jobs: BTreeMap<JobId, JobBook>,
    /// What each key under `manifests/` is.
    files: BTreeMap<String, (JobId, File)>,
    books: BTreeMap<Fingerprint, Book>,
    latest: BTreeMap<String, Latest>,
    /// Rows that the retry queue has taken, with the round in which they would run.
    retry: BTreeMap<(JobId, u64), u64>,
    breaker: Option<(Timestamp, BreakerFile)>,
    probes: u32,
    noted: NotedBook,
    /// Whoever dies takes what it has not noted along.
    pub(super) somebody_died: bool,
    /// The first broken promise.
    pub(super) broken: Option<String>,
    pub(super) counts: AccountBook,
}

/// What the API did, in sum.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AccountBook {
    pub(super) calls: u64,
    pub(super) billed: u64,
    /// Unknown outcomes that the ledger counted.
    pub(super) unknown: u64,
}

/// What the product said of itself, in sum.
#[derive(Debug, Clone, Copy, Default)]
struct NotedBook {
    calls: u64,
    unknown: u64,
    split: u64,
    rejected: u64,
    completed: u64,
    failed: u64,
    finished: u64,
}

#[derive(Clone, Copy)]
enum File {
    Manifest,
    Part(u64),
    FailedCsv,
    Review(u64),
    Summary,
}

struct JobBook {
    catalog: Catalog,
    expected: Expected,
    dropped: Timestamp,
    created: Option<Job>,
    /// Every result that each row has had, the last one last.
    results: BTreeMap<u64, Vec<(Bytes, RowResult)>>,
    /// Rows that a reader of the manifest has seen completed.
    seen_in_manifest: BTreeSet<u64>,
    /// The same of the parts, which are ahead of it.
    seen_in_parts: BTreeSet<u64>,
    /// How many were completed and failed in each part that has stood.
    parts: BTreeMap<u64, BTreeSet<(u64, u64)>>,
    manifests: BTreeMap<String, (u64, u64)>,
    manifest: Option<(Etag, Bytes)>,
    failed_csv: Option<Bytes>,
    review: BTreeMap<u64, Bytes>,
    summary: Option<Summary>,
    /// What may be told of it: one for each end that it has had.
    ends: Vec<Notice>,
    /// What has been told, the last one last.
    told: Vec<Status>,
}

impl JobBook {
    /// Each row's result as it stands.
    fn last_results(&self) -> impl Iterator<Item = (u64, &Bytes, &RowResult)> {
        self.results.iter().filter_map(|(row, versions)| versions.last().map(|(bytes, result)| (*row, bytes, result)))
    }
}

/// One fingerprint.
#[derive(Default)]
struct Book {
    entry: Option<Entry>,
    /// Claims that nobody has called for.
    claims: u32,
    in_flight: u32,
    billed: u32,
    /// Calls that ended without an answer that anybody could use.
    lost: u32,
    /// Jobs that rightly had an outcome made anew.
    renewed_by: BTreeSet<JobId>,
    counted: u32,
    counted_by_series: BTreeMap<(JobId, u64), u32>,
    owners: BTreeSet<JobId>,
    request_ids: BTreeSet<String>,
}

type Verdict = Result<(), String>;

fn must(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn parse<'a, T: serde::Deserialize<'a>>(key: &str, bytes: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{key} cannot be read: {error}"))
}

impl Oracle {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            plan,
            jobs: BTreeMap::new(),
            files: BTreeMap::new(),
            books: BTreeMap::new(),
            latest: BTreeMap::new(),
            retry: BTreeMap::new(),
            breaker: None,
            probes: 0,
            noted: NotedBook::default(),
            somebody_died: false,
            broken: None,
            counts: AccountBook::default(),
        }
    }

    fn note(&mut self, verdict: Verdict) {
        if let Err(what) = verdict {
            self.broken.get_or_insert(what);
        }
    }

    pub(super) fn dropped(&mut self, id: JobId, catalog: Catalog, expected: Expected, at: Timestamp) {
        let files = Manifests::of(&catalog, &id);
        let rows = if let Expected::Rows(rows) = &expected { rows.len() as u64 } else { 0 };
        let parts = (0..keys::parts(rows)).map(|part| (files.part(part), File::Part(part)));
        let pages = (1..=review_pages(rows)).map(|page| (files.review(page), File::Review(page)));
        let named = [
            (files.manifest(), File::Manifest),
            (files.failed_csv(), File::FailedCsv),
            (files.summary(), File::Summary),
        ];
        self.files.extend(named.into_iter().chain(parts).chain(pages).map(|(key, file)| (key, (id.clone(), file))));
        let dropped = Timestamp::from_second(at.as_second()).unwrap_or(at);
        let book = JobBook {
            catalog,
            expected,
            dropped,
            created: None,
            results: BTreeMap::new(),
            seen_in_manifest: BTreeSet::new(),
            seen_in_parts: BTreeSet::new(),
            parts: BTreeMap::new(),
            manifests: BTreeMap::new(),
            manifest: None,
            failed_csv: None,
            review: BTreeMap::new(),
            summary: None,
            ends: Vec::new(),
            told: Vec::new(),
        };
        self.jobs.insert(id, book);
    }

    /// Messages that reached the retry queue.
    pub(super) fn parked<'b>(&mut self, bodies: impl Iterator<Item = &'b str>) {
        for message in bodies.filter_map(|body| RowMessage::decode(body).ok()) {
            let round = self.retry.entry((message.job, message.row)).or_default();
            *round = message.round.max(*round);
        }
    }

    /// An effective write.
    pub(super) fn wrote(&mut self, key: &str, bytes: &Bytes, etag: &Etag, now: Timestamp) {
        let verdict = match key.split_once('/') {
            Some(("ledger", _)) => self.wrote_ledger(key, bytes, now),
            Some(("results", _)) => self.wrote_result(key, bytes),
            Some(("manifests", _)) => self.wrote_manifest(key, bytes, etag),
            _ if key == keys::BREAKER => self.wrote_breaker(key, bytes, now),
            _ => Ok(()),
        };
        self.note(verdict);
    }

    fn wrote_ledger(&mut self, key: &str, bytes: &[u8], now: Timestamp) -> Verdict {
        let entry: Entry = parse(key, bytes)?;
        let (plan, fp) = (&self.plan, entry.fingerprint.clone());
        let book = self.books.entry(fp.clone()).or_default();
        let unknown = |entry: &Entry, of: &JobId| {
            let others = entry.others.iter().map(|page| (&page.series, page.unknown));
            let mut pages = std::iter::once((&entry.series, entry.unknown)).chain(others);
            pages.find(|(series, _)| series.job == *of).map(|(_, unknown)| unknown)
        };
        let before = book.entry.as_ref();
        let limit = plan.generate.unknown_outcome_retries + 1;
        let mut within = Ok(());
        for series in std::iter::once(&entry.series).chain(entry.others.iter().map(|page| &page.series)) {
            let old = before.and_then(|before| unknown(before, &series.job)).unwrap_or_default();
            let counted = unknown(&entry, &series.job).unwrap_or_default().saturating_sub(old);
            book.counted += counted;
            self.counts.unknown += u64::from(counted);
            let by_series = book.counted_by_series.entry((series.job.clone(), series.round)).or_default();
            *by_series += counted;
            within = within.and(must(*by_series <= limit, || {
                format!("{fp}: series {series:?} has {by_series} unknown outcomes, {limit} are allowed")
            }));
        }
        let outcomes = |entry: &Entry| {
            let states = std::iter::once(&entry.state).chain(entry.others.iter().map(|page| &page.state));
            let paid =
                states.filter_map(|state| if let State::Completed(outcome) = state { Some(outcome) } else { None });
            paid.cloned().collect::<Vec<_>>()
        };
        let (old, new) = (before.map(outcomes).unwrap_or_default(), outcomes(&entry));
        let forgotten = old.iter().find(|old| new.iter().all(|new| new.request_id != old.request_id));
        let mut legal = must(forgotten.is_none(), || format!("{fp}: a paid outcome was forgotten"));
        book.owners.extend(new.iter().map(|outcome| outcome.job.clone()));
        if let State::Claimed(claim) = &entry.state
            && !before.is_some_and(|before| before.is_claimed_by(&claim.nonce))
        {
            book.claims += 1;
            let reuse = SignedDuration::try_from(plan.generate.reuse).unwrap_or(SignedDuration::MAX);
            let job = &entry.series.job;
            let fresh = old.iter().any(|old| now.duration_since(old.completed_at) < reuse);
            legal = legal.and(must(!fresh && !book.owners.contains(job), || {
                format!("{fp}: claimed for job {job} though a paid outcome is there to be reused")
            }));
            if !old.is_empty() {
                book.renewed_by.insert(job.clone());
            }
        }
        book.entry = Some(entry);
        legal.and(within)
    }

    /// A call begins.
    pub(super) fn call_begins(&mut self, fp: &Fingerprint, key: &str, now: Timestamp, deadline: Timestamp) {
        let verdict = must(key == fp.as_str(), || format!("{fp}: the idempotency key is {key}"));
        let verdict = verdict.and(self.judge_call(fp, now, deadline));
        self.note(verdict);
    }

    fn judge_call(&mut self, fp: &Fingerprint, now: Timestamp, deadline: Timestamp) -> Verdict {
        self.counts.calls += 1;
        let asked = |job: &JobBook| match &job.expected {
            Expected::Rows(rows) => job.created.is_some() && rows.iter().any(|row| row.verdict.as_ref() == Ok(fp)),
            Expected::Rejected { .. } => false,
        };
        // Looking through thousands of rows at each of thousands of calls would take longer than all the rest.
        let small = self.jobs.values().all(|job| job.results.len() < 100);
        must(!small || self.jobs.values().any(asked), || format!("{fp}: called for, and nobody asked"))?;
        let open = self.breaker.as_ref().filter(|(_, file)| file.open);
        let known = open.is_some_and(|(since, _)| now.duration_since(*since).unsigned_abs() > BREAKER_KNOWN);
        if known {
            must(self.probes > 0, || format!("{fp}: called for though the account breaker is open"))?;
            self.probes -= 1;
        }
        let book = self.books.entry(fp.clone()).or_default();
        book.in_flight += 1;
        must(book.in_flight == 1, || format!("{fp}: two calls at once"))?;
        must(book.claims > 0, || format!("{fp}: a call without a claim"))?;
        book.claims = 0;
        must(book.lost <= book.counted, || {
            format!("{fp}: called again after {} unknown outcomes, of which {} are counted", book.lost, book.counted)
        })?;
        let ends = now.checked_add(self.plan.generate.request_timeout).unwrap_or(Timestamp::MAX);
        must(ends <= deadline, || format!("{fp}: a call began at {now} that may end after the deadline {deadline}"))
    }

    /// A call ends; `lost` if without an answer that says whether it was billed.
    pub(super) fn call_ends(&mut self, fp: &Fingerprint, lost: bool) {
        let book = self.books.entry(fp.clone()).or_default();
        book.in_flight = book.in_flight.saturating_sub(1);
        book.lost += u32::from(lost);
    }

    pub(super) fn billed(&mut self, fp: &Fingerprint, request_id: &str) {
        self.counts.billed += 1;
        let book = self.books.entry(fp.clone()).or_default();
        book.request_ids.insert(request_id.to_owned());
        book.billed += 1;
        let allowed = 1 + book.renewed_by.len() as u32 + book.counted;
        let billed = book.billed;
        self.note(must(billed <= allowed, || format!("{fp}: billed {billed} times where {allowed} are accounted for")));
    }

    fn wrote_breaker(&mut self, key: &str, bytes: &[u8], now: Timestamp) -> Verdict {
        let file: BreakerFile = parse(key, bytes)?;
        let since = match &self.breaker {
            Some((since, before)) if before.open && file.open => {
                self.probes += u32::from(file.probes == before.probes);
                *since
            }
            _ => {
                self.probes = 0;
                now
            }
        };
        self.breaker = Some((since, file));
        Ok(())
    }

    fn wrote_result(&mut self, key: &str, bytes: &Bytes) -> Verdict {
        let (id, row) = match ResultsKey::parse(key) {
            Some(ResultsKey::Job(id)) => (id, None),
            Some(ResultsKey::Row { job, row, .. }) => (job, Some(row)),
            None => return Err(format!("{key}: not a key of ours")),
        };
        let job = self.jobs.get_mut(&id).ok_or_else(|| format!("{key}: of a job that nobody dropped"))?;
        let Expected::Rows(rows) = &job.expected else { return Err(format!("{key}: of a file that is no catalog")) };
        let Some(row) = row else {
            let created: Job = parse(key, bytes)?;
            let valid = rows.iter().filter(|row| row.verdict.is_ok()).count() as u64;
            must(created.rows == rows.len() as u64 && created.valid == valid, || {
                format!(
                    "{key}: {} rows, {} valid, where the file has {} and {valid}",
                    created.rows,
                    created.valid,
                    rows.len()
                )
            })?;
            must(job.created.is_none(), || format!("{key}: written twice"))?;
            job.created = Some(created);
            return Ok(());
        };
        let index = usize::try_from(row).unwrap_or(usize::MAX) - 1;
        let expected = rows.get(index).ok_or_else(|| format!("{key}: the file has no such row"))?;
        must(key == keys::result(&id, row, &expected.sku), || {
            format!("{key}: row {row} has the SKU {:?}", expected.sku)
        })?;
        let result: RowResult = parse(key, bytes)?;
        if let Some((before, RowResult::Completed(_))) = job.results.get(&row).and_then(|versions| versions.last()) {
            must(before == bytes, || format!("{key}: a completed result was overwritten"))?;
        }
        judge_result(&self.plan, &id, row, expected, &result, &self.books, &self.retry)
            .map_err(|what| format!("{key}: {what}"))?;
        job.results.entry(row).or_default().push((bytes.clone(), result));
        Ok(())
    }

    fn wrote_manifest(&mut self, key: &str, bytes: &Bytes, etag: &Etag) -> Verdict {
        if key.ends_with("/latest.json") {
            return self.wrote_latest(key, bytes);
        }
        let (id, file) = self.files.get(key).ok_or_else(|| format!("{key}: an object that nobody expects"))?;
        let job = self.jobs.get_mut(id).ok_or_else(|| format!("{key}: of a job that nobody dropped"))?;
        match (*file, &job.expected) {
            (File::Manifest, Expected::Rows(rows)) => {
                let all = 1..=rows.len() as u64;
                let counts = judge_lines(key, bytes, all, &job.results, &mut job.seen_in_manifest)?;
                job.manifests.insert(etag.0.clone(), counts);
                job.manifest = Some((etag.clone(), bytes.clone()));
                Ok(())
            }
            (File::Part(part), Expected::Rows(rows)) => {
                let of_part = keys::rows_of_part(part, rows.len() as u64);
                let counts = judge_lines(key, bytes, of_part, &job.results, &mut job.seen_in_parts)?;
                job.parts.entry(part).or_default().insert(counts);
                Ok(())
            }
            (File::FailedCsv, Expected::Rows(_)) => {
                job.failed_csv = Some(bytes.clone());
                Ok(())
            }
            (File::Review(page), Expected::Rows(_)) => {
                job.review.insert(page, bytes.clone());
                Ok(())
            }
            (File::Summary, _) => {
                let summary: Summary = parse(key, bytes)?;
                judge_summary(key, job, &summary)?;
                job.ends.extend(Notice::of(&summary));
                job.summary = Some(summary);
                Ok(())
            }
            (_, Expected::Rejected { .. }) => Err(format!("{key}: of a file that is no catalog")),
        }
    }

    fn wrote_latest(&mut self, key: &str, bytes: &[u8]) -> Verdict {
        let latest: Latest = parse(key, bytes)?;
        let job = self.jobs.get(&latest.job).ok_or_else(|| format!("{key}: points to an unknown job"))?;
        must(latest.dropped_at == job.dropped, || {
            format!("{key}: dropped at {}, not {}", job.dropped, latest.dropped_at)
        })?;
        must(job.manifest.is_some() && job.summary.as_ref().is_some_and(|summary| summary.manifest.is_some()), || {
            format!("{key}: points to {}, which is not complete", latest.job)
        })?;
        if let Some(before) = self.latest.get(key) {
            must(before.order() <= latest.order(), || {
                format!("{key}: went back from {} to {}", before.job, latest.job)
            })?;
        }
        self.latest.insert(key.to_owned(), latest);
        Ok(())
    }

    /// Something the product says of itself.
    pub(super) fn noted(&mut self, fact: Fact) {
        let noted = &mut self.noted;
        match fact {
            Fact::Called { .. } => noted.calls += 1,
            Fact::OutcomeUnknown => noted.unknown += 1,
            Fact::RowsSplit { sent, rejected } => {
                noted.split += sent;
                noted.rejected += rejected;
            }
            Fact::RowCompleted { .. } => noted.completed += 1,
            Fact::RowFailed(_) => noted.failed += 1,
            Fact::ManifestWritten { first: true, .. } => noted.finished += 1,
            _ => {}
        }
    }

    /// Subscribers hear of a job's end.
    pub(super) fn told(&mut self, notice: &Notice) {
        let verdict = match self.jobs.get_mut(&notice.job) {
            None => Err(format!("job {}: told of, and nobody dropped it", notice.job)),
            Some(job) => {
                job.told.push(notice.status);
                must(job.ends.contains(notice), || format!("told, and no summary said so: {notice:?}"))
            }
        };
        self.note(verdict);
    }

    /// When all has ended: every job has what it must have.
    pub(super) fn ended(&mut self, redriven: bool, parked: &[String]) {
        let verdict = self.judge_end(redriven, parked);
        self.note(verdict);
    }

    fn judge_end(&self, redriven: bool, parked: &[String]) -> Verdict {
        for (id, job) in &self.jobs {
            let summary = job.summary.as_ref().ok_or_else(|| format!("job {id}: no summary"))?;
            judge_told(job, summary.status, self.somebody_died).map_err(|what| format!("job {id}: {what}"))?;
            let Expected::Rows(rows) = &job.expected else { continue };
            must(job.results.len() == rows.len(), || {
                format!("job {id}: {} of {} rows have a result", job.results.len(), rows.len())
            })?;
            let (etag, manifest) = job.manifest.as_ref().ok_or_else(|| format!("job {id}: no manifest"))?;
            let results: Vec<u8> = job.last_results().flat_map(|(_, bytes, _)| bytes.iter().copied()).collect();
            must(*manifest == results, || format!("job {id}: the manifest is not what stands under results/"))?;
            let named = summary.manifest.as_ref().map(|manifest| &manifest.etag);
            must(named == Some(etag), || {
                format!("job {id}: the summary speaks of another manifest than the one that stands")
            })?;
            self.judge_failed_csv(job).map_err(|what| format!("job {id}: {what}"))?;
            judge_review(job).map_err(|what| format!("job {id}: {what}"))?;
            self.judge_latest(job, summary.status).map_err(|what| format!("job {id}: {what}"))?;
            // The guardrail may stop the redriven rows of a file that moderation blocks.
            if redriven && self.plan.generate.max_failed_percent.is_none() {
                for (row, _, result) in job.last_results() {
                    if let RowResult::Failed(failed) = result {
                        must(failed.error_class == ErrorClass::Row, || {
                            format!("job {id} row {row}: still {} after a redrive in good weather", failed.error_code)
                        })?;
                    }
                }
            }
        }
        self.judge_noted()?;
        self.judge_counts()?;
        for n in 0..self.plan.poison.len() {
            let body = super::world::poison(n);
            let times = parked.iter().filter(|parked| **parked == body).count();
            let calm = self.plan.faults.rate == 0
                && self.plan.faults.events == 0
                && self.plan.hosts.rows_visibility.as_secs() > 60;
            must(times >= 1 && (times == 1 || !calm), || format!("{body:?} is {times} times in the retry queue"))?;
        }
        Ok(())
    }

    /// What was noted is what happened, but for what the dead took along.
    fn judge_noted(&self) -> Verdict {
        let (noted, calls) = (&self.noted, self.counts.calls);
        must(noted.calls <= calls, || format!("{} calls noted, and the API saw {calls}", noted.calls))?;
        let jobs = || self.jobs.values().filter_map(|job| job.created.as_ref());
        // One is missing where the answer to the summary's write was lost.
        let finished = jobs().count() as u64;
        must(noted.finished <= finished, || format!("{} finishes of {finished} jobs noted", noted.finished))?;
        let unknown = self.counts.unknown;
        must(noted.unknown <= unknown, || {
            format!("{} unknown outcomes noted, and the ledger counts {unknown}", noted.unknown)
        })?;
        if self.somebody_died {
            return Ok(());
        }
        must(noted.calls == calls, || format!("{} of {calls} calls noted, and nobody died", noted.calls))?;
        must(noted.unknown == unknown, || format!("{} of {unknown} unknown outcomes noted", noted.unknown))?;
        let (split, valid) = (noted.split, jobs().map(|job| job.valid).sum());
        must(split >= valid, || format!("{split} rows split, and the files have {valid}"))?;
        must(noted.completed + noted.failed >= valid, || format!("{noted:?}, and {valid} rows have a result"))?;
        let rejected: u64 = jobs().map(|job| job.rejected).sum();
        must(noted.rejected >= rejected, || format!("{} of {rejected} rejected rows noted", noted.rejected))?;
        Ok(())
    }

    /// Where nothing goes wrong, the summaries know every call.
    fn judge_counts(&self) -> Verdict {
        let Plan { faults, weather, .. } = &self.plan;
        if faults.rate > 0 || weather.trouble > 0 || !weather.broke.is_empty() || !faults.crashes.is_empty() {
            return Ok(());
        }
        let summaries = || self.jobs.values().filter_map(|job| job.summary.as_ref()).map(|summary| &summary.counts);
        let (calls, unknown): (u64, u64) =
            (summaries().map(|counts| counts.calls).sum(), summaries().map(|counts| counts.unknown_outcomes).sum());
        must((self.noted.calls, self.noted.unknown) == (calls, 0), || {
            format!("noted {:?}, {calls} calls", self.noted)
        })?;
        must((calls, unknown) == (self.counts.calls, 0), || {
            format!("the summaries count {calls} calls and {unknown} unknown outcomes, the API {}", self.counts.calls)
        })
    }

    fn judge_failed_csv(&self, job: &JobBook) -> Verdict {
        let csv = job.failed_csv.as_ref().ok_or("no failed.csv")?;
        let text = String::from_utf8_lossy(csv);
        for (_, _, result) in job.last_results() {
            if let RowResult::Failed(failed) = result {
                let error = failed.error.replace('"', "\"\"");
                must(text.contains(&error), || format!("failed.csv does not say {error:?}"))?;
            }
        }
        let failed = job.last_results().filter(|(_, _, result)| matches!(result, RowResult::Failed(_))).count();
        let codes: usize = text.matches("kept,").count();
        // Every row of a catalog here begins so, and no other field says it.
        must(codes == failed, || format!("failed.csv has {codes} rows, and {failed} have failed"))
    }

    fn judge_latest(&self, job: &JobBook, status: Status) -> Verdict {
        let ingestible = matches!(status, Status::Complete | Status::CompleteWithFailures);
        let latest = self.latest.values().find(|latest| self.jobs[&latest.job].catalog == job.catalog);
        let Some(created) = job.created.as_ref().filter(|_| ingestible) else { return Ok(()) };
        let latest = latest.ok_or("complete, and there is no latest.json")?;
        must(latest.order() >= created.order(), || "complete, and latest.json points to an older job".into())?;
        must(latest.job != created.job || latest.status == status, || {
            format!("latest.json says {:?}, the summary {status:?}", latest.status)
        })
    }
}

/// Who has subscribed knows how a job has ended. That one is running is for others to complain of.
fn judge_told(job: &JobBook, status: Status, somebody_died: bool) -> Verdict {
    let told = &job.told;
    must(status == Status::Running || told.contains(&status), || format!("nobody was told that it is {status:?}"))?;
    // Whoever finds that he has told something older than another tells the newer again, if he lives.
    let last = somebody_died || told.last().is_none_or(|last| *last == status);
    must(last, || format!("told in this order: {told:?}, and it is {status:?}"))
}

fn review_pages(rows: u64) -> u64 {
    rows.div_ceil(1_000).max(1)
}

/// One card per row, the failed ones first, and each says what the row's last result says.
fn judge_review(job: &JobBook) -> Verdict {
    let Expected::Rows(rows) = &job.expected else { return Ok(()) };
    let pages = review_pages(rows.len() as u64);
    must(job.review.len() as u64 == pages, || format!("{} of {pages} review pages", job.review.len()))?;
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
    let results = || job.last_results().map(|(row, _, result)| (matches!(result, RowResult::Failed(_)), row));
    let expected: Vec<_> =
        results().filter(|(failed, _)| *failed).chain(results().filter(|(failed, _)| !*failed)).collect();
    must(cards == expected, || format!("review.html shows {cards:?}, and the results are {expected:?}"))
}

fn judge_result(
    plan: &Plan,
    id: &JobId,
    row: u64,
    expected: &ExpectedRow,
    result: &RowResult,
    books: &BTreeMap<Fingerprint, Book>,
    retry: &BTreeMap<(JobId, u64), u64>,
) -> Verdict {
    must(result.row() == row, || "another row's".into())?;
    match (result, &expected.verdict) {
        (RowResult::Completed(completed), Ok(fp)) => {
            must(completed.sku == expected.sku, || format!("the SKU became {:?}", completed.sku))?;
            must(completed.fingerprint == *fp, || "another request's".into())?;
            let issued = completed
                .request_id
                .as_ref()
                .is_some_and(|id| books.get(fp).is_some_and(|b| b.request_ids.contains(id)));
            must(issued, || "completed by a call that was never billed".into())?;
            must(completed.image_count > 0, || "completed without a picture".into())
        }
        (RowResult::Completed(_), Err(code)) => Err(format!("completed, and it is {code}")),
        (RowResult::Failed(failed), verdict) => {
            must(failed.sku == expected.sku, || format!("the SKU became {:?}", failed.sku))?;
            must(failed.line == expected.line, || format!("line {}, not {}", failed.line, expected.line))?;
            must(failed.fingerprint.as_ref() == verdict.as_ref().ok(), || "another request's".into())?;
            if let Err(code) = verdict {
                return must(failed.error_code == *code, || format!("{}, not {code}", failed.error_code));
            }
            let paused = plan.generate.account_errors == AccountPolicy::Pause;
            must(!(paused && failed.error_class == ErrorClass::Account), || {
                "failed by the account, which is to pause".into()
            })?;
            let parked = retry.get(&(id.clone(), row)).is_some_and(|&round| round > failed.round);
            must(parked || !failed.error_class.may_heal(), || "failed without a place in the retry queue".into())
        }
    }
}

/// A manifest or a part is whole: in each row's place stands a result of that row. Returns how many are completed and failed.
fn judge_lines(
    key: &str,
    bytes: &[u8],
    rows: std::ops::RangeInclusive<u64>,
    results: &BTreeMap<u64, Vec<(Bytes, RowResult)>>,
    seen_completed: &mut BTreeSet<u64>,
) -> Result<(u64, u64), String> {
    let mut lines = bytes.split_inclusive(|&b| b == b'\n');
    let (mut completed, mut failed) = (0, 0);
    for row in rows {
        let line = lines.next().ok_or_else(|| format!("{key}: half of it; row {row} is missing"))?;
        let known = results.get(&row).and_then(|versions| versions.iter().rev().find(|(bytes, _)| bytes == line));
        match known {
            Some((_, RowResult::Completed(_))) => {
                completed += 1;
                seen_completed.insert(row);
            }
            Some((_, RowResult::Failed(_))) => {
                failed += 1;
                must(!seen_completed.contains(&row), || {
                    format!("{key}: row {row} went back from completed to failed")
                })?;
            }
            None => {
                return Err(format!("{key}: line of row {row} is no result of it: {}", String::from_utf8_lossy(line)));
            }
        }
    }
    must(lines.next().is_none(), || format!("{key}: more lines than rows"))?;
    Ok((completed, failed))
}

/// What a summary says of a job whose rows are still out is the sum of parts that have stood, and never goes back.
fn judge_running(job: &JobBook, summary: &Summary) -> Verdict {
    let (counts, merged) = (&summary.counts, summary.rows_merged);
    if let Some(before) = &job.summary {
        must(before.manifest.is_none(), || "went back to running".into())?;
        let back = merged < before.rows_merged || counts.completed < before.counts.completed;
        must(!back, || format!("went back from {before:?} to {summary:?}"))?;
    }
    must(counts.completed + counts.failed == merged, || format!("{counts:?} of {merged} rows"))?;
    let mut sums = BTreeSet::from([(0, 0)]);
    for versions in job.parts.values() {
        let with = |&(completed, failed): &(u64, u64)| versions.iter().map(move |(c, f)| (completed + c, failed + f));
        let more: Vec<_> = sums.iter().flat_map(with).collect();
        sums.extend(more);
    }
    must(sums.contains(&(counts.completed, counts.failed)), || format!("{counts:?} are of no parts that have stood"))
}

fn judge_summary(key: &str, job: &JobBook, summary: &Summary) -> Verdict {
    let rows = match &job.expected {
        Expected::Rows(rows) => rows.len() as u64,
        Expected::Rejected { code, has_line } => {
            let problem = summary.rejected.as_ref().ok_or_else(|| format!("{key}: not rejected, and it is {code}"))?;
            must(summary.status == Status::Rejected, || format!("{key}: status {:?}", summary.status))?;
            must(problem.code == *code, || format!("{key}: {}, not {code}", problem.code))?;
            return must(problem.line.is_some() == *has_line, || format!("{key}: {problem} does not say where"));
        }
    };
    must(summary.rejected.is_none(), || format!("{key}: rejected, and it is a catalog: {:?}", summary.rejected))?;
    must(summary.counts.rows == rows, || format!("{key}: {} rows, not {rows}", summary.counts.rows))?;
    let Some(manifest) = &summary.manifest else {
        must(summary.status == Status::Running, || format!("{key}: {:?} without a manifest", summary.status))?;
        return judge_running(job, summary).map_err(|what| format!("{key}: {what}"));
    };
    let counts = job.manifests.get(&manifest.etag.0);
    let counts = counts.ok_or_else(|| format!("{key}: speaks of a manifest that never stood"))?;
    let (completed, failed) = *counts;
    must((summary.counts.completed, summary.counts.failed) == *counts, || {
        format!("{key}: {:?}, and the manifest has {completed} completed and {failed} failed", summary.counts)
    })?;
    let status = match counts {
        (_, 0) => Status::Complete,
        (0, _) => Status::Failed,
        _ => Status::CompleteWithFailures,
    };
    must(summary.status == status, || format!("{key}: {:?}, not {status:?}", summary.status))
}
