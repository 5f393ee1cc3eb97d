//! A catalog in, messages out. Pass 1 validates everything before anything is spent; pass 2 sends.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    catalog::{
        columns::Columns,
        reader::{CatalogReader, ReadError},
        validate::{Accepted, Input, Rejected, Validated, Validator},
    },
    model::{
        catalog_error::CatalogError,
        column::ColumnMap,
        defaults::Defaults,
        error_class::ErrorClass,
        event::MetricEvent,
        job::{self, Job, Source},
        json,
        keys::{self, Catalog, JobId, Manifests},
        message::{self, RowMessage},
        result::{Failed, FailedStatus, RowResult},
        summary::Summary,
    },
    notify::{AnnounceError, announce},
    ports::{OutgoingMessage, Ports, Precondition, QueueError, StoreError},
    settings::SplitSettings,
    storage,
};

/// Rows between two checkpoints: what is sent again, at most, when the splitter dies.
const CHECKPOINT_EVERY: usize = 2_000;
/// Bytes of messages between two checkpoints. The splitter holds twice that in memory: what it sends, and what comes next.
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
    /// A catalog. Once [`send`] is through, every row is on its way or has its failed result.
    Split(Box<Job>),
    /// The file cannot be a catalog; its summary says so. No row was sent.
    Rejected {
        /// The job.
        job: JobId,
        /// Its catalog.
        catalog: Catalog,
        /// Why.
        problem: CatalogError,
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

/// Of pass 2: pass 1 has read the same object to its end.
impl From<ReadError> for SplitError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => Self::Store(error),
            ReadError::CatalogError(problem) => Self::Changed(problem.to_string()),
        }
    }
}

/// How far pass 2 has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    round: u64,
    /// Rows up to this one are on their way.
    done: u64,
}

/// Splits a catalog: [`admit`], then [`send`]. Run twice, or by two at once, it sends messages twice and nothing worse.
pub async fn split(
    ports: &Ports,
    settings: &SplitSettings,
    source: SplitInput,
    deadline: Timestamp,
) -> Result<SplitReport, SplitError> {
    let report = admit(ports, settings, &source).await?;
    if let SplitReport::Split(job) = &report {
        send(ports, job, &source, deadline).await?;
    }
    Ok(report)
}

/// Pass 1: either the job's `job.json` stands, or the summary of a rejected file. Nothing has been sent.
pub async fn admit(ports: &Ports, settings: &SplitSettings, source: &SplitInput) -> Result<SplitReport, SplitError> {
    let Some(catalog) = Catalog::of(&source.key) else {
        return Ok(SplitReport::Nothing("the key is not one of a catalog"));
    };
    let Some((reader, found)) = open(ports, source, &settings.column_map).await? else {
        return Ok(SplitReport::Nothing("the object has been replaced or removed since"));
    };
    let version = source.version_id.as_deref().unwrap_or(&found.etag.0);
    let id = JobId::of(&source.bucket, &source.key, version, &source.edition);
    let job = match storage::read(ports, &keys::job(&id)).await? {
        Some(seen) => read_job(&seen.bytes)?,
        None => match validate(reader, settings, &id, &catalog, found.clone(), ports.clock.now(), |_, _, _| ()).await {
            Ok(job) => create_job(ports, job).await?,
            Err(ReadError::Store(error)) => return Err(error.into()),
            Err(ReadError::CatalogError(problem)) => {
                reject(ports, &id, &catalog, found, &problem).await?;
                announce(ports, &catalog, &id).await?;
                return Ok(SplitReport::Rejected { job: id, catalog, problem });
            }
        },
    };
    Ok(SplitReport::Split(Box::new(job)))
}

/// Pass 2: one message per valid row, one failed result per rejected row, beginning at the checkpoint.
pub async fn send(ports: &Ports, job: &Job, source: &SplitInput, deadline: Timestamp) -> Result<(), SplitError> {
    let sender = Sender { ports, job, round: source.round, deadline };
    let mut done = sender.checkpoint().await?;
    if done >= job.rows {
        return Ok(());
    }
    let mut rows = Rows::open(&sender, source, done).await?;
    let mut chunk = rows.chunk().await?;
    while let Some(ready) = chunk {
        // The next rows are read while these are under way: reading needs the processor, sending the network.
        let (sent, next) = futures::join!(sender.send(ready), rows.chunk());
        done += sent?;
        sender.keep_checkpoint(done).await?;
        chunk = next?;
        if chunk.is_some() {
            sender.check_time(done)?;
        }
    }
    Ok(())
}

async fn open(
    ports: &Ports,
    source: &SplitInput,
    map: &ColumnMap,
) -> Result<Option<(CatalogReader, Source)>, StoreError> {
    let version = source.version_id.as_deref();
    let opened = storage::repeat_read(ports, || ports.store.open(&source.key, version)).await?;
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
        return Err(CatalogError::new("empty_file", what).into());
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
    mut judged: impl FnMut(u64, u64, &Result<Accepted<'_>, Rejected>),
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
            return Err(CatalogError::new("too_many_rows", what).on(record.line).into());
        }
        let Validated { verdict, .. } = validator.validate(record)?;
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
            return Err(CatalogError::new("too_many_images", what).on(record.line).into());
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
    match storage::write(ports, &key, json::to_pretty(&job).into(), Precondition::Absent).await {
        Ok(_) => Ok(job),
        Err(error @ (StoreError::Conflict { .. } | StoreError::Unknown { .. })) => {
            match storage::read(ports, &key).await? {
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
    problem: &CatalogError,
) -> Result<(), StoreError> {
    let key = Manifests::of(catalog, id).summary();
    let summary = Summary::rejected(id.clone(), catalog.clone(), source, problem.clone(), ports.clock.now());
    let seen = storage::read(ports, &key).await?;
    let known = seen.is_some();
    storage::update(ports, &key, seen, |current| current.is_none().then(|| json::to_pretty(&summary))).await?;
    if !known {
        ports.metrics.record(MetricEvent::CatalogRejected);
    }
    Ok(())
}

/// What lies between two checkpoints.
#[derive(Default)]
struct Chunk {
    rows: u64,
    bytes: usize,
    messages: Vec<OutgoingMessage>,
    results: Vec<(String, Vec<u8>)>,
}

/// The rows of a job, read once more.
struct Rows<'a> {
    sender: &'a Sender<'a>,
    reader: CatalogReader,
    validator: Validator,
    /// The row that was read last.
    row: u64,
    /// Rows up to this one are on their way already.
    done: u64,
}

impl<'a> Rows<'a> {
    async fn open(sender: &'a Sender<'a>, source: &SplitInput, done: u64) -> Result<Self, SplitError> {
        let Some((mut reader, _)) = open(sender.ports, source, &sender.job.column_map).await? else {
            return Err(SplitError::Changed("it is gone".into()));
        };
        let validator = header(&mut reader, &sender.job.column_map, sender.job.defaults.clone()).await?;
        Ok(Self { sender, reader, validator, row: 0, done })
    }

    /// Reads on up to the next checkpoint; `None` where no row is left.
    async fn chunk(&mut self) -> Result<Option<Chunk>, SplitError> {
        let Self { sender, reader, validator, .. } = self;
        let mut chunk = Chunk::default();
        while !chunk.is_full() {
            let Some(record) = reader.next().await? else { break };
            if validator.continues(&record) {
                continue;
            }
            self.row += 1;
            // Also for rows that are on their way already: the validator must know their SKUs.
            let Validated { verdict, input } = validator.validate(record).map_err(ReadError::from)?;
            if self.row <= self.done {
                continue;
            }
            chunk.rows += 1;
            match verdict {
                Ok(accepted) => chunk.push(sender.message(self.row, record.line, accepted, input)),
                Err(rejected) => chunk.push_result(sender.rejected(self.row, record.line, rejected, input)),
            }
        }
        if !chunk.is_full() && self.row != sender.job.rows {
            let (found, said) = (self.row, sender.job.rows);
            return Err(SplitError::Changed(format!("{found} rows where job.json says {said}")));
        }
        Ok((chunk.rows > 0).then_some(chunk))
    }
}

/// Pass 2 of one job.
struct Sender<'a> {
    ports: &'a Ports,
    job: &'a Job,
    round: u64,
    deadline: Timestamp,
}

impl Sender<'_> {
    fn message(&self, row: u64, line: u64, accepted: Accepted<'_>, input: Input<'_>) -> OutgoingMessage {
        let message = RowMessage {
            v: message::VERSION,
            job: self.job.job.clone(),
            catalog: self.job.catalog.clone(),
            row,
            line,
            sku: accepted.sku.into(),
            fingerprint: accepted.request.fingerprint(),
            round: self.round,
            request: accepted.request,
            input,
        };
        OutgoingMessage { body: message.encode(), attributes: [].into() }
    }

    fn rejected(&self, row: u64, line: u64, rejected: Rejected, input: Input<'_>) -> (String, Vec<u8>) {
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
            input: input.to_map(),
        }));
        (key, json::to_line(&result))
    }

    async fn send(&self, chunk: Chunk) -> Result<u64, SplitError> {
        let Chunk { rows, messages, results, .. } = chunk;
        let (sent, rejected) = (messages.len() as u64, results.len() as u64);
        stream::iter(results)
            .map(|(key, line)| async move {
                // Whoever wrote it before wrote the same.
                match storage::write(self.ports, &key, line.into(), Precondition::Absent).await {
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
        self.ports.metrics.record(MetricEvent::RowsSplit { sent, rejected });
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
        let seen = storage::read(self.ports, &keys::checkpoint(&self.job.job)).await?;
        let checkpoint: Option<Checkpoint> = seen.and_then(|seen| serde_json::from_slice(&seen.bytes).ok());
        if checkpoint.is_none() {
            self.keep_checkpoint(0).await?;
        }
        Ok(checkpoint.filter(|checkpoint| checkpoint.round == self.round).map_or(0, |checkpoint| checkpoint.done))
    }

    async fn keep_checkpoint(&self, done: u64) -> Result<(), SplitError> {
        // Without a precondition: two splitters may overwrite each other's, and either one is true.
        let body = json::to_vec(&Checkpoint { round: self.round, done });
        storage::write(self.ports, &keys::checkpoint(&self.job.job), body.into(), Precondition::None).await?;
        Ok(())
    }
}

impl Chunk {
    fn push(&mut self, message: OutgoingMessage) {
        self.bytes += message.body.len();
        self.messages.push(message);
    }

    fn push_result(&mut self, (key, line): (String, Vec<u8>)) {
        self.bytes += key.len() + line.len();
        self.results.push((key, line));
    }

    fn is_full(&self) -> bool {
        self.rows as usize >= CHECKPOINT_EVERY || self.bytes >= CHECKPOINT_BYTES
    }
}
