//! A placeholder for ports that a host has no use for: the merger, for example, has no queue and calls no API. Every call
//! fails, so that a wiring mistake shows as an error instead of as lost work.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use packshot_pipeline::{
    model::request::Request,
    ports::{ApiError, FetchError, Generated, ImageApi, OutgoingMessage, Queue, QueueError},
};

const DETAIL: &str = "this port is not configured in this host";

/// Fails every call with a permanent error.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unused;

#[async_trait]
impl Queue for Unused {
    async fn send(&self, _messages: &[OutgoingMessage]) -> Result<(), QueueError> {
        Err(QueueError::Refused { detail: DETAIL.into() })
    }

    async fn delay(&self, _receipt: &str, _delay: Duration) -> Result<(), QueueError> {
        Err(QueueError::Refused { detail: DETAIL.into() })
    }
}

#[async_trait]
impl ImageApi for Unused {
    async fn generate(&self, _request: &Request, _idempotency_key: &str) -> Result<Generated, ApiError> {
        Err(ApiError::Misconfigured { detail: DETAIL.into() })
    }

    async fn fetch(&self, _url: &str, _max_bytes: usize) -> Result<Bytes, FetchError> {
        Err(FetchError::Refused { detail: DETAIL.into() })
    }
}
