//! Ports of functions that do not need them: the merger has no queue and calls no API.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use packshot_pipeline::{
    model::request::Request,
    ports::{ApiError, FetchError, Generated, ImageApi, Outgoing, Queue, QueueError},
};

const WHY: &str = "this function was not given that";

/// Refuses everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unused;

#[async_trait]
impl Queue for Unused {
    async fn send(&self, _messages: &[Outgoing]) -> Result<(), QueueError> {
        Err(QueueError::Refused { detail: WHY.into() })
    }

    async fn delay(&self, _receipt: &str, _delay: Duration) -> Result<(), QueueError> {
        Err(QueueError::Refused { detail: WHY.into() })
    }
}

#[async_trait]
impl ImageApi for Unused {
    async fn generate(&self, _request: &Request, _idempotency_key: &str) -> Result<Generated, ApiError> {
        Err(ApiError::Misconfigured { detail: WHY.into() })
    }

    async fn fetch(&self, _url: &str, _max_bytes: usize) -> Result<Bytes, FetchError> {
        Err(FetchError::Refused { detail: WHY.into() })
    }
}
