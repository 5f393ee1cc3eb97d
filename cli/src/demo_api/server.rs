//! The demo API's HTTP side.
//!
//! One task accepts connections, and each connection is a task of its own. A generation request is parsed and recorded in the
//! [`CallLog`], which decides on the answer: the script's, or a success. Images are not stored: their address contains a hash of
//! the request, and an image is drawn from this hash when it is requested. Dropping the sender of `stopped` ends the server:
//! answers in progress get [`SHUTDOWN_GRACE`], and scripted silence is cut off.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
};

use super::{
    call_log::{CallLog, hash},
    images,
    script::{Answer, Cut, Form, error_json},
};

/// More than any request of the pipeline and any sensible script.
pub(super) const MAX_BODY_BYTES: usize = 16 << 20;
/// How long a shutdown waits for answers in progress. Scripted silence never ends by itself.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct State {
    pub(super) base_url: String,
    pub(super) latency: Duration,
    pub(super) calls: Mutex<CallLog>,
}

type Body = UnsyncBoxBody<Bytes, DroppedConnection>;
type Answered = Result<Response<Body>, DroppedConnection>;

/// Drops the connection: hyper closes it when a service or a body fails.
#[derive(Debug, thiserror::Error)]
#[error("connection cut")]
struct DroppedConnection;

pub(super) async fn serve(listener: TcpListener, state: Arc<State>, mut stopped: oneshot::Receiver<Infallible>) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, state.clone(), graceful.watcher()));
                }
                Err(error) => {
                    // Probably out of file descriptors; connections that end release some.
                    tracing::warn!(%error, "the demo API cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    if tokio::time::timeout(SHUTDOWN_GRACE, graceful.shutdown()).await.is_err() {
        tracing::debug!("the demo API drops connections that are still open");
    }
    connections.shutdown().await;
}

async fn connection(stream: TcpStream, state: Arc<State>, watcher: Watcher) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let service = service_fn(move |request| answer(state.clone(), request));
    let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    // Scripted cuts and clients that disconnect end here, too.
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "demo API connection");
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Answered {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    match (&head.method, path) {
        (&Method::POST, "/v1/images/generations") => generate(&state, &head.headers, body).await,
        (&Method::POST, "/_script") => match read(body).await? {
            Ok(body) => Ok(match serde_json::from_slice(&body) {
                Ok(script) => {
                    state.calls.lock().replace(script);
                    json_response(StatusCode::OK, &json!({"ok": true}))
                }
                Err(error) => error_response(StatusCode::BAD_REQUEST, "invalid_script", &error.to_string()),
            }),
            Err(too_large) => Ok(too_large),
        },
        (&Method::GET, "/_calls") => {
            let calls = state.calls.lock().snapshot();
            Ok(json_response(StatusCode::OK, &json!(calls)))
        }
        (&Method::GET, "/healthz") => Ok(response(StatusCode::OK, "text/plain", "ok")),
        (&Method::GET, path) if path.starts_with("/images/") => Ok(match image_of(path) {
            Some((hash, variant)) => match images::png(hash, variant) {
                Ok(png) => response(StatusCode::OK, "image/png", png),
                Err(error) => broken_encoder(&error),
            },
            None => error_response(StatusCode::NOT_FOUND, "not_found", "no such image"),
        }),
        _ => Ok(error_response(StatusCode::NOT_FOUND, "not_found", &format!("no {} {path} here", head.method))),
    }
}

/// The body, or the answer to one that is too large.
async fn read(body: Incoming) -> Result<Result<Bytes, Response<Body>>, DroppedConnection> {
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => Ok(Ok(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => {
            Ok(Err(error_response(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the request is too large")))
        }
        // The client disconnected while it sent.
        Err(_) => Err(DroppedConnection),
    }
}

async fn generate(state: &State, headers: &HeaderMap, body: Incoming) -> Answered {
    let refuse = |refusal| {
        state.calls.lock().refused += 1;
        Ok(refusal)
    };
    let bearer =
        headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    if bearer.is_none_or(|key| key.trim().is_empty()) {
        let message = "send the API key as `Authorization: Bearer …`";
        return refuse(error_response(StatusCode::UNAUTHORIZED, "invalid_api_key", message));
    }
    let body = match read(body).await? {
        Ok(body) => body,
        Err(too_large) => return refuse(too_large),
    };
    let request = match ParsedRequest::parse(&body) {
        Ok(request) => request,
        Err((code, message)) => return refuse(error_response(StatusCode::BAD_REQUEST, code, &message)),
    };
    let key = match headers.get("idempotency-key") {
        Some(key) => String::from_utf8_lossy(key.as_bytes()).into_owned(),
        None => hex::encode(Sha256::digest(&body)),
    };

    let answer = state.calls.lock().record(&key, &request.prompt, &request.image_url);
    tokio::time::sleep(answer.delay(state.latency)).await;
    if answer.no_answer {
        std::future::pending::<()>().await;
    }
    let (content_type, body) = match (&answer.json, &answer.body) {
        (Some(json), _) => ("application/json", json.to_string().into()),
        (None, Some(text)) => ("text/plain; charset=utf-8", Bytes::from(text.clone())),
        (None, None) if answer.status.is_success() => match success(state, &request, &answer) {
            Ok(json) => ("application/json", json.to_string().into()),
            Err(error) => return Ok(broken_encoder(&error)),
        },
        // Without a code, so that the status alone decides what the client does.
        (None, None) => {
            let message = answer.status.canonical_reason().unwrap_or("scripted answer");
            ("application/json", json!({"error": {"message": message}}).to_string().into())
        }
    };
    let mut response = match answer.cut {
        None => response(answer.status, content_type, body),
        Some(Cut::Before) => return Err(DroppedConnection),
        Some(Cut::Headers) => cut_response(answer.status, content_type, body.len(), Bytes::new()),
        Some(Cut::Body) => cut_response(answer.status, content_type, body.len(), body.slice(..body.len() / 2)),
    };
    for (name, value) in &answer.headers {
        response.headers_mut().insert(name, value.clone());
    }
    Ok(response)
}

/// The fields of a valid request.
struct ParsedRequest {
    prompt: String,
    image_url: String,
    model: String,
    n: u8,
    /// Of the fields, independent of their order and spacing, so that every client gets the same images.
    hash: u64,
}

impl ParsedRequest {
    /// An error consists of `error.code` and `error.message`.
    fn parse(body: &[u8]) -> Result<Self, (&'static str, String)> {
        let fields: BTreeMap<String, Value> = serde_json::from_slice(body)
            .map_err(|error| ("invalid_json", format!("the body is not a JSON object: {error}")))?;
        let text = |name: &str, code| match fields.get(name).and_then(Value::as_str) {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err((code, format!("`{name}` must be a non-empty string"))),
        };
        let n = match fields.get("n") {
            None => Some(1),
            Some(n) => n.as_u64().and_then(|n| u8::try_from(n).ok()).filter(|n| (1..=4).contains(n)),
        };
        let canonical: String = fields.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        Ok(Self {
            prompt: text("prompt", "invalid_prompt")?,
            image_url: text("image_url", "invalid_image_url")?,
            model: fields.get("model").and_then(Value::as_str).unwrap_or("gpt-image-1").to_owned(),
            n: n.ok_or(("invalid_n", "`n` must be a whole number from 1 to 4".to_owned()))?,
            hash: hash(canonical.as_bytes()),
        })
    }
}

fn success(state: &State, request: &ParsedRequest, answer: &Answer) -> Result<Value, png::EncodingError> {
    let data = (1..=u32::from(answer.images.unwrap_or(request.n)))
        .map(|variant| match answer.form {
            Form::Url => Ok(json!({"url": format!("{}/images/{:016x}_{variant}.png", state.base_url, request.hash)})),
            Form::B64Json => {
                images::png(request.hash, variant).map(|png| json!({"b64_json": BASE64_STANDARD.encode(png)}))
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(json!({
        "id": format!("gen_{:016x}", request.hash),
        "model_actual": format!("openai/{}", request.model),
        "data": data,
    }))
}

/// The hash and the variant in `/images/<hash>_<variant>.png`.
fn image_of(path: &str) -> Option<(u64, u32)> {
    let (hash, variant) = path.strip_prefix("/images/")?.strip_suffix(".png")?.split_once('_')?;
    let hash = (hash.len() == 16).then(|| u64::from_str_radix(hash, 16).ok())??;
    Some((hash, u32::from(variant.parse::<u8>().ok()?)))
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    with_body(status, content_type, Full::new(body.into()).map_err(|never| match never {}).boxed_unsync())
}

fn with_body(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Promises `promised` bytes, sends `sent` and drops the connection.
fn cut_response(status: StatusCode, content_type: &'static str, promised: usize, sent: Bytes) -> Response<Body> {
    let breaks = stream::once(async {
        // hyper flushes when the body is not ready; an immediate error would discard the headers.
        tokio::task::yield_now().await;
        Err(DroppedConnection)
    });
    let body = stream::iter((!sent.is_empty()).then(|| Ok(Frame::data(sent)))).chain(breaks);
    let mut response = with_body(status, content_type, StreamBody::new(body).boxed_unsync());
    response.headers_mut().insert(CONTENT_LENGTH, promised.into());
    response
}

fn json_response(status: StatusCode, json: &Value) -> Response<Body> {
    response(status, "application/json", json.to_string())
}

fn error_response(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    json_response(status, &error_json(code, message))
}

fn broken_encoder(error: &png::EncodingError) -> Response<Body> {
    error_response(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", &format!("no image: {error}"))
}
