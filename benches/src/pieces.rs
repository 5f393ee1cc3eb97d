//! What is measured as a process of its own: the floors, and of our own code what no binary runs alone. Each does its work
//! as plainly as the libraries allow, on one thread as the functions do.

use std::{fs::File, path::PathBuf};

use aws_config::BehaviorVersion;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use csv::ByteRecord;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream, stream::FuturesUnordered};
use packshot_aws::clock::SystemClock;
use packshot_benches::samples;
use packshot_pipeline::{
    intake::CatalogReader,
    job::Source,
    keys::{self, Catalog, JobId},
    ports::{Clock as _, Etag, StoreError},
    settings::SplitSettings,
    split::validate,
};
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::{Outcome, stand_ins::BUCKET};

/// `bench piece`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Piece {
    /// Floor: every record of a file, by `csv`.
    Csv { file: PathBuf },
    /// Floor: the same, and a message of each, by `serde_json`.
    Message { file: PathBuf },
    /// Ours: the splitter's first pass over a file.
    Validate { file: PathBuf },
    /// Floor: records, messages, and SendMessageBatch by ten.
    Send { file: PathBuf, queue_url: String, in_flight: usize },
    /// Floor: PutObject of 500 bytes.
    Put { count: u64, in_flight: usize },
    /// Floor: GetObject of the results of a job.
    Get { job: String, count: u64, in_flight: usize },
    /// Floor: one call of the images API after the other, so many at once.
    Call { url: String, count: u64, in_flight: usize },
    /// Floor: of each row a claim, a call, an outcome and a result.
    Generate { url: String, count: u64, in_flight: usize },
}

pub(crate) async fn run(piece: Piece) -> Outcome<()> {
    match piece {
        Piece::Csv { file } => {
            let mut reader = csv::Reader::from_path(file)?;
            let (mut record, mut bytes) = (ByteRecord::new(), 0);
            while reader.read_byte_record(&mut record)? {
                bytes += record.as_slice().len();
            }
            std::hint::black_box(bytes);
            Ok(())
        }
        Piece::Message { file } => {
            messages(&file)?.try_for_each(|message| message.map(|text| drop(std::hint::black_box(text))))
        }
        Piece::Validate { file } => validate_file(file).await,
        Piece::Send { file, queue_url, in_flight } => send(&file, &queue_url, in_flight).await,
        Piece::Put { count, in_flight } => {
            let s3 = s3().await;
            all(in_flight, (0..count).map(|n| put(&s3, format!("put/{n:09}"), 500).boxed_local())).await
        }
        Piece::Get { job, count, in_flight } => get(&job, count, in_flight).await,
        Piece::Call { url, count, in_flight } => {
            let http = reqwest::Client::new();
            all(in_flight, (0..count).map(|n| call(&http, &url, n).boxed_local())).await
        }
        Piece::Generate { url, count, in_flight } => {
            let (s3, http) = (s3().await, reqwest::Client::new());
            let row = async |n: u64| {
                put(&s3, format!("claim/{n:09}"), 450).await?;
                call(&http, &url, n).await?;
                put(&s3, format!("claim/{n:09}"), 900).await?;
                put(&s3, format!("result/{n:09}"), 900).await
            };
            let row = &row;
            all(in_flight, (0..count).map(|n| async move { row(n).await }.boxed_local())).await
        }
    }
}

/// Runs the futures, so many at once.
async fn all<'f>(
    at_once: usize,
    work: impl Iterator<Item = futures::future::LocalBoxFuture<'f, Outcome<()>>>,
) -> Outcome<()> {
    stream::iter(work).buffer_unordered(at_once).try_collect().await
}

/// As our functions configure it, and otherwise as the SDK comes.
async fn s3() -> aws_sdk_s3::Client {
    let config = aws_config::defaults(BehaviorVersion::latest()).load().await;
    let config = aws_sdk_s3::config::Builder::from(&config)
        .force_path_style(true)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

async fn put(s3: &aws_sdk_s3::Client, key: String, bytes: usize) -> Outcome<()> {
    s3.put_object().bucket(BUCKET).key(key).body(vec![b'x'; bytes].into()).send().await?;
    Ok(())
}

async fn get(job: &str, count: u64, in_flight: usize) -> Outcome<()> {
    let (s3, job) = (s3().await, JobId::parse(job).ok_or("no job id")?);
    let one = async |row: u64| {
        let key = keys::result(&job, row, &samples::sku(row));
        let answer = s3.get_object().bucket(BUCKET).key(key).send().await?;
        std::hint::black_box(answer.body.collect().await?.into_bytes());
        Ok(())
    };
    let one = &one;
    all(in_flight, (1..=count).map(|row| async move { one(row).await }.boxed_local())).await
}

async fn call(http: &reqwest::Client, url: &str, row: u64) -> Outcome<()> {
    let request = samples::request(row);
    let answer = http.post(url).bearer_auth("bench-key-0123456789").json(&request).send().await?.error_for_status()?;
    std::hint::black_box(answer.bytes().await?);
    Ok(())
}

async fn send(file: &std::path::Path, queue_url: &str, in_flight: usize) -> Outcome<()> {
    let config = aws_config::defaults(BehaviorVersion::latest()).load().await;
    let sqs = aws_sdk_sqs::Client::new(&config);
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
        sending.push(sqs.send_message_batch().queue_url(queue_url).set_entries(Some(entries)).send());
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

/// A message as long as ours, by the shortest way from a record.
fn messages(file: &std::path::Path) -> Outcome<impl Iterator<Item = Outcome<String>>> {
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
    let key = "incoming/bench.csv";
    let catalog = Catalog::of(key).ok_or("no catalog")?;
    let file = File::open(file)?;
    let source = Source {
        bucket: BUCKET.into(),
        key: key.into(),
        version_id: None,
        etag: Etag(String::new()),
        bytes: file.metadata()?.len(),
        last_modified: SystemClock.now(),
    };
    // In chunks as the SDK hands them over.
    let body = tokio_util::io::ReaderStream::with_capacity(tokio::fs::File::from_std(file), 64 * 1024)
        .map_err(|error| StoreError::Refused { detail: error.to_string() })
        .boxed();
    let reader = CatalogReader::new(body);
    let settings = SplitSettings::default();
    let job = validate(reader, &settings, &samples::job(), &catalog, source, SystemClock.now(), |_, _, _| ()).await?;
    std::hint::black_box(job.valid);
    Ok(())
}
