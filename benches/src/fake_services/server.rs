//! Accepts connections and routes each request to the service that it is meant for: by its header `x-amz-target` to the
//! queues, by its path to the images API or to [`control`], and everything else to the bucket.

use std::{convert::Infallible, sync::Arc};

use http_body_util::BodyExt as _;
use hyper::{
    Method, Request, StatusCode,
    body::Incoming,
    header::AUTHORIZATION,
    http::request::Parts,
    rt::{Read, Write},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{
    answer::{self, Answer},
    control,
    state::State,
};

pub(super) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        state.counters.add("", |counts| counts.connections += 1);
        tokio::spawn(connection(stream, tls.clone(), state.clone()));
    }
}

/// Errors are ignored: a client that disconnects causes one, and the client reports its own.
async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return speak_http1(TokioIo::new(stream), state).await };
    let Ok(stream) = tls.accept(stream).await else { return };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        let service = service_fn(move |request| route(state.clone(), request));
        let mut builder = http2::Builder::new(TokioExecutor::new());
        let _ = builder.max_concurrent_streams(None).serve_connection(TokioIo::new(stream), service).await;
    } else {
        speak_http1(TokioIo::new(stream), state).await;
    }
}

async fn speak_http1(stream: impl Read + Write + Unpin, state: Arc<State>) {
    let service = service_fn(move |request| route(state.clone(), request));
    let _ = http1::Builder::new().serve_connection(stream, service).await;
}

async fn route(state: Arc<State>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return Ok(answer::status(StatusCode::BAD_REQUEST, "the body is incomplete"));
    };
    let body = body.to_bytes();
    let path = head.uri.path();
    let caller = caller(&head);
    Ok(if let Some(action) = head.headers.get("x-amz-target") {
        let action = action.to_str().unwrap_or_default().rsplit('.').next().unwrap_or_default();
        state.queues.answer(&state.counters, caller, action, &body)
    } else if path == "/v1/images/generations" {
        state.images.answer(&state.counters, &body).await
    } else if let Some(command) = path.strip_prefix("/_bench/") {
        control::answer(&state, command, head.uri.query().unwrap_or_default())
    } else {
        let answer = state.bucket.answer(&state.counters, caller, &head, body);
        if head.method == Method::PUT && answer.status().is_success() {
            state.queues.object_created(path);
        }
        answer
    })
}

/// The access key of the signature, or "".
fn caller(head: &Parts) -> &str {
    let signature = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let key = signature.split_once("Credential=").and_then(|(_, credential)| credential.split_once('/'));
    key.map_or("", |(key, _)| key)
}
