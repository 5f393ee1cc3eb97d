//! The built-in demo API: an images API on loopback that speaks real HTTP, serves real PNG pictures and keeps an account.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /v1/images/generations` | as the real API; the same request body always gets the same id and pictures |
//! | `GET /images/<hash>_<variant>.png` | the picture, drawn on the fly |
//! | `GET /_calls` | [`Calls`]: what was called how often, and what it cost |
//! | `POST /_script` | replaces the script; its sequences begin anew, the calls stay counted |
//! | `GET /healthz` | `ok` |
//!
//! # Scripts
//!
//! A script is JSON; every field may be left out, `match` and `answers` excepted:
//!
//! ```json
//! {
//!   "rules": [
//!     {"match": "SKU-1002", "answers": [{"status": 500, "body": "try later"}, {}], "then": "repeat"},
//!     {"match": "leather",  "answers": [{"cut": "body"}, {"images": 2, "as": "b64_json", "delay_ms": 900}]}
//!   ],
//!   "all": [{"status": 429, "headers": {"retry-after": "1"}}],
//!   "fail_first_percent": 10,
//!   "account": "ok"
//! }
//! ```
//!
//! - `rules` are tried in order. The first whose `match` (or `sku`, the same) stands in the request's prompt or image URL
//!   answers it; `SKU-1` also stands in `SKU-10`, and `""` stands everywhere. Each key (the `Idempotency-Key` header, else
//!   the SHA-256 of the body) walks through `answers` on its own, one per call; `then` says what follows the last one:
//!   `"succeed"` (normal successes, the default) or `"repeat"` (the sequence from its beginning).
//! - `fail_first_percent`: of the keys that no rule matches, this share gets a 500 on its first call. Which ones depends on
//!   the key alone.
//! - `all`: the sequence of requests that no rule matches; normal successes follow.
//! - `account`: with `"empty"`, every request gets a 402 `insufficient_quota`, before all rules.
//!
//! An answer is a normal success as far as its fields do not say otherwise:
//!
//! | field | meaning |
//! | --- | --- |
//! | `status` | 200 to 599 |
//! | `json`, `body` | the body, as JSON or as raw text; without them a 2xx has pictures and anything else an error object |
//! | `headers` | object of further headers |
//! | `delay_ms` | wait this long instead of the server's latency |
//! | `images` | this many pictures, fewer or more than asked |
//! | `as` | `"url"` (default) or `"b64_json"` |
//! | `cut` | drop the connection `"before"` the first byte, after the `"headers"`, or in the middle of the `"body"` |
//! | `no_answer` | hold the connection and never answer |
//! | `billed` | whether the call costs money; by default a 2xx does, and so does `no_answer`, but not `cut: "before"` |
//!
//! A call is counted and billed when it arrives: a client that gives up early has caused the work all the same.

mod books;
mod picture;
mod script;
mod server;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

pub use books::{Call, Calls};
pub use script::{Account, Answer, Cut, Form, Rule, Script, ScriptError, Then};

use self::{
    books::Books,
    server::{State, serve},
};

/// Flags of `packshot stub-api`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:
  packshot stub-api --port 8089 --latency-ms 50 --script faults.json
  CREATIVEAI_API_KEY=any PACKSHOT_API_URL=http://127.0.0.1:8089 packshot run events/catalog.csv

A script that lets the first call for SKU-1002 fail and cuts the connection of every call for SKU-1003:
  {\"rules\": [{\"match\": \"SKU-1002\", \"answers\": [{\"status\": 500}]},
             {\"match\": \"SKU-1003\", \"answers\": [{\"cut\": \"body\"}], \"then\": \"repeat\"}]}

GET /_calls lists the calls and what was billed; POST /_script replaces the script.")]
pub struct StubApiArgs {
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// Wait this long before each answer
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub latency_ms: u64,
    /// JSON file that says which requests get which answers (status, body, delay, cut connection, …)
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,
}

/// Why the demo API does not serve. All of them: stop and tell the user.
#[derive(Debug, thiserror::Error)]
pub enum StubApiError {
    /// The script is no good.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// The port is not to be had.
    #[error("cannot listen on 127.0.0.1:{port}: {source}")]
    Listen {
        /// The port asked for.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// Signals or standard output do not work.
    #[error("cannot serve: {0}")]
    Process(#[from] io::Error),
}

/// Serves until Ctrl-C or SIGTERM.
pub async fn run(args: StubApiArgs) -> Result<(), StubApiError> {
    let script = args.script.as_deref().map(Script::load).transpose()?.unwrap_or_default();
    // Before the line is printed: whoever reads it may signal at once.
    let stop = stop_signal()?;
    let options = StubOptions { port: args.port, latency: Duration::from_millis(args.latency_ms), script };
    let server = StubApi::start(options).await.map_err(|source| StubApiError::Listen { port: args.port, source })?;
    writeln!(io::stdout(), "packshot demo API listening on {}", server.base_url())?;
    stop.await;
    server.shutdown().await;
    Ok(())
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

/// How the demo API behaves.
#[derive(Debug, Clone, Default)]
pub struct StubOptions {
    /// Port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// Time before each answer to a generation request.
    pub latency: Duration,
    /// What it answers.
    pub script: Script,
}

/// A running demo API. Dropped without [`StubApi::shutdown`], it ends by itself soon after.
#[derive(Debug)]
pub struct StubApi {
    /// Where it listens.
    pub local_addr: SocketAddr,
    state: Arc<State>,
    stop: oneshot::Sender<Infallible>,
    server: JoinHandle<()>,
}

impl StubApi {
    /// Listens on 127.0.0.1 and serves in the background of the current Tokio runtime.
    pub async fn start(options: StubOptions) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
        let local_addr = listener.local_addr()?;
        let state = Arc::new(State {
            base_url: format!("http://{local_addr}"),
            latency: options.latency,
            books: Mutex::new(Books::new(options.script)),
        });
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(serve(listener, state.clone(), stopped));
        Ok(Self { local_addr, state, stop, server })
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.state.base_url
    }

    /// What was called so far.
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.state.books().snapshot()
    }

    /// Replaces the script, as `POST /_script` does.
    pub fn set_script(&self, script: Script) {
        self.state.books().replace(script);
    }

    /// Stops listening, lets answers under way end for a second, and drops what is left.
    pub async fn shutdown(self) {
        drop(self.stop);
        if let Err(error) = self.server.await {
            tracing::warn!(%error, "the demo API ended abnormally");
        }
    }
}
