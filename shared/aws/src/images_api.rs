//! The images API over HTTP. One call here may cost money, so nothing here repeats a call (but one whose key was refused, with
//! another key), and every way in which a call can end is told apart: not sent, answered, or nobody knows.

use std::{error::Error as _, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use packshot_pipeline::{
    model::request::Request,
    ports::{ApiError, Clock, FetchError, Generated, ImageApi, Picture},
};
use reqwest::{Client, Response, StatusCode, Url, header::RETRY_AFTER, redirect::Policy};
use rustls::ClientConfig;
use rustls_platform_verifier::ConfigVerifierExt as _;
use serde::Serialize;
use serde_json::Value;

use self::connections::Connections;
use crate::{
    chain,
    key::{ApiKey, KeySource},
    pictures::Pictures,
};

pub(crate) mod connections;

/// Four pictures as base64 have some 20 MiB.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
const MAX_ERROR_READ: usize = 64 * 1024;
const MAX_ERROR_KEPT: usize = 2 * 1024;
const MAX_EXCERPT: usize = 512;
/// Nobody means more than a day by `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The images API and the pictures it links to.
pub struct ImagesApi {
    connections: Connections,
    pictures: Pictures,
    endpoint: Url,
    timeout: Duration,
    key: Arc<dyn KeySource>,
    clock: Arc<dyn Clock>,
}

/// The body of a call, in the order of the vendor's sample.
#[derive(Serialize)]
struct Wire<'a> {
    model: &'a str,
    prompt: &'a str,
    image_url: &'a str,
    size: &'a str,
    quality: &'a str,
    n: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    background: Option<&'a str>,
}

/// Reads the base URL of the API: https, or http on this machine. The error says what is wrong with it.
pub fn parse_base_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).map_err(|error| format!("`{text}` is not a URL ({error})"))?;
    if !url.username().is_empty() || url.password().is_some() {
        // Not repeated: this may be the key.
        return Err("the API's base URL must not hold a user name or a password".into());
    }
    let host = url.host_str().unwrap_or_default();
    let local = host == "localhost"
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        _ if url.query().is_some() || url.fragment().is_some() => Err(format!("`{text}` holds a query or a fragment")),
        "https" => Ok(url),
        "http" if local => Ok(url),
        "http" => Err(format!("`{text}` would send the API key unencrypted; use https")),
        _ => Err(format!("`{text}` is not an https URL")),
    }
}

impl ImagesApi {
    /// Prepares the client; connects to nothing. `timeout` is for one whole call.
    pub fn new(
        base_url: &str,
        timeout: Duration,
        key: Arc<dyn KeySource>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ApiError> {
        // Reading the system's certificates is most of what a start costs, so it is done once for all clients.
        let tls = ClientConfig::with_platform_verifier()
            .map_err(|error| ApiError::Misconfigured { detail: format!("no TLS: {}", chain(&error)) })?;
        Self::with_tls(base_url, timeout, key, clock, &tls)
    }

    fn with_tls(
        base_url: &str,
        timeout: Duration,
        key: Arc<dyn KeySource>,
        clock: Arc<dyn Clock>,
        tls: &ClientConfig,
    ) -> Result<Self, ApiError> {
        let misconfigured = |detail: String| ApiError::Misconfigured { detail };
        let base = parse_base_url(base_url).map_err(misconfigured)?;
        let endpoint = format!("{}/v1/images/generations", base.as_str().trim_end_matches('/'));
        let local = base.scheme() == "http";
        let builder = move || {
            let builder = Client::builder()
                .user_agent(concat!("packshot/", env!("CARGO_PKG_VERSION")))
                .redirect(Policy::none())
                .timeout(timeout);
            if local { builder.no_proxy() } else { builder }
        };
        Ok(Self {
            connections: Connections::new(&base, tls, builder).map_err(|error| no_client(&error))?,
            endpoint: endpoint
                .parse()
                .map_err(|error| misconfigured(format!("`{endpoint}` is not a URL ({error})")))?,
            pictures: Pictures::new(base, tls).map_err(|error| no_client(&error))?,
            timeout,
            key,
            clock,
        })
    }

    /// What a failed send or a failed read of the answer means for money.
    fn wire_error(&self, error: &reqwest::Error, status: Option<StatusCode>, key: &ApiKey) -> ApiError {
        let detail = key.redact(&chain(error));
        if error.is_builder() {
            ApiError::Misconfigured { detail }
        } else if error.is_connect() || (status.is_none() && was_refused(error)) {
            ApiError::NotSent { detail }
        } else if error.is_timeout() {
            let detail = format!("no answer within {} s", self.timeout.as_secs_f64());
            ApiError::Unknown { code: "timeout", status: status.map(|status| status.as_u16()), detail }
        } else {
            let detail = format!("the connection was lost before the answer was complete: {detail}");
            ApiError::Unknown { code: "connection_lost", status: status.map(|status| status.as_u16()), detail }
        }
    }

    async fn answered_error(&self, mut response: Response, key: &ApiKey) -> ApiError {
        let status = response.status();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| retry_after(value, self.clock.now()));
        let mut body = BytesMut::new();
        // The status is the answer; a body that breaks off or never ends adds nothing that is worth an error of its own.
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk[..chunk.len().min(MAX_ERROR_READ - body.len())]);
            if body.len() == MAX_ERROR_READ {
                break;
            }
        }
        ApiError::Answered {
            status: status.as_u16(),
            code: error_code(&body).map(|code| key.redact(&code)),
            body: shorten(&body, MAX_ERROR_KEPT, key),
            retry_after,
        }
    }

    async fn call(&self, request: &Request, idempotency_key: &str, key: &ApiKey) -> Result<Generated, ApiError> {
        let wire = Wire {
            model: &request.model,
            prompt: &request.prompt,
            image_url: &request.image_url,
            size: &request.size,
            quality: &request.quality,
            n: request.n,
            background: request.background.as_deref(),
        };
        // Held to the end: the last call that holds it closes its connection.
        let client = self.connections.client().await.map_err(|error| no_client(&error))?;
        let call = client
            .post(self.endpoint.clone())
            .bearer_auth(key.expose())
            .header("Idempotency-Key", idempotency_key)
            .json(&wire);
        let mut response = call.send().await.map_err(|error| self.wire_error(&error, None, key))?;
        let status = response.status();
        if !status.is_success() {
            return Err(self.answered_error(response, key).await);
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.wire_error(&error, Some(status), key))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                let detail = format!("the API's answer is longer than {MAX_ANSWER} bytes");
                return Err(ApiError::Unknown { code: "invalid_answer", status: Some(status.as_u16()), detail });
            }
            body.extend_from_slice(&chunk);
        }
        read_answer(&body, status, key)
    }
}

#[async_trait]
impl ImageApi for ImagesApi {
    async fn generate(&self, request: &Request, idempotency_key: &str) -> Result<Generated, ApiError> {
        let key = self.key.key().await?;
        let answer = self.call(request, idempotency_key, &key).await;
        if !answer.as_ref().is_err_and(refuses_key) {
            return answer;
        }
        self.key.rejected(&key).await;
        // A key may have been replaced since it was read. A refused one bills nothing, so this is the one repeat that is
        // certain to pay for nothing twice; and where there is no other key, the refusal stands.
        match self.key.key().await {
            Ok(fresh) if fresh != key => {
                let answer = self.call(request, idempotency_key, &fresh).await;
                if answer.as_ref().is_err_and(refuses_key) {
                    self.key.rejected(&fresh).await;
                }
                answer
            }
            _ => answer,
        }
    }

    async fn fetch(&self, url: &str, max_bytes: usize) -> Result<Bytes, FetchError> {
        self.pictures.fetch(url, max_bytes).await
    }
}

/// Whether this says that the key is wrong, rather than the account empty or the row forbidden.
fn refuses_key(error: &ApiError) -> bool {
    matches!(error, ApiError::Answered { status, code, .. } if *status == 401 || code.as_deref() == Some("invalid_api_key"))
}

fn no_client(error: &reqwest::Error) -> ApiError {
    ApiError::Misconfigured { detail: format!("no HTTP client: {}", chain(error)) }
}

/// Whether the server says that it did not begin with the request (RFC 9113, section 8.7). The connection gives GOAWAY as the error of those
/// requests only that lie behind the last one the server took.
fn was_refused(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<h2::Error>() {
            return error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM));
        }
        source = cause.source();
    }
    false
}

fn read_answer(body: &[u8], status: StatusCode, key: &ApiKey) -> Result<Generated, ApiError> {
    let unusable = |code, what: &str| {
        let detail = format!("HTTP {} {what}: {}", status.as_u16(), shorten(body, MAX_EXCERPT, key));
        ApiError::Unknown { code, status: Some(status.as_u16()), detail }
    };
    let answer: Value = serde_json::from_slice(body).map_err(|_| unusable("invalid_answer", "without valid JSON"))?;
    let entries = answer.get("data").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let pictures: Vec<Picture> = entries.iter().filter_map(|entry| picture(entry, key)).collect();
    if pictures.is_empty() {
        return Err(unusable("no_images", "without any picture"));
    }
    let text = |field: &str| match answer.get(field)? {
        Value::String(text) if !text.is_empty() => Some(key.redact_result(text)),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    Ok(Generated { request_id: text("id"), model_actual: text("model_actual"), pictures })
}

fn picture(entry: &Value, key: &ApiKey) -> Option<Picture> {
    let text = |field: &str| entry.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(url) = text("url") {
        return Some(Picture::Url(key.redact_result(url)));
    }
    // Some APIs send a data URL instead of the bare base64.
    let base64 = text("b64_json")?.rsplit(',').next()?;
    let bytes = BASE64_STANDARD.decode(base64).ok().filter(|bytes| !bytes.is_empty())?;
    Some(Picture::Inline(bytes.into()))
}

/// `error.code`; where there is none, `error.type`, then `code`. Anything but a word is for people, not for a table.
fn error_code(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let error = body.get("error").unwrap_or(&Value::Null);
    let is_word = |text: &&str| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
    };
    [error.get("code"), error.get("type"), body.get("code"), Some(error)]
        .into_iter()
        .find_map(|value| value.and_then(Value::as_str).filter(is_word))
        .map(str::to_owned)
}

/// `Retry-After`: seconds or an HTTP date. A date in the past means now; what nobody can mean is ignored.
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => {
            let date = Timestamp::try_from(httpdate::parse_http_date(value).ok()?).ok()?;
            Duration::try_from(date.duration_since(now)).unwrap_or_default()
        }
    };
    (wait <= MAX_RETRY_AFTER).then_some(wait)
}

/// The body as text without the key, at most `limit` bytes.
fn shorten(body: &[u8], limit: usize, key: &ApiKey) -> String {
    // Redacted before it is cut, so that no half of a key stays.
    let mut text = key.redact(&String::from_utf8_lossy(&body[..body.len().min(MAX_ERROR_READ)]));
    text.truncate(text.floor_char_boundary(limit));
    text
}

#[cfg(test)]
mod tests;
