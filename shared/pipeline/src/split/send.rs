//! Pass 2: streams the file again, and sends a message for each valid row and a failed result for each rejected one.
//!
//! The rows are cut into chunks. While one chunk is being sent, the next is read; after each, a checkpoint is written. A
//! splitter that continues at a checkpoint validates the earlier rows again without sending them, because the validator
//! must know their SKUs. The messages of one chunk may be sent twice, which consumers absorb.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    catalog::{
        reader::{CatalogReader, ReadError},
        validate::{Accepted, Input, Rejected, Validated, Validator},
    },
    model::{
        error_class::ErrorClass,
        event::MetricEvent,
        job::Job,
        json, keys,
        message::{self, RowMessage},
        result::{Failed, FailedStatus, RowResult},
    },
    ports::{OutgoingMessage, Ports, Precondition, StoreError},
    split::{
        error::SplitError,
        input::{SplitInput, header, open},
    },
    storage::{self, Document},
};

/// Rows between two checkpoints: at most these are sent again after a splitter died.
const CHECKPOINT_EVERY: usize = 2_000;
/// Bytes of messages between two checkpoints. The splitter holds twice that in memory: the chunk that it sends and the next.
const CHECKPOINT_BYTES: usize = 8 * 1024 * 1024;
/// Results of rejected rows that are written at once.
const WRITES_AT_ONCE: usize = 32;
/// Time before the deadline at which the splitter stops, so that it can still write the checkpoint.
const STOP_BEFORE_DEADLINE: Duration = Duration::from_secs(20);

/// `control/split/<job>.json`: how far pass 2 has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    round: u64,
    /// The last row that has been sent.
    done: u64,
}

/// Sends the rows of a job, beginning at the checkpoint.
pub async fn send(ports: &Ports, job: &Job, source: &SplitInput, deadline: Timestamp) -> Result<(), SplitError> {
    let sender = Sender { ports, job, round: source.round, deadline };
    let mut done = sender.last_sent().await?;
    if done >= job.rows {
        return Ok(());
    }
    let mut rows = Rows::open(&sender, source, done).await?;
    let mut chunk = rows.chunk().await?;
    while let Some(ready) = chunk {
        // Reading needs the processor and sending the network, so both go on at once.
        let (sent, next) = futures::join!(sender.send(ready), rows.chunk());
        done += sent?;
        sender.write_checkpoint(done).await?;
        chunk = next?;
        if chunk.is_some() {
            sender.check_time(done)?;
        }
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

/// The rows of a job, read for the second time.
struct Rows<'a> {
    sender: &'a Sender<'a>,
    reader: CatalogReader,
    validator: Validator,
    /// The row that was read last.
    row: u64,
    /// The last row that had been sent before.
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

    /// Reads up to the next checkpoint; `None` if no row is left.
    async fn chunk(&mut self) -> Result<Option<Chunk>, SplitError> {
        let Self { sender, reader, validator, .. } = self;
        let mut chunk = Chunk::default();
        while !chunk.is_full() {
            let Some(record) = reader.next().await? else { break };
            if validator.continues(&record) {
                continue;
            }
            self.row += 1;
            // Also for rows that have been sent: the validator must know their SKUs.
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
            // The job's time, not now, so that a second attempt writes the same line.
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
                // On a conflict an earlier attempt has written the same line.
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

    /// Returns the last row that has been sent in this round. Writes the first checkpoint of a new job, by which the sweep
    /// finds it.
    async fn last_sent(&self) -> Result<u64, SplitError> {
        let checkpoint = self.checkpoint().read_or_discard(self.ports).await?.value;
        if checkpoint.is_none() {
            self.write_checkpoint(0).await?;
        }
        Ok(checkpoint.filter(|checkpoint| checkpoint.round == self.round).map_or(0, |checkpoint| checkpoint.done))
    }

    fn checkpoint(&self) -> Document<Checkpoint> {
        Document::compact(keys::checkpoint(&self.job.job))
    }

    async fn write_checkpoint(&self, done: u64) -> Result<(), SplitError> {
        // Without a precondition: two splitters may overwrite each other's checkpoint, and either one is true.
        let checkpoint = Checkpoint { round: self.round, done };
        self.checkpoint().write(self.ports, &checkpoint, Precondition::None).await?;
        Ok(())
    }
}
