//! `packshot stub-api`: serves the demo API.

use std::{io, path::PathBuf, time::Duration};

use clap::Args;

use crate::{
    demo_api::{DemoApi, DemoApiOptions, Script},
    exit_status::{CommandResult, ExitStatus},
    output,
};

/// Arguments of `packshot stub-api`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  packshot stub-api --port 8089 --latency-ms 50 --script faults.json
  CREATIVEAI_API_KEY=any PACKSHOT_API_URL=http://127.0.0.1:8089 packshot run events/catalog.csv

A script in which the first call for SKU-1002 fails and every call for SKU-1003 loses its connection:
  {\"rules\": [{\"match\": \"SKU-1002\", \"answers\": [{\"status\": 500}]},
             {\"match\": \"SKU-1003\", \"answers\": [{\"cut\": \"body\"}], \"then\": \"repeat\"}]}

GET /_calls lists the calls and what was billed; POST /_script replaces the script.")]
pub(crate) struct StubApiArgs {
    /// Port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Milliseconds before each answer.
    #[arg(long, value_name = "N", default_value_t = 0)]
    latency_ms: u64,
    /// JSON file with the answers to certain requests: status, body, delay, a lost connection and more.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on 127.0.0.1:{port}: {error}")]
struct CannotListen {
    port: u16,
    error: io::Error,
}

/// Serves until Ctrl-C or SIGTERM.
pub(crate) async fn run(args: StubApiArgs) -> CommandResult {
    let script = args.script.as_deref().map(Script::load).transpose()?.unwrap_or_default();
    // Before the line is printed: its reader may send the signal at once.
    let stop = stop_signal()?;
    let options = DemoApiOptions { port: args.port, latency: Duration::from_millis(args.latency_ms), script };
    let server = DemoApi::start(options).await.map_err(|error| CannotListen { port: args.port, error })?;
    output::print(format_args!("packshot demo API listening on {}", server.base_url()))?;
    stop.await;
    server.shutdown().await;
    Ok(ExitStatus::Done)
}

#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        interrupt.recv().await;
    })
}
