//! The baselines: the same work as a function's, done by the libraries alone and in the shortest way. What a baseline takes is
//! the floor that a report names. Also the one part of the product that is measured apart from its binary, the validation.
//! The harness runs each as a process of its own (`bench baseline`), on one thread as the functions do.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use aws_config::BehaviorVersion;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use csv::ByteRecord;
use futures::{
    FutureExt as _, StreamExt as _, TryStreamExt as _, future::LocalBoxFuture, stream, stream::FuturesUnordered,
};
use nix::unistd::Pid;
use packshot_aws::clock::SystemClock;
use packshot_benches::samples::{self, BUCKET, CATALOG_KEY};
use packshot_pipeline::{
    catalog::reader::CatalogReader,
    model::{
        etag::Etag,
        job::Source,
        keys::{self, JobId},
    },
    ports::{Clock as _, StoreError},
    settings::SplitSettings,
    split::validate,
};
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use tokio::time::Instant;

use crate::{outcome::Outcome, process};

/// `bench baseline`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Baseline {
    /// Read every record of a file, by `csv`.
    Csv { file: PathBuf },
    /// The same, and build a message of each record, by `serde_json`.
    Message { file: PathBuf },
    /// Not a baseline: the splitter's own first pass over a file.
    Validate { file: PathBuf },
    /// Read records, build messages, and send them by SendMessageBatch, ten at a time.
    Send { file: PathBuf, queue_url: String, in_flight: usize },
    /// PutObject of 500 bytes.
    Put { count: u64, in_flight: usize },
    /// GetObject of the results of a job.
    Get { job: String, count: u64, in_flight: usize },
    /// Call the images API.
    Call { url: String, count: u64, in_flight: usize },
    /// For each row: PutObject of a claim, a call of the images API, PutObject of the outcome and of the result.
    Generate { url: String, count: u64, in_flight: usize },
}

/// Runs a baseline and prints two numbers, in microseconds: its CPU time and its wall-clock time. The start of the process is
/// not counted, as it is not counted for a function.
#[expect(clippy::print_stdout, reason = "the harness reads it")]
pub(crate) async fn run(baseline: Baseline) -> Outcome<()> {
    let clients = Clients::new().await;
    if let Some(warm_up) = baseline.warm_up() {
        clients.work(warm_up).await?;
    }
    let (cpu, begun) = (process::cpu(Pid::this())?, Instant::now());
    clients.work(baseline).await?;
    println!("{} {}", (process::cpu(Pid::this())? - cpu).as_micros(), begun.elapsed().as_micros());
    Ok(())
}

impl Baseline {
    /// The work to do before the measurement. A baseline that is compared with a warm function has to open its connections first.
    fn warm_up(&self) -> Option<Self> {
        match self {
            Self::Put { in_flight, .. } => Some(Self::Put { count: *in_flight as u64, in_flight: *in_flight }),
            Self::Call { url, in_flight, .. } => {
                Some(Self::Call { url: url.clone(), count: *in_flight as u64, in_flight: *in_flight })
            }
            Self::Generate { url, in_flight, .. } => {
                Some(Self::Generate { url: url.clone(), count: *in_flight as u64, in_flight: *in_flight })
            }
            _ => None,
        }
    }
}

struct Clients {
    s3: aws_sdk_s3::Client,
    sqs: aws_sdk_sqs::Client,
    http: reqwest::Client,
}

impl Clients {
    /// S3 has the product's settings; everything else is the libraries' default.
    async fn new() -> Self {
        let config = aws_config::defaults(BehaviorVersion::latest()).load().await;
        let s3 = aws_sdk_s3::config::Builder::from(&config)
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        Self {
            s3: aws_sdk_s3::Client::from_conf(s3),
            sqs: aws_sdk_sqs::Client::new(&config),
            http: reqwest::Client::new(),
        }
    }

    async fn work(&self, baseline: Baseline) -> Outcome<()> {
        match baseline {
            Baseline::Csv { file } => {
                let mut reader = csv::Reader::from_path(file)?;
                let (mut record, mut bytes) = (ByteRecord::new(), 0);
                while reader.read_byte_record(&mut record)? {
                    bytes += record.as_slice().len();
                }
                std::hint::black_box(bytes);
                Ok(())
            }
            Baseline::Message { file } => messages(&file)?.try_for_each(|message| {
                std::hint::black_box(message?);
                Ok(())
            }),
            Baseline::Validate { file } => validate_file(file).await,
            Baseline::Send { file, queue_url, in_flight } => self.send(&file, &queue_url, in_flight).await,
            Baseline::Put { count, in_flight } => {
                all(in_flight, (0..count).map(|n| self.put(format!("put/{n:09}"), 500).boxed_local())).await
            }
            Baseline::Get { job, count, in_flight } => {
                let job = JobId::parse(&job).ok_or("not a job id")?;
                let key = |row| keys::result(&job, row, &samples::sku(row));
                all(in_flight, (1..=count).map(|row| self.get(key(row)).boxed_local())).await
            }
            Baseline::Call { url, count, in_flight } => {
                all(in_flight, (0..count).map(|n| self.call(&url, n).boxed_local())).await
            }
            Baseline::Generate { url, count, in_flight } => {
                all(in_flight, (0..count).map(|n| self.generate(&url, n).boxed_local())).await
            }
        }
    }

    async fn put(&self, key: String, bytes: usize) -> Outcome<()> {
        self.s3.put_object().bucket(BUCKET).key(key).body(vec![b'x'; bytes].into()).send().await?;
        Ok(())
    }

    async fn get(&self, key: String) -> Outcome<()> {
        let answer = self.s3.get_object().bucket(BUCKET).key(key).send().await?;
        std::hint::black_box(answer.body.collect().await?.into_bytes());
        Ok(())
    }

    async fn call(&self, url: &str, row: u64) -> Outcome<()> {
        let call = self.http.post(url).bearer_auth("bench-key-0123456789").json(&samples::request(row));
        std::hint::black_box(call.send().await?.error_for_status()?.bytes().await?);
        Ok(())
    }

    async fn generate(&self, url: &str, row: u64) -> Outcome<()> {
        self.put(format!("claim/{row:09}"), 450).await?;
        self.call(url, row).await?;
        self.put(format!("claim/{row:09}"), 900).await?;
        self.put(format!("result/{row:09}"), 900).await
    }

    async fn send(&self, file: &Path, queue_url: &str, in_flight: usize) -> Outcome<()> {
        let mut messages = messages(file)?;
        let mut sending = FuturesUnordered::new();
        loop {
            let entries: Vec<_> = messages
                .by_ref()
                .take(10)
                .enumerate()
                .map(|(index, message)| {
                    let entry = SendMessageBatchRequestEntry::builder().id(index.to_string()).message_body(message?);
                    Ok(entry.build()?)
                })
                .collect::<Outcome<_>>()?;
            if entries.is_empty() {
                break;
            }
            sending.push(self.sqs.send_message_batch().queue_url(queue_url).set_entries(Some(entries)).send());
            if sending.len() == in_flight
                && let Some(sent) = sending.next().await
            {
                sent?;
            }
        }
        while let Some(sent) = sending.next().await {
            sent?;
        }
        Ok(())
    }
}

/// Runs the futures, at most `at_once` at a time.
async fn all<'f>(at_once: usize, work: impl Iterator<Item = LocalBoxFuture<'f, Outcome<()>>>) -> Outcome<()> {
    stream::iter(work).buffer_unordered(at_once).try_collect().await
}

/// Messages as long as the splitter's, one of each record, without validation.
fn messages(file: &Path) -> Outcome<impl Iterator<Item = Outcome<String>>> {
    let mut reader = csv::Reader::from_path(file)?;
    let header = reader.headers()?.clone();
    let mut record = csv::StringRecord::new();
    let mut row = 0;
    Ok(std::iter::from_fn(move || match reader.read_record(&mut record) {
        Ok(true) => {
            row += 1;
            Some(message(&header, &record, row))
        }
        Ok(false) => None,
        Err(error) => Some(Err(error.into())),
    }))
}

fn message(header: &csv::StringRecord, record: &csv::StringRecord, row: u64) -> Outcome<String> {
    #[derive(Serialize)]
    struct Message<'a> {
        v: u32,
        job: &'a str,
        catalog: &'a str,
        row: u64,
        line: u64,
        sku: &'a str,
        fingerprint: &'a str,
        round: u64,
        request: Request<'a>,
        input: Input<'a>,
    }
    #[derive(Serialize)]
    struct Request<'a> {
        model: &'a str,
        prompt: &'a str,
        image_url: &'a str,
        size: &'a str,
        quality: &'a str,
        n: u8,
    }
    struct Input<'a>(&'a csv::StringRecord, &'a csv::StringRecord);
    impl Serialize for Input<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(Some(self.0.len()))?;
            self.0.iter().zip(self.1).try_for_each(|(name, field)| map.serialize_entry(name, field))?;
            map.end()
        }
    }
    let field = |index: usize| record.get(index).unwrap_or_default();
    let prompt = format!(
        "E-commerce hero product photo of {}. Brand identity: {}. Style cues: {}. Photorealistic, centered composition, clean \
         edges, no watermark, no extra text.",
        field(1),
        field(3),
        field(4)
    );
    Ok(serde_json::to_string(&Message {
        v: 1,
        job: "5f0c3a9be1d27468",
        catalog: "bench",
        row,
        line: row + 1,
        sku: field(0),
        fingerprint: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        round: 0,
        request: Request {
            model: "gpt-image-1",
            prompt: &prompt,
            image_url: field(2),
            size: "1024x1024",
            quality: "high",
            n: 4,
        },
        input: Input(header, record),
    })?)
}

async fn validate_file(file: PathBuf) -> Outcome<()> {
    let file = File::open(file)?;
    let source = Source {
        bucket: BUCKET.into(),
        key: CATALOG_KEY.into(),
        version_id: None,
        etag: Etag(String::new()),
        bytes: file.metadata()?.len(),
        last_modified: SystemClock.now(),
    };
    // Chunks of the size in which the SDK delivers a body.
    let body = tokio_util::io::ReaderStream::with_capacity(tokio::fs::File::from_std(file), 64 * 1024)
        .map_err(|error| StoreError::Refused { detail: error.to_string() })
        .boxed();
    let reader = CatalogReader::new(body);
    let settings = SplitSettings::default();
    let job =
        validate(reader, &settings, &samples::job(), &samples::catalog_id(), source, SystemClock.now(), |_, _, _| ())
            .await?;
    std::hint::black_box(job.valid);
    Ok(())
}
