//! The images API: answers after the latency, with addresses that nobody can fetch.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::Deserialize;

use super::{State, server};

#[derive(Default)]
pub(super) struct Images {
    latency_ms: AtomicU64,
    next: AtomicU64,
}

impl Images {
    pub(super) fn set_latency(&self, ms: u64) {
        self.latency_ms.store(ms, Ordering::Relaxed);
    }
}

pub(super) async fn answer(state: &State, body: &[u8]) -> server::Answer {
    #[derive(Deserialize)]
    struct Asked {
        n: u8,
    }
    state.counters.add("", |counts| counts.calls += 1);
    let id = state.images.next.fetch_add(1, Ordering::Relaxed);
    let n = serde_json::from_slice::<Asked>(body).map_or(1, |asked| asked.n);
    let latency = state.images.latency_ms.load(Ordering::Relaxed);
    if latency > 0 {
        tokio::time::sleep(Duration::from_millis(latency)).await;
    }
    let data: Vec<String> =
        (1..=n).map(|n| format!(r#"{{"url":"https://cdn.example.com/gen/{id:012}/{n}.png"}}"#)).collect();
    let json = format!(r#"{{"id":"gen_{id:012}","model_actual":"openai/gpt-image-1","data":[{}]}}"#, data.join(","));
    let mut answer = server::status(hyper::StatusCode::OK, json);
    answer.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    answer
}
