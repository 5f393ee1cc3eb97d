//! What AWS charges for a catalog, besides what the API charges: the number of requests of each kind times assumed prices.
//!
//! The tables in `docs/cost.md` are computed here, and a test compares the request counts with those of the simulation.

use packshot_pipeline::{generate::archive, model::keys::ROWS_PER_PART};
use serde::{Deserialize, Serialize};

/// US dollars, us-east-1, on demand, no free tier: AWS's public price lists of November 2026. An assumption.
mod prices {
    /// One GB-second of Lambda on arm64.
    pub(super) const LAMBDA_GB_SECOND_ARM: f64 = 0.000_013_333_4;
    /// One GB-second of Lambda on x86_64.
    pub(super) const LAMBDA_GB_SECOND_X86: f64 = 0.000_016_666_7;
    /// One invocation.
    pub(super) const LAMBDA_REQUEST: f64 = 0.20e-6;
    /// One request to a standard queue, per 64 KiB.
    pub(super) const SQS_REQUEST: f64 = 0.40e-6;
    /// One PUT, POST or LIST.
    pub(super) const S3_WRITE: f64 = 5e-6;
    /// One GET or HEAD.
    pub(super) const S3_READ: f64 = 0.4e-6;
    /// One GB in S3 Standard for a month.
    pub(super) const S3_GB_MONTH: f64 = 0.023;
    /// One GB ingested by CloudWatch Logs.
    pub(super) const LOGS_GB: f64 = 0.50;
    /// One trace recorded by X-Ray.
    pub(super) const TRACE: f64 = 5e-6;
    /// One custom metric for a month, billed for the hours in which it receives data.
    pub(super) const METRIC_MONTH: f64 = 0.30;
    /// One state transition of a standard workflow of Step Functions.
    pub(super) const TRANSITION: f64 = 25e-6;
    /// One execution of an express workflow.
    pub(super) const EXPRESS_REQUEST: f64 = 1e-6;
    /// One GB-second of an express workflow, in steps of 64 MB.
    pub(super) const EXPRESS_GB_SECOND: f64 = 0.000_016_67;
}

/// Size of an image: a PNG of 1024x1024 in high quality. An assumption.
const IMAGE_MB: f64 = 2.0;
/// CPU seconds for storing one MB: TLS in and out, two SHA-256, a checksum, copies. `openssl speed` measures 1.6 ms of a core for
/// the ciphers and hashes alone; the rest is an assumption.
const KEEP_CPU_PER_MB: f64 = 0.005;
/// CPU seconds of a row without its images: seven small requests over TLS. A cautious assumption.
const ROW_CPU: f64 = 0.004;
/// Seconds of the store requests before and after a call, which run one after the other.
const STORE_SECONDS: f64 = 0.3;
/// Seconds for fetching and writing an image; a process has [`archive::AT_ONCE`] in flight.
const KEEP_SECONDS: f64 = 0.5;
/// The memory that gets one whole CPU, in MB.
const MB_PER_CPU: f64 = 1_769.0;
/// Seconds of an invocation of the merger that writes no part: about ten store requests, one after the other.
const LOOK_SECONDS: f64 = 0.25;
/// Seconds for writing one part, with its review page, its tally and its share of the manifest.
const PART_SECONDS: f64 = 1.0;
/// Rows that the splitter sends per second.
const SPLIT_PER_SECOND: f64 = 5_000.0;
/// Bytes of log per row, and per invocation (Lambda's own three lines and the metrics).
const LOG_BYTES: (f64, f64) = (600.0, 2_000.0);
/// Custom metrics of a stack, counting each value of a dimension.
const METRICS: f64 = 24.0;
/// X-Ray records the first invocation of each second, and this share of the others.
const TRACED_SHARE: f64 = 0.05;
/// Kilobytes stored per row of a finished job: three versions of its ledger entry, its result, the same line in part and manifest,
/// its card on the contact sheet.
const ROW_KB: f64 = 3.0 * 1.4 + 3.0 * 1.7 + 2.2;
const SECONDS_PER_MONTH: f64 = 730.0 * 3_600.0;

/// The parameters of a deployment on which the cost depends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deployment {
    /// Graviton instead of x86-64.
    pub arm: bool,
    /// Memory of the generator, in MB.
    pub generator_mb: u32,
    /// Memory of the splitter, in MB.
    pub splitter_mb: u32,
    /// Memory of the merger, in MB.
    pub merger_mb: u32,
    /// Rows per invocation of the generator.
    pub batch: u32,
    /// Concurrent invocations of the generator.
    pub generators: u32,
    /// Result events per invocation of the merger, at most.
    pub merge_batch: u32,
    /// Seconds for which result events are collected, at most.
    pub merge_window: u32,
    /// Whether images are stored.
    pub archive: bool,
}

impl Default for Deployment {
    /// The defaults of `template.yaml`.
    fn default() -> Self {
        Self {
            arm: false,
            generator_mb: 256,
            splitter_mb: 1_769,
            merger_mb: 1_769,
            batch: 3,
            generators: 2,
            merge_batch: 1_000,
            merge_window: 10,
            archive: true,
        }
    }
}

/// A catalog, as far as the cost depends on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// Rows of the catalog.
    pub rows: u64,
    /// Rows that the splitter rejects.
    pub rejected: u64,
    /// Calls of the API: one for each different request that has not been paid for.
    pub calls: u64,
    /// Images that the calls return.
    pub images: u64,
    /// Duration of a call.
    pub seconds_per_call: f64,
}

impl Work {
    /// `rows` different rows with four images each.
    #[must_use]
    pub fn of(rows: u64, seconds_per_call: f64) -> Self {
        Self { rows, rejected: 0, calls: rows, images: 4 * rows, seconds_per_call }
    }
}

/// Requests to S3, in the two groups that S3 charges for.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Requests {
    /// GET and HEAD.
    pub reads: f64,
    /// PUT, POST and LIST.
    pub writes: f64,
}

impl Requests {
    /// US dollars.
    #[must_use]
    pub fn usd(self) -> f64 {
        self.reads * prices::S3_READ + self.writes * prices::S3_WRITE
    }
}

/// AWS's charge for a job, in US dollars.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AwsCost {
    /// The whole charge, without storage.
    pub total_usd: f64,
    /// The three functions.
    pub lambda_usd: f64,
    /// The two queues.
    pub sqs_usd: f64,
    /// Requests to the bucket.
    pub s3_usd: f64,
    /// Logs, metrics and traces.
    pub watching_usd: f64,
    /// Storage a month, mostly images.
    pub storage_usd_per_month: f64,
}

impl Deployment {
    /// The template's defaults, with as many generators as `at_once` calls at once need.
    #[must_use]
    pub fn calling(at_once: u32) -> Self {
        let default = Self::default();
        Self { generators: at_once.div_ceil(default.batch).max(1), ..default }
    }

    /// Calls of the API at once.
    #[must_use]
    pub fn at_once(&self) -> u64 {
        u64::from(self.batch) * u64::from(self.generators)
    }

    /// Seconds from the first call to the last answer.
    #[must_use]
    pub fn seconds(&self, work: &Work) -> f64 {
        work.calls.div_ceil(self.at_once().max(1)) as f64 * self.generator_seconds(work)
    }

    /// Price of one GB-second.
    fn gb_second(&self) -> f64 {
        if self.arm { prices::LAMBDA_GB_SECOND_ARM } else { prices::LAMBDA_GB_SECOND_X86 }
    }

    fn lambda(&self, invocations: f64, seconds: f64, mb: u32) -> f64 {
        let gb = f64::from(mb) / 1_024.0;
        invocations * (prices::LAMBDA_REQUEST + seconds * gb * self.gb_second())
    }

    /// Seconds of one invocation of the generator. Its rows wait at the same time, but their CPU time adds up.
    #[must_use]
    pub fn generator_seconds(&self, work: &Work) -> f64 {
        let batch = f64::from(self.batch);
        let kept = if self.archive { batch * work.images as f64 / work.calls.max(1) as f64 } else { 0.0 };
        let cpu = batch * ROW_CPU + kept * IMAGE_MB * KEEP_CPU_PER_MB;
        let waves = (kept / archive::AT_ONCE as f64).ceil();
        let busy = (cpu / (f64::from(self.generator_mb) / MB_PER_CPU).min(1.0)).max(waves * KEEP_SECONDS);
        work.seconds_per_call + STORE_SECONDS + busy
    }

    fn generations(&self, work: &Work) -> f64 {
        work.calls as f64 / f64::from(self.batch)
    }

    /// US dollars for the generator's Lambda.
    #[must_use]
    pub fn generator_usd(&self, work: &Work) -> f64 {
        self.lambda(self.generations(work), self.generator_seconds(work), self.generator_mb)
    }

    /// Invocations of the merger: full batches, or one per batching window.
    #[must_use]
    pub fn merges(&self, work: &Work) -> f64 {
        let rows = work.rows as f64;
        (rows / f64::from(self.merge_batch)).max((self.seconds(work) / f64::from(self.merge_window)).min(rows)).max(1.0)
    }

    /// What Lambda, S3, SQS and CloudWatch charge.
    #[must_use]
    pub fn cost(&self, work: &Work) -> AwsCost {
        let (rows, calls) = (work.rows as f64, work.calls as f64);
        let (merges, parts) = (self.merges(work), rows / ROWS_PER_PART as f64);
        let merge_seconds = LOOK_SECONDS * merges + PART_SECONDS * parts;
        let lambda_usd = self.generator_usd(work)
            + self.lambda(1.0, rows / SPLIT_PER_SECOND, self.splitter_mb)
            + self.lambda(merges, merge_seconds / merges, self.merger_mb);
        let s3 = [
            splitter_requests(work),
            generator_requests(work, self.archive, self.batch),
            merger_requests(work, merges),
        ];
        // Rows are sent, received and deleted in batches of up to ten. S3 sends result events one by one, and a waiting poller
        // receives each of them alone.
        let of_rows = 0.1 + 2.0 / f64::from(self.batch.min(10));
        let of_events = 1.0 + 1.0 + 0.1;
        let sqs_usd = rows * (of_rows + of_events) * prices::SQS_REQUEST;
        let invocations = self.generations(work) + merges + 1.0;
        let log_gb = (rows * LOG_BYTES.0 + invocations * LOG_BYTES.1) / 1e9;
        let seconds = self.seconds(work);
        let traces = invocations.min(seconds + TRACED_SHARE * invocations);
        let hours = (seconds / 3_600.0).ceil() * 3_600.0;
        let watching_usd = log_gb * prices::LOGS_GB
            + traces * prices::TRACE
            + METRICS * prices::METRIC_MONTH * hours / SECONDS_PER_MONTH;
        let s3_usd = s3.into_iter().map(Requests::usd).sum();
        let kept_gb = if self.archive { work.images as f64 * IMAGE_MB / 1_000.0 } else { 0.0 };
        let row_gb = calls.max(rows) * ROW_KB / 1e6;
        AwsCost {
            total_usd: lambda_usd + sqs_usd + s3_usd + watching_usd,
            lambda_usd,
            sqs_usd,
            s3_usd,
            watching_usd,
            storage_usd_per_month: (kept_gb + row_gb) * prices::S3_GB_MONTH,
        }
    }
}

impl AwsCost {
    /// Rounds to the cent: more digits would suggest more than an estimate.
    #[must_use]
    pub fn rounded(self) -> Self {
        let cent = |usd: f64| (usd * 100.0).round() / 100.0;
        Self {
            total_usd: cent(self.total_usd),
            lambda_usd: cent(self.lambda_usd),
            sqs_usd: cent(self.sqs_usd),
            s3_usd: cent(self.s3_usd),
            watching_usd: cent(self.watching_usd),
            storage_usd_per_month: cent(self.storage_usd_per_month),
        }
    }
}

/// Reads: the catalog twice, `job.json`, the checkpoint. Writes: `job.json`, a checkpoint at the start and after every 2,000 rows, a
/// result for each rejected row.
#[must_use]
pub fn splitter_requests(work: &Work) -> Requests {
    Requests { reads: 4.0, writes: 2.0 + work.rows.div_ceil(2_000) as f64 + work.rejected as f64 }
}

/// Reads: the breaker, once per batch. Writes: claim, outcome, result. Where images are stored: each image, and the ledger entry once
/// more to name them. A row that shares an outcome reads its result and the ledger entry and writes its result, often after a refused
/// claim.
#[must_use]
pub fn generator_requests(work: &Work, archive: bool, batch: u32) -> Requests {
    let calls = work.calls as f64;
    let shared = work.rows.saturating_sub(work.rejected + work.calls) as f64;
    let kept = if archive { 1.0 } else { 0.0 };
    Requests {
        reads: work.calls.div_ceil(batch.into()) as f64 + calls * kept + shared * 2.0,
        writes: calls * (3.0 + kept) + work.images as f64 * kept + shared * 2.0,
    }
}

/// Each result is read once, and one part in ten a second time, because two mergers find it full at the same time. Each batch of
/// events reads `job.json`, and looks up and lists the part that changed. A full part is written, three batches compare what exists, and
/// the part is read for the counts and finally for the manifest, `failed.csv` and the contact sheet.
#[must_use]
pub fn merger_requests(work: &Work, merges: f64) -> Requests {
    let parts = work.rows.div_ceil(ROWS_PER_PART) as f64;
    Requests { reads: 1.1 * work.rows as f64 + 2.0 * merges + 31.0 * parts, writes: merges + 12.0 * parts }
}

/// The cost of other designs, counting only Lambda and what feeds it: what batches save.
pub mod elsewhere {
    use super::{Deployment, Work, prices};

    /// A queue that feeds batches of rows: this design.
    #[must_use]
    pub fn queue(deployment: &Deployment, work: &Work) -> f64 {
        let of_rows = 0.1 + 2.0 / f64::from(deployment.batch.min(10));
        lambda(deployment, work) + work.rows as f64 * of_rows * prices::SQS_REQUEST
    }

    /// Step Functions' distributed map with one row per child: standard workflows with two transitions each.
    #[must_use]
    pub fn map_of_standard(deployment: &Deployment, work: &Work) -> f64 {
        lambda(deployment, work) + work.rows as f64 * 2.0 * prices::TRANSITION
    }

    /// The same with express workflows of 64 MB: the transition that starts a child, its request and its duration.
    #[must_use]
    pub fn map_of_express(deployment: &Deployment, work: &Work) -> f64 {
        let child = prices::EXPRESS_REQUEST + work.seconds_per_call * 0.0625 * prices::EXPRESS_GB_SECOND;
        lambda(deployment, work) + work.rows as f64 * (prices::TRANSITION + child)
    }

    /// One object per row, written and read once.
    #[must_use]
    pub fn object_per_row(rows: u64) -> f64 {
        rows as f64 * (prices::S3_WRITE + prices::S3_READ)
    }

    /// The waiting for the API only, as published comparisons count it.
    fn lambda(deployment: &Deployment, work: &Work) -> f64 {
        deployment.lambda(deployment.generations(work), work.seconds_per_call, deployment.generator_mb)
    }
}
