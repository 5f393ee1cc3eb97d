//! The images API: sleeps for the latency, then answers with URLs. No image exists behind them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use hyper::StatusCode;
use serde::Deserialize;

use super::{
    answer::{self, Answer},
    counters::Counters,
};

#[derive(Default)]
pub(super) struct Images {
    latency_ms: AtomicU64,
    next: AtomicU64,
}

impl Images {
    pub(super) fn set_latency(&self, ms: u64) {
        self.latency_ms.store(ms, Ordering::Relaxed);
    }

    pub(super) async fn answer(&self, counters: &Counters, body: &[u8]) -> Answer {
        #[derive(Deserialize)]
        struct GenerationRequest {
            n: u8,
        }
        counters.add("", |counts| counts.calls += 1);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let n = serde_json::from_slice::<GenerationRequest>(body).map_or(1, |request| request.n);
        let latency = self.latency_ms.load(Ordering::Relaxed);
        if latency > 0 {
            tokio::time::sleep(Duration::from_millis(latency)).await;
        }
        let data: Vec<String> =
            (1..=n).map(|n| format!(r#"{{"url":"https://cdn.example.com/gen/{id:012}/{n}.png"}}"#)).collect();
        let json =
            format!(r#"{{"id":"gen_{id:012}","model_actual":"openai/gpt-image-1","data":[{}]}}"#, data.join(","));
        answer::typed(StatusCode::OK, "application/json", json)
    }
}
