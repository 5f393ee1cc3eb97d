//! The images API over HTTP: one POST per call, and the images that its answers link to.
//!
//! A call may cost money. It is therefore sent exactly once; the one exception is a call whose key the API refused, which bills
//! nothing and is sent once more if the key has changed since. Each end of a call maps to one [`ApiError`]: not sent, answered,
//! or unknown (it may have been billed). `connections` keeps the unknown ones rare, `response` reads the answer, and
//! `image_fetch` follows the links.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use packshot_pipeline::{
    model::request::Request,
    ports::{ApiError, Clock, FetchError, Generated, ImageApi},
};
use reqwest::{Client, Response, StatusCode, Url, header::RETRY_AFTER, redirect::Policy};
use rustls::ClientConfig;
use rustls_platform_verifier::ConfigVerifierExt as _;
use serde::Serialize;

pub use self::base_url::parse_base_url;
use self::{
    connections::Connections,
    image_fetch::ImageFetcher,
    response::{MAX_ERROR_READ, error_code, excerpt, parse_success, retry_after},
};
use crate::{
    api_key::{ApiKey, KeySource},
    error_chain::{causes, with_causes},
};

mod base_url;
mod connections;
mod image_fetch;
mod public_address;
mod response;
mod tls;

/// In bytes. Four images as base64 take some 20 MiB.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// How many bytes of an error body become part of the row's result.
const MAX_ERROR_KEPT: usize = 2 * 1024;

/// The client of the images API.
pub struct ImagesApi {
    connections: Connections,
    image_fetcher: ImageFetcher,
    endpoint: Url,
    timeout: Duration,
    key: Arc<dyn KeySource>,
    clock: Arc<dyn Clock>,
}

/// The JSON body of a call, its fields in the order of the vendor's sample.
#[derive(Serialize)]
struct GenerationBody<'a> {
    model: &'a str,
    prompt: &'a str,
    image_url: &'a str,
    size: &'a str,
    quality: &'a str,
    n: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    background: Option<&'a str>,
}

impl ImagesApi {
    /// Prepares the HTTP clients; opens no connection. `timeout` limits one whole call.
    pub fn new(
        base_url: &str,
        timeout: Duration,
        key: Arc<dyn KeySource>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ApiError> {
        let tls = ClientConfig::with_platform_verifier()
            .map_err(|error| ApiError::Misconfigured { detail: format!("no TLS: {}", with_causes(&error)) })?;
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
            connections: Connections::new(&base, tls, builder).map_err(|error| client_error(&error))?,
            endpoint: endpoint
                .parse()
                .map_err(|error| misconfigured(format!("`{endpoint}` is not a URL ({error})")))?,
            image_fetcher: ImageFetcher::new(base, tls).map_err(|error| client_error(&error))?,
            timeout,
            key,
            clock,
        })
    }

    /// Sends one call and reads its answer.
    async fn call(&self, request: &Request, idempotency_key: &str, key: &ApiKey) -> Result<Generated, ApiError> {
        let body = GenerationBody {
            model: &request.model,
            prompt: &request.prompt,
            image_url: &request.image_url,
            size: &request.size,
            quality: &request.quality,
            n: request.n,
            background: request.background.as_deref(),
        };
        // Held until the answer is read: the connection closes when the last call drops its client.
        let client = self.connections.client().await.map_err(|error| client_error(&error))?;
        let call = client
            .post(self.endpoint.clone())
            .bearer_auth(key.expose())
            .header("Idempotency-Key", idempotency_key)
            .json(&body);
        let mut response = call.send().await.map_err(|error| self.transport_error(&error, None, key))?;
        let status = response.status();
        if !status.is_success() {
            return Err(self.status_error(response, key).await);
        }
        let mut body = BytesMut::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| self.transport_error(&error, Some(status), key))?
        {
            if body.len() + chunk.len() > MAX_ANSWER {
                let detail = format!("the API's answer is longer than {MAX_ANSWER} bytes");
                return Err(ApiError::Unknown { code: "invalid_answer", status: Some(status.as_u16()), detail });
            }
            body.extend_from_slice(&chunk);
        }
        parse_success(&body, status, key)
    }

    /// Maps a failed send or a failed read of the answer to whether the call may have been billed.
    fn transport_error(&self, error: &reqwest::Error, status: Option<StatusCode>, key: &ApiKey) -> ApiError {
        let detail = key.redact(&with_causes(error));
        if error.is_builder() {
            ApiError::Misconfigured { detail }
        } else if error.is_connect() || (status.is_none() && is_unprocessed(error)) {
            ApiError::NotSent { detail }
        } else if error.is_timeout() {
            let detail = format!("no answer within {} s", self.timeout.as_secs_f64());
            ApiError::Unknown { code: "timeout", status: status.map(|status| status.as_u16()), detail }
        } else {
            let detail = format!("the connection was lost before the answer was complete: {detail}");
            ApiError::Unknown { code: "connection_lost", status: status.map(|status| status.as_u16()), detail }
        }
    }

    /// Reads an answer whose status is not a success.
    async fn status_error(&self, mut response: Response, key: &ApiKey) -> ApiError {
        let status = response.status();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| retry_after(value, self.clock.now()));
        let mut body = BytesMut::new();
        // The status alone decides; if the body breaks off, what has arrived is kept.
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk[..chunk.len().min(MAX_ERROR_READ - body.len())]);
            if body.len() == MAX_ERROR_READ {
                break;
            }
        }
        ApiError::Answered {
            status: status.as_u16(),
            code: error_code(&body).map(|code| key.redact(&code)),
            body: excerpt(&body, MAX_ERROR_KEPT, key),
            retry_after,
        }
    }
}

#[async_trait]
impl ImageApi for ImagesApi {
    async fn generate(&self, request: &Request, idempotency_key: &str) -> Result<Generated, ApiError> {
        let key = self.key.key().await?;
        let answer = self.call(request, idempotency_key, &key).await;
        if !answer.as_ref().is_err_and(is_key_refusal) {
            return answer;
        }
        self.key.rejected(&key).await;
        // The key may have been replaced since it was read. A call with a refused key bills nothing, so sending it again with
        // another key cannot pay twice. Without another key the refusal is the result.
        match self.key.key().await {
            Ok(fresh) if fresh != key => {
                let answer = self.call(request, idempotency_key, &fresh).await;
                if answer.as_ref().is_err_and(is_key_refusal) {
                    self.key.rejected(&fresh).await;
                }
                answer
            }
            _ => answer,
        }
    }

    async fn fetch(&self, url: &str, max_bytes: usize) -> Result<Bytes, FetchError> {
        self.image_fetcher.fetch(url, max_bytes).await
    }
}

/// Whether the API refused the key itself, rather than an empty account or a forbidden row.
fn is_key_refusal(error: &ApiError) -> bool {
    matches!(error, ApiError::Answered { status, code, .. } if *status == 401 || code.as_deref() == Some("invalid_api_key"))
}

fn client_error(error: &reqwest::Error) -> ApiError {
    ApiError::Misconfigured { detail: format!("no HTTP client: {}", with_causes(error)) }
}

/// Whether the server states that it did not process the request (RFC 9113, section 8.7). The client reports GOAWAY only for
/// requests after the last one that the server accepted.
fn is_unprocessed(error: &reqwest::Error) -> bool {
    causes(error).find_map(|cause| cause.downcast_ref::<h2::Error>()).is_some_and(|error| {
        error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

#[cfg(test)]
mod tests;
