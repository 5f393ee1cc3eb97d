//! Fake S3, SQS, Secrets Manager and images API on loopback, fast enough to measure against. They run in a process of
//! their own (`bench fake-services`) and keep everything in memory. They implement only what the product uses, with the
//! semantics that it relies on: preconditions, ranges, ordered listings. They verify no signature and no parameter; a
//! request that they do not support gets 501. For correctness tests use the demo API and the local AWS instead.
//!
//! From bottom to top: [`answer`], [`query`] and [`counters`]; the services [`bucket`], [`queues`] and [`images`], which
//! do not know each other; [`state`], which holds them; [`control`] and [`server`]; this module, which opens the ports.

mod answer;
mod bucket;
mod client;
mod control;
mod counters;
mod fill;
mod images;
mod query;
mod queues;
mod server;
mod state;
mod tls;

use std::{io::Write as _, path::PathBuf, sync::Arc};

use packshot_benches::samples::BUCKET;
use tokio::net::TcpListener;

pub(crate) use self::{client::FakeServices, counters::Counts};
use crate::outcome::Outcome;

/// The account in the queues' URLs.
const ACCOUNT: &str = "000000000000";

/// Flags of `bench fake-services`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FakeServicesArgs {
    /// Port of plain HTTP on 127.0.0.1; the next two are TLS (AWS) and TLS with HTTP/2 (images API). 0 takes free ones.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Milliseconds until the images API answers.
    #[arg(long, default_value_t = 50)]
    latency_ms: u64,
    /// Keep messages for ReceiveMessage, and send an event to the queue `merge` for every result that is stored.
    #[arg(long)]
    keep_messages: bool,
    /// Where the certificate is written.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    dir: PathBuf,
}

/// Serves until the process is ended. When all ports are open, prints the environment that a function or the command needs
/// to reach the services: one variable a line, and an empty line at the end.
pub(crate) async fn serve(args: FakeServicesArgs) -> Outcome<()> {
    let certificates = tls::certificates(&args.dir)?;
    let state = Arc::new(state::State::default());
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
        ("FAKE_SERVICES_URL", plain_url.clone()),
        ("AWS_ENDPOINT_URL", aws_url.clone()),
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_ACCESS_KEY_ID", "bench".into()),
        ("AWS_SECRET_ACCESS_KEY", "bench".into()),
        ("AWS_EC2_METADATA_DISABLED", "true".into()),
        ("SSL_CERT_FILE", certificates.trust.display().to_string()),
        ("BUCKET", BUCKET.into()),
        ("ROWS_QUEUE_URL", format!("{aws_url}/{ACCOUNT}/rows")),
        ("RETRY_QUEUE_URL", format!("{aws_url}/{ACCOUNT}/retry")),
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
