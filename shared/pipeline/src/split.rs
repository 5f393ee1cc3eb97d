//! A catalog in, messages out. Pass 1 validates everything before anything is spent; pass 2 sends.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    classify::ErrorClass,
    columns::{ColumnMap, Columns},
    intake::{CatalogReader, ReadError},
    job::{self, Job, NotACatalog, Source},
    journal::Fact,
    json,
    keys::{self, Catalog, JobId, Manifests},
    message::{self, RowMessage},
    notice::{AnnounceError, announce},
    objects,
    ports::{Outgoing, Ports, Precondition, QueueError, StoreError},
    result::{Failed, FailedStatus, RowResult},
    row::{Accepted, Rejected, Validator, input},
    settings::{Defaults, SplitSettings},
    summary::Summary,
};

/// Rows between two checkpoints: what is sent again, at most, when the splitter dies.
const CHECKPOINT_EVERY: usize = 2_000;
/// Bytes of messages between two checkpoints: what the splitter holds in memory, at most.
const CHECKPOINT_BYTES: usize = 8 * 1024 * 1024;
/// Results of rejected rows written at once.
const WRITES_AT_ONCE: usize = 32;
/// Time before the deadline at which the splitter stops, so that the checkpoint is written.
const STOP_BEFORE_DEADLINE: Duration = Duration::from_secs(20);

/// An object that appeared under `incoming/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitInput {
    /// Bucket name.
    pub bucket: String,
    /// Key, decoded.
    pub key: String,
    /// The object's version, where the bucket has versions.
    pub version_id: Option<String>,
    /// The content that the event speaks of, where it says so.
    pub etag: Option<String>,
    /// Tells jobs over the same version apart, where a host lets people choose options per job. Empty on AWS.
    pub edition: String,
    /// The round of the messages; 0 on AWS. A host without a durable queue sends every row again in a higher round.
    pub round: u64,
}

/// What became of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SplitReport {
    /// Every row is on its way or has its failed result.
    Split(Box<Job>),
    /// The file cannot be a catalog; its summary says so. No row was sent.
    Rejected {
        /// The job.
        job: JobId,
        /// Its catalog.
        catalog: Catalog,
        /// Why.
        problem: NotACatalog,
    },
    /// The key is not one of a catalog, or the object has been replaced or removed since; a replacement has its own event.
    Nothing(&'static str),
}

/// Why the splitter could not finish. Everything may be done again from the start.
#[derive(Debug, thiserror::Error)]
pub enum SplitError {
    /// The time was too short. Call again: it goes on at the checkpoint.
    #[error("out of time; goes on at row {next_row}")]
    OutOfTime {
        /// The first row that is not on its way.
        next_row: u64,
    },
    /// The store did not do as asked. Call again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The queue did not do as asked. Call again.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The file is rejected, its summary says so, and subscribers have not been told. Call again.
    #[error(transparent)]
    Announce(#[from] AnnounceError),
    /// The object read differently the second time: a store that breaks its promise. Stop.
    #[error("the object changed while it was read: {0}")]
    Changed(String),
}

/// How far pass 2 has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Checkpoint {
    round: u64,
    /// Rows up to this one are on their way.
    done: u64,
}

/// Splits a catalog. Run twice, or by two at once, it sends messages twice and nothing worse.
pub async fn split(
    ports: &Ports,
    settings: &SplitSettings,
    source: SplitInput,
    deadline: Timestamp,
) -> Result<SplitReport, SplitError> {
    let Some(catalog) = Catalog::of(&source.key) else {
        return Ok(SplitReport::Nothing("the key is not one of a catalog"));
    };
    let Some((reader, found)) = open(ports, &source, &settings.column_map).await? else {
        return Ok(SplitReport::Nothing("the object has been replaced or removed since"));
    };
    let version = source.version_id.as_deref().unwrap_or(&found.etag.0);
    let id = JobId::of(&source.bucket, &source.key, version, &source.edition);
    let job = match objects::read(ports, &keys::job(&id)).await? {
        Some(seen) => read_job(&seen.bytes)?,
        None => match validate(reader, settings, &id, &catalog, found.clone(), ports.clock.now(), |_, _, _| ()).await {
            Ok(job) => create_job(ports, job).await?,
            Err(ReadError::Store(error)) => return Err(error.into()),
            Err(ReadError::NotACatalog(problem)) => {
                reject(ports, &id, &catalog, found, &problem).await?;
                announce(ports, &catalog, &id).await?;
                return Ok(SplitReport::Rejected { job: id, catalog, problem });
            }
        },
    };
    let sender = Sender { ports, job: &job, round: source.round, deadline };
    sender.send_all(&source).await?;
    Ok(SplitReport::Split(Box::new(job)))
}

async fn open(
    ports: &Ports,
    source: &SplitInput,
    map: &ColumnMap,
) -> Result<Option<(CatalogReader, Source)>, StoreError> {
    let version = source.version_id.as_deref();
    let opened = objects::repeat_read(ports, || ports.store.open(&source.key, version)).await?;
    let Some(object) = opened else { return Ok(None) };
    if version.is_none() && source.etag.as_ref().is_some_and(|etag| *etag != object.meta.etag.0) {
        return Ok(None);
    }
    let found = Source {
        bucket: source.bucket.clone(),
        key: source.key.clone(),
        version_id: source.version_id.clone(),
        etag: object.meta.etag,
        bytes: object.meta.bytes,
        last_modified: object.meta.last_modified,
    };
    Ok(Some((CatalogReader::with_map(object.body, map.clone()), found)))
}

async fn header(reader: &mut CatalogReader, map: &ColumnMap, defaults: Defaults) -> Result<Validator, ReadError> {
    let Some(header) = reader.next().await? else {
        let what = "the file is empty; its first line must name the columns: sku,title,image_url,brand,style_tags";
        return Err(NotACatalog::new("empty_file", what).into());
    };
    Ok(Validator::new(Columns::read(&header, map)?, defaults)?)
}

/// Pass 1: reads the file to its end and judges every row. `judged` is told the row, its line and its verdict, so that
/// whoever asks before a job is made hears exactly what the splitter would say.
pub async fn validate(
    mut reader: CatalogReader,
    settings: &SplitSettings,
    id: &JobId,
    catalog: &Catalog,
    source: Source,
    now: Timestamp,
    mut judged: impl FnMut(u64, u64, &Result<Accepted, Rejected>),
) -> Result<Job, ReadError> {
    let mut validator = header(&mut reader, &settings.column_map, settings.defaults.clone()).await?;
    let mut job = Job {
        v: job::VERSION,
        job: id.clone(),
        catalog: catalog.clone(),
        source,
        rows: 0,
        valid: 0,
        rejected: 0,
        images: 0,
        continuation_rows: 0,
        format: reader.format(),
        export: validator.columns().export.to_owned(),
        columns: validator.columns().names.clone(),
        mapping: validator.columns().mapping(),
        column_map: settings.column_map.clone(),
        defaults: settings.defaults.clone(),
        created_at: now,
    };
    while let Some(record) = reader.next().await? {
        if validator.continues(&record) {
            job.continuation_rows += 1;
            continue;
        }
        job.rows += 1;
        if job.rows > settings.max_rows {
            let what = format!("more than {} rows; cut the file into several", settings.max_rows);
            return Err(NotACatalog::new("too_many_rows", what).on(record.line).into());
        }
        let verdict = validator.judge(&record)?;
        judged(job.rows, record.line, &verdict);
        match verdict {
            Ok(accepted) => {
                job.valid += 1;
                job.images += u64::from(accepted.request.n);
            }
            Err(_) => job.rejected += 1,
        }
        if let Some(max) = settings.max_images.filter(|&max| job.images > max) {
            let what =
                format!("asks for more than {max} pictures, which is what one job may make; cut the file into several");
            return Err(NotACatalog::new("too_many_images", what).on(record.line).into());
        }
    }
    // The encoding is certain only now: the first letter that tells may be the last of the file.
    job.format = reader.format();
    Ok(job)
}

fn read_job(bytes: &[u8]) -> Result<Job, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Refused { detail: format!("job.json: {error}") })
}

/// The first splitter's `job.json` holds, whoever else has read the file too.
async fn create_job(ports: &Ports, job: Job) -> Result<Job, StoreError> {
    let key = keys::job(&job.job);
    match objects::write(ports, &key, json::to_pretty(&job).into(), Precondition::Absent).await {
        Ok(_) => Ok(job),
        Err(error @ (StoreError::Conflict { .. } | StoreError::Unknown { .. })) => {
            match objects::read(ports, &key).await? {
                Some(seen) => read_job(&seen.bytes),
                None => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

async fn reject(
    ports: &Ports,
    id: &JobId,
    catalog: &Catalog,
    source: Source,
    problem: &NotACatalog,
) -> Result<(), StoreError> {
    let key = Manifests::of(catalog, id).summary();
    let summary = Summary::rejected(id.clone(), catalog.clone(), source, problem.clone(), ports.clock.now());
    let seen = objects::read(ports, &key).await?;
    let known = seen.is_some();
    objects::update(ports, &key, seen, |current| current.is_none().then(|| json::to_pretty(&summary))).await?;
    if !known {
        ports.journal.note(Fact::CatalogRejected);
    }
    Ok(())
}

/// Pass 2: one message per valid row, one failed result per rejected row.
struct Sender<'a> {
    ports: &'a Ports,
    job: &'a Job,
    round: u64,
    deadline: Timestamp,
}

/// What lies between two checkpoints.
#[derive(Default)]
struct Chunk {
    rows: u64,
    bytes: usize,
    messages: Vec<Outgoing>,
    results: Vec<(String, Vec<u8>)>,
}

impl Sender<'_> {
    async fn send_all(&self, source: &SplitInput) -> Result<(), SplitError> {
        let mut done = self.checkpoint().await?;
        if done >= self.job.rows {
            return Ok(());
        }
        let changed = |problem: NotACatalog| SplitError::Changed(problem.to_string());
        let Some((mut reader, _)) = open(self.ports, source, &self.job.column_map).await? else {
            return Err(SplitError::Changed("it is gone".into()));
        };
        let stopped = |error| match error {
            ReadError::Store(error) => SplitError::Store(error),
            ReadError::NotACatalog(problem) => changed(problem),
        };
        let mut validator =
            header(&mut reader, &self.job.column_map, self.job.defaults.clone()).await.map_err(stopped)?;
        let (mut row, mut chunk) = (0, Chunk::default());
        while let Some(record) = reader.next().await.map_err(stopped)? {
            if validator.continues(&record) {
                continue;
            }
            row += 1;
            // Also for rows that are on their way already: the validator must know their SKUs.
            let verdict = validator.judge(&record).map_err(changed)?;
            if row <= done {
                continue;
            }
            let input = input(validator.columns(), &record);
            chunk.rows += 1;
            match verdict {
                Ok(accepted) => chunk.push(self.message(row, record.line, accepted, input)),
                Err(rejected) => chunk.results.push(self.rejected(row, record.line, rejected, input)),
            }
            if chunk.is_full() {
                done += self.send(std::mem::take(&mut chunk)).await?;
                self.keep_checkpoint(done).await?;
                self.check_time(done)?;
            }
        }
        if row != self.job.rows {
            return Err(SplitError::Changed(format!("{row} rows where job.json says {}", self.job.rows)));
        }
        done += self.send(chunk).await?;
        self.keep_checkpoint(done).await
    }

    fn message(
        &self,
        row: u64,
        line: u64,
        accepted: Accepted,
        input: serde_json::Map<String, serde_json::Value>,
    ) -> Outgoing {
        let message = RowMessage {
            v: message::VERSION,
            job: self.job.job.clone(),
            catalog: self.job.catalog.clone(),
            row,
            line,
            sku: accepted.sku,
            fingerprint: accepted.request.fingerprint(),
            round: self.round,
            request: accepted.request,
            input,
        };
        Outgoing { body: message.encode(), attributes: [].into() }
    }

    fn rejected(
        &self,
        row: u64,
        line: u64,
        rejected: Rejected,
        input: serde_json::Map<String, serde_json::Value>,
    ) -> (String, Vec<u8>) {
        let key = keys::result(&self.job.job, row, &rejected.sku);
        let result = RowResult::Failed(Box::new(Failed {
            sku: rejected.sku,
            status: FailedStatus::Failed,
            error: rejected.message,
            row,
            job: self.job.job.clone(),
            fingerprint: None,
            attempts: 0,
            reused: false,
            model: None,
            latency_ms: None,
            // The job's time, not now: a splitter that runs twice writes the same result twice.
            failed_at: self.job.created_at,
            error_code: rejected.code.to_owned(),
            error_class: ErrorClass::Row,
            http_status: None,
            line,
            unknown_outcomes: 0,
            round: 0,
            input,
        }));
        (key, json::to_line(&result))
    }

    async fn send(&self, chunk: Chunk) -> Result<u64, SplitError> {
        let Chunk { rows, messages, results, .. } = chunk;
        let (sent, rejected) = (messages.len() as u64, results.len() as u64);
        stream::iter(results)
            .map(|(key, line)| async move {
                // Whoever wrote it before wrote the same.
                match objects::write(self.ports, &key, line.into(), Precondition::Absent).await {
                    Ok(_) | Err(StoreError::Conflict { .. }) => Ok(()),
                    Err(error) => Err(SplitError::Store(error)),
                }
            })
            .buffer_unordered(WRITES_AT_ONCE)
            .try_collect::<()>()
            .await?;
        if !messages.is_empty() {
            self.ports.rows.send(&messages).await?;
        }
        self.ports.journal.note(Fact::RowsSplit { sent, rejected });
        Ok(rows)
    }

    fn check_time(&self, done: u64) -> Result<(), SplitError> {
        let left = self.deadline.duration_since(self.ports.clock.now());
        if Duration::try_from(left).is_ok_and(|left| left > STOP_BEFORE_DEADLINE) {
            return Ok(());
        }
        Err(SplitError::OutOfTime { next_row: done + 1 })
    }

    /// Rows that are on their way in this round. A new job gets its first checkpoint: from here on the sweep knows of it.
    async fn checkpoint(&self) -> Result<u64, SplitError> {
        let seen = objects::read(self.ports, &keys::checkpoint(&self.job.job)).await?;
        let checkpoint: Option<Checkpoint> = seen.and_then(|seen| serde_json::from_slice(&seen.bytes).ok());
        if checkpoint.is_none() {
            self.keep_checkpoint(0).await?;
        }
        Ok(checkpoint.filter(|checkpoint| checkpoint.round == self.round).map_or(0, |checkpoint| checkpoint.done))
    }

    async fn keep_checkpoint(&self, done: u64) -> Result<(), SplitError> {
        // Without a precondition: two splitters may overwrite each other's, and either one is true.
        let body = json::to_vec(&Checkpoint { round: self.round, done });
        objects::write(self.ports, &keys::checkpoint(&self.job.job), body.into(), Precondition::None).await?;
        Ok(())
    }
}

impl Chunk {
    fn push(&mut self, message: Outgoing) {
        self.bytes += message.body.len();
        self.messages.push(message);
    }

    fn is_full(&self) -> bool {
        self.rows as usize >= CHECKPOINT_EVERY || self.bytes >= CHECKPOINT_BYTES
    }
}
