//! The built-in demo API: an image API on loopback that speaks real HTTP, serves real PNG images and counts what it bills.
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /v1/images/generations` | like the real API; the same request body always gets the same id and images |
//! | `GET /images/<hash>_<variant>.png` | the image, drawn when it is requested |
//! | `GET /_calls` | [`Calls`]: what was called how often, and what it cost |
//! | `POST /_script` | replaces the script; every sequence restarts, the calls stay counted |
//! | `GET /healthz` | `ok` |
//!
//! # Scripts
//!
//! A script is JSON; every field except `match` and `answers` is optional:
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
//! - `rules` are tried in order. The first rule whose `match` (or `sku`, an alias) is contained in the request's prompt or image
//!   URL answers it; `SKU-1` is also contained in `SKU-10`, and `""` in every text. Each key (the `Idempotency-Key` header, else
//!   the SHA-256 of the body) has its own position in `answers`, which moves with each call; `then` says what follows the last
//!   answer: `"succeed"` (normal successes, the default) or `"repeat"` (the sequence from its beginning).
//! - `fail_first_percent`: of the keys that no rule matches, this share gets a 500 on its first call. The key alone decides.
//! - `all`: the sequence of requests that no rule matches; normal successes follow.
//! - `account`: with `"empty"`, every request gets a 402 `insufficient_quota`, before all rules.
//!
//! An answer is a normal success unless its fields say otherwise:
//!
//! | field | meaning |
//! | --- | --- |
//! | `status` | 200 to 599 |
//! | `json`, `body` | the body, as JSON or as raw text; without them a 2xx has images and any other status an error object |
//! | `headers` | object of additional headers |
//! | `delay_ms` | wait this long instead of the server's latency |
//! | `images` | this many images, fewer or more than requested |
//! | `as` | `"url"` (default) or `"b64_json"` |
//! | `cut` | drop the connection `"before"` the first byte, after the `"headers"`, or in the middle of the `"body"` |
//! | `no_answer` | hold the connection and never answer |
//! | `billed` | whether the call costs money; by default a 2xx does, and so does `no_answer`, but not `cut: "before"` |
//!
//! A call is counted and billed when it arrives, because a client that gives up early has caused the work, too.

mod call_log;
mod images;
mod script;
mod server;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use self::{
    call_log::CallLog,
    server::{State, serve},
};
pub use self::{
    call_log::{Call, Calls},
    script::{Account, Answer, Cut, Form, Rule, Script, ScriptError, Then},
};

/// How the demo API behaves.
#[derive(Debug, Clone, Default)]
pub struct DemoApiOptions {
    /// Port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// Time before each answer to a generation request.
    pub latency: Duration,
    /// What it answers.
    pub script: Script,
}

/// A running demo API. If it is dropped without [`DemoApi::shutdown`], it stops soon after.
#[derive(Debug)]
pub struct DemoApi {
    /// The address that it listens on.
    pub local_addr: SocketAddr,
    state: Arc<State>,
    stop: oneshot::Sender<Infallible>,
    server: JoinHandle<()>,
}

impl DemoApi {
    /// Listens on 127.0.0.1 and serves in the background of the current Tokio runtime.
    pub async fn start(options: DemoApiOptions) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
        let local_addr = listener.local_addr()?;
        let state = Arc::new(State {
            base_url: format!("http://{local_addr}"),
            latency: options.latency,
            calls: Mutex::new(CallLog::new(options.script)),
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

    /// The calls so far.
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.state.calls.lock().snapshot()
    }

    /// Stops listening, gives answers in progress one second to end, and drops the other connections.
    pub async fn shutdown(self) {
        drop(self.stop);
        if let Err(error) = self.server.await {
            tracing::warn!(%error, "the demo API ended abnormally");
        }
    }
}
