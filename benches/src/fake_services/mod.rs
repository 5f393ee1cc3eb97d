//! S3, SQS, Secrets Manager and the images API on loopback: as fast as possible and exactly as true as the product needs.
//! Unlike the demo API and the local AWS of the tests they check nothing; what they do not know they answer with 501.

mod bucket;
mod control;
mod fill;
mod images;
mod queues;
mod server;
mod tls;

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::Outcome;

/// The bucket that the functions are told.
pub(crate) const BUCKET: &str = "bench";
const QUEUES: &str = "000000000000";

/// Flags of `bench stand-ins`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FakeServicesArgs {
    /// Port of plain HTTP on 127.0.0.1; the next two are TLS (AWS) and TLS with HTTP/2 (images API). 0 takes free ones.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Milliseconds until the images API answers.
    #[arg(long, default_value_t = 50)]
    latency_ms: u64,
    /// Keep the messages, so that ReceiveMessage has something to give, and tell the queue `merge` of every result.
    #[arg(long)]
    keep_messages: bool,
    /// Where the certificate is written.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    dir: PathBuf,
}

/// Everything behind the three ports.
#[derive(Default)]
struct State {
    bucket: bucket::Bucket,
    queues: queues::Queues,
    images: images::Images,
    counters: Counters,
}

/// What has been asked for since the last time, by the access key that signed it. Paid calls and connections are nobody's.
#[derive(Default)]
struct Counters(Mutex<BTreeMap<String, Counts>>);

/// Of one caller, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) puts: u64,
    pub(crate) gets: u64,
    pub(crate) heads: u64,
    pub(crate) lists: u64,
    /// Requests of multipart uploads.
    pub(crate) multipart: u64,
    /// Requests to queues.
    pub(crate) queue_calls: u64,
    /// Messages that came in.
    pub(crate) messages: u64,
    /// Paid calls.
    pub(crate) calls: u64,
    /// Connections that were opened, of any kind.
    pub(crate) connections: u64,
}

impl Counters {
    fn add(&self, caller: &str, add: impl FnOnce(&mut Counts)) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counted.get_mut(caller) {
            Some(counts) => add(counts),
            None => add(counted.entry(caller.to_owned()).or_default()),
        }
    }

    fn take(&self) -> BTreeMap<String, Counts> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Serves until the process is ended. Prints the environment that leads a function or the command to the stand-ins, one
/// variable a line, and an empty line when all ports are open.
pub(crate) async fn serve(args: FakeServicesArgs) -> Outcome<()> {
    let certificates = tls::make(&args.dir)?;
    let state = Arc::new(State::default());
    state.images.set_latency(args.latency_ms);
    state.queues.keep(args.keep_messages);
    let port = |offset| if args.port == 0 { 0 } else { args.port + offset };
    let plain = TcpListener::bind(("127.0.0.1", port(0))).await?;
    let aws = TcpListener::bind(("127.0.0.1", port(1))).await?;
    let api = TcpListener::bind(("127.0.0.1", port(2))).await?;
    let plain_url = format!("http://127.0.0.1:{}", plain.local_addr()?.port());
    let aws_url = format!("https://localhost:{}", aws.local_addr()?.port());
    let api_url = format!("https://localhost:{}", api.local_addr()?.port());
    print_environment(&[
        ("STAND_INS_URL", plain_url.clone()),
        ("AWS_ENDPOINT_URL", aws_url.clone()),
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_ACCESS_KEY_ID", "bench".into()),
        ("AWS_SECRET_ACCESS_KEY", "bench".into()),
        ("AWS_EC2_METADATA_DISABLED", "true".into()),
        ("SSL_CERT_FILE", certificates.trust.display().to_string()),
        ("BUCKET", BUCKET.into()),
        ("ROWS_QUEUE_URL", format!("{aws_url}/{QUEUES}/rows")),
        ("RETRY_QUEUE_URL", format!("{aws_url}/{QUEUES}/retry")),
        ("API_KEY_SECRET_ARN", queues::SECRET_ARN.into()),
        ("API_BASE_URL", api_url),
        ("ARCHIVE_IMAGES", "false".into()),
        ("CREATIVEAI_API_KEY", "bench-key-0123456789".into()),
        ("PACKSHOT_API_URL", plain_url),
    ])?;
    tokio::spawn(server::serve(aws, Some(certificates.http1), state.clone()));
    tokio::spawn(server::serve(api, Some(certificates.http2), state.clone()));
    server::serve(plain, None, state).await;
    Ok(())
}

fn print_environment(variables: &[(&str, String)]) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    for (name, value) in variables {
        writeln!(out, "{name}={value}")?;
    }
    writeln!(out)?;
    out.flush()?;
    Ok(())
}
